//! Between JSON and values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Value as Json};

use crate::decl::{Decl, DeclKind};
use crate::error::EvalError;
use crate::time::{self, Timestamp};
use crate::value::{Fields, List, Map, Text, Value};

/// Deepest value that becomes JSON; the API server reads no deeper one.
const DEPTH_MAX: usize = 500;

fn invalid<T>(text: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::message(text))
}

/// The value of `json`, by its declaration.
pub(crate) fn value<'v>(json: &'v Json, decl: Option<&'v Decl>) -> Result<Value<'v>, EvalError> {
    let Some(decl) = decl else { return Ok(dynamic(json)) };
    if json.is_null() {
        return match decl.nullable || decl.kind == DeclKind::Dyn {
            true => Ok(Value::Null),
            false => invalid("invalid data, got null for schema with nullable=false"),
        };
    }
    let got = || go_type(json);
    match &decl.kind {
        DeclKind::Dyn => Ok(dynamic(json)),
        DeclKind::IntOrString => match dynamic(json) {
            found @ (Value::Int(_) | Value::String(_)) => Ok(found),
            _ => invalid("invalid data, expected XIntOrString value to be either a string or integer"),
        },
        DeclKind::Bool => match json {
            Json::Bool(value) => Ok(Value::Bool(*value)),
            _ => invalid(format!("invalid data, expected bool, got {}", got())),
        },
        DeclKind::Int => match json.as_i64() {
            Some(value) => Ok(Value::Int(value)),
            None => invalid(format!("invalid data, expected int, got {}", got())),
        },
        DeclKind::Double => match json.as_f64() {
            Some(value) => Ok(Value::Double(value)),
            None => invalid(format!("invalid data, expected float, got {}", got())),
        },
        DeclKind::List(items, list_type) => match json {
            Json::Array(list) => Ok(Value::List(List::from_json(list, Some(items), Some(list_type)))),
            _ => invalid("invalid data, expected an array for the provided schema with type=array"),
        },
        DeclKind::Map(values) => match json {
            Json::Object(object) => Ok(Value::Map(Map::from_json(object, Fields::Values(values)))),
            _ => invalid("invalid data, expected a map for the provided schema with type=object"),
        },
        DeclKind::Object(fields) => match json {
            Json::Object(object) => Ok(Value::Map(Map::from_json(object, Fields::Object(fields)))),
            _ => invalid("invalid data, expected a map for the provided schema with type=object"),
        },
        DeclKind::String | DeclKind::Bytes | DeclKind::Timestamp | DeclKind::Date | DeclKind::Duration => match json {
            Json::String(text) => from_text(text, &decl.kind),
            _ => invalid(format!("invalid data, expected string, got {}", got())),
        },
    }
}

/// How Go's decoder calls what it made of it.
fn go_type(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

fn from_text<'v>(text: &'v str, kind: &DeclKind) -> Result<Value<'v>, EvalError> {
    match kind {
        DeclKind::Bytes => match STANDARD.decode(text.replace(['\n', '\r'], "")) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(error) => invalid(format!("Invalid byte formatted string {text}: {error}")),
        },
        DeclKind::Timestamp => match Timestamp::parse_lenient(text) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => invalid(format!("Invalid date-time formatted string {text}: no such format")),
        },
        DeclKind::Date => match Timestamp::parse_date(text) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => invalid(format!("Invalid date formatted string {text}: no such format")),
        },
        DeclKind::Duration => match time::parse_open_api_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => invalid(format!("Invalid duration {text}: unable to parse {text} as duration")),
        },
        _ => Ok(Value::String(Text::Borrowed(text))),
    }
}

/// The value of JSON of which nothing is known.
pub(crate) fn dynamic(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Value::Int(value),
            (None, value) => Value::Double(value.unwrap_or_default()),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(items) => Value::List(List::from_json(items, None, None)),
        Json::Object(object) => Value::Map(Map::from_json(object, Fields::Dynamic)),
    }
}

/// JSON of a value; none when JSON cannot hold it.
pub(crate) fn from_value(value: &Value<'_>) -> Option<Json> {
    at_depth(value, 0)
}

fn at_depth(value: &Value<'_>, depth: usize) -> Option<Json> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Uint(value) => Json::from(*value),
        Value::Double(value) => Json::Number(serde_json::Number::from_f64(*value)?),
        Value::String(text) => Json::String(text.to_string()),
        Value::Bytes(bytes) => Json::String(STANDARD.encode(bytes)),
        Value::Duration(nanos) => Json::String(time::seconds(*nanos)),
        Value::Timestamp(at) => Json::String(at.to_string()),
        Value::List(list) => {
            Json::Array(list.iter().map(|item| at_depth(&item.ok()?, depth + 1)).collect::<Option<_>>()?)
        }
        Value::Map(map) => {
            let mut object = JsonMap::new();
            for (key, value) in map.pairs().ok()? {
                object.insert(key.as_str()?.to_owned(), at_depth(&value, depth + 1)?);
            }
            Json::Object(object)
        }
        Value::Struct(made) => {
            let mut object = JsonMap::new();
            for (name, value) in &made.fields {
                object.insert(name.clone(), at_depth(value, depth + 1)?);
            }
            Json::Object(object)
        }
        Value::Optional(Some(inner)) => at_depth(inner, depth + 1)?,
        Value::Unknown(json) => (*json).clone(),
        Value::Optional(None) | Value::Type(_) | Value::Opaque(_) => return None,
    })
}
