//! The OpenAPI v2 document as protobuf, which is how Go clients ask for it.
//!
//! Source: the numbers of `openapiv2/OpenAPIv2.proto` of `github.com/google/gnostic-models` v0.7.0. What that file
//! calls `Any` is YAML; JSON is YAML.

use std::convert::Infallible;

use serde_json::Value;

use super::super::protobuf::wire;

/// How a field is written.
enum Form {
    Text,
    Bool,
    Integer,
    Float,
    /// Anything, as YAML.
    Any,
    /// Each item of a list, in this form.
    Each(&'static Form),
    /// A message of its own.
    Message(fn(&Value, &mut Vec<u8>)),
}

use Form::{Any, Bool, Each, Float, Integer, Message, Text};

/// The fields of a message: JSON name, number, form.
type Fields = [(&'static str, u64, Form)];

static SCHEMA: &Fields = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("multipleOf", 6, Float),
    ("maximum", 7, Float),
    ("exclusiveMaximum", 8, Bool),
    ("minimum", 9, Float),
    ("exclusiveMinimum", 10, Bool),
    ("maxLength", 11, Integer),
    ("minLength", 12, Integer),
    ("pattern", 13, Text),
    ("maxItems", 14, Integer),
    ("minItems", 15, Integer),
    ("uniqueItems", 16, Bool),
    ("maxProperties", 17, Integer),
    ("minProperties", 18, Integer),
    ("required", 19, Each(&Text)),
    ("enum", 20, Each(&Any)),
    ("additionalProperties", 21, Message(schema_or_bool)),
    ("type", 22, Message(type_item)),
    ("items", 23, Message(in_field_1)),
    ("allOf", 24, Each(&Message(schema))),
    ("properties", 25, Message(named_schemas)),
    ("example", 30, Any),
];

static OPERATION: &Fields = &[
    ("tags", 1, Each(&Text)),
    ("summary", 2, Text),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, Each(&Text)),
    ("consumes", 7, Each(&Text)),
    ("parameters", 8, Each(&Message(parameter))),
    ("responses", 9, Message(responses)),
    ("schemes", 10, Each(&Text)),
    ("deprecated", 11, Bool),
];

static PATH_ITEM: &Fields = &[
    ("get", 2, Message(operation)),
    ("put", 3, Message(operation)),
    ("post", 4, Message(operation)),
    ("delete", 5, Message(operation)),
    ("patch", 8, Message(operation)),
    ("parameters", 9, Each(&Message(parameter))),
];

static BODY_PARAMETER: &Fields = &[
    ("description", 1, Text),
    ("name", 2, Text),
    ("in", 3, Text),
    ("required", 4, Bool),
    ("schema", 5, Message(schema)),
];

static QUERY_PARAMETER: &Fields = &[
    ("required", 1, Bool),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 6, Text),
    ("format", 7, Text),
    ("uniqueItems", 20, Bool),
];

static PATH_PARAMETER: &Fields = &[
    ("required", 1, Bool),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("format", 6, Text),
    ("uniqueItems", 19, Bool),
];

static RESPONSE: &Fields = &[("description", 1, Text), ("schema", 2, Message(in_field_1))];

static DOCUMENT: &Fields = &[
    ("swagger", 1, Text),
    ("info", 2, Message(info)),
    ("paths", 8, Message(paths)),
    ("definitions", 9, Message(named_schemas)),
];

static INFO: &Fields = &[("title", 1, Text), ("version", 2, Text)];

/// The whole document.
pub(super) fn document(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    fields(DOCUMENT, None, value, &mut out);
    out
}

fn message(number: u64, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let filled = wire::nested(number, out, |out| {
        fill(out);
        Ok::<(), Infallible>(())
    });
    let Ok(()) = filled;
}

/// Writes what the table knows of an object, and its extensions under their own number.
fn fields(known: &Fields, extensions: Option<u64>, value: &Value, out: &mut Vec<u8>) {
    let Some(object) = value.as_object() else { return };
    for (name, number, form) in known {
        if let Some(value) = object.get(*name) {
            put(form, *number, value, out);
        }
    }
    for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
        if let Some(number) = extensions {
            message(number, out, |out| {
                wire::put_bytes(1, name.as_bytes(), out);
                put(&Any, 2, value, out);
            });
        }
    }
}

fn put(form: &Form, number: u64, value: &Value, out: &mut Vec<u8>) {
    match form {
        Text => wire::put_bytes(number, value.as_str().unwrap_or_default().as_bytes(), out),
        Bool => wire::put_varint(number, i64::from(value.as_bool().unwrap_or_default()), out),
        Integer => wire::put_varint(number, value.as_i64().unwrap_or_default(), out),
        Float => wire::put_fixed64(number, value.as_f64().unwrap_or_default().to_bits(), out),
        Any => message(number, out, |out| wire::put_bytes(2, format!("{value}\n").as_bytes(), out)),
        Each(form) => value.as_array().into_iter().flatten().for_each(|item| put(form, number, item, out)),
        Message(fill) => message(number, out, |out| fill(value, out)),
    }
}

fn info(value: &Value, out: &mut Vec<u8>) {
    fields(INFO, Some(7), value, out);
}

fn schema(value: &Value, out: &mut Vec<u8>) {
    fields(SCHEMA, Some(31), value, out);
}

fn operation(value: &Value, out: &mut Vec<u8>) {
    fields(OPERATION, Some(13), value, out);
}

fn type_item(value: &Value, out: &mut Vec<u8>) {
    put(&Text, 1, value, out);
}

fn in_field_1(value: &Value, out: &mut Vec<u8>) {
    put(&Message(schema), 1, value, out);
}

fn schema_or_bool(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(_) => put(&Bool, 2, value, out),
        _ => in_field_1(value, out),
    }
}

fn named(number: u64, name: &str, value: &Value, fill: fn(&Value, &mut Vec<u8>), out: &mut Vec<u8>) {
    message(number, out, |out| {
        wire::put_bytes(1, name.as_bytes(), out);
        message(2, out, |out| fill(value, out));
    });
}

fn named_schemas(value: &Value, out: &mut Vec<u8>) {
    value.as_object().into_iter().flatten().for_each(|(name, value)| named(1, name, value, schema, out));
}

fn paths(value: &Value, out: &mut Vec<u8>) {
    let item = |value: &Value, out: &mut Vec<u8>| fields(PATH_ITEM, Some(10), value, out);
    value.as_object().into_iter().flatten().for_each(|(name, value)| named(2, name, value, item, out));
}

fn responses(value: &Value, out: &mut Vec<u8>) {
    let response = |value: &Value, out: &mut Vec<u8>| message(1, out, |out| fields(RESPONSE, Some(5), value, out));
    value.as_object().into_iter().flatten().for_each(|(code, value)| named(1, code, value, response, out));
}

/// A parameter is one of several messages, three levels down.
fn parameter(value: &Value, out: &mut Vec<u8>) {
    message(1, out, |out| match value.get("in").and_then(Value::as_str) {
        Some("body") => message(1, out, |out| fields(BODY_PARAMETER, Some(6), value, out)),
        Some("path") => message(2, out, |out| message(4, out, |out| fields(PATH_PARAMETER, Some(22), value, out))),
        _ => message(2, out, |out| message(3, out, |out| fields(QUERY_PARAMETER, Some(23), value, out))),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_those_of_the_file_of_gnostic() {
        let small = json!({
            "swagger": "2.0", "info": {"title": "t", "version": "v"},
            "definitions": {"a": {"type": "string", "x-y": [1], "additionalProperties": {"$ref": "r"}}},
        });
        let mut expected = b"\x0a\x032.0\x12\x06\x0a\x01t\x12\x01v\x4a\x2a\x0a\x28\x0a\x01a\x12\x23".to_vec();
        expected.extend_from_slice(b"\xaa\x01\x05\x0a\x03\x0a\x01r");
        expected.extend_from_slice(b"\xb2\x01\x08\x0a\x06string");
        expected.extend_from_slice(b"\xfa\x01\x0d\x0a\x03x-y\x12\x06\x12\x04[1]\n");
        assert_eq!(document(&small), expected);
    }
}
