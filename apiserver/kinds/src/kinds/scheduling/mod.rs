//! `scheduling.k8s.io`: the priorities of pods.

pub(super) mod priority_class;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(priority_class::PriorityClasses)]
}
