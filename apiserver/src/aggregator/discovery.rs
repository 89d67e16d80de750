//! What another API server tells of the resources that it serves: the new document, or the old ones brought into its
//! form.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
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
            let resources = version(&document, &backend.group, &backend.version);
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
fn version(document: &Value, group: &str, version: &str) -> Vec<Value> {
    let groups = document["items"].as_array().into_iter().flatten();
    let groups = groups.filter(|one| one["metadata"]["name"].as_str().unwrap_or_default() == group);
    let mut versions = groups.flat_map(|one| one["versions"].as_array().into_iter().flatten());
    let found = versions.find(|one| one["version"] == version);
    let resources = found.and_then(|one| one["resources"].as_array()).into_iter().flatten();
    resources.filter(|one| one.is_object()).map(resource).collect()
}

/// One resource, with what every client expects of it.
fn resource(told: &Value) -> Value {
    let mut own = told.clone();
    with_kind(&mut own);
    if let Some(parts) = own["subresources"].as_array_mut() {
        parts.iter_mut().filter(|part| part.is_object()).for_each(with_kind);
    }
    if own["subresources"].is_null()
        && let Some(fields) = own.as_object_mut()
    {
        fields.remove("subresources");
    }
    own
}

fn with_kind(one: &mut Value) {
    if !one["responseKind"].is_object() {
        one["responseKind"] = json!({"group": "", "version": "", "kind": ""});
    }
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
    all.iter_mut().for_each(with_kind);
    Ok(all)
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
                "subresources": [{"subresource": "part",
                    "responseKind": {"group": "g", "version": "v2", "kind": "Part"}, "verbs": []}]},
        ]);
        assert_eq!(json!(converted(list.as_array().unwrap()).unwrap()), expected);
    }

    #[test]
    fn what_the_new_document_leaves_open_is_filled_in() {
        let document = json!({"items": [
            {"metadata": {"name": "other"}, "versions": [{"version": "v1", "resources": [{"resource": "x"}]}]},
            {"metadata": {"name": "g"}, "versions": [{"version": "v1", "resources": [
                {"resource": "a", "subresources": [{"subresource": "status"}]}, 7]}]},
        ]});
        let empty = json!({"group": "", "version": "", "kind": ""});
        let expected = json!([{"resource": "a", "responseKind": empty,
            "subresources": [{"subresource": "status", "responseKind": empty}]}]);
        assert_eq!(json!(version(&document, "g", "v1")), expected);
        assert!(version(&document, "g", "v2").is_empty());
    }
}
