//! `events.k8s.io`: events in their newer form.

mod event;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(event::NewEvents)]
}
