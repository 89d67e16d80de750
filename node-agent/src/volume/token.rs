//! Service account tokens for projected volumes, from the API server's TokenRequest.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, Volume};
use kube::Api;
use kube::api::PostParams;

use super::SetUpError;
use crate::pod::backoff::after;
use crate::pod::context::NodeContext;
use crate::pod::state::spec;

/// Lifetime when the volume does not say. Source: Kubernetes default of `expirationSeconds`.
const EXPIRATION_SECONDS: i64 = 3600;
/// A token is renewed after a day at the latest. Source: kubelet token manager `maxTTL`.
const RENEW_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// A token for one file.
pub(crate) struct Token {
    pub(crate) path: String,
    pub(crate) token: String,
    /// After 80 % of its life. Source: kubelet token manager `requiresRefresh`.
    pub(crate) renew_at: Timestamp,
}

/// Asks for every token a volume shows.
pub(crate) async fn fetch(node: &NodeContext, pod: &Pod, volume: &Volume) -> Result<Vec<Token>, SetUpError> {
    let mut tokens = Vec::new();
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        let Some(wanted) = &source.service_account_token else { continue };
        let seconds = wanted.expiration_seconds.unwrap_or(EXPIRATION_SECONDS);
        let audience = wanted.audience.clone().filter(|audience| !audience.is_empty());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.into_iter().collect()),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(bound_to(pod)),
            }),
            ..TokenRequest::default()
        };
        let token = request_token(node, pod, &request).await?;
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let renew_at = after(node.now(), (life * 4 / 5).min(RENEW_AFTER_MAX));
        tokens.push(Token { path: wanted.path.clone(), token, renew_at });
    }
    Ok(tokens)
}

async fn request_token(node: &NodeContext, pod: &Pod, request: &TokenRequest) -> Result<String, SetUpError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = spec(pod).service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(node.component.client.clone(), namespace);
    let answer = api.create_token_request(account, &PostParams::default(), request).await;
    let answer = answer.map_err(|error| SetUpError::Token(api_text(&error)))?;
    answer.status.and_then(|status| status.token).ok_or_else(|| SetUpError::Token("the answer has no token".to_owned()))
}

fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn bound_to(pod: &Pod) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    }
}
