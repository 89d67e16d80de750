//! NamespaceLifecycle: nothing is created where there is no namespace or where it is going away, and three
//! namespaces are never deleted.

use super::{Attributes, Guards, Operation, forbidden};
use crate::registry::{Object, Registry, meta};
use crate::status::{ApiError, Cause};

/// These are never deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace must be there; for creations, of subresources too, it must not be going away.
pub(super) async fn admit(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let request = attributes.request;
    match attributes.operation {
        Operation::Delete if attributes.is("", "namespaces") && IMMORTAL.contains(&request.name.as_str()) => {
            Err(ApiError::forbidden(request.resource.names(), &request.name, "this namespace may not be deleted"))
        }
        // A change of an object needs no look: the object would not be there without its namespace.
        Operation::Delete | Operation::Connect | Operation::Update => Ok(()),
        // Who may do what in a namespace can be asked whether there is one or not.
        Operation::Create if attributes.is("authorization.k8s.io", "localsubjectaccessreviews") => Ok(()),
        Operation::Create => living(registry, attributes).await.map(drop),
    }
}

/// The namespace must stay as it is until the object is written.
pub(super) async fn guards(registry: &Registry, attributes: &Attributes<'_>) -> Result<Guards, ApiError> {
    let Some(namespace) = living(registry, attributes).await? else { return Ok(Guards::new()) };
    let Some(namespaces) = registry.core("namespaces") else { return Ok(Guards::new()) };
    Ok(vec![(namespaces.key("", &attributes.request.namespace), namespace.revision)])
}

/// The namespace of what is created; `None` for what lies in none.
async fn living(registry: &Registry, attributes: &Attributes<'_>) -> Result<Option<Object>, ApiError> {
    let request = attributes.request;
    let Some(namespaces) = registry.core("namespaces").filter(|_| request.resource.names().namespaced) else {
        return Ok(None);
    };
    let name = &request.namespace;
    let mut found = registry.peek(&namespaces, "", name);
    if found.is_none() {
        // Perhaps it was made just now.
        registry.fresh().await?;
        found = registry.peek(&namespaces, "", name);
    }
    let Some(namespace) = found else { return Err(ApiError::not_found(namespaces.names(), name)) };
    if is_terminating(namespace.text()) && meta::is_terminating(&namespace.value()) {
        return Err(terminating(attributes));
    }
    Ok(Some(namespace))
}

/// A cheap look before the parse: the word does not stand in the text of a namespace that lives.
fn is_terminating(json: &[u8]) -> bool {
    const WORD: &[u8] = b"deletionTimestamp";
    json.windows(WORD.len()).any(|window| window == WORD)
}

fn terminating(attributes: &Attributes<'_>) -> ApiError {
    let namespace = &attributes.request.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = forbidden(attributes, &why);
    if let Some(details) = &mut error.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    error
}
