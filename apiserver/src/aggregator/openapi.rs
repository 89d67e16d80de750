//! What another API server says of its OpenAPI documents.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::tend::Seen;
use super::{Aggregator, proxy};
use crate::registry::UserInfo;

/// How long the index may take, and how long it may be.
const TIME_MAX: Duration = Duration::from_secs(60);
const INDEX_BYTES_MAX: usize = 1024 * 1024;
/// Most documents of one server.
const DOCUMENTS_MAX: usize = 1000;

/// Reads the index of version 3. Whether that went well.
pub(super) async fn refresh(aggregator: &Aggregator, seen: Seen) -> bool {
    if !seen.backend.is_available {
        return false;
    }
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
