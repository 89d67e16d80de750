//! Asking a conversion webhook: one question over HTTPS.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reeve_api::rng::{RngExt as _, SharedRng};
use serde_json::Value;

use crate::outbound::{CallError, Caller, Place, Post, Services, Trust};
use crate::registry::Registry;

/// How long a webhook may take; Kubernetes' number.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Longest answer: that of a page of the largest objects.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Kubernetes' default, for definitions that were stored without.
const PORT: u16 = 443;

/// Where a webhook is, and what it understands.
pub(super) struct Target {
    /// Its address, as it stands in errors.
    url: String,
    path: String,
    /// Its connections; `Err` says why it cannot be called.
    caller: Result<Caller, String>,
    pub(super) review_versions: Vec<String>,
}

impl Target {
    /// Of a definition's `conversion.webhook`.
    pub(super) fn of(webhook: &Value, webhooks: &Webhooks) -> Self {
        let client = &webhook["clientConfig"];
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        let review_versions = versions.filter_map(Value::as_str).map(str::to_owned).collect();
        let bundle = client["caBundle"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let (place, path) = match place(client) {
            Ok(found) => found,
            Err(why) => return Self { url: String::new(), path: String::new(), caller: Err(why), review_versions },
        };
        let host = client["url"].as_str().map(|url| url.trim_end_matches(path.as_str()).to_owned());
        let host = host.unwrap_or_else(|| format!("https://{}", place.authority()));
        let path = format!("{path}?timeout={}s", TIME_MAX.as_secs());
        let caller = match &webhooks.services {
            Some(services) => Caller::new(place, &Trust::in_bundle(bundle), services).map_err(|why| why.to_string()),
            None => Err("Services are not served".to_owned()),
        };
        Self { url: format!("{host}{path}"), path, caller, review_versions }
    }
}

fn place(client: &Value) -> Result<(Place, String), String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let with_slash = |path: &str| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let service = &client["service"];
    if service.is_object() {
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
        let place = Place::Service { namespace: text(&service["namespace"]), name: text(&service["name"]), port };
        return Ok((place, with_slash(service["path"].as_str().unwrap_or_default())));
    }
    let url: http::Uri = text(&client["url"]).parse().map_err(|error| format!("{error}"))?;
    let host = url.host().ok_or("the URL has no host")?;
    Ok((Place::Host(host.to_owned(), url.port_u16().unwrap_or(PORT)), with_slash(url.path())))
}

/// Asks webhooks.
pub(super) struct Webhooks {
    services: Option<Arc<Services>>,
    rng: SharedRng,
}

impl Webhooks {
    pub(super) fn new(registry: &Registry) -> Self {
        let find = |group: &str, plural: &str| registry.resource(group, "v1", plural);
        let services = find("", "services").zip(find("discovery.k8s.io", "endpointslices"));
        let services = services.map(|(services, slices)| Arc::new(Services::new(services, slices)));
        Self { services, rng: Arc::clone(&registry.rng) }
    }

    /// The uid of a question.
    pub(super) fn new_uid(&self) -> String {
        self.rng.uuid()
    }

    /// Asks and reads the answer; the error is in the words of Go's HTTP client.
    pub(super) async fn post(&self, target: &Target, question: &Value) -> Result<Value, String> {
        let caller = target.caller.as_ref().map_err(String::clone)?;
        let late = CallError(format!("{} (Client.Timeout exceeded while awaiting headers)", CallError::deadline()));
        let (path, url) = (&target.path, &target.url);
        let post = Post { path, url, time_max: TIME_MAX, late, bytes_max: ANSWER_BYTES_MAX };
        caller.post(post, question).await
    }
}
