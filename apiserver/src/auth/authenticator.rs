//! From a connection's and a request's credentials to a user.

use std::sync::Arc;

use http::HeaderMap;
use reeve_api::clock::SharedClock;
use serde_json::Value;

use super::front_proxy::Shown;
use super::token::{Claims, Named, TokenKey};
use super::{anonymous, authenticated, front_proxy};
use crate::registry::{Registry, UserInfo};
use crate::status::ApiError;

/// What a request over the network shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Credentials<'r> {
    /// What the connection's client certificate says.
    pub(crate) certificate: Option<&'r Shown>,
    /// The request's headers: what a front proxy says.
    pub(crate) headers: Option<&'r HeaderMap>,
    /// The value of the `Authorization` header.
    pub(crate) authorization: Option<&'r str>,
}

/// Checks credentials.
pub(crate) struct Authenticator {
    pub(crate) key: Arc<TokenKey>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: SharedClock,
}

impl Authenticator {
    /// The user; anonymous when nothing is shown. Wrong credentials are 401, never anonymous.
    pub(crate) fn authenticate(&self, shown: Credentials<'_>) -> Result<UserInfo, ApiError> {
        let named = match shown.certificate {
            Some(Shown::User(user)) => Some(user.clone()),
            Some(Shown::FrontProxy) => shown.headers.and_then(front_proxy::user),
            _ => None,
        };
        if let Some(user) = named {
            return Ok(authenticated(user));
        }
        let Some(header) = shown.authorization else {
            let nothing = matches!(shown.certificate, None | Some(Shown::Nothing));
            return if nothing { Ok(anonymous()) } else { Err(unauthorized()) };
        };
        let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized());
        }
        let claims = self.key.verify(token.trim(), self.clock.now()).ok_or_else(unauthorized)?;
        if self.alive(&claims) { Ok(claims.user()) } else { Err(unauthorized()) }
    }

    /// Whether what is shown is a token of this cluster, which may still be refused: what it is bound to may be so
    /// young that this server has not heard of it.
    pub(crate) fn is_own_token(&self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|header| header.split_once(' ')).map(|(_, token)| token.trim());
        token.is_some_and(|token| self.key.verify(token, self.clock.now()).is_some())
    }

    /// Whose token it is, for a third party, and which of the wanted audiences it is meant for; none are wanted: the
    /// API server's own.
    pub(crate) fn review(&self, token: &str, wanted: &[&str]) -> Option<(UserInfo, Vec<String>)> {
        let own = [self.key.issuer()];
        let wanted = if wanted.is_empty() { &own[..] } else { wanted };
        let claims = self.key.verify_for(wanted, token, self.clock.now()).filter(|claims| self.alive(claims))?;
        let audiences = claims.aud.iter().filter(|own| wanted.contains(&own.as_str())).cloned().collect();
        Some((claims.user(), audiences))
    }

    /// Whether everything that the token is bound to is still there, by uid.
    fn alive(&self, claims: &Claims) -> bool {
        let private = &claims.private;
        let found = |plural: &str, named: &Named| {
            let namespace = if plural == "nodes" { "" } else { &private.namespace };
            self.uid_of(plural, namespace, &named.name).is_some_and(|uid| uid == named.uid)
        };
        // The node of a pod may go before the pod does.
        let bound_to_node = private.node.as_ref().filter(|_| private.pod.is_none());
        bound_to_node.is_none_or(|node| found("nodes", node))
            && found("serviceaccounts", &private.serviceaccount)
            && private.pod.as_ref().is_none_or(|pod| found("pods", pod))
            && private.secret.as_ref().is_none_or(|secret| found("secrets", secret))
    }

    fn uid_of(&self, plural: &str, namespace: &str, name: &str) -> Option<String> {
        let resource = self.registry.resource("", "v1", plural)?;
        let object = self.registry.peek(&resource, namespace, name)?.value();
        object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
    }
}

/// What is answered when credentials are wrong, or missing where they are needed.
#[must_use]
fn unauthorized() -> ApiError {
    ApiError::new(401, "Unauthorized", "Unauthorized")
}
