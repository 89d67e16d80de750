//! The JSON text of objects: as it is stored, and as it is sent.
//!
//! Stored objects carry no resourceVersion: it is the key's revision, put in once when the object enters the
//! cache. To make that a copy rather than a parse, the text always begins with `kind`, `apiVersion` and
//! `metadata`, in this order.

use bytes::Bytes;
use reeve_kinds::Names;
use reeve_store::Revision;
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

use super::answer::Object;

/// The fields that stand first, in this order.
const HEAD: [&str; 3] = ["kind", "apiVersion", "metadata"];

/// What stands before the place of the resourceVersion.
const METADATA: &[u8] = b"\"metadata\":{";

/// How the text of an object of that kind and version begins, see [`stored`].
pub(crate) fn head(names: &Names) -> Vec<u8> {
    format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", names.kind, names.api_version()).into_bytes()
}

/// The text of an object without resourceVersion.
pub(crate) fn stored(object: &Value) -> Bytes {
    let Value::Object(fields) = object else { return object.to_string().into() };
    let mut out = Vec::with_capacity(1024);
    let written = write_fields(&mut out, fields);
    debug_assert!(written.is_ok(), "a JSON value always has a text");
    out.into()
}

fn write_fields(out: &mut Vec<u8>, fields: &Map<String, Value>) -> Result<(), serde_json::Error> {
    let mut writer = serde_json::Serializer::new(out);
    let mut map = writer.serialize_map(Some(fields.len()))?;
    for name in HEAD {
        if let Some(value) = fields.get(name) {
            map.serialize_entry(name, value)?;
        }
    }
    for (name, value) in fields.iter().filter(|(name, _)| !HEAD.contains(&name.as_str())) {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// The stored text with its revision in it: what is sent.
pub(crate) fn sent(stored: &[u8], revision: Revision) -> Object {
    let Some(at) = stored.windows(METADATA.len()).position(|window| window == METADATA) else {
        return Object { json: Bytes::copy_from_slice(stored), revision };
    };
    let (head, tail) = stored.split_at(at + METADATA.len());
    let comma = if tail.first() == Some(&b'}') { "" } else { "," };
    let version = format!("\"resourceVersion\":\"{revision}\"{comma}");
    let mut json = Vec::with_capacity(stored.len() + version.len());
    json.extend_from_slice(head);
    json.extend_from_slice(version.as_bytes());
    json.extend_from_slice(tail);
    Object { json: json.into(), revision }
}

/// The text of an object that is not stored: the answer to a dry run.
pub(crate) fn unwritten(object: &Value) -> Object {
    Object { json: stored(object), revision: Revision(0) }
}

/// The object of a sent text as the kinds and the store know it: without resourceVersion.
pub(crate) fn bare(object: &Object) -> Value {
    let mut value = object.value();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_enters_the_metadata_and_nothing_else_changes() {
        let object = json!({"apiVersion": "v1", "data": {"metadata": "\"metadata\":{"}, "kind": "ConfigMap",
            "metadata": {"name": "a"}});
        let text = stored(&object);
        assert!(text.starts_with(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#));
        let sent = sent(&text, Revision(7));
        assert_eq!(sent.value()["metadata"], json!({"name": "a", "resourceVersion": "7"}));
        assert_eq!(bare(&sent), object);
    }
}
