//! `apiregistration.k8s.io`: which server serves a group and version.

mod api_service;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(api_service::ApiServices)]
}
