//! Errors of the API and their form on the wire, `metav1.Status`, in Kubernetes' words.
//!
//! The one place where an error becomes a reason, a code and a message. Source of the texts:
//! `k8s.io/apimachinery/pkg/api/errors`.

use reeve_kinds::Names;
use reeve_kinds::field::FieldError;
use reeve_store::KvError;
use serde_json::{Map, Value, json};

/// One cause in `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, …
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// Path of the field; empty when no field is to blame.
    pub field: String,
}

/// `details` of a `Status`. Empty parts are left out on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource (or kind, for invalid objects: Kubernetes mixes them).
    pub kind: String,
    /// `metadata.uid` of the object.
    pub uid: String,
    /// The single complaints.
    pub causes: Vec<Cause>,
    /// When to try again.
    pub retry_after_seconds: u32,
}

/// Why a request failed. Becomes the body of the response by [`ApiError::status`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP code.
    pub code: u16,
    /// `NotFound`, `Conflict`, …; empty when Kubernetes gives none.
    pub reason: &'static str,
    /// What the user reads.
    pub message: String,
    /// What programs read.
    pub details: Option<Box<Details>>,
    /// `metadata.continue` of the Status: lets a client go on with an inconsistent list.
    pub continue_token: String,
    /// Texts for the `Warning` header.
    pub warnings: Vec<String>,
    /// The `Status` as somebody else has written it (a webhook): sent as it is.
    pub foreign: Option<Box<Value>>,
}

fn qualified(names: &Names) -> String {
    qualified_in(names.plural, names.group)
}

fn qualified_in(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl ApiError {
    /// An error without details.
    #[must_use]
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            continue_token: String::new(),
            warnings: Vec::new(),
            foreign: None,
        }
    }

    /// An error whose `Status` somebody else has written.
    #[must_use]
    pub fn foreign(code: u16, message: impl Into<String>, status: Value) -> Self {
        Self { foreign: Some(Box::new(status)), ..Self::new(code, "", message) }
    }

    /// What another server has said of a resource: `MESSAGE ( pods/log NAME)`.
    #[must_use]
    pub fn of_server(code: u16, reason: &'static str, message: &str, resource: &str, name: &str) -> Self {
        let details = Details { name: name.to_owned(), kind: resource.to_owned(), ..Details::default() };
        let message = format!("{message} ( {resource} {name})");
        Self { details: Some(Box::new(details)), ..Self::new(code, reason, message) }
    }

    fn about(code: u16, reason: &'static str, message: String, names: &Names, name: &str) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: names.group.to_owned(),
            kind: names.plural.to_owned(),
            ..Details::default()
        };
        Self { details: Some(Box::new(details)), ..Self::new(code, reason, message) }
    }

    /// `configmaps "x" not found`
    #[must_use]
    pub fn not_found(names: &Names, name: &str) -> Self {
        Self::about(404, "NotFound", format!("{} \"{name}\" not found", qualified(names)), names, name)
    }

    /// `configmaps "x" already exists`
    #[must_use]
    pub fn already_exists(names: &Names, name: &str) -> Self {
        Self::about(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(names)), names, name)
    }

    /// A generated name was taken on every attempt.
    #[must_use]
    pub fn generated_name_taken(names: &Names, name: &str) -> Self {
        let message = format!(
            "{} \"{name}\" already exists, the server was not able to generate a unique name for the object",
            qualified(names)
        );
        let mut error = Self::about(409, "AlreadyExists", message, names, name);
        if let Some(details) = &mut error.details {
            details.retry_after_seconds = 1;
        }
        error
    }

    /// `Operation cannot be fulfilled on configmaps "x": …`
    #[must_use]
    pub fn conflict(names: &Names, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(names));
        Self::about(409, "Conflict", message, names, name)
    }

    /// As [`ApiError::conflict`], said of the kind: `Operation cannot be fulfilled on ConfigMap "x": …`.
    #[must_use]
    pub fn conflict_of_kind(names: &Names, name: &str, why: &str) -> Self {
        let mut error = Self::conflict(names, name, why);
        // Inside, Kubernetes knows events as those of the core group.
        let group = if names.group == "events.k8s.io" { "" } else { names.group };
        let kind = qualified_in(names.kind, group);
        error.message = format!("Operation cannot be fulfilled on {kind} \"{name}\": {why}");
        if let Some(details) = &mut error.details {
            details.kind = names.kind.to_owned();
        }
        error
    }

    /// The object is not as it was when the client read it.
    #[must_use]
    pub fn modified(names: &Names, name: &str) -> Self {
        Self::conflict(
            names,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// `configmaps "x" is forbidden: …`; without a name `configmaps is forbidden: …`.
    #[must_use]
    pub fn forbidden(names: &Names, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(names))
        } else {
            format!("{} \"{name}\" is forbidden: {why}", qualified(names))
        };
        Self::about(403, "Forbidden", message, names, name)
    }

    /// `Deployment.apps "x" is invalid: spec.replicas: Invalid value: …`, one cause per complaint.
    #[must_use]
    pub fn invalid(names: &Names, name: &str, errors: &[FieldError]) -> Self {
        // Inside, Kubernetes knows events as those of the core group.
        let group = if names.group == "events.k8s.io" { "" } else { names.group };
        Self::invalid_kind(names.kind, group, name, errors)
    }

    /// [`ApiError::invalid`] for kinds that are not served as resources (`Scale`, `Binding`).
    #[must_use]
    pub fn invalid_kind(kind: &str, group: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let causes = errors
            .iter()
            .map(|error| Cause {
                reason: error.kind.reason().to_owned(),
                message: error.message(),
                field: error.field.clone(),
            })
            .collect();
        let details = Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..Details::default()
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified_in(kind, group));
        Self { details: Some(Box::new(details)), ..Self::new(422, "Invalid", message) }
    }

    /// The request makes no sense.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// The verb does not exist for the resource.
    #[must_use]
    pub fn method_not_supported(names: &Names, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", qualified(names));
        Self::about(405, "MethodNotAllowed", message, names, "")
    }

    /// The path has no such verb.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: Some(Box::default()), ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// The path leads nowhere.
    #[must_use]
    pub fn no_such_path() -> Self {
        let details = Details::default();
        let message = "the server could not find the requested resource";
        Self { details: Some(Box::new(details)), ..Self::new(404, "NotFound", message) }
    }

    /// The content type of the body is not taken.
    #[must_use]
    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            supported.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// The client takes none of the forms there are.
    #[must_use]
    pub fn not_acceptable(supported: &str) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {supported}"))
    }

    /// The body is larger than `limit` bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// The version asked for is gone from history (410): the client must list again.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The server could not do it in time.
    #[must_use]
    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let message = format!("Timeout: {}", message.into());
        let details = Details { retry_after_seconds, ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::new(504, "Timeout", message) }
    }

    /// The resource version asked for does not exist yet.
    #[must_use]
    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let mut error = Self::timeout(format!("Too large resource version: {asked}, current: {current}"), 1);
        if let Some(details) = &mut error.details {
            details.causes.push(Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            });
        }
        error
    }

    /// Our own fault.
    #[must_use]
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let details = Details {
            causes: vec![Cause { reason: String::new(), message: message.to_string(), field: String::new() }],
            ..Details::default()
        };
        let message = format!("Internal error occurred: {message}");
        Self { details: Some(Box::new(details)), ..Self::new(500, "InternalError", message) }
    }

    /// An error that Kubernetes passes on without a reason.
    #[must_use]
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// What the store says when it cannot serve.
    #[must_use]
    pub fn store(error: &KvError) -> Self {
        match error {
            KvError::Unavailable { .. } | KvError::Closed => Self::new(503, "ServiceUnavailable", error.to_string()),
            _ => Self::internal(error),
        }
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Whether somebody else was faster.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// Whether the name is taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// The body of the response.
    #[must_use]
    pub fn status(&self) -> Value {
        if let Some(status) = &self.foreign {
            return Value::clone(status);
        }
        let mut metadata = Map::new();
        if !self.continue_token.is_empty() {
            metadata.insert("continue".to_owned(), self.continue_token.clone().into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.value();
        }
        status
    }
}

/// The keys of a `Status` and of what is in it, in the order in which Kubernetes writes them.
const KEYS: [&str; 8] = ["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"];
/// As [`KEYS`], of `details`.
const DETAIL_KEYS: [&str; 6] = ["name", "group", "kind", "uid", "causes", "retryAfterSeconds"];
/// As [`KEYS`], of a cause.
const CAUSE_KEYS: [&str; 3] = ["reason", "message", "field"];

/// The text of a `Status`, its keys in Kubernetes' order; others stand behind them.
#[must_use]
pub(crate) fn text(status: &Value) -> String {
    let details = |details: &Value| {
        ordered(details, &DETAIL_KEYS, &|key, value| match value {
            Value::Array(causes) if key == "causes" => {
                let causes: Vec<String> =
                    causes.iter().map(|cause| ordered(cause, &CAUSE_KEYS, &|_, value| value.to_string())).collect();
                format!("[{}]", causes.join(","))
            }
            value => value.to_string(),
        })
    };
    ordered(status, &KEYS, &|key, value| if key == "details" { details(value) } else { value.to_string() })
}

/// The text of an object with some keys first; `write` gives the text of a value.
fn ordered(value: &Value, first: &[&str], write: &dyn Fn(&str, &Value) -> String) -> String {
    let Value::Object(map) = value else { return value.to_string() };
    let named = first.iter().filter_map(|key| Some((*key, map.get(*key)?)));
    let rest = map.iter().map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| !first.contains(key));
    let fields: Vec<String> =
        named.chain(rest).map(|(key, value)| format!("{}:{}", Value::from(key), write(key, value))).collect();
    format!("{{{}}}", fields.join(","))
}

impl Details {
    fn value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            out.insert("causes".to_owned(), self.causes.iter().map(Cause::value).collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".to_owned(), self.retry_after_seconds.into());
        }
        Value::Object(out)
    }
}

impl Cause {
    fn value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.as_str().into());
            }
        }
        Value::Object(out)
    }
}

/// The `Status` that answers a deletion that is complete.
#[must_use]
pub fn deleted(names: &Names, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: names.group.to_owned(),
        kind: names.plural.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    success(Some(&details), 0)
}

/// A `Status` that says that all went well; `code` 0 is left out.
#[must_use]
pub fn success(details: Option<&Details>, code: u16) -> Value {
    let mut status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    if let Some(details) = details {
        status["details"] = details.value();
    }
    if code > 0 {
        status["code"] = code.into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_status_stand_in_kubernetes_order() {
        let cause = Cause { reason: "R".to_owned(), message: "M".to_owned(), field: "f".to_owned() };
        let details = Details { name: "n".to_owned(), kind: "k".to_owned(), causes: vec![cause], ..Details::default() };
        let error = ApiError { details: Some(Box::new(details)), ..ApiError::new(422, "Invalid", "why") };
        assert_eq!(
            text(&error.status()),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"why","reason":"Invalid","#
                .to_owned()
                + r#""details":{"name":"n","kind":"k","causes":[{"reason":"R","message":"M","field":"f"}]},"code":422}"#
        );
        let foreign = json!({"kind": "Status", "zzz": 1, "code": 400});
        assert_eq!(text(&foreign), r#"{"kind":"Status","code":400,"zzz":1}"#);
    }
}
