//! `serviceaccounts/NAME/token`: a new token for a service account, on its own or bound to a pod or secret.
//!
//! Source: the `TokenRequest` API (authentication.k8s.io/v1) and its validation; KEP-1205. Which tokens a node gets is
//! decided by the Node authorizer and the admission rule NodeRestriction.

use jiff::Timestamp;
use reeve_api::rng::{RngExt as _, SharedRng};
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Value, json};

use crate::admission;
use crate::auth::token::{Claims, Named, Private, TokenKey};
use crate::registry::{Body, Registry, Request, meta};
use crate::status::{ApiError, Details};

const KIND: &str = "TokenRequest";
const GROUP: &str = "authentication.k8s.io";

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
    pub(crate) async fn answer(&self, request: &Request, body: Body) -> Result<Value, ApiError> {
        let mut attributes =
            self.registry.begin_transient(request, Registry::body_of("token", KIND)?, with_seconds(body)).await?;
        let account = self.registry.get(request).await?.value();
        let seconds = self.complete(request, &account, &mut attributes.object)?;
        admission::validate(self.registry, &attributes).await?;
        let mut body = attributes.object;
        let bound = self.bound(request, body.pointer("/spec/boundObjectRef")).await?;
        let named = Named { name: request.name.clone(), uid: text(&account, "/metadata/uid") };
        let claims = self.claims(request, &body, named, bound, seconds);
        let token = self.key.sign(&claims).map_err(ApiError::internal)?;
        let expires = Timestamp::from_second(claims.exp).map_err(ApiError::internal)?;
        body["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
        Ok(body)
    }

    /// Fills in what the request leaves open and judges the rest. Gives its duration in seconds.
    fn complete(&self, request: &Request, account: &Value, body: &mut Value) -> Result<i64, ApiError> {
        let invalid = |field: &str, value: &str, what: &str| {
            let why = format!("must match the service account {what} if specified");
            let error = FieldError::new(FieldErrorKind::Invalid, field, value, why);
            ApiError::invalid_kind(KIND, GROUP, &request.name, &[error])
        };
        let (name, uid) = (text(body, "/metadata/name"), text(body, "/metadata/uid"));
        if !name.is_empty() && name != request.name {
            return Err(invalid("metadata.name", &name, "name"));
        }
        let there = text(account, "/metadata/uid");
        if !uid.is_empty() && uid != there {
            let why =
                format!("the UID in the token request ({uid}) does not match the UID of the service account ({there})");
            return Err(mismatch(KIND, GROUP, &request.name, &why));
        }
        meta::set(body, "name", request.name.as_str());
        meta::set(body, "uid", there);
        meta::set(body, "creationTimestamp", meta::time(self.now));
        if body["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
            body["spec"]["audiences"] = json!([self.key.issuer()]);
        }
        if body["spec"]["boundObjectRef"].is_null() {
            body["spec"]["boundObjectRef"] = Value::Null;
        }
        body["status"] = json!({"token": "", "expirationTimestamp": null});
        lasting(&body["spec"])
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
        let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
        let plural = match (kind.as_str(), group) {
            ("Pod", "") => "pods",
            ("Node", "") => "nodes",
            ("Secret", "") => "secrets",
            _ => {
                let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
                return Err(ApiError::bad_request(why));
            }
        };
        let object = self.get(request, plural, &text(reference, "/name")).await?;
        let named = Named { name: text(&object, "/metadata/name"), uid: text(&object, "/metadata/uid") };
        let is_its_own = text(&object, "/spec/serviceAccountName") == request.name;
        if plural == "pods" && !is_its_own {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                request.name
            )));
        }
        let asked = text(reference, "/uid");
        if !asked.is_empty() && asked != named.uid {
            let why = format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(mismatch(&kind, "", &named.name, &why));
        }
        Ok(match plural {
            "secrets" => Bound { secret: Some(named), ..Bound::default() },
            "nodes" => Bound { node: Some(named), ..Bound::default() },
            _ => Bound { pod: Some(named), node: self.node(&text(&object, "/spec/nodeName")), secret: None },
        })
    }

    async fn get(&self, request: &Request, plural: &str, name: &str) -> Result<Value, ApiError> {
        let resource = self.registry.core(plural).ok_or_else(ApiError::no_such_path)?;
        let namespace = if resource.names().namespaced { request.namespace.clone() } else { String::new() };
        let request = Request { resource, namespace, name: name.to_owned(), ..request.clone() };
        Ok(self.registry.get(&request).await?.value())
    }

    /// The node of a pod; without a uid when there is no such node.
    fn node(&self, name: &str) -> Option<Named> {
        let nodes = self.registry.core("nodes").filter(|_| !name.is_empty())?;
        let uid = self.registry.peek(&nodes, "", name).map(|node| text(&node.value(), "/metadata/uid"));
        Some(Named { name: name.to_owned(), uid: uid.unwrap_or_default() })
    }
}

/// The default is part of reading the request.
fn with_seconds(mut body: Body) -> Body {
    if let Some(fields) = body.value.as_object_mut() {
        let spec = fields.entry("spec").or_insert_with(|| json!({}));
        if spec.is_null() {
            *spec = json!({});
        }
        if let Some(spec) = spec.as_object_mut().filter(|spec| spec.get("expirationSeconds").is_none_or(Value::is_null))
        {
            spec.insert("expirationSeconds".to_owned(), SECONDS_DEFAULT.into());
        }
    }
    body
}

/// How long the token is to last, in seconds.
fn lasting(spec: &Value) -> Result<i64, ApiError> {
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or_default();
    let why = match seconds {
        ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
        SECONDS_MIN..=SECONDS_MAX => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::new(FieldErrorKind::Invalid, "spec.expirationSeconds", seconds, why);
    Err(ApiError::invalid_kind(KIND, GROUP, "", &[error]))
}

/// 409: something is another one than the client means.
fn mismatch(kind: &str, group: &str, name: &str, why: &str) -> ApiError {
    let details =
        Details { name: name.to_owned(), group: group.to_owned(), kind: kind.to_owned(), ..Details::default() };
    let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
    ApiError { details: Some(Box::new(details)), ..ApiError::new(409, "Conflict", message) }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
