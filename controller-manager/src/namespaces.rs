//! What controllers ask of a namespace.

use k8s_openapi::api::core::v1::Namespace;

/// Whether things may be put into the namespace: it is not being deleted.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}
