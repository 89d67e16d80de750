//! `apps`: workloads.

mod deployment;
mod replica_set;
mod workload;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(deployment::Deployments), Arc::new(replica_set::ReplicaSets)]
}
