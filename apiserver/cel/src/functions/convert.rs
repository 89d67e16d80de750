//! From one type to another: `int(…)`, `string(…)`, `timestamp(…)`, …

use std::sync::Arc;

use super::numbers;
use crate::error::EvalError;
use crate::opaque::{Inner, Opaque};
use crate::time::{self, Timestamp};
use crate::types::Type;
use crate::value::Value;

type Called<'v> = Result<Value<'v>, EvalError>;

/// A text that is none of the wanted type; of other types there is no form of the function.
fn wrong<'v>(value: &Value<'_>, to: &Type) -> Called<'v> {
    if !matches!(value, Value::String(_)) {
        return Err(EvalError::no_such_overload());
    }
    let (from, to) = (value.type_name(), to.runtime_name());
    Err(EvalError::message(format!("type conversion error from '{from}' to '{to}'")))
}

pub(crate) fn convert<'v>(to: &str, args: &[Value<'v>]) -> Called<'v> {
    let [value] = args else { return Err(EvalError::no_such_overload()) };
    match to {
        "dyn" => Ok(value.clone()),
        "type" => Ok(Value::Type(value.type_name().as_ref().into())),
        "bool" => to_bool(value),
        "bytes" => to_bytes(value),
        "double" => to_double(value),
        "duration" => to_duration(value),
        "int" => to_int(value),
        "string" => to_string(value),
        "timestamp" => to_timestamp(value),
        "uint" => to_uint(value),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_bool<'v>(value: &Value<'v>) -> Called<'v> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => wrong(value, &Type::Bool),
        },
        _ => wrong(value, &Type::Bool),
    }
}

fn to_bytes<'v>(value: &Value<'v>) -> Called<'v> {
    match value {
        Value::Bytes(_) => Ok(value.clone()),
        Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
        _ => wrong(value, &Type::Bytes),
    }
}

/// Reads a number as Go does: also `inf`, `nan`, hexadecimal is left out.
fn float(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let said_infinite = text.to_ascii_lowercase().contains("inf");
    (number.is_finite() || number.is_nan() || said_infinite).then_some(number)
}

#[expect(clippy::cast_precision_loss, reason = "the nearest number is what is asked for")]
fn to_double<'v>(value: &Value<'v>) -> Called<'v> {
    match value {
        Value::Double(_) => Ok(value.clone()),
        Value::Int(number) => Ok(Value::Double(*number as f64)),
        Value::Uint(number) => Ok(Value::Double(*number as f64)),
        Value::String(text) => match float(text) {
            Some(number) => Ok(Value::Double(number)),
            None => wrong(value, &Type::Double),
        },
        _ => wrong(value, &Type::Double),
    }
}

fn to_duration<'v>(value: &Value<'v>) -> Called<'v> {
    match value {
        Value::Duration(_) => Ok(value.clone()),
        Value::Int(nanos) => Ok(Value::Duration(*nanos)),
        Value::String(text) => match time::parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => wrong(value, &Type::Duration),
        },
        _ => wrong(value, &Type::Duration),
    }
}

fn to_int<'v>(value: &Value<'v>) -> Called<'v> {
    const OVERFLOW: &str = "integer overflow";
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::Uint(number) => match i64::try_from(*number) {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => Err(EvalError::message(OVERFLOW)),
        },
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "within the limits")]
        Value::Double(number) => {
            if *number > i64::MIN as f64 && *number < i64::MAX as f64 {
                Ok(Value::Int(*number as i64))
            } else {
                Err(EvalError::message(OVERFLOW))
            }
        }
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        Value::Timestamp(at) => Ok(Value::Int(at.seconds())),
        Value::String(text) => match text.parse() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => wrong(value, &Type::Int),
        },
        _ => wrong(value, &Type::Int),
    }
}

fn to_uint<'v>(value: &Value<'v>) -> Called<'v> {
    const OVERFLOW: &str = "unsigned integer overflow";
    match value {
        Value::Uint(_) => Ok(value.clone()),
        Value::Int(number) => match u64::try_from(*number) {
            Ok(number) => Ok(Value::Uint(number)),
            Err(_) => Err(EvalError::message(OVERFLOW)),
        },
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "within the limits")]
        Value::Double(number) => {
            if *number >= 0.0 && *number < 18_446_744_073_709_551_616.0 {
                Ok(Value::Uint(*number as u64))
            } else {
                Err(EvalError::message(OVERFLOW))
            }
        }
        Value::String(text) => match text.parse() {
            Ok(number) if !text.starts_with('+') => Ok(Value::Uint(number)),
            _ => wrong(value, &Type::Uint),
        },
        _ => wrong(value, &Type::Uint),
    }
}

fn to_timestamp<'v>(value: &Value<'v>) -> Called<'v> {
    match value {
        Value::Timestamp(_) => Ok(value.clone()),
        Value::Int(seconds) => match Timestamp::from_seconds(*seconds) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => Err(EvalError::message("timestamp overflow")),
        },
        Value::String(text) => match Timestamp::parse(text) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => wrong(value, &Type::Timestamp),
        },
        _ => wrong(value, &Type::Timestamp),
    }
}

pub(crate) fn to_string<'v>(value: &Value<'v>) -> Called<'v> {
    let text = match value {
        Value::String(_) => return Ok(value.clone()),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => numbers::shown(*number),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(EvalError::message("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Duration(nanos) => time::seconds(*nanos),
        Value::Timestamp(at) => at.to_string(),
        Value::Type(name) => name.to_string(),
        Value::Opaque(Opaque(Inner::Ip(address))) => address.to_string(),
        Value::Opaque(Opaque(Inner::Cidr(cidr))) => cidr.to_string(),
        _ => return wrong(value, &Type::String),
    };
    Ok(Value::text(&text))
}

/// A value that may be missing, there.
pub(crate) fn some(value: Value<'_>) -> Value<'_> {
    Value::Optional(Some(Arc::new(value)))
}
