//! `node.k8s.io`: ways to run containers.

mod runtime_class;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(runtime_class::RuntimeClasses)]
}
