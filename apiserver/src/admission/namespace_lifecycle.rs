//! NamespaceLifecycle: nothing is created where there is no namespace or where it is going away, and three
//! namespaces are never deleted.

use serde_json::Value;

use super::{Guards, forbidden};
use crate::registry::{Registry, Request, Subresource, meta};
use crate::status::{ApiError, Cause};

/// These are never deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace must be there and stay there until the object is written.
pub(super) async fn admit_create(registry: &Registry, request: &Request, object: &Value) -> Result<Guards, ApiError> {
    let Some(namespaces) = registry.core("namespaces").filter(|_| request.resource.names().namespaced) else {
        return Ok(Guards::new());
    };
    let name = &request.namespace;
    let mut found = registry.peek(&namespaces, "", name);
    if found.is_none() {
        // Perhaps it was made just now.
        registry.fresh().await?;
        found = registry.peek(&namespaces, "", name);
    }
    let Some(namespace) = found else { return Err(ApiError::not_found(namespaces.names(), name)) };
    if is_terminating(&namespace.json) && meta::is_terminating(&namespace.value()) {
        return Err(terminating(request, object));
    }
    Ok(vec![(namespaces.key("", name), namespace.revision)])
}

/// A cheap look before the parse: the word does not stand in the text of a namespace that lives.
fn is_terminating(json: &[u8]) -> bool {
    const WORD: &[u8] = b"deletionTimestamp";
    json.windows(WORD.len()).any(|window| window == WORD)
}

fn terminating(request: &Request, object: &Value) -> ApiError {
    let namespace = &request.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = forbidden(request, object, &why);
    if let Some(details) = &mut error.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    error
}

/// The namespaces that the cluster cannot do without stay.
pub(super) fn admit_delete(request: &Request) -> Result<(), ApiError> {
    let main = request.resource.is("", "namespaces") && request.subresource == Subresource::None;
    if main && IMMORTAL.contains(&request.name.as_str()) {
        return Err(ApiError::forbidden(request.resource.names(), &request.name, "this namespace may not be deleted"));
    }
    Ok(())
}
