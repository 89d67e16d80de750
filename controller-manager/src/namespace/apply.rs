//! Empties a namespace and lets it go.

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, ObjectList, PartialObjectMeta};
use kube::core::DynamicObject;

use super::plan::Found;
use crate::discovery::{Kind, discover};
use crate::requests::{is_not_found, message};

/// The finalizer in `spec.finalizers` that is this controller's.
const FINALIZER: &str = "kubernetes";

/// Objects asked for at once when what is left is counted.
const PAGE_LEN: u32 = 500;

/// Deletes everything in the namespace and counts what is left. Pods come first, and the rest only when they are
/// gone: what pods use should outlive them. Source: KEP-5080. `patience`: whether pods may still be in their grace
/// period.
pub(super) async fn empty(client: &Client, namespace: &str, patience: bool) -> kube::Result<Found> {
    let kinds = discover(client).await?;
    let failures = kinds.failures.into_iter().map(|failure| failure.text).collect();
    let mut found = Found { discovery_failures: failures, ..Found::default() };
    let is_content = |kind: &&Kind| kind.namespaced && kind.has_verb("delete") && kind.has_verb("list");
    let is_pod = |kind: &&Kind| kind.resource.group.is_empty() && kind.resource.plural == "pods";
    let (pods, others): (Vec<&Kind>, Vec<&Kind>) = kinds.all.iter().filter(is_content).partition(is_pod);
    for kind in pods {
        empty_and_tell(client, kind, namespace, patience, &mut found).await;
    }
    if !found.remaining.is_empty() {
        found.only_pods = true;
        return Ok(found);
    }
    for kind in others {
        empty_and_tell(client, kind, namespace, false, &mut found).await;
    }
    Ok(found)
}

async fn empty_and_tell(client: &Client, kind: &Kind, namespace: &str, patience: bool, found: &mut Found) {
    let mut own = Found::default();
    match empty_kind(client, kind, namespace, &mut own).await {
        // A kind that vanishes takes its objects with it.
        Err(error) if is_not_found(&error) => return,
        Err(error) => found.content_failures.push(message(&error)),
        Ok(()) if !own.remaining.is_empty() && own.finalizers.is_empty() && !patience => {
            let resource = &kind.resource;
            found.content_failures.push(format!(
                "unexpected items still remain in namespace: {namespace} for gvr: {}/{}, Resource={}",
                resource.group, resource.version, resource.plural
            ));
        }
        Ok(()) => {}
    }
    found.remaining.extend(own.remaining);
    for (finalizer, count) in own.finalizers {
        *found.finalizers.entry(finalizer).or_default() += count;
    }
}

async fn empty_kind(client: &Client, kind: &Kind, namespace: &str, found: &mut Found) -> kube::Result<()> {
    let api: Api<DynamicObject> = kind.api(client, namespace);
    if list(&api, None).await?.items.is_empty() {
        return Ok(());
    }
    let parameters = DeleteParams::background();
    if kind.has_verb("deletecollection") {
        api.delete_collection(&parameters, &ListParams::default()).await?;
    } else {
        delete_one_by_one(&api, &parameters).await?;
    }
    count(&api, kind, found).await
}

async fn delete_one_by_one(api: &Api<DynamicObject>, parameters: &DeleteParams) -> kube::Result<()> {
    let mut page = list(api, None).await?;
    loop {
        for object in &page.items {
            match api.delete(object.metadata.name.as_deref().unwrap_or_default(), parameters).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        match page.metadata.continue_.take().filter(|token| !token.is_empty()) {
            Some(token) => page = list(api, Some(token)).await?,
            None => return Ok(()),
        }
    }
}

/// Counts what is left of a kind, and its finalizers.
async fn count(api: &Api<DynamicObject>, kind: &Kind, found: &mut Found) -> kube::Result<()> {
    let mut token = None;
    loop {
        let page = list(api, token).await?;
        if !page.items.is_empty() {
            let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
            *found.remaining.entry(name).or_default() += page.items.len();
        }
        for finalizer in page.items.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *found.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        token = page.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(());
        }
    }
}

async fn list(
    api: &Api<DynamicObject>,
    token: Option<String>,
) -> kube::Result<ObjectList<PartialObjectMeta<DynamicObject>>> {
    api.list_metadata(&ListParams { limit: Some(PAGE_LEN), continue_token: token, ..ListParams::default() }).await
}

/// Takes our finalizer off: the API server removes the namespace when it was the last.
pub(super) async fn finalize(client: &Client, namespace: &Namespace) -> kube::Result<()> {
    let mut finalized = namespace.clone();
    let finalizers = finalized.spec.get_or_insert_default().finalizers.get_or_insert_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let body = serde_json::to_vec(&finalized).map_err(kube::Error::SerdeError)?;
    let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
        .header("content-type", "application/json")
        .body(body)
        .map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
    match client.request::<Namespace>(request).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether our finalizer is still there.
pub(super) fn is_finalized(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    !finalizers.into_iter().flatten().any(|finalizer| finalizer == FINALIZER)
}
