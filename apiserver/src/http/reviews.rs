//! Reviews: who am I, who is that, and who may do what. Nothing is stored; the answer is the body with its `status`.
//!
//! Source: `authorization.k8s.io/v1` and `authentication.k8s.io/v1` of the Kubernetes API, and their validation. Every
//! answer is what the [`Authorizer`] or the authenticator would say to the request itself.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use reeve_api::selector::{FieldSelector, LabelSelector, Operator, Requirement};
use reeve_kinds::Names;
use serde_json::{Map, Value, json};

use super::encode::Encoder;
use super::negotiate::{self, Offer};
use super::response::{self, Answer};
use super::{Api, Call, body, query};
use crate::admission;
use crate::auth::{Attributes, Decision, KnownRule, Target};
use crate::cache::ResourceCache;
use crate::registry::{Request, Resource, Subresource, TransientPart, UserInfo, Warnings, encode, meta};
use crate::status::ApiError;

/// What each of them is called. Each offers `create` alone.
pub(crate) fn all() -> impl Iterator<Item = &'static Names> {
    reeve_kinds::reviews().iter().map(|kind| kind.names())
}

/// The reviews as resources without a storage that is fed: each has names and a form.
pub(crate) struct Reviews(Vec<Arc<Resource>>);

impl Default for Reviews {
    fn default() -> Self {
        let storage = || Arc::new(ResourceCache::new(Bytes::from_static(b"/registry/reviews/"), None));
        let resource = |kind: &_| Arc::new(Resource::new(Arc::clone(kind), storage(), None));
        Self(reeve_kinds::reviews().iter().map(resource).collect())
    }
}

impl Reviews {
    /// The review that a path names.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.0.iter().find(|own| own.is(group, plural) && own.names().version == version)
    }
}

/// Answers an authorized request for a review.
pub(crate) async fn serve(api: &Api, call: Call, review: &Arc<Resource>) -> Result<Answer, ApiError> {
    let (path, names) = (&call.path, review.names());
    if path.is_longer || !path.subresource.is_empty() || !path.name.is_empty() {
        return Err(ApiError::no_such_path());
    }
    if names.namespaced == path.namespace.is_empty() {
        return Err(ApiError::no_such_path());
    }
    if call.verb != "create" {
        return Err(ApiError::method_not_allowed());
    }
    negotiate::check_media_types(&call.parts.headers, false)?;
    let format = negotiate::format(&call.parts.headers, &call.query, Offer::REVIEW)?;
    let warnings = Warnings::default();
    let answered = answer(api, call, review, warnings.clone()).await;
    let warnings = warnings.take();
    match answered {
        Ok(object) => {
            let encoder = Encoder { resource: review, format, now: api.clock.now() };
            let mut answer = encoder.object(StatusCode::CREATED, &encode::unwritten(&object)).await?;
            response::warn(&mut answer, &warnings);
            Ok(answer)
        }
        Err(error) => Err(ApiError { warnings, ..error }),
    }
}

async fn answer(api: &Api, call: Call, review: &Arc<Resource>, warnings: Warnings) -> Result<Value, ApiError> {
    let names = review.names();
    let bytes = body::read(call.body).await?;
    let mut options = query::options(&call.query, call.verb)?;
    options.client = query::client_of(&call.parts.headers);
    let sent = body::object(&call.parts.headers, &bytes, names.kind)?;
    let request = Request {
        user: call.user,
        resource: Arc::clone(review),
        namespace: call.path.namespace,
        name: String::new(),
        subresource: Subresource::None,
        options,
        warnings,
    };
    let kind = reeve_kinds::reviews().iter().find(|own| own.names() == names).ok_or_else(ApiError::no_such_path)?;
    let part = TransientPart { subresource: "", kind: &**kind, means_object: false };
    let attributes = api.registry.begin_transient(&request, part, sent).await?;
    judge(review, &attributes.object)?;
    admission::validate(&api.registry, &attributes).await?;
    let mut object = attributes.object;
    let spec = &object["spec"];
    let status = match names.kind {
        "SelfSubjectReview" => {
            let born = meta::time(api.clock.now());
            object = typed(names, json!({ "creationTimestamp": born }));
            json!({ "userInfo": user_info(&request.user) })
        }
        "SelfSubjectRulesReview" => {
            let rules = rules(api, spec, &request.user);
            object = typed(names, json!({}));
            object["spec"] = json!({});
            rules
        }
        "TokenReview" => token(api, spec),
        "SelfSubjectAccessReview" => access(api, spec, request.user.clone()).await?,
        _ => access(api, spec, subject(spec)).await?,
    };
    object["status"] = status;
    Ok(object)
}

/// A new object of that kind.
fn typed(names: &Names, metadata: Value) -> Value {
    let mut object = json!({ "kind": names.kind, "apiVersion": names.api_version() });
    object["metadata"] = metadata;
    object
}

/// What cannot be answered. Kubernetes does not name the kind when it complains about a field.
fn judge(review: &Resource, object: &Value) -> Result<(), ApiError> {
    let errors = review.kind.validate_create(object);
    if !errors.is_empty() {
        return Err(ApiError::invalid_kind("", review.names().group, "", &errors));
    }
    let spec = &object["spec"];
    match review.names().kind {
        "TokenReview" if text(spec, "token").is_empty() => {
            Err(ApiError::bad_request("token is required for TokenReview in authentication"))
        }
        "SelfSubjectRulesReview" if text(spec, "namespace").is_empty() => {
            Err(ApiError::bad_request("no namespace on request"))
        }
        _ => Ok(()),
    }
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

/// Whose token it is. A wrong token is an answer, not an error.
fn token(api: &Api, spec: &Value) -> Value {
    let token = text(spec, "token");
    let wanted: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match api.authenticator.review(token, &wanted) {
        Some((user, audiences)) => json!({
            "authenticated": true, "user": user_info(&user), "audiences": audiences,
        }),
        None => json!({ "user": {}, "error": "invalid bearer token" }),
    }
}

/// The user that a review is about.
fn subject(spec: &Value) -> UserInfo {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    let extra = extra.map(|(key, values)| (key.clone(), texts(values))).collect();
    let (name, uid) = (text(spec, "user").to_owned(), text(spec, "uid").to_owned());
    UserInfo { name, uid, groups: texts(&spec["groups"]), extra, ..UserInfo::default() }
}

/// Whether `user` may do what the spec describes: exactly what the request itself would be told.
async fn access(api: &Api, spec: &Value, user: UserInfo) -> Result<Value, ApiError> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let (fields, bad_fields) = field_selector(&resource["fieldSelector"]);
    let target = if path.is_object() {
        Target::Path(text(path, "path"))
    } else {
        Target::Resource {
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            field_selector: &fields,
        }
    };
    let verb = text(if path.is_object() { path } else { resource }, "verb");
    // What follows nodes' pods must be up to date, as it is for the request itself.
    api.registry.fresh().await?;
    let decision = api.authorizer.decide(&Attributes { user: &user, verb, target });
    let mut status = json!({ "allowed": decision.is_allowed() });
    let reason = match decision {
        Decision::Allowed(grant) => grant.reason(&user),
        Decision::Refused { reason } => reason,
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    let bad_labels = label_selector(&resource["labelSelector"]);
    let complaints = [("fieldSelector", bad_fields), ("labelSelector", bad_labels)].map(|(field, ignored)| {
        let ignored = ignored?.how();
        Some(format!("spec.resourceAttributes.{field} {ignored} due to parse error"))
    });
    let complaints: Vec<String> = complaints.into_iter().flatten().collect();
    if !complaints.is_empty() {
        status["evaluationError"] = complaints.join("; ").into();
    }
    Ok(status)
}

/// How much of a selector could not be read. What is left out narrows less, so it allows nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ignored {
    All,
    Partially,
}

impl Ignored {
    fn of(read: usize, all: usize) -> Option<Self> {
        match read {
            _ if read == all => None,
            0 => Some(Self::All),
            _ => Some(Self::Partially),
        }
    }

    fn how(self) -> &'static str {
        match self {
            Self::All => "ignored",
            Self::Partially => "partially ignored",
        }
    }
}

fn requirements(selector: &Value) -> &[Value] {
    selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn values(requirement: &Value) -> Vec<&str> {
    requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The selector in the text form in which requests carry it, as far as that can express it.
fn field_selector(selector: &Value) -> (String, Option<Ignored>) {
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        let parsed = FieldSelector::parse(raw);
        return parsed.map_or((String::new(), Some(Ignored::All)), |parsed| (parsed.to_string(), None));
    }
    let requirements = requirements(selector);
    let term = |requirement: &Value| {
        let sign = match text(requirement, "operator") {
            "In" => "=",
            "NotIn" => "!=",
            _ => return None,
        };
        let [value] = values(requirement)[..] else { return None };
        let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        Some(format!("{}{sign}{value}", text(requirement, "key")))
    };
    let terms: Vec<String> = requirements.iter().filter_map(term).collect();
    (terms.join(","), Ignored::of(terms.len(), requirements.len()))
}

/// No rule looks at labels; whether the selector can be read is told all the same.
fn label_selector(selector: &Value) -> Option<Ignored> {
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return LabelSelector::parse(raw).is_err().then_some(Ignored::All);
    }
    let requirements = requirements(selector);
    let can_be_read = |requirement: &&Value| {
        let operator = match text(requirement, "operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return false,
        };
        let values = values(requirement).into_iter().map(str::to_owned).collect();
        Requirement::new(text(requirement, "key"), operator, values).is_ok()
    };
    Ignored::of(requirements.iter().filter(can_be_read).count(), requirements.len())
}

/// What the asking user may do, as far as rules say it.
fn rules(api: &Api, spec: &Value, user: &UserInfo) -> Value {
    let known = api.authorizer.rules(user, text(spec, "namespace"));
    let on_resources = known.rules.iter().filter(|rule| !rule.resources.is_empty());
    let resources: Vec<Value> = on_resources.map(resource_rule).collect();
    let on_paths = known.rules.iter().filter(|rule| !rule.urls.is_empty());
    let paths: Vec<Value> = on_paths.map(|rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.urls })).collect();
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": known.incomplete });
    if !known.error.is_empty() {
        status["evaluationError"] = known.error.into();
    }
    status
}

fn resource_rule(rule: &KnownRule) -> Value {
    let mut shown = json!({ "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources });
    if !rule.names.is_empty() {
        shown["resourceNames"] = json!(rule.names);
    }
    shown
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_of_a_selector_is_said_and_left_out() {
        let one = |operator: &str, values: Value| json!({ "key": "a", "operator": operator, "values": values });
        let of = |requirements: Value| json!({ "requirements": requirements });
        assert_eq!(field_selector(&Value::Null), (String::new(), None));
        assert_eq!(field_selector(&json!({ "rawSelector": "a=b" })), ("a=b".to_owned(), None));
        assert_eq!(field_selector(&json!({ "rawSelector": "a!!" })), (String::new(), Some(Ignored::All)));
        assert_eq!(field_selector(&of(json!([one("In", json!(["x,y"]))]))), ("a=x\\,y".to_owned(), None));
        let mixed = of(json!([one("Exists", json!([])), one("NotIn", json!(["b"])), one("In", json!(["c", "d"]))]));
        assert_eq!(field_selector(&mixed), ("a!=b".to_owned(), Some(Ignored::Partially)));
        assert_eq!(label_selector(&mixed), None);
        assert_eq!(label_selector(&of(json!([one("Later", json!(["b"]))]))), Some(Ignored::All));
        assert_eq!(label_selector(&json!({ "rawSelector": "(((" })), Some(Ignored::All));
    }
}
