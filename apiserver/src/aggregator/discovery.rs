//! What another API server tells of the resources that it serves: the new document, or the old ones brought into its
//! form.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::tend::Seen;
use super::{Aggregator, proxy};
use crate::registry::UserInfo;

/// How long a document may take, and how long it may be.
const TIME_MAX: Duration = Duration::from_secs(5);
const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// What a server tells of one version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// `APIResourceDiscovery` objects; empty while the server does not answer.
    pub(crate) resources: Vec<Value>,
    /// Whether the last question was answered.
    pub(crate) is_current: bool,
    etag: String,
}

/// Asks what there is. Whether that went well.
pub(super) async fn refresh(aggregator: &Aggregator, seen: Seen) -> bool {
    let backend = &seen.backend;
    let known = aggregator.told(&backend.name);
    let outcome = match tokio::time::timeout(TIME_MAX * 2, fetch(&seen, known.as_deref())).await {
        Ok(outcome) => outcome,
        Err(_) => Err("request timed out".to_owned()),
    };
    let told = match outcome {
        Ok(told) => told,
        Err(why) => {
            tracing::debug!(api_service = backend.name, why, "What an API server serves cannot be found out.");
            Told { resources: Vec::new(), is_current: false, etag: String::new() }
        }
    };
    let is_current = told.is_current;
    if known.as_deref() != Some(&told) {
        aggregator.learn(&backend.name, |learned| learned.told = Some(Arc::new(told)));
    }
    is_current
}

async fn fetch(seen: &Seen, known: Option<&Told>) -> Result<Told, String> {
    let backend = &seen.backend;
    let user = UserInfo::new("system:kube-aggregator", &["system:masters"]);
    let etag = known.map(|known| known.etag.as_str()).unwrap_or_default();
    let question = proxy::Question { path: "/apis", accept: ACCEPT, user, etag };
    let answer = tokio::time::timeout(TIME_MAX, proxy::fetch(backend, question, DOCUMENT_BYTES_MAX)).await;
    let answer = answer.map_err(|_| "request timed out".to_owned())??;
    match (answer.code, known) {
        (StatusCode::NOT_MODIFIED, Some(known)) => return Ok(known.clone()),
        (StatusCode::SERVICE_UNAVAILABLE, _) => return Err("the service is unavailable".to_owned()),
        (StatusCode::OK, _) if answer.content_type.contains("as=APIGroupDiscoveryList") => {
            let document: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            let resources = version(&document, &backend.group, &backend.version)?;
            return Ok(Told { resources, is_current: true, etag: answer.etag });
        }
        _ => {}
    }
    let path = format!("/apis/{}/{}", backend.group, backend.version);
    let user = UserInfo::new("system:kube-aggregator", &[]);
    let question = proxy::Question { path: &path, accept: "application/json", user, etag: "" };
    let answer = proxy::fetch(backend, question, DOCUMENT_BYTES_MAX).await?;
    if answer.code != StatusCode::OK {
        return Err(format!("failed to download legacy discovery for {path}: {}", answer.code.as_u16()));
    }
    let list: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let resources = converted(list["resources"].as_array().map(Vec::as_slice).unwrap_or_default())?;
    Ok(Told { resources, is_current: true, etag: String::new() })
}

/// The resources of one version out of the document of all groups.
fn version(document: &Value, group: &str, version: &str) -> Result<Vec<Value>, String> {
    let groups = document["items"].as_array().into_iter().flatten();
    let groups = groups.filter(|one| one["metadata"]["name"].as_str().unwrap_or_default() == group);
    let mut versions = groups.flat_map(|one| one["versions"].as_array().into_iter().flatten());
    let found = versions.find(|one| one["version"] == version);
    let resources = found.and_then(|one| one["resources"].as_array()).into_iter().flatten();
    resources.map(strict).collect()
}

/// `APIResourceDiscovery`, with what every client expects of it, and nothing else.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    #[serde(default, deserialize_with = "or_empty")]
    response_kind: GroupVersionKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default, deserialize_with = "or_empty")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<String>,
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    subresource: String,
    #[serde(default, deserialize_with = "or_empty")]
    response_kind: GroupVersionKind,
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    accepted_types: Vec<GroupVersionKind>,
    #[serde(default, deserialize_with = "or_empty")]
    verbs: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

/// What is null is as if it were not there.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Clients get what they can read, whatever a server tells.
fn strict(told: &Value) -> Result<Value, String> {
    let resource = Resource::deserialize(told).map_err(|error| error.to_string())?;
    serde_json::to_value(resource).map_err(|error| error.to_string())
}

/// The resources of an `APIResourceList` in the form of the new document.
fn converted(list: &[Value]) -> Result<Vec<Value>, String> {
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let kind =
        |one: &Value| json!({"group": text(one, "group"), "version": text(one, "version"), "kind": text(one, "kind")});
    let mut all: Vec<Value> = Vec::new();
    for one in list {
        let name = text(one, "name");
        if let Some((parent, part)) = name.split_once('/') {
            let at = match all.iter().position(|own| own["resource"] == parent) {
                Some(at) => at,
                None => {
                    let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
                    all.push(json!({"resource": parent, "scope": scope}));
                    all.len() - 1
                }
            };
            let part = json!({"subresource": part, "responseKind": kind(one), "verbs": one["verbs"]});
            match all.get_mut(at).map(|own| &mut own["subresources"]) {
                Some(Value::Array(parts)) => parts.push(part),
                Some(parts) => *parts = json!([part]),
                None => {}
            }
            continue;
        }
        if all.iter().any(|own| own["resource"] == name.as_str()) {
            return Err(format!("the resource {name:?} stands twice"));
        }
        let mut own = json!({
            "resource": name, "responseKind": kind(one),
            "scope": if one["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "singularResource": text(one, "singularName"), "verbs": one["verbs"],
        });
        for field in ["shortNames", "categories"].into_iter().filter(|field| one[*field].is_array()) {
            own[field] = one[field].clone();
        }
        all.push(own);
    }
    all.iter().map(strict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_document_says_the_same_in_the_new_form() {
        let list = json!([
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
            {"name": "lonely/part", "namespaced": false, "kind": "Part", "group": "g", "version": "v2", "verbs": []},
        ]);
        let own = json!({"group": "", "version": "", "kind": "Flunder"});
        let expected = json!([
            {"resource": "flunders", "responseKind": own, "scope": "Namespaced", "singularResource": "flunder",
                "verbs": ["get"], "shortNames": ["fl"],
                "subresources": [{"subresource": "status", "responseKind": own, "verbs": ["update"]}]},
            {"resource": "lonely", "scope": "Cluster", "responseKind": {"group": "", "version": "", "kind": ""},
                "singularResource": "", "verbs": [], "subresources": [{"subresource": "part",
                    "responseKind": {"group": "g", "version": "v2", "kind": "Part"}, "verbs": []}]},
        ]);
        assert_eq!(json!(converted(list.as_array().unwrap()).unwrap()), expected);
    }

    #[test]
    fn what_the_new_document_leaves_open_is_filled_in_and_what_nobody_can_read_is_refused() {
        let document = |resources: Value| {
            json!({"items": [
                {"metadata": {"name": "other"}, "versions": [{"version": "v1", "resources": [{"resource": "x"}]}]},
                {"metadata": {"name": "g"}, "versions": [{"version": "v1", "resources": resources}]},
            ]})
        };
        let told = json!([{"resource": "a", "verbs": null, "own": 1, "subresources": [{"subresource": "status"}]}]);
        let empty = json!({"group": "", "version": "", "kind": ""});
        let expected = json!([{"resource": "a", "responseKind": empty, "singularResource": "", "verbs": [],
            "subresources": [{"subresource": "status", "responseKind": empty, "verbs": []}]}]);
        assert_eq!(json!(version(&document(told.clone()), "g", "v1").unwrap()), expected);
        assert!(version(&document(told), "g", "v2").unwrap().is_empty());
        for broken in [json!([7]), json!([{"resource": 7}]), json!([{"resource": "a", "verbs": [7]}])] {
            assert!(version(&document(broken.clone()), "g", "v1").is_err(), "{broken}");
        }
    }
}
