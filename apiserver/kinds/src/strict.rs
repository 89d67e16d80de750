//! Brings a JSON object into the form of its kind: checks types, finds unknown fields, drops what Go would drop.
//!
//! What a typed decoder does in Kubernetes, done here by walking the value along the kind's [`Shape`]: nulls and
//! empty optional fields go, quantities and times become canonical, unknown fields go and are reported (the
//! caller refuses, warns or ignores, by `fieldValidation`). Complaints are worded as Go's JSON decoder words
//! them. What is not here: reading text (duplicate fields are found there), defaults, validation.

use jiff::Timestamp;
use reeve_api::quantity::{Quantity, QuantityError};
use serde_json::{Map, Value};

use crate::shape::{Shape, StructShape, go_types, tables};

/// Most unknown fields that are reported; the rest go silently.
const MAX_REPORTED: usize = 100;

/// Why an object cannot be read as its kind. Always the request's fault (400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A value of the wrong type.
    #[error("json: cannot unmarshal {found} into Go {place} of type {wanted}")]
    Type {
        /// What is there: `string`, `number 1.5`, `object`.
        found: String,
        /// `struct field DeploymentSpec.spec.replicas` or `value`.
        place: String,
        /// The Go type: `int32`, `[]v1.Container`.
        wanted: String,
    },
    /// A text that is no quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// A text that is no time.
    #[error("parsing time {text:?} as \"2006-01-02T15:04:05{fraction}Z07:00\": cannot parse {rest:?} as {wanted:?}")]
    Time {
        /// The text.
        text: String,
        /// How the form writes parts of a second: nothing or `.000000`.
        fraction: &'static str,
        /// The text from where it does not fit.
        rest: String,
        /// The part of the form that it does not fit.
        wanted: &'static str,
    },
    /// A text that is not base64.
    #[error("illegal base64 data at input byte {at}")]
    Base64 {
        /// Offset of the first character that does not fit.
        at: usize,
    },
    /// What a kind with a form of its own says.
    #[error("{0}")]
    Other(String),
}

/// Brings `object` into the form of `shape`. Gives the paths of unknown fields, which have been removed.
///
/// # Errors
/// When a value has the wrong type.
pub fn conform_to(shape: &Shape, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut walk = Walk { path: Vec::new(), unknown: Vec::new() };
    walk.value("", shape, object)?;
    Ok(walk.unknown)
}

/// A step from an object or list to what is in it.
enum Step {
    /// The type that has the field, and the field.
    Field(&'static str, &'static str),
    Key(String),
    Index(usize),
}

struct Walk {
    path: Vec<Step>,
    unknown: Vec<String>,
}

impl Walk {
    fn value(&mut self, owner: &'static str, shape: &Shape, value: &mut Value) -> Result<(), DecodeError> {
        match (shape, &mut *value) {
            (Shape::Any, _)
            | (Shape::String | Shape::IntOrString, Value::String(_))
            | (Shape::Boolean, Value::Bool(_))
            | (Shape::Number, Value::Number(_)) => Ok(()),
            (Shape::Struct(fields), Value::Object(map)) => self.fields(fields, map),
            (Shape::List(list), Value::Array(items)) => self.items(owner, &list.items, items),
            (Shape::Map(values), Value::Object(map)) => self.entries(owner, values, map),
            (Shape::Integer(size), Value::Number(number)) if fits(size, number) => Ok(()),
            (Shape::IntOrString, Value::Number(number)) if fits("int32", number) => Ok(()),
            (Shape::Quantity, _) => canonical_quantity(value),
            (Shape::Time, Value::String(text)) => canonical_time(text, ""),
            (Shape::MicroTime, Value::String(text)) => canonical_time(text, MICROSECONDS),
            (Shape::Bytes, Value::String(text)) => check_base64(text),
            _ => Err(self.wrong_type(owner, shape, value)),
        }
    }

    fn fields(&mut self, shape: &StructShape, map: &mut Map<String, Value>) -> Result<(), DecodeError> {
        let mut gone: Vec<String> = Vec::new();
        for (name, value) in map.iter_mut() {
            let Ok(index) = shape.fields.binary_search_by(|(own, _)| (*own).cmp(name)) else {
                self.report_unknown(name);
                gone.push(name.clone());
                continue;
            };
            let (static_name, field) = &shape.fields[index];
            if !value.is_null() {
                self.path.push(Step::Field(shape.name, static_name));
                self.value(shape.name, &field.shape, value)?;
                self.path.pop();
            }
            let is_left_out = value.is_null() || (field.omit_empty && is_empty(value));
            // Who sends no managers at all asks to forget those that there are.
            let forgets = value.is_array() && *static_name == "managedFields" && self.path.len() == 1;
            if is_left_out && !forgets && !tables::writes_null(shape.name, static_name) {
                gone.push(name.clone());
            }
        }
        for name in gone {
            map.remove(&name);
        }
        Ok(())
    }

    fn items(&mut self, owner: &'static str, shape: &Shape, items: &mut [Value]) -> Result<(), DecodeError> {
        for (index, item) in items.iter_mut().enumerate() {
            zero_for_null(shape, item);
            self.path.push(Step::Index(index));
            self.value(owner, shape, item)?;
            self.path.pop();
        }
        Ok(())
    }

    fn entries(&mut self, owner: &'static str, shape: &Shape, map: &mut Map<String, Value>) -> Result<(), DecodeError> {
        for (key, value) in map.iter_mut() {
            zero_for_null(shape, value);
            // Plain texts, the common case, need no path.
            if matches!((shape, &*value), (Shape::String, Value::String(_))) {
                continue;
            }
            self.path.push(Step::Key(key.clone()));
            self.value(owner, shape, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn report_unknown(&mut self, name: &str) {
        if self.unknown.len() >= MAX_REPORTED {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Field(_, name) => push_dotted(&mut path, name),
                Step::Key(name) => push_dotted(&mut path, name),
            }
        }
        push_dotted(&mut path, name);
        self.unknown.push(path);
    }

    /// Go names the struct and the dotted path without indices.
    fn wrong_type(&self, owner: &str, shape: &Shape, value: &Value) -> DecodeError {
        let mut place = format!("struct field {owner}");
        for step in &self.path {
            if let Step::Field(owner, name) = step {
                if let Some(embedded) = tables::embedded(owner, name) {
                    push_dotted(&mut place, embedded);
                }
                push_dotted(&mut place, name);
            }
        }
        if self.path.is_empty() {
            place = "value".to_owned();
        }
        let wanted = self.named_type(shape).map_or_else(|| go_type(shape), str::to_owned);
        DecodeError::Type { found: found(shape, value), place, wanted }
    }

    /// The Go type here, where it has a name that the shape does not know.
    fn named_type(&self, shape: &Shape) -> Option<&'static str> {
        if matches!(shape, Shape::Struct(_) | Shape::IntOrString | Shape::Time | Shape::MicroTime) {
            return None;
        }
        let at = self.path.iter().rposition(|step| matches!(step, Step::Field(..)))?;
        let Step::Field(owner, name) = self.path.get(at)? else { return None };
        self.path[at + 1..].iter().try_fold(go_types::named(owner, name)?, |of, _| go_types::inner(of))
    }
}

fn push_dotted(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// In lists and maps Go turns null into the type's zero value.
fn zero_for_null(shape: &Shape, value: &mut Value) {
    if !value.is_null() {
        return;
    }
    *value = match shape {
        Shape::String | Shape::Bytes => Value::from(""),
        Shape::Integer(_) | Shape::Number | Shape::IntOrString => Value::from(0),
        Shape::Quantity => Value::from("0"),
        Shape::Boolean => Value::Bool(false),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Struct(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::Any | Shape::Time | Shape::MicroTime => return,
    };
}

fn fits(size: &str, number: &serde_json::Number) -> bool {
    number.as_i64().is_some_and(|number| size != "int32" || i32::try_from(number).is_ok())
}

fn canonical_quantity(value: &mut Value) -> Result<(), DecodeError> {
    let canonical = match &*value {
        Value::String(text) => Quantity::canonical_text(text)?,
        other => Quantity::canonical_text(&other.to_string())?,
    };
    if value.as_str() != Some(canonical.as_str()) {
        *value = Value::String(canonical);
    }
    Ok(())
}

/// How Go's form of a time says that there are six digits behind the seconds.
const MICROSECONDS: &str = ".000000";

fn canonical_time(text: &mut String, fraction: &'static str) -> Result<(), DecodeError> {
    let misfit = |at: usize, wanted| DecodeError::Time {
        text: text.clone(),
        fraction,
        rest: text.get(at..).unwrap_or_default().to_owned(),
        wanted,
    };
    let time: Timestamp = text.parse().map_err(|_| misfit(0, "2006"))?;
    let format = if fraction.is_empty() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
    if !fraction.is_empty() && !has_six_digits(text) {
        return Err(misfit(SECONDS_END, MICROSECONDS));
    }
    *text = time.strftime(format).to_string();
    Ok(())
}

/// Where the seconds of a time end: `2006-01-02T15:04:05`.
const SECONDS_END: usize = 19;

/// Whether a time has a point and six digits behind its seconds.
fn has_six_digits(time: &str) -> bool {
    let rest = time.get(SECONDS_END..).unwrap_or_default().as_bytes();
    let digits = rest.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
    rest.first() == Some(&b'.') && digits == MICROSECONDS.len() - 1
}

fn check_base64(text: &str) -> Result<(), DecodeError> {
    use base64::{DecodeError as Bad, Engine, engine::general_purpose::STANDARD};
    // Go's decoder skips line breaks.
    let joined;
    let plain = if text.contains(['\r', '\n']) {
        joined = text.replace(['\r', '\n'], "");
        &joined
    } else {
        text
    };
    match STANDARD.decode(plain) {
        Ok(_) => Ok(()),
        Err(Bad::InvalidByte(at, _) | Bad::InvalidLastSymbol(at, _)) => Err(DecodeError::Base64 { at }),
        Err(Bad::InvalidLength(_) | Bad::InvalidPadding) => Err(DecodeError::Base64 { at: plain.len() / 4 * 4 }),
    }
}

fn found(shape: &Shape, value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if matches!(shape, Shape::Integer(_) | Shape::IntOrString) => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::Any => "runtime.RawExtension".to_owned(),
        Shape::String | Shape::Time | Shape::MicroTime => "string".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Integer(size) => (*size).to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::IntOrString => "int32".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::List(list) => format!("[]{}", go_type(&list.items)),
        Shape::Map(Shape::Quantity) => "v1.ResourceList".to_owned(),
        Shape::Map(values) => format!("map[string]{}", go_type(values)),
        Shape::Struct(fields) => format!("{}.{}", fields.version, fields.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
    use serde_json::json;

    fn deployment(spec: &Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    }

    #[track_caller]
    fn refused(spec: &Value, message: &str) {
        let error = conform_to(shape::of::<Deployment>(), &mut deployment(spec)).unwrap_err();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn mistyped_values_are_refused_in_gos_words() {
        refused(
            &json!({"replicas": "three"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        );
        refused(
            &json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        );
        refused(
            &json!({"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}}),
            "json: cannot unmarshal number into Go struct field \
             EnvVar.spec.template.spec.containers.env.value of type string",
        );
        refused(
            &json!({"template": {"spec": {"containers": {}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        );
        refused(
            &json!({"selector": {"matchLabels": {"a": true}}}),
            "json: cannot unmarshal bool into Go struct field LabelSelector.spec.selector.matchLabels of type string",
        );
        let of_container = |container: Value| json!({"template": {"spec": {"containers": [container]}}});
        for (container, said) in [
            (
                json!({"imagePullPolicy": 5}),
                "number into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
            ),
            (
                json!({"securityContext": {"capabilities": {"add": {}}}}),
                "object into Go struct field \
                 Capabilities.spec.template.spec.containers.securityContext.capabilities.add of type []v1.Capability",
            ),
            (
                json!({"securityContext": {"capabilities": {"add": [5]}}}),
                "number into Go struct field \
                 Capabilities.spec.template.spec.containers.securityContext.capabilities.add of type v1.Capability",
            ),
            (
                json!({"livenessProbe": {"tcpSocket": {"port": true}}}),
                "bool into Go struct field \
                 TCPSocketAction.spec.template.spec.containers.livenessProbe.ProbeHandler.tcpSocket.port of type int32",
            ),
        ] {
            refused(&of_container(container), &format!("json: cannot unmarshal {said}"));
        }
        refused(
            &of_container(json!({"resources": {"limits": {"cpu": true}}})),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
        refused(
            &json!({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
    }

    #[test]
    fn unknown_fields_are_reported_with_their_path_and_dropped() {
        let mut object = deployment(&json!({
            "Replicas": 1,
            "template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "foo": 1}]}},
        }));
        let unknown = conform_to(shape::of::<Deployment>(), &mut object).unwrap();
        assert_eq!(unknown, ["spec.Replicas", "spec.template.spec.containers[1].foo"]);
        assert_eq!(object["spec"], json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}}));
    }

    #[test]
    fn what_go_would_leave_out_is_left_out_and_the_rest_is_canonical() {
        let mut object = deployment(&json!({
            "replicas": 0, "minReadySeconds": 0, "paused": false, "strategy": {},
            "template": {
                "metadata": {"creationTimestamp": null, "labels": {"a": null}},
                "spec": {"hostNetwork": false, "enableServiceLinks": false, "nodeName": "", "volumes": [],
                    "containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]},
            },
        }));
        object["metadata"]["creationTimestamp"] = json!("2026-01-02T03:04:05.678+01:00");
        assert!(conform_to(shape::of::<Deployment>(), &mut object).unwrap().is_empty());
        assert_eq!(object["metadata"]["creationTimestamp"], "2026-01-02T02:04:05Z");
        assert_eq!(
            object["spec"],
            json!({
                "replicas": 0, "strategy": {},
                "template": {
                    "metadata": {"labels": {"a": ""}},
                    "spec": {"enableServiceLinks": false,
                        "containers": [{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]},
                },
            })
        );
    }

    #[test]
    fn secret_data_must_be_base64() {
        let shape = shape::of::<Secret>();
        assert!(conform_to(shape, &mut json!({"data": {"a": "YQ=="}})).is_ok());
        let error = conform_to(shape, &mut json!({"data": {"a": "a*=="}})).unwrap_err();
        assert_eq!(error.to_string(), "illegal base64 data at input byte 1");
    }
}
