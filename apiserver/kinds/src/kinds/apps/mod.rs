//! `apps`: workloads.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;
pub(super) mod workload;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(controller_revision::ControllerRevisions),
        Arc::new(daemon_set::DaemonSets),
        Arc::new(deployment::Deployments),
        Arc::new(replica_set::ReplicaSets),
        Arc::new(stateful_set::StatefulSets),
    ]
}
