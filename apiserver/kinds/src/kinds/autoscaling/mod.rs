//! `autoscaling`: how many pods a workload has.

mod horizontal;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name, newest version first.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(horizontal::Autoscalers), Arc::new(horizontal::AutoscalersV1)]
}
