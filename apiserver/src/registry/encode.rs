//! The JSON text of objects: as it is stored, and as it is sent.
//!
//! Stored objects carry no resourceVersion: it is the key's revision, put in as the object is sent ([`Object`]). To
//! make that a copy rather than a parse, the text always begins with `kind`, `apiVersion` and `metadata`, in this
//! order.

use bytes::Bytes;
use reeve_kinds::Names;
use reeve_store::Revision;
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

use super::answer::Object;

/// The fields that stand first, in this order.
const HEAD: [&str; 3] = ["kind", "apiVersion", "metadata"];

/// How the text of an object of that kind and version begins, see [`stored`].
pub(crate) fn head(names: &Names) -> Vec<u8> {
    format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", names.kind, names.api_version()).into_bytes()
}

/// The text of an object without resourceVersion.
pub(crate) fn stored(object: &Value) -> Bytes {
    let Value::Object(fields) = object else { return object.to_string().into() };
    let mut out = Vec::with_capacity(4096);
    let written = write_fields(&mut out, fields);
    debug_assert!(written.is_ok(), "a JSON value always has a text");
    // Copied: it stays in memory for as long as the object is what it is, and must have no room to spare.
    Bytes::copy_from_slice(&out)
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

/// The object of a stored text.
pub(crate) fn sent(stored: &Bytes, revision: Revision) -> Object {
    Object::stored(stored.clone(), revision)
}

/// The text of an object that is not stored: the answer to a dry run.
pub(crate) fn unwritten(object: &Value) -> Object {
    Object::whole(stored(object), Revision(0))
}

/// The object of a sent text as the kinds and the store know it: without resourceVersion.
pub(crate) fn bare(object: &Object) -> Value {
    object.bare()
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
        assert_eq!(serde_json::from_slice::<Value>(&sent.json()).unwrap(), sent.value());
        assert_eq!((sent.json().len(), sent.at(Revision(10)).json().len()), (sent.len(), sent.len() + 1));
    }

    #[test]
    fn a_list_item_and_the_metadata_alone_carry_the_revision_too() {
        let written = |object: &Object, left_out: usize| {
            let mut out = Vec::new();
            object.write_without(left_out, &mut out);
            String::from_utf8(out).unwrap()
        };
        let metadata = |object: &Object| {
            let mut out = Vec::new();
            object.write_metadata(&mut out);
            String::from_utf8(out).unwrap()
        };
        let stored = sent(&Bytes::from_static(br#"{"kind":"A","metadata":{"name":"a"},"x":1}"#), Revision(7));
        assert_eq!(written(&stored, 11), r#"{"metadata":{"resourceVersion":"7","name":"a"},"x":1}"#);
        assert_eq!(metadata(&stored), r#"{"resourceVersion":"7","name":"a"}"#);
        let whole = Object::whole(stored.json(), Revision(9));
        assert_eq!((written(&whole, 11), metadata(&whole)), (written(&stored, 11), metadata(&stored)));
        assert_eq!(whole.at(Revision(8)).value()["metadata"]["resourceVersion"], "8");
        let empty = sent(&Bytes::from_static(br#"{"metadata":{}}"#), Revision(7));
        assert_eq!(written(&empty, 0), r#"{"metadata":{"resourceVersion":"7"}}"#);
        assert_eq!((empty.len(), empty.bare()), (36, json!({"metadata": {}})));
    }
}
