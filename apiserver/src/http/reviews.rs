//! Reviews: who am I, who is that, and who may do what. Nothing is stored; the answer is the body with its `status`.
//!
//! Source: `authorization.k8s.io/v1` and `authentication.k8s.io/v1` of the Kubernetes API, and their validation. Every
//! answer is what the [`Authorizer`] or the authenticator would say to the request itself.

use http::StatusCode;
use reeve_api::selector::FieldSelector;
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Map, Value, json};

use super::response::Answer;
use super::{Api, Call, body, encode, negotiate};
use crate::auth::{Attributes, Decision, KnownRule, Target};
use crate::registry::UserInfo;
use crate::status::ApiError;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const VERSION: &str = "v1";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    SelfSubject,
    Token,
    LocalSubjectAccess,
    SelfSubjectAccess,
    SelfSubjectRules,
    SubjectAccess,
}

/// One kind of review, as it stands in discovery.
#[derive(Debug)]
pub(crate) struct Review {
    question: Question,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

const fn review(
    question: Question,
    group: &'static str,
    (plural, singular, kind): (&'static str, &'static str, &'static str),
) -> Review {
    let namespaced = matches!(question, Question::LocalSubjectAccess);
    Review { question, group, version: VERSION, plural, singular, kind, namespaced }
}

/// All of them, in the order of discovery. Each offers `create` alone.
pub(crate) static REVIEWS: [Review; 6] = [
    review(Question::SelfSubject, AUTHENTICATION, ("selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview")),
    review(Question::Token, AUTHENTICATION, ("tokenreviews", "tokenreview", "TokenReview")),
    review(
        Question::LocalSubjectAccess,
        AUTHORIZATION,
        ("localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview"),
    ),
    review(
        Question::SelfSubjectAccess,
        AUTHORIZATION,
        ("selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview"),
    ),
    review(
        Question::SelfSubjectRules,
        AUTHORIZATION,
        ("selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview"),
    ),
    review(
        Question::SubjectAccess,
        AUTHORIZATION,
        ("subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview"),
    ),
];

/// The review that a path names.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    REVIEWS.iter().find(|own| own.group == group && own.version == version && own.plural == plural)
}

/// Answers an authorized request for a review.
pub(crate) async fn serve(api: &Api, call: Call, review: &'static Review) -> Result<Answer, ApiError> {
    let path = &call.path;
    if path.is_longer || !path.subresource.is_empty() || review.namespaced == path.namespace.is_empty() {
        return Err(ApiError::no_such_path());
    }
    if call.verb != "create" || !path.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let format = negotiate::format(&call.parts.headers, &call.query, negotiate::Offer::REVIEW)?;
    let (user, namespace) = (call.user, call.path.namespace);
    let mut object = body::object(&call.parts.headers, &body::read(call.body).await?, review.kind)?.value;
    check_type(&object, review)?;
    let status = match review.question {
        Question::SelfSubject => json!({ "userInfo": user_info(&user) }),
        Question::Token => token(api, &object["spec"])?,
        Question::SelfSubjectAccess => access(api, review, &object["spec"], user).await?,
        Question::SubjectAccess => {
            let subject = subject(review, &object["spec"])?;
            access(api, review, &object["spec"], subject).await?
        }
        Question::LocalSubjectAccess => {
            check_local(review, &object, &namespace)?;
            let subject = subject(review, &object["spec"])?;
            access(api, review, &object["spec"], subject).await?
        }
        Question::SelfSubjectRules => rules(api, &object["spec"], &user)?,
    };
    if let Some(fields) = object.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if !metadata.is_object() {
            *metadata = json!({});
        }
        let created = match review.question {
            Question::SelfSubject => api.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
            _ => Value::Null,
        };
        metadata["creationTimestamp"] = created;
        fields.insert("kind".to_owned(), review.kind.into());
        fields.insert("apiVersion".to_owned(), format!("{}/{}", review.group, review.version).into());
        fields.insert("status".to_owned(), status);
    }
    Ok(encode::value_as(StatusCode::CREATED, &object, format.encoding))
}

fn check_type(object: &Value, review: &Review) -> Result<(), ApiError> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let named = |field: &str, wanted: &str| object.get(field).is_none_or(|text| text == wanted || text == "");
    let api_version = format!("{}/{}", review.group, review.version);
    if object.is_object()
        && (spec.is_null() || spec.is_object())
        && named("kind", review.kind)
        && named("apiVersion", &api_version)
    {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("the object provided is unrecognized (must be of type {})", review.kind)))
}

fn invalid(review: &Review, errors: &[FieldError]) -> ApiError {
    ApiError::invalid_kind(review.kind, review.group, "", errors)
}

fn field_error(field: &str, value: &Value, why: &str) -> FieldError {
    FieldError::new(FieldErrorKind::Invalid, field, value.clone(), why)
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
fn token(api: &Api, spec: &Value) -> Result<Value, ApiError> {
    let token = text(spec, "token");
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Ok(match api.authenticator.review(token, &wanted) {
        Some((user, audiences)) => json!({
            "authenticated": true, "user": user_info(&user), "audiences": audiences,
        }),
        None => json!({ "user": {}, "error": "invalid bearer token" }),
    })
}

/// The user that a review is about.
fn subject(review: &Review, spec: &Value) -> Result<UserInfo, ApiError> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (name, groups) = (text(spec, "user"), texts(&spec["groups"]));
    if name.is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(invalid(review, &[field_error("spec.user", &spec["user"], why)]));
    }
    let extra = spec["extra"].as_object().into_iter().flatten();
    let extra = extra.map(|(key, values)| (key.clone(), texts(values))).collect();
    Ok(UserInfo { name: name.to_owned(), uid: text(spec, "uid").to_owned(), groups, extra, ..UserInfo::default() })
}

fn check_local(review: &Review, object: &Value, namespace: &str) -> Result<(), ApiError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    if spec["nonResourceAttributes"].is_object() {
        let why = "disallowed on this kind of request";
        errors.push(field_error("spec.nonResourceAttributes", &spec["nonResourceAttributes"], why));
    }
    let asked = &spec["resourceAttributes"];
    if asked.is_object() && text(asked, "namespace") != namespace {
        let why = "must match metadata.namespace";
        errors.push(field_error("spec.resourceAttributes.namespace", &asked["namespace"], why));
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid(review, &errors)) }
}

/// Whether `user` may do what the spec describes: exactly what the request itself would be told.
async fn access(api: &Api, review: &Review, spec: &Value, user: UserInfo) -> Result<Value, ApiError> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let why = match (resource.is_object(), path.is_object()) {
        (true, true) => {
            Some(("spec.nonResourceAttributes", path, "cannot be specified in combination with resourceAttributes"))
        }
        (false, false) => Some((
            "spec.resourceAttributes",
            resource,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => None,
    };
    if let Some((field, value, why)) = why {
        return Err(invalid(review, &[field_error(field, value, why)]));
    }
    let fields = field_selector(&resource["fieldSelector"]);
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
    Ok(status)
}

/// The selector in the text form in which requests carry it. Requirements that a field selector cannot express narrow
/// less, so leaving them out allows nothing more.
fn field_selector(selector: &Value) -> String {
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return FieldSelector::parse(raw).map(|parsed| parsed.to_string()).unwrap_or_default();
    }
    let mut terms = Vec::new();
    for requirement in selector["requirements"].as_array().into_iter().flatten() {
        let values: Vec<&str> =
            requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let (Some("In"), [value]) = (requirement["operator"].as_str(), &values[..]) {
            let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            terms.push(format!("{}={value}", text(requirement, "key")));
        }
    }
    terms.join(",")
}

/// What the asking user may do, as far as rules say it.
fn rules(api: &Api, spec: &Value, user: &UserInfo) -> Result<Value, ApiError> {
    let namespace = text(spec, "namespace");
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let known = api.authorizer.rules(user, namespace);
    let on_resources = known.rules.iter().filter(|rule| !rule.resources.is_empty());
    let resources: Vec<Value> = on_resources.map(resource_rule).collect();
    let on_paths = known.rules.iter().filter(|rule| !rule.urls.is_empty());
    let paths: Vec<Value> = on_paths.map(|rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.urls })).collect();
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": known.incomplete });
    if !known.error.is_empty() {
        status["evaluationError"] = known.error.into();
    }
    Ok(status)
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
