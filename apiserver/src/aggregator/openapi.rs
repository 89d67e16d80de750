//! What another API server says of its OpenAPI documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::tend::Seen;
use super::{Aggregator, proxy, swagger};
use crate::registry::UserInfo;

/// How long the index may take, and how long it may be.
const TIME_MAX: Duration = Duration::from_secs(60);
const INDEX_BYTES_MAX: usize = 1024 * 1024;
/// How long a document of version 2 may be.
const SWAGGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most documents of one server.
const DOCUMENTS_MAX: usize = 1000;

/// What a server's document of version 2 says of one group and version.
pub(crate) struct Swagger {
    /// Of the whole document.
    etag: String,
    /// Its `paths` and `definitions`, as JSON.
    text: Bytes,
}

impl Swagger {
    /// Its `paths` and `definitions`; costs a parse.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap_or_default()
    }
}

/// Reads the index of version 3 and the document of version 2. Whether that went well.
pub(super) async fn refresh(aggregator: &Aggregator, seen: Seen) -> bool {
    if !seen.backend.is_available {
        return false;
    }
    let (index, swagger) = tokio::join!(refresh_index(aggregator, &seen), refresh_swagger(aggregator, &seen));
    index && swagger
}

async fn refresh_swagger(aggregator: &Aggregator, seen: &Seen) -> bool {
    let backend = &seen.backend;
    let known = aggregator.learned().get(&backend.name).and_then(|learned| learned.swagger.clone());
    let etag = known.as_ref().map(|known| known.etag.as_str()).unwrap_or_default();
    let user = UserInfo::new("system:aggregator", &[]);
    let question = proxy::Question { path: "/openapi/v2", accept: "application/json", user, etag };
    let answer = tokio::time::timeout(TIME_MAX, proxy::fetch(backend, question, SWAGGER_BYTES_MAX)).await;
    let Ok(Ok(answer)) = answer else { return false };
    let new = match answer.code {
        StatusCode::NOT_MODIFIED => return known.is_some(),
        StatusCode::NOT_FOUND => None,
        StatusCode::OK => {
            let (group, version) = (backend.group.clone(), backend.version.clone());
            // Large, and parsed once per change: not on the async threads.
            let made = tokio::task::spawn_blocking(move || {
                let document: Value = serde_json::from_slice(&answer.body).ok()?;
                let text = swagger::of_version(document, &group, &version).to_string().into();
                Some(Swagger { etag: answer.etag, text })
            });
            let Ok(Some(made)) = made.await else { return false };
            Some(Arc::new(made))
        }
        _ => return false,
    };
    let is_same = match (&known, &new) {
        (Some(known), Some(new)) => known.text == new.text && known.etag == new.etag,
        (None, None) => true,
        _ => false,
    };
    if !is_same {
        aggregator.learn(&backend.name, |learned| learned.swagger = new);
    }
    true
}

async fn refresh_index(aggregator: &Aggregator, seen: &Seen) -> bool {
    let user = UserInfo::new("system:aggregator", &[]);
    let (path, accept) = ("/openapi/v3", "application/json");
    let fetched = proxy::fetch(&seen.backend, proxy::Question { path, accept, user, etag: "" }, INDEX_BYTES_MAX);
    let documents = match tokio::time::timeout(TIME_MAX, fetched).await {
        Ok(Ok(answer)) if answer.code == StatusCode::OK => match documents(&answer.body) {
            Some(documents) => documents,
            None => return false,
        },
        // A server that is older than version 3.
        Ok(Ok(answer)) if answer.code == StatusCode::NOT_FOUND => BTreeMap::new(),
        _ => return false,
    };
    let known = aggregator.learned().get(&seen.backend.name).is_some_and(|known| known.documents == documents);
    if !known {
        aggregator.learn(&seen.backend.name, |learned| learned.documents = documents);
    }
    true
}

fn documents(body: &[u8]) -> Option<BTreeMap<String, Value>> {
    let index: Value = serde_json::from_slice(body).ok()?;
    let url = |entry: &Value| Some(serde_json::json!({"serverRelativeURL": entry["serverRelativeURL"].as_str()?}));
    let paths = index["paths"].as_object()?.iter().take(DOCUMENTS_MAX);
    Some(paths.filter_map(|(path, entry)| Some((path.clone(), url(entry)?))).collect())
}
