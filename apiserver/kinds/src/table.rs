//! What the tables of several kinds share: common columns and small renderings.

use std::borrow::Cow;

use serde_json::Value;

use crate::json::{entries, list, text, text_at};
use crate::kind::Column;

/// Kubernetes' descriptions of `metadata.name` and `metadata.creationTimestamp`.
const NAME_TEXT: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
pub(crate) const AGE_TEXT: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The column with the object's name.
pub(crate) const NAME: Column = any("Name", "string", "name", NAME_TEXT, 0);

/// The column with the object's name where only `-o wide` shows it.
pub(crate) const WIDE_NAME: Column = any("Name", "string", "name", NAME_TEXT, 1);

/// The column with the object's age.
pub(crate) const AGE: Column = column("Age", AGE_TEXT);

/// The column with the time the object was made, in tables of kinds that Kubernetes does not print specially.
pub(crate) const CREATED_AT: Column = any("Created At", "date", "", AGE_TEXT, 0);

/// A column of any type (`string`, `integer`, `boolean`, `date`) and format.
pub(crate) const fn any(
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
) -> Column {
    Column {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed(kind),
        format: Cow::Borrowed(format),
        description: Cow::Borrowed(description),
        priority,
    }
}

/// A column of texts that is always shown.
pub(crate) const fn column(name: &'static str, description: &'static str) -> Column {
    any(name, "string", "", description, 0)
}

/// A column of whole numbers that is always shown.
pub(crate) const fn number(name: &'static str, description: &'static str) -> Column {
    any(name, "integer", "", description, 0)
}

/// A column of truth values that is always shown.
pub(crate) const fn boolean(name: &'static str, description: &'static str) -> Column {
    any(name, "boolean", "", description, 0)
}

/// A column of texts that only `-o wide` shows.
pub(crate) const fn wide(name: &'static str, description: &'static str) -> Column {
    any(name, "string", "", description, 1)
}

/// The object's name, as a cell.
pub(crate) fn name(object: &Value) -> Value {
    text_at(object, &["metadata", "name"]).into()
}

/// The object's name, marked when it is the default of its kind.
pub(crate) fn name_with_default(object: &Value, is_default: bool) -> Value {
    let name = text_at(object, &["metadata", "name"]);
    if is_default { format!("{name} (default)").into() } else { name.into() }
}

/// When the object was made, as a cell.
pub(crate) fn created_at(object: &Value) -> Value {
    match text_at(object, &["metadata", "creationTimestamp"]) {
        "" => "0001-01-01T00:00:00Z".into(),
        time => time.into(),
    }
}

/// The text, or `<none>`.
pub(crate) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// The text, or `<unset>`.
pub(crate) fn or_unset(value: &Value) -> Value {
    value.as_str().unwrap_or("<unset>").into()
}

/// `True`, `False` or `<unset>`.
pub(crate) fn truth(value: &Value) -> Value {
    value.as_bool().map_or("<unset>", |truth| if truth { "True" } else { "False" }).into()
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn labels(object: &Value, field: &str) -> Value {
    let pairs: Vec<_> =
        entries(object, field).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or_none(&pairs.join(","))
}

/// A label selector of the object form in its text form, or `<none>`.
pub(crate) fn selector(selector: &Value) -> Value {
    match reeve_api::selector::LabelSelector::from_value(selector) {
        Ok(selector) => or_none(&selector.to_string()),
        Err(_) => "<none>".into(),
    }
}

/// One field of each container of a pod spec, joined by commas.
pub(crate) fn containers(pod_spec: &Value, field: &str) -> Value {
    let values: Vec<_> = list(pod_spec, "containers").iter().map(|container| text(container, field)).collect();
    values.join(",").into()
}
