//! Objects, lists and watch events in the form the client wants.
//!
//! The registry hands out JSON bytes; the common case copies them. Only other forms (tables, metadata, YAML,
//! indented text) parse them again.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use reeve_kinds::Names;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::negotiate::{Encoding, Format, Include, View};
use super::response::{self, Answer, BoxError, full};
use super::yaml;
use crate::registry::{List, Object, Resource, WatchEvent};
use crate::status::ApiError;

/// Lists smaller than this are not worth compressing; Kubernetes' number.
const GZIP_BYTES_MIN: usize = 128 * 1024;

/// What the forms of an answer depend on.
pub(crate) struct Encoder<'r> {
    pub(crate) resource: &'r Resource,
    pub(crate) format: Format,
    /// Ages in tables are as of this time.
    pub(crate) now: Timestamp,
}

/// Only the metadata of an object, unparsed.
#[derive(Deserialize)]
struct MetadataOnly<'j> {
    #[serde(borrow)]
    metadata: &'j RawValue,
}

impl Encoder<'_> {
    /// One object.
    pub(crate) fn object(&self, code: StatusCode, object: &Object) -> Answer {
        if self.format.view == View::Whole && self.format.encoding == Encoding::Json {
            return response::answer(code, response::JSON, full(line(&object.json)));
        }
        let value = match self.format.view {
            View::Whole => object.value(),
            View::Partial => partial(object),
            View::Table(include) => self.table(
                std::slice::from_ref(object),
                &json!({"resourceVersion": object.revision.to_string()}),
                include,
                true,
            ),
        };
        self.value(code, &value)
    }

    /// A value that is no object of the resource: a `Status`, a `Scale`.
    pub(crate) fn value(&self, code: StatusCode, value: &Value) -> Answer {
        value_as(code, value, self.format.encoding)
    }

    /// A list; large ones compressed, off the async threads.
    pub(crate) async fn list(&self, list: List) -> Answer {
        let metadata = list_metadata(&list);
        let body = match (self.format.view, self.format.encoding) {
            (View::Whole, Encoding::Json) => plain_list(self.resource.names(), &metadata, &list.items),
            (View::Partial, Encoding::Json) => partial_list(&metadata, &list.items),
            (view, encoding) => return value_as(StatusCode::OK, &self.list_value(view, &metadata, &list), encoding),
        };
        if !self.format.gzip || body.len() < GZIP_BYTES_MIN {
            return response::answer(StatusCode::OK, response::JSON, full(body));
        }
        match tokio::task::spawn_blocking(move || gzip(&body)).await {
            Ok(Ok(packed)) => {
                let mut answer = response::answer(StatusCode::OK, response::JSON, full(packed));
                response::set(&mut answer, http::header::CONTENT_ENCODING, "gzip");
                response::set(&mut answer, http::header::VARY, "Accept-Encoding");
                answer
            }
            Ok(Err(error)) => response::error(&ApiError::internal(error)),
            Err(error) => response::error(&ApiError::internal(error)),
        }
    }

    fn list_value(&self, view: View, metadata: &Value, list: &List) -> Value {
        match view {
            View::Table(include) => self.table(&list.items, metadata, include, true),
            View::Whole => {
                let names = self.resource.names();
                let items: Vec<Value> = list.items.iter().map(Object::value).collect();
                json!({"kind": format!("{}List", names.kind), "apiVersion": names.api_version(), "metadata": metadata, "items": items})
            }
            View::Partial => {
                let items: Vec<Value> = list.items.iter().map(partial).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
        }
    }

    /// `meta.k8s.io/v1` `Table`. In a watch only the first event carries the columns.
    fn table(&self, objects: &[Object], metadata: &Value, include: Include, with_columns: bool) -> Value {
        let rows: Vec<Value> = objects.iter().map(|object| self.row(&object.value(), include)).collect();
        let columns = if with_columns { self.columns() } else { Value::Null };
        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
    }

    fn columns(&self) -> Value {
        let column = |column: &reeve_kinds::Column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        };
        self.resource.kind.columns().iter().map(column).collect()
    }

    fn row(&self, object: &Value, include: Include) -> Value {
        let mut row = Map::new();
        row.insert("cells".to_owned(), Value::Array(self.resource.kind.row(object, self.now)));
        match include {
            Include::None => {}
            Include::Object => {
                row.insert("object".to_owned(), object.clone());
            }
            Include::Metadata => {
                let metadata = object.get("metadata").cloned().unwrap_or_default();
                let partial =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                row.insert("object".to_owned(), partial);
            }
        }
        Value::Object(row)
    }

    /// Appends one watch event as a line.
    pub(crate) fn event(&self, event: &WatchEvent, is_first: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(event.kind.name().as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match self.format.view {
            View::Whole => out.extend_from_slice(trimmed(&event.object.json)),
            View::Partial => partial_json(&event.object, out),
            View::Table(include) => {
                let metadata = json!({"resourceVersion": event.object.revision.to_string()});
                let table = self.table(std::slice::from_ref(&event.object), &metadata, include, is_first);
                out.extend_from_slice(table.to_string().as_bytes());
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Appends the event that ends a watch with an error.
pub(crate) fn error_event(error: &ApiError, out: &mut Vec<u8>) {
    out.extend_from_slice(json!({"type": "ERROR", "object": error.status()}).to_string().as_bytes());
    out.push(b'\n');
}

/// A value as text of the wanted encoding.
pub(crate) fn value_as(code: StatusCode, value: &Value, encoding: Encoding) -> Answer {
    match encoding {
        Encoding::Json => response::json(code, value),
        Encoding::Pretty => response::answer(code, response::JSON, full(format!("{value:#}\n"))),
        Encoding::Yaml => response::answer(code, "application/yaml", full(yaml::write(value))),
    }
}

/// Packs a text for the wire, quick rather than small.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Bytes, BoxError> {
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::fast());
    packer.write_all(bytes)?;
    Ok(packer.finish()?.into())
}

fn trimmed(json: &Bytes) -> &[u8] {
    json.strip_suffix(b"\n").unwrap_or(json)
}

fn line(json: &Bytes) -> Bytes {
    let mut text = Vec::with_capacity(json.len() + 1);
    text.extend_from_slice(trimmed(json));
    text.push(b'\n');
    text.into()
}

fn list_metadata(list: &List) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), list.revision.to_string().into());
    if !list.continue_token.is_empty() {
        metadata.insert("continue".to_owned(), list.continue_token.as_str().into());
    }
    if let Some(remaining) = list.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(metadata)
}

fn plain_list(names: &Names, metadata: &Value, items: &[Object]) -> Vec<u8> {
    let size: usize = items.iter().map(|item| item.json.len() + 1).sum();
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        names.kind,
        names.api_version()
    );
    let mut out = Vec::with_capacity(head.len() + size + 4);
    out.extend_from_slice(head.as_bytes());
    join(items, &mut out, |item, out| out.extend_from_slice(trimmed(&item.json)));
    out
}

fn partial_list(metadata: &Value, items: &[Object]) -> Vec<u8> {
    let head = format!(
        "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":["
    );
    let mut out = head.into_bytes();
    join(items, &mut out, partial_json);
    out
}

fn join(items: &[Object], out: &mut Vec<u8>, write: impl Fn(&Object, &mut Vec<u8>)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.extend_from_slice(b"]}\n");
}

fn metadata_of(object: &Object) -> &str {
    serde_json::from_slice::<MetadataOnly<'_>>(&object.json).map_or("{}", |found| found.metadata.get())
}

fn partial_json(object: &Object, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":");
    out.extend_from_slice(metadata_of(object).as_bytes());
    out.push(b'}');
}

fn partial(object: &Object) -> Value {
    let metadata: Value = serde_json::from_str(metadata_of(object)).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}
