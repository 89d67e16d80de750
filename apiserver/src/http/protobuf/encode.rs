//! JSON texts of objects into protobuf, in one pass: no value is built.
//!
//! The text is the server's own and was checked when it was stored. What the text has is written, zero or not; what
//! it lacks is left out, which a reader cannot tell from the zero that Kubernetes writes there. Fields of which JSON
//! does not show that they lie one message deeper are gathered and written behind the others.
//!
//! Source: Kubernetes, "API concepts", section "Kubernetes Protobuf encoding"; protobuf.dev, "Encoding".

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::MAGIC;
use super::schema::{Field, Message, Repeat, Schema, Type};
use super::wire::{nested, put_bytes, put_fixed64, put_varint, put_zeroed_length, set_length};

/// Why an answer has no protobuf form. Our fault, but for a kind that has none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// The kind is not in the table.
    #[error(
        "object *unstructured.Unstructured does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NoMessage,
    /// The text is not what the table says.
    #[error("{0}")]
    Text(#[from] serde_json::Error),
}

/// The fields that say what a text is.
#[derive(Deserialize)]
struct TypeMeta<'j> {
    #[serde(borrow, default, rename = "apiVersion")]
    api_version: std::borrow::Cow<'j, str>,
    #[serde(borrow, default)]
    kind: std::borrow::Cow<'j, str>,
}

/// An object, with its envelope; its kind is what the text says.
pub(crate) fn object(json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    if let Some((api_version, kind)) = type_at_the_head(json) {
        return object_as(api_version, kind, json);
    }
    let meta: TypeMeta<'_> = serde_json::from_slice(json)?;
    // The oldest documents of discovery do not name it.
    let api_version = if meta.api_version.is_empty() { "v1" } else { &meta.api_version };
    object_as(api_version, &meta.kind, json)
}

/// `apiVersion` and `kind` where stored objects have them: nothing else is read then.
fn type_at_the_head(json: &[u8]) -> Option<(&str, &str)> {
    let text = |bytes: &'_ [u8]| bytes.iter().position(|byte| *byte == b'"');
    let kind = json.strip_prefix(b"{\"kind\":\"")?;
    let (kind, rest) = kind.split_at(text(kind)?);
    let api_version = rest.strip_prefix(b"\",\"apiVersion\":\"")?;
    let (api_version, _) = api_version.split_at(text(api_version)?);
    Some((std::str::from_utf8(api_version).ok()?, std::str::from_utf8(kind).ok()?))
}

/// An object as the given kind, with its envelope. Fields that the kind does not have are left out.
pub(crate) fn object_as(api_version: &str, kind: &str, json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let schema = Schema::get();
    let message = schema.kind(api_version, kind).ok_or(EncodeError::NoMessage)?;
    // Protobuf has no field names and no quotes: the text's length is more than enough.
    let mut out = Vec::with_capacity(json.len() + 64);
    out.extend_from_slice(MAGIC);
    type_meta(api_version, kind, &mut out);
    nested(2, &mut out, |out| fill(schema, message, json, out))?;
    close_envelope(&mut out);
    Ok(out)
}

/// What stands before the items of a list.
pub(crate) struct ListHead<'l> {
    /// `v1`
    pub(crate) api_version: &'l str,
    /// `ConfigMapList`
    pub(crate) kind: &'l str,
    /// The kind of the items, and its `apiVersion`.
    pub(crate) item: (&'l str, &'l str),
    /// The list's metadata, as JSON.
    pub(crate) metadata: &'l str,
}

/// A list under way: items are appended by [`push_item`], and [`end_list`] closes it.
pub(crate) struct ListBody {
    out: Vec<u8>,
    /// Where the length of the list's message is to stand.
    length_at: usize,
    item: &'static Message,
}

/// Begins a list; `size` is about how long the items will be.
pub(crate) fn list(head: &ListHead<'_>, size: usize) -> Result<ListBody, EncodeError> {
    let schema = Schema::get();
    let item = schema.kind(head.item.0, head.item.1).ok_or(EncodeError::NoMessage)?;
    let mut out = Vec::with_capacity(size + 128);
    out.extend_from_slice(MAGIC);
    type_meta(head.api_version, head.kind, &mut out);
    let length_at = put_zeroed_length(2, &mut out);
    nested(1, &mut out, |out| fill(schema, schema.list_meta(), head.metadata.as_bytes(), out))?;
    Ok(ListBody { out, length_at, item })
}

/// Appends one item.
pub(crate) fn push_item(list: &mut ListBody, json: &[u8]) -> Result<(), EncodeError> {
    let item = list.item;
    nested(2, &mut list.out, |out| fill(Schema::get(), item, json, out))
}

/// The finished list.
pub(crate) fn end_list(list: ListBody) -> Vec<u8> {
    let ListBody { mut out, length_at, .. } = list;
    set_length(&mut out, length_at);
    close_envelope(&mut out);
    out
}

/// One frame of a watch: its length, then a `WatchEvent` around an object that has its envelope already.
pub(crate) fn event(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put_bytes(1, kind.as_bytes(), out);
    let filled = nested(2, out, |out| {
        put_bytes(1, object, out);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(()) = filled;
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn type_meta(api_version: &str, kind: &str, out: &mut Vec<u8>) {
    let filled = nested(1, out, |out| {
        put_bytes(1, api_version.as_bytes(), out);
        put_bytes(2, kind.as_bytes(), out);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(()) = filled;
}

/// `contentEncoding` and `contentType`, which Kubernetes leaves empty and writes.
fn close_envelope(out: &mut Vec<u8>) {
    put_bytes(3, b"", out);
    put_bytes(4, b"", out);
}

fn fill(schema: &'static Schema, message: &'static Message, json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut input = serde_json::Deserializer::from_slice(json);
    Object { schema, message, out }.deserialize(&mut input)?;
    Ok(input.end()?)
}

/// A JSON object whose fields are those of a message.
struct Object<'o> {
    schema: &'static Schema,
    message: &'static Message,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        let mut inlined = vec![Vec::new(); self.message.inlined.len()];
        while let Some(route) = input.next_key_seed(Name { message: self.message })? {
            let Some((route, field)) = route.and_then(|route| Some((route, self.schema.field(route)?))) else {
                input.next_value::<IgnoredAny>()?;
                continue;
            };
            let out = match route.inlined {
                None => &mut *self.out,
                Some(place) => inlined.get_mut(place).ok_or_else(|| A::Error::custom("no such place"))?,
            };
            input.next_value_seed(Member { schema: self.schema, field, out })?;
        }
        // Inner ones stand behind outer ones: from the back each one is complete when it is written.
        while let Some(bytes) = inlined.pop() {
            let Some(own) = self.message.inlined.get(inlined.len()) else { break };
            if !bytes.is_empty() {
                let out = own.around.and_then(|place| inlined.get_mut(place)).unwrap_or(&mut *self.out);
                put_bytes(own.number, &bytes, out);
            }
        }
        Ok(())
    }
}

/// The name of a field: where it belongs.
struct Name {
    message: &'static Message,
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<super::schema::Route>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<super::schema::Route>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.message.route(name))
    }
}

/// The value of a field: one, a list or a map.
struct Member<'o> {
    schema: &'static Schema,
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl Member<'_> {
    fn one(&mut self, number: u64) -> One<'_> {
        One { schema: self.schema, number, kind: self.field.kind, keep_null: false, out: self.out }
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, input: D) -> Result<(), D::Error> {
        match self.field.repeat {
            Repeat::Once => self.one(self.field.number).deserialize(input),
            Repeat::List | Repeat::Map => input.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.field.repeat == Repeat::List { "a list" } else { "a map" })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut input: A) -> Result<(), A::Error> {
        let number = self.field.number;
        while input.next_element_seed(One { keep_null: true, ..self.one(number) })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        let Self { schema, field, out } = self;
        loop {
            let before = out.len();
            let at = put_zeroed_length(field.number, out);
            if input.next_key_seed(Key { out })?.is_none() {
                out.truncate(before);
                return Ok(());
            }
            input.next_value_seed(One { schema, number: 2, kind: field.kind, keep_null: true, out })?;
            set_length(out, at);
        }
    }
}

/// The key of a map's entry.
struct Key<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        put_bytes(1, key.as_bytes(), self.out);
        Ok(())
    }
}

/// One value, written with its number.
struct One<'o> {
    schema: &'static Schema,
    number: u64,
    kind: Type,
    /// Whether null is an item, which has to be there, or a field that is not set.
    keep_null: bool,
    out: &'o mut Vec<u8>,
}

impl One<'_> {
    fn message(&self) -> Option<&'static Message> {
        match self.kind {
            Type::Message(index) => Some(self.schema.message(index)),
            _ => None,
        }
    }

    fn wrong<E: serde::de::Error>(&self, found: &str) -> E {
        E::custom(format_args!("{found} where {:?} is expected", self.kind))
    }

    /// A text in a message of its own, as its field 1.
    fn wrapped(self, bytes: &[u8]) {
        let filled = nested(self.number, self.out, |out| {
            put_bytes(1, bytes, out);
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = filled;
    }

    fn int_or_string(self, is_text: bool, number: i64, text: &str) {
        let filled = nested(self.number, self.out, |out| {
            put_varint(1, i64::from(is_text), out);
            put_varint(2, number, out);
            put_bytes(3, text.as_bytes(), out);
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = filled;
    }

    fn time<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let time: Timestamp = text.parse().map_err(E::custom)?;
        // The instant is `seconds` and, never negative, `nanos` behind it.
        let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
        let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
        let nanos = if self.kind == Type::MicroTime { nanos / 1000 * 1000 } else { 0 };
        nested(self.number, self.out, |out| {
            put_varint(1, i64::try_from(seconds).map_err(E::custom)?, out);
            put_varint(2, i64::try_from(nanos).map_err(E::custom)?, out);
            Ok(())
        })
    }

    fn integer<E: serde::de::Error>(self, value: i64, text: &dyn fmt::Display) -> Result<(), E> {
        match self.kind {
            Type::Int => put_varint(self.number, value, self.out),
            Type::IntOrString => self.int_or_string(false, value, ""),
            Type::Quantity => self.wrapped(text.to_string().as_bytes()),
            #[allow(clippy::cast_precision_loss, reason = "a JSON number without a fraction means its nearest float")]
            Type::Float => put_fixed64(self.number, (value as f64).to_bits(), self.out),
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.kind {
            Type::Raw => {
                let raw = <&RawValue>::deserialize(input)?.get();
                if raw != "null" || self.keep_null {
                    self.wrapped(raw.as_bytes());
                }
                Ok(())
            }
            _ => input.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        match (self.keep_null, self.kind) {
            (false, _) => {}
            (true, Type::Int | Type::Bool) => put_varint(self.number, 0, self.out),
            (true, Type::Float) => put_fixed64(self.number, 0, self.out),
            (true, _) => put_bytes(self.number, b"", self.out),
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        if self.kind == Type::Bool {
            put_varint(self.number, i64::from(value), self.out);
            return Ok(());
        }
        let form = self.message().into_iter().flat_map(|message| &message.fields);
        let Some(form) = form.filter(|field| field.is_form()).find(|field| field.kind == Type::Bool) else {
            return Err(self.wrong("a truth value"));
        };
        nested(self.number, self.out, |out| {
            put_varint(form.number, i64::from(value), out);
            Ok(())
        })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value, &value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(i64::try_from(value).map_err(E::custom)?, &value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            Type::Float => put_fixed64(self.number, value.to_bits(), self.out),
            Type::Quantity => self.wrapped(value.to_string().as_bytes()),
            _ => return Err(self.wrong("a fraction")),
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        match self.kind {
            Type::String => put_bytes(self.number, value.as_bytes(), self.out),
            Type::Bytes => put_bytes(self.number, &BASE64.decode(value).map_err(E::custom)?, self.out),
            Type::Quantity => self.wrapped(value.as_bytes()),
            Type::IntOrString => self.int_or_string(true, 0, value),
            Type::Time | Type::MicroTime => return self.time(value),
            _ => return Err(self.wrong("a text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        let schema = self.schema;
        let (number, kind) = match (self.kind, self.message()) {
            (Type::Strings, _) => (1, Type::String),
            (_, Some(message)) => {
                let form = message.fields.iter().find(|field| field.is_form() && field.repeat == Repeat::List);
                form.map(|form| (form.number, form.kind)).ok_or_else(|| self.wrong("a list"))?
            }
            _ => return Err(self.wrong("a list")),
        };
        nested(self.number, self.out, |out| {
            while input.next_element_seed(One { schema, number, kind, keep_null: true, out })?.is_some() {}
            Ok(())
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<(), A::Error> {
        let schema = self.schema;
        let Some(message) = self.message() else { return Err(self.wrong("an object")) };
        nested(self.number, self.out, |out| {
            if !message.has_forms() {
                return Object { schema, message, out }.visit_map(input);
            }
            let once = |field: &&Field| field.repeat == Repeat::Once;
            if let Some(allowed) = message.fields.iter().filter(once).find(|field| field.kind == Type::Bool) {
                put_varint(allowed.number, 1, out);
            }
            let form = message.fields.iter().filter(once).find_map(|field| match field.kind {
                Type::Message(index) => Some((field.number, schema.message(index))),
                _ => None,
            });
            let (number, message) = form.ok_or_else(|| A::Error::custom("an object where none is expected"))?;
            nested(number, out, |out| Object { schema, message, out }.visit_map(input))
        })
    }
}
