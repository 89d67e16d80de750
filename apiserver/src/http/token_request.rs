//! `serviceaccounts/NAME/token`: a new token for a service account, on its own or bound to a pod or secret.
//!
//! Source: the `TokenRequest` API (authentication.k8s.io/v1) and its validation; KEP-1205. Which tokens a node gets is
//! decided by the Node authorizer and the admission rule NodeRestriction.

use jiff::Timestamp;
use reeve_api::rng::{RngExt as _, SharedRng};
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Value, json};

use crate::admission::{self, Attributes};
use crate::auth::token::{Claims, Named, Private, TokenKey};
use crate::registry::{Registry, Request};
use crate::status::ApiError;

/// As in the API server: shorter tokens are refused.
const SECONDS_MIN: i64 = 10 * 60;
const SECONDS_MAX: i64 = 1 << 32;
/// What a request without `expirationSeconds` gets.
const SECONDS_DEFAULT: i64 = 60 * 60;

/// What issuing stands on.
pub(crate) struct TokenRequests<'s> {
    pub(crate) registry: &'s Registry,
    pub(crate) key: &'s TokenKey,
    pub(crate) rng: &'s SharedRng,
    pub(crate) now: Timestamp,
}

/// The object that a token is to be bound to.
#[derive(Default)]
struct Bound {
    pod: Option<Named>,
    node: Option<Named>,
    secret: Option<Named>,
}

impl TokenRequests<'_> {
    /// Answers the request with the token in `status`. `request` names the service account.
    pub(crate) async fn answer(&self, request: &Request, body: Value) -> Result<Value, ApiError> {
        let account = self.registry.get(request).await?.value();
        let attributes =
            Attributes::create(request, body).of_kind("token", ("authentication.k8s.io", "v1", "TokenRequest"));
        let (body, seconds) = self.admit(attributes).await?;
        let bound = self.bound(request, body.pointer("/spec/boundObjectRef")).await?;
        let named = Named { name: request.name.clone(), uid: text(&account, "/metadata/uid") };
        let claims = self.claims(request, &body, named, bound, seconds);
        let token = self.key.sign(&claims).map_err(ApiError::internal)?;
        let expires = Timestamp::from_second(claims.exp).map_err(ApiError::internal)?;
        let mut body = body;
        body["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
        Ok(body)
    }

    /// Both phases of admission; between them the request is completed and judged. Gives its duration in seconds.
    async fn admit(&self, mut attributes: Attributes<'_>) -> Result<(Value, i64), ApiError> {
        let request = attributes.request;
        admission::mutate(self.registry, &mut attributes).await?;
        let body = &mut attributes.object;
        let seconds = validate(body, self.key.issuer())?;
        body["kind"] = "TokenRequest".into();
        body["apiVersion"] = "authentication.k8s.io/v1".into();
        body["metadata"] = json!({
            "name": request.name, "namespace": request.namespace, "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        body["status"] = json!({"token": "", "expirationTimestamp": null});
        admission::validate(self.registry, &attributes).await?;
        Ok((attributes.object, seconds))
    }

    fn claims(&self, request: &Request, body: &Value, serviceaccount: Named, bound: Bound, seconds: i64) -> Claims {
        let audiences = body.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
        let now = self.now.as_second();
        Claims {
            aud: audiences.filter_map(Value::as_str).map(str::to_owned).collect(),
            exp: now.saturating_add(seconds),
            iat: now,
            iss: self.key.issuer().to_owned(),
            jti: self.rng.uuid(),
            nbf: now,
            sub: format!("system:serviceaccount:{}:{}", request.namespace, request.name),
            private: Private {
                namespace: request.namespace.clone(),
                node: bound.node,
                pod: bound.pod,
                secret: bound.secret,
                serviceaccount,
            },
        }
    }

    async fn bound(&self, request: &Request, reference: Option<&Value>) -> Result<Bound, ApiError> {
        let Some(reference) = reference.filter(|value| !value.is_null()) else { return Ok(Bound::default()) };
        let (kind, version) = (text(reference, "/kind"), text(reference, "/apiVersion"));
        let plural = match (kind.as_str(), version.as_str()) {
            ("Pod", "v1") => "pods",
            ("Secret", "v1") => "secrets",
            _ => {
                let message = format!(
                    "cannot bind token for serviceaccount \"{}\" to object of type \"{kind}.{version}\"",
                    request.name
                );
                return Err(ApiError::bad_request(message));
            }
        };
        let object = self.get(request, plural, &text(reference, "/name")).await?;
        let named = Named { name: text(&object, "/metadata/name"), uid: text(&object, "/metadata/uid") };
        self.check_uid(&named, plural, &text(reference, "/uid"))?;
        if plural == "secrets" {
            return Ok(Bound { secret: Some(named), ..Bound::default() });
        }
        let node_name = text(&object, "/spec/nodeName");
        if text(&object, "/spec/serviceAccountName") != request.name {
            let message = format!(
                "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount",
                request.name
            );
            return Err(ApiError::bad_request(message));
        }
        Ok(Bound { pod: Some(named), node: self.node(&node_name), secret: None })
    }

    fn check_uid(&self, found: &Named, plural: &str, asked: &str) -> Result<(), ApiError> {
        if asked.is_empty() || asked == found.uid {
            return Ok(());
        }
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        let resource = self.registry.resource("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
        Err(ApiError::conflict(resource.names(), &found.name, &why))
    }

    async fn get(&self, request: &Request, plural: &str, name: &str) -> Result<Value, ApiError> {
        let resource = self.registry.resource("", "v1", plural).ok_or_else(ApiError::no_such_path)?.clone();
        let request = Request { resource, name: name.to_owned(), ..request.clone() };
        Ok(self.registry.get(&request).await?.value())
    }

    fn node(&self, name: &str) -> Option<Named> {
        let node = self.registry.peek(&*self.registry.resource("", "v1", "nodes")?, "", name)?.value();
        Some(Named { name: name.to_owned(), uid: text(&node, "/metadata/uid") })
    }
}

/// Fills in the defaults and checks the rest; the lifetime in seconds.
fn validate(body: &mut Value, issuer: &str) -> Result<i64, ApiError> {
    let invalid = |value: Value, detail: &str| {
        let error = FieldError::new(FieldErrorKind::Invalid, "spec.expirationSeconds", value, detail);
        ApiError::invalid_kind("TokenRequest", "authentication.k8s.io", "", &[error])
    };
    if !body.is_object() || body.get("spec").is_some_and(|spec| !spec.is_object() && !spec.is_null()) {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type TokenRequest)"));
    }
    if !body["spec"].is_object() {
        body["spec"] = json!({});
    }
    let spec = &mut body["spec"];
    if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
        spec["audiences"] = json!([issuer]);
    }
    if spec["expirationSeconds"].is_null() {
        spec["expirationSeconds"] = SECONDS_DEFAULT.into();
    }
    if spec["boundObjectRef"].is_null() {
        spec["boundObjectRef"] = Value::Null;
    }
    match spec["expirationSeconds"].as_i64() {
        Some(seconds) if seconds < SECONDS_MIN => {
            Err(invalid(seconds.into(), "may not specify a duration less than 10 minutes"))
        }
        Some(seconds) if seconds > SECONDS_MAX => {
            Err(invalid(seconds.into(), "may not specify a duration larger than 2^32 seconds"))
        }
        Some(seconds) => Ok(seconds),
        None => Err(ApiError::bad_request("TokenRequest: spec.expirationSeconds must be an integer")),
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
