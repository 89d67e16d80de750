//! Values whose JSON form is not their message's: times, quantities, raw JSON, and plain scalars.
//!
//! Source of the forms: the JSON encodings of `metav1.Time`, `metav1.MicroTime`, `resource.Quantity` and
//! `intstr.IntOrString` in the Kubernetes API conventions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::ProtobufError;
use super::schema::{Field, Type};
use super::wire::{Payload, Reader};

/// A value of any type but a message of the table.
pub(super) fn scalar(field: &Field, payload: Payload<'_>) -> Result<Option<Value>, ProtobufError> {
    let name = field.name;
    Ok(Some(match field.kind {
        Type::String => payload.text(name)?.into(),
        Type::Int => payload.integer(name)?.into(),
        Type::Bool => (payload.integer(name)? != 0).into(),
        Type::Float => payload.float(name)?.into(),
        Type::Bytes => BASE64.encode(payload.bytes(name)?).into(),
        Type::Quantity => quantity(payload.bytes(name)?)?,
        Type::IntOrString => int_or_string(payload.bytes(name)?)?,
        Type::Strings => strings(payload.bytes(name)?)?,
        Type::Time => return time(payload.bytes(name)?, false),
        Type::MicroTime => return time(payload.bytes(name)?, true),
        Type::Raw => return raw(payload.bytes(name)?),
        Type::Message(_) => return Err(ProtobufError::WrongType(name)),
    }))
}

/// What a map's entry without a value means.
pub(super) fn zero(kind: Type) -> Value {
    match kind {
        Type::Int | Type::Float | Type::IntOrString => 0.into(),
        Type::Bool => false.into(),
        Type::Quantity => "0".into(),
        Type::Strings => Value::Array(Vec::new()),
        Type::Message(_) => Value::Object(Map::new()),
        Type::String | Type::Bytes | Type::Time | Type::MicroTime | Type::Raw => "".into(),
    }
}

fn quantity(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(bytes);
    let mut text = "0";
    while let Some((number, payload)) = reader.next_field()? {
        if number == 1 {
            text = payload.text("string")?;
        }
    }
    Ok(if text.is_empty() { "0" } else { text }.into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number_value, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next_field()? {
        match number {
            1 => is_text = payload.integer("type")? != 0,
            2 => number_value = payload.integer("intVal")?,
            3 => text = payload.text("strVal")?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number_value.into() })
}

fn strings(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(bytes);
    let mut items = Vec::new();
    while let Some((number, payload)) = reader.next_field()? {
        if number == 1 {
            items.push(payload.text("items")?.into());
        }
    }
    Ok(Value::Array(items))
}

/// An empty message is the zero time, which JSON leaves out.
fn time(bytes: &[u8], micros: bool) -> Result<Option<Value>, ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next_field()? {
        match number {
            1 => seconds = payload.integer("seconds")?,
            2 => nanos = payload.integer("nanos")?,
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(None);
    }
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::Malformed("time out of range"))?;
    let nanos = if micros { nanos / 1000 * 1000 } else { 0 };
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Malformed("time out of range"))?;
    let text = if micros { format!("{time:.6}") } else { format!("{time:.0}") };
    Ok(Some(text.into()))
}

fn raw(bytes: &[u8]) -> Result<Option<Value>, ProtobufError> {
    let mut reader = Reader::new(bytes);
    let mut found = None;
    while let Some((number, payload)) = reader.next_field()? {
        if number == 1 {
            let value = serde_json::from_slice(payload.bytes("raw")?);
            found = Some(value.map_err(|_| ProtobufError::Malformed("embedded object is not JSON"))?);
        }
    }
    Ok(found)
}
