//! `discovery.k8s.io`: the endpoints of Services.

mod endpoint_slice;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(endpoint_slice::EndpointSlices)]
}
