//! JSON whose fields have an order, and what is shown of Kubernetes' own types.
//!
//! kube-apiserver shows values in complaints as JSON of its internal types: every field is there, named as in Go and
//! in the order of the type. `internal.txt` has a line for each of these types that may be shown:
//! `TYPE FIELD:JSON:SHAPE … +EMBEDDED`. A shape is `s` (text), `n` (number), `b` (truth value), `q` (quantity), `i`
//! (number or text), `t` (time), `L` (label selector) or the name of a type, behind `*` (may be null), `[]` (list) or
//! `{}` (map).

use std::collections::HashMap;
use std::sync::OnceLock;

use reeve_api::quantity::Quantity;
use serde_json::Value;

use crate::json::{get, go_escaped, has};

/// JSON as it is shown.
pub(super) enum Tree {
    Leaf(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Fields of `metadata` in the order of the type; only those that are there are shown.
const META: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Fields of an owner reference, and of an entry of `managedFields`.
const OWNER: &[&str] = &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
const MANAGED: &[&str] = &["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];

/// Fields that stand in a pod's spec and, in Kubernetes' own type, in its security context.
const HOST: &[&str] = &["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

fn types() -> &'static HashMap<&'static str, Vec<&'static str>> {
    static TYPES: OnceLock<HashMap<&'static str, Vec<&'static str>>> = OnceLock::new();
    TYPES.get_or_init(|| {
        let lines = include_str!("internal.txt").lines();
        lines.filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name, rest.split(' ').collect())).collect()
    })
}

impl Tree {
    /// A value as Kubernetes' own type has it; anything else as it is.
    pub(super) fn of(shape: &str, value: &Value) -> Self {
        if let Some(shape) = shape.strip_prefix('*') {
            return if value.is_null() { Self::null() } else { Self::of(shape, value) };
        }
        if let Some(shape) = shape.strip_prefix("[]") {
            let Value::Array(items) = value else { return Self::null() };
            return Self::List(items.iter().map(|item| Self::of(shape, item)).collect());
        }
        if let Some(shape) = shape.strip_prefix("{}") {
            let Value::Object(map) = value else { return Self::null() };
            return Self::Object(map.iter().map(|(key, value)| (key.clone(), Self::of(shape, value))).collect());
        }
        match (shape, value) {
            ("s", Value::Null) => Self::Leaf("\"\"".to_owned()),
            ("n" | "i", Value::Null) => Self::Leaf("0".to_owned()),
            ("b", Value::Null) => Self::Leaf("false".to_owned()),
            ("q", _) => Self::quantity(value),
            ("L", Value::Object(_)) => Self::some(value, &["matchLabels", "matchExpressions"]),
            _ => match types().get(shape) {
                Some(fields) => Self::object(shape, fields, value),
                None => Self::plain(value),
            },
        }
    }

    fn null() -> Self {
        Self::Leaf("null".to_owned())
    }

    fn quantity(value: &Value) -> Self {
        let amount = Quantity::from_value(value).unwrap_or_default();
        Self::Leaf(quoted(&if value.is_null() { "0".to_owned() } else { amount.to_string() }))
    }

    fn object(name: &str, fields: &[&str], value: &Value) -> Self {
        let with_host = (name == "PodSpec").then(|| security_with_host(value));
        let value = with_host.as_ref().unwrap_or(value);
        let mut shown = Vec::with_capacity(fields.len());
        for field in fields {
            if *field == "+M" {
                if let Self::Object(meta) = Self::some(get(value, "metadata"), META) {
                    shown.extend(meta);
                }
            } else if let Some(embedded) = field.strip_prefix('+') {
                if let Self::Object(inner) = Self::of(embedded, value) {
                    shown.extend(inner);
                }
            } else if let [name, json, shape] = field.split(':').collect::<Vec<_>>()[..] {
                shown.push((name.to_owned(), Self::of(shape, get(value, json))));
            }
        }
        Self::Object(shown)
    }

    /// `metadata`, with the fields of its entries in their order.
    pub(super) fn metadata(value: &Value) -> Self {
        let Self::Object(mut fields) = Self::some(value, META) else { return Self::null() };
        for (name, order) in [("ownerReferences", OWNER), ("managedFields", MANAGED)] {
            let entries = get(value, name).as_array().into_iter().flatten();
            if let Some((_, shown)) = fields.iter_mut().find(|(own, _)| own == name) {
                *shown = Self::List(entries.map(|entry| Self::some(entry, order)).collect());
            }
        }
        Self::Object(fields)
    }

    /// The fields that are there, in the given order.
    fn some(value: &Value, fields: &[&str]) -> Self {
        let there = fields.iter().filter(|field| has(value, field));
        Self::Object(there.map(|field| ((*field).to_owned(), Self::plain(get(value, field)))).collect())
    }

    fn plain(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Leaf(quoted(text)),
            Value::Array(items) => Self::List(items.iter().map(Self::plain).collect()),
            Value::Object(map) if map.contains_key("operator") && map.contains_key("key") => {
                Self::some(value, &["key", "operator", "values"])
            }
            Value::Object(map) => {
                Self::Object(map.iter().map(|(key, value)| (key.clone(), Self::plain(value))).collect())
            }
            other => Self::Leaf(other.to_string()),
        }
    }

    /// Without any space.
    pub(super) fn compact(&self) -> String {
        match self {
            Self::Leaf(text) => text.clone(),
            Self::List(items) => {
                format!("[{}]", items.iter().map(Self::compact).collect::<Vec<_>>().join(","))
            }
            Self::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), value.compact()));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
        }
    }

    /// A line for each field and item, indented by one space for each level.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        self.write(0, &mut lines);
        lines
    }

    fn write(&self, depth: usize, lines: &mut Vec<String>) {
        let append = |lines: &mut Vec<String>, text: &str| {
            if let Some(line) = lines.last_mut() {
                line.push_str(text);
            }
        };
        let children: Vec<(String, &Self)> = match self {
            Self::Leaf(text) => return append(lines, text),
            Self::List(items) => items.iter().map(|item| (String::new(), item)).collect(),
            Self::Object(fields) => fields.iter().map(|(name, value)| (format!("{}: ", quoted(name)), value)).collect(),
        };
        let (open, close) = if matches!(self, Self::List(_)) { ("[", "]") } else { ("{", "}") };
        append(lines, open);
        let count = children.len();
        for (index, (name, child)) in children.into_iter().enumerate() {
            lines.push(format!("{}{name}", " ".repeat(depth + 1)));
            child.write(depth + 1, lines);
            if index + 1 < count {
                append(lines, ",");
            }
        }
        if count > 0 {
            lines.push(" ".repeat(depth));
        }
        append(lines, close);
    }
}

/// A text as Go writes it in JSON: what HTML has a meaning for is escaped, too.
fn quoted(text: &str) -> String {
    go_escaped(&Value::from(text).to_string())
}

/// A pod's spec with the fields of the host in its security context.
fn security_with_host(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let host: Vec<_> = HOST.iter().filter_map(|field| spec.get(*field).map(|value| (*field, value.clone()))).collect();
    if let Some(Value::Object(security)) = spec.get_mut("securityContext") {
        for (field, value) in host {
            security.insert(field.to_owned(), value);
        }
    }
    spec
}
