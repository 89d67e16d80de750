//! `certificates.k8s.io`: wishes for certificates.

mod pem;
mod signing_request;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(signing_request::SigningRequests)]
}
