//! `application/vnd.kubernetes.protobuf`: request bodies into JSON values, and JSON texts into answers, for every
//! kind of Kubernetes' stable API groups.
//!
//! Clients written in Go speak it for typed calls. A body is an envelope (`k8s\0`, then `runtime.Unknown`) around a
//! message; which message has which fields stands in `messages.txt` (see [`schema`]), so decoding is one walk over
//! bytes and table, and encoding ([`encode`]) one walk over text and table, for all kinds alike.
//!
//! Source: Kubernetes, "API concepts", section "Kubernetes Protobuf encoding"; protobuf.dev, "Encoding".

mod encode;
mod schema;
mod shared;
mod value;
pub(crate) mod wire;

use serde_json::{Map, Value};

use schema::{Field, Message, Repeat, Schema, Type};
use wire::{Payload, Reader};

pub(crate) use encode::{EncodeError, ListHead, end_list, event, list, object, object_as, push_item};
pub(crate) use shared::Shared;

/// The media type of such bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What such a body begins with.
const MAGIC: &[u8; 4] = b"k8s\0";

/// Deepest nesting of messages. The deepest of Kubernetes' kinds has about fifteen levels; schemas in a
/// CustomResourceDefinition go as deep as their author likes.
const DEPTH_MAX: usize = 128;

/// Whether a kind has a protobuf form.
pub(crate) fn has(api_version: &str, kind: &str) -> bool {
    Schema::get().kind(api_version, kind).is_some()
}

/// Why a body is not what it says it is. Always the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    /// The envelope is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// The bytes end in the middle of something.
    #[error("unexpected EOF")]
    Truncated,
    /// The bytes break the encoding.
    #[error("proto: {0}")]
    Malformed(&'static str),
    /// A field has another type on the wire than in the kind.
    #[error("proto: wrong wireType for field {0}")]
    WrongType(&'static str),
    /// The kind has no protobuf form here.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// `apiVersion` of the envelope.
        api_version: String,
        /// `kind` of the envelope.
        kind: String,
    },
}

/// Decodes a whole body; the value has `apiVersion` and `kind` set from the envelope.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = Envelope::read(body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?)?;
    let schema = Schema::get();
    let message = schema.kind(&envelope.api_version, &envelope.kind).ok_or_else(|| ProtobufError::UnknownKind {
        api_version: envelope.api_version.clone(),
        kind: envelope.kind.clone(),
    })?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), envelope.api_version.into());
    object.insert("kind".to_owned(), envelope.kind.into());
    Decoder { schema }.message(message, envelope.raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

/// `k8s.io/apimachinery/pkg/runtime.Unknown`: field 1 is the type, field 2 the message.
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
}

impl<'b> Envelope<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next_field()? {
            match number {
                1 => envelope.read_type(payload.bytes("typeMeta")?)?,
                2 => envelope.raw = payload.bytes("raw")?,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type(&mut self, bytes: &[u8]) -> Result<(), ProtobufError> {
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next_field()? {
            match number {
                1 => payload.text("apiVersion")?.clone_into(&mut self.api_version),
                2 => payload.text("kind")?.clone_into(&mut self.kind),
                _ => {}
            }
        }
        Ok(())
    }
}

struct Decoder {
    schema: &'static Schema,
}

impl Decoder {
    fn message(
        &self,
        message: &Message,
        bytes: &[u8],
        into: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        if depth > DEPTH_MAX {
            return Err(ProtobufError::Malformed("exceeded max depth"));
        }
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next_field()? {
            // What the kind does not know is dropped, as protobuf wants it.
            if let Some(field) = message.field(number) {
                self.field(field, payload, into, depth)?;
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        payload: Payload<'_>,
        into: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        match field.repeat {
            Repeat::Once if field.is_inline() => match field.kind {
                Type::Message(index) => {
                    self.message(self.schema.message(index), payload.bytes(field.name)?, into, depth + 1)
                }
                _ => Err(ProtobufError::WrongType(field.name)),
            },
            Repeat::Once => {
                let value = self.value(field, payload, depth)?;
                if let Some(value) = value.filter(|value| field.keep_zero || !is_zero(value)) {
                    into.insert(field.name.to_owned(), value);
                }
                Ok(())
            }
            Repeat::List => {
                let list = into.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(items) = list else { return Err(ProtobufError::WrongType(field.name)) };
                for item in payload.unpacked(matches!(field.kind, Type::Int | Type::Bool))? {
                    items.push(self.value(field, item, depth)?.unwrap_or(Value::Null));
                }
                Ok(())
            }
            Repeat::Map => {
                let (key, value) = self.entry(field, payload.bytes(field.name)?, depth)?;
                let map = into.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(entries) = map else { return Err(ProtobufError::WrongType(field.name)) };
                entries.insert(key, value);
                Ok(())
            }
        }
    }

    /// A map's entry is a message of key (1) and value (2); what is left out has its type's zero value.
    fn entry(&self, field: &Field, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next_field()? {
            match number {
                1 => payload.text(field.name)?.clone_into(&mut key),
                2 => value = self.value(field, payload, depth)?,
                _ => {}
            }
        }
        Ok((key, value.unwrap_or_else(|| value::zero(field.kind))))
    }

    /// One value; `None` for what JSON leaves out (a time that is not set).
    fn value(&self, field: &Field, payload: Payload<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
        let Type::Message(index) = field.kind else { return value::scalar(field, payload) };
        if self.schema.message(index).has_forms() {
            return self.one_form(self.schema.message(index), payload.bytes(field.name)?, depth + 1);
        }
        let mut object = Map::new();
        self.message(self.schema.message(index), payload.bytes(field.name)?, &mut object, depth + 1)?;
        Ok(Some(Value::Object(object)))
    }
}

impl Decoder {
    /// A message that stands for one of several forms of a value: an object counts more than a truth value.
    fn one_form(&self, message: &Message, bytes: &[u8], depth: usize) -> Result<Option<Value>, ProtobufError> {
        if depth > DEPTH_MAX {
            return Err(ProtobufError::Malformed("exceeded max depth"));
        }
        let mut found = Value::Null;
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next_field()? {
            let Some(field) = message.field(number) else { continue };
            let value = self.value(field, payload, depth)?.unwrap_or_default();
            match (&mut found, field.repeat) {
                (Value::Array(items), Repeat::List) => items.push(value),
                (_, Repeat::List) => found = Value::Array(vec![value]),
                (Value::Object(_), _) => {}
                _ => found = value,
            }
        }
        Ok(Some(found))
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;
