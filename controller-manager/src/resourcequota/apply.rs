//! Lists what a quota counts and writes what is used.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use reeve_api::quota::Amounts;
use reeve_client::ObjectKey;
use serde_json::Value;

use super::plan::{Counting, counted, status};
use crate::discovery::{Kind, discover};
use crate::requests::is_not_found;

/// Counts anew. `false` when the quota is gone.
pub(super) async fn recount(client: &Client, key: &ObjectKey, now: Timestamp) -> kube::Result<bool> {
    let api: Api<ResourceQuota> = Api::namespaced(client.clone(), &key.namespace);
    // Read before the objects: what is created meanwhile changes the quota, and the write below fails.
    let Some(quota) = api.get_opt(&key.name).await? else { return Ok(false) };
    let value = serde_json::to_value(&quota).map_err(kube::Error::SerdeError)?;
    let mut used = Amounts::new();
    let kinds = discover(client).await?;
    for kind in kinds.all.iter().filter(|kind| kind.namespaced && kind.has_verb("list")) {
        let resource = reeve_api::quota::Resource::new(&kind.resource.group, &kind.resource.plural);
        match counted(resource, &value) {
            Counting::Nothing => {}
            Counting::Objects => {
                let total = total(client, kind, &key.namespace).await?;
                used.extend(super::plan::number(resource, &value, total));
            }
            Counting::Costs => {
                let objects = objects(client, kind, &key.namespace).await?;
                used.extend(super::plan::costs(resource, &value, &objects, now));
            }
        }
    }
    let Some(status) = status(&quota, used) else { return Ok(true) };
    let changed = ResourceQuota { status: Some(status), ..quota };
    match api.replace_status(&key.name, &PostParams::default(), &changed).await {
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

/// How many objects there are, without reading them.
async fn total(client: &Client, kind: &Kind, namespace: &str) -> kube::Result<usize> {
    let page = kind.api(client, namespace).list_metadata(&ListParams::default().limit(1)).await?;
    let rest = page.metadata.remaining_item_count.unwrap_or(0);
    Ok(page.items.len() + usize::try_from(rest).unwrap_or(0))
}

/// The objects whole.
async fn objects(client: &Client, kind: &Kind, namespace: &str) -> kube::Result<Vec<Value>> {
    let resource = &kind.resource;
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    let path = format!("{root}/{}/namespaces/{namespace}/{}", resource.api_version, resource.plural);
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
    let mut list: Value = client.request(request).await?;
    Ok(list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
}
