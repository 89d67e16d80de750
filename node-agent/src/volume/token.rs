//! Service account tokens for projected volumes, from the API server's TokenRequest.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection, Volume};
use kube::Api;
use kube::api::PostParams;

use super::SetUpError;
use crate::pod::backoff::{after, left};
use crate::pod::context::NodeContext;
use crate::pod::state::spec;

/// Lifetime when the volume does not say. Source: Kubernetes default of `expirationSeconds`.
const EXPIRATION_SECONDS: i64 = 3600;
/// A token is renewed after a day at the latest. Source: kubelet token manager `maxTTL`.
const RENEW_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Before a token's last moment: clocks differ, and requests take time. Source: kubelet token manager `maxJitter`.
const MARGIN: Duration = Duration::from_secs(10);
/// A renewal that failed is tried again after this long, while the old token is still good.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// A token for one file.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) path: String,
    pub(crate) token: String,
    /// After 80 % of its life. Source: kubelet token manager `requiresRefresh`.
    pub(crate) renew_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of one pod, by volume and file: each is asked for once and again when its life is nearly over.
#[derive(Debug, Default)]
pub(crate) struct IssuedTokens(Mutex<BTreeMap<(String, String), Token>>);

impl IssuedTokens {
    fn get(&self, key: &(String, String)) -> Option<Token> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: (String, String), token: Token) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, token);
    }
}

/// Every token a volume shows: those that were issued and are good for a while yet, the others anew.
pub(crate) async fn fetch(
    node: &NodeContext,
    pod: &Pod,
    volume: &Volume,
    issued: &IssuedTokens,
) -> Result<Vec<Token>, SetUpError> {
    let mut tokens = Vec::new();
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        let Some(wanted) = &source.service_account_token else { continue };
        let key = (volume.name.clone(), wanted.path.clone());
        let known = issued.get(&key);
        if let Some(known) = known.as_ref().filter(|known| known.renew_at > node.now()) {
            tokens.push(known.clone());
            continue;
        }
        let token = match issue(node, pod, wanted).await {
            Ok(token) => token,
            // The old one is good as long as it lasts.
            Err(error) => match known.filter(|known| known.expires_at > node.now()) {
                Some(known) => {
                    tracing::warn!(%error, volume = volume.name, "failed to renew a token, keeping the old one");
                    Token { renew_at: after(node.now(), RETRY_AFTER), ..known }
                }
                None => return Err(error),
            },
        };
        issued.put(key, token.clone());
        tokens.push(token);
    }
    Ok(tokens)
}

async fn issue(node: &NodeContext, pod: &Pod, wanted: &ServiceAccountTokenProjection) -> Result<Token, SetUpError> {
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
    let asked_at = node.now();
    let (token, expires_at) = request_token(node, pod, &request).await?;
    // An API that does not say gives what it was asked for.
    let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let expires_at = expires_at.unwrap_or_else(|| after(asked_at, life));
    Ok(Token { path: wanted.path.clone(), token, renew_at: renew_at(asked_at, expires_at), expires_at })
}

/// When 80 % of a token's life are over, or a day.
fn renew_at(issued_at: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = left(issued_at, expires_at);
    after(issued_at, (life * 4 / 5).saturating_sub(MARGIN).min(RENEW_AFTER_MAX))
}

async fn request_token(
    node: &NodeContext,
    pod: &Pod,
    request: &TokenRequest,
) -> Result<(String, Option<Timestamp>), SetUpError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = spec(pod).service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(node.component.client.clone(), namespace);
    let answer = api.create_token_request(account, &PostParams::default(), request).await;
    let answer = answer.map_err(|error| SetUpError::Token(api_text(&error)))?;
    let status = answer.status.unwrap_or_default();
    let token = status.token.ok_or_else(|| SetUpError::Token("the answer has no token".to_owned()))?;
    Ok((token, status.expiration_timestamp.map(|time| time.0)))
}

fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn bound_to(pod: &Pod) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_its_last_fifth_and_at_least_daily() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (life, renewal) in [(3600, 2870), (600, 470), (10_000_000, 86_400), (0, 0)] {
            assert_eq!(renew_at(at(0), at(life)), at(renewal), "{life}");
        }
    }
}
