//! `policy`: what may be done to pods of others.

mod disruption_budget;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(disruption_budget::DisruptionBudgets)]
}
