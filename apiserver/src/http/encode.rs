//! Objects, lists and watch events in the form the client wants.
//!
//! The registry hands out JSON bytes; the common case copies them, and protobuf is written from them in one pass.
//! Only tables and YAML parse them again.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use reeve_store::Revision;
use serde_json::{Map, Value, json};

use super::list_body::ListBody;
use super::negotiate::{Encoding, Format, Include, View};
use super::protobuf::{self, EncodeError};
use super::response::{self, Answer, BoxError, full};
use super::{pretty, yaml};
use crate::registry::{List, Object, Resource, WatchEvent};
use crate::status::{self, ApiError};

/// Answers smaller than this are not worth compressing; Kubernetes' number.
const GZIP_BYTES_MIN: usize = 128 * 1024;

/// The kind of an object of which only the metadata is shown.
const PARTIAL: &str = "PartialObjectMetadata";

/// What the forms of an answer depend on.
pub(crate) struct Encoder<'r> {
    pub(crate) resource: &'r Arc<Resource>,
    pub(crate) format: Format,
    /// Ages in tables are as of this time.
    pub(crate) now: Timestamp,
}

impl From<EncodeError> for ApiError {
    fn from(error: EncodeError) -> Self {
        Self::internal(error)
    }
}

impl Encoder<'_> {
    /// One object.
    pub(crate) async fn object(&self, code: StatusCode, object: &Object) -> Result<Answer, ApiError> {
        let body = match self.format.view {
            View::Whole if self.format.encoding == Encoding::Json => {
                let mut line = Vec::with_capacity(object.len() + 1);
                object.write(&mut line);
                line.push(b'\n');
                line.into()
            }
            View::Whole => text(&object.json(), self.format.encoding)?,
            View::Partial => self.partial(object)?,
            View::PartialList => return Err(self.not_a_list()),
            View::Table(include) => {
                let metadata = version_metadata(object.revision);
                value_text(
                    &self.table(std::slice::from_ref(object), &Value::Object(metadata), include, true),
                    self.format.encoding,
                )?
            }
        };
        self.finish(code, body).await
    }

    /// A value that is no object of the resource: a `Status`, a `Scale`.
    pub(crate) async fn value(&self, code: StatusCode, value: &Value) -> Result<Answer, ApiError> {
        self.finish(code, value_text(value, self.format.encoding)?).await
    }

    /// A list; large ones compressed, off the async threads.
    pub(crate) async fn list(&self, list: List) -> Result<Answer, ApiError> {
        let metadata = list_metadata(&list);
        let body = match (self.format.view, self.format.encoding) {
            (View::Partial, _) => return Err(self.a_list()),
            (View::Table(include), encoding) => {
                value_text(&self.table(&list.items, &metadata, include, true), encoding)?
            }
            (_, Encoding::Protobuf) => self.protobuf_list(&metadata, &list.items)?.into(),
            (View::Whole, Encoding::Json) => {
                let list = self.plain_list(&metadata, list.items);
                if !self.format.gzip || list.len() <= GZIP_BYTES_MIN as u64 {
                    let media_type = self.format.encoding.media_type();
                    return Ok(response::answer(StatusCode::OK, media_type, list.boxed_unsync()));
                }
                list.collect().into()
            }
            (View::Whole, encoding) => text_of(self.plain_list(&metadata, list.items).collect(), encoding)?,
            (View::PartialList, encoding) => text_of(self.partial_list(&metadata, &list.items), encoding)?,
        };
        self.finish(StatusCode::OK, body).await
    }

    async fn finish(&self, code: StatusCode, body: Bytes) -> Result<Answer, ApiError> {
        let media_type = self.format.encoding.media_type();
        if !self.format.gzip || body.len() <= GZIP_BYTES_MIN {
            return Ok(response::answer(code, media_type, full(body)));
        }
        let packed = tokio::task::spawn_blocking(move || gzip(&body)).await.map_err(ApiError::internal)?;
        let mut answer = response::answer(code, media_type, full(packed.map_err(ApiError::internal)?));
        response::set(&mut answer, http::header::CONTENT_ENCODING, "gzip");
        response::set(&mut answer, http::header::VARY, "Accept-Encoding");
        Ok(answer)
    }

    fn plain_list(
        &self,
        metadata: &Value,
        items: Vec<Object>,
    ) -> ListBody<impl Fn(&Object) -> usize + Send + Unpin + use<>> {
        let names = self.resource.names();
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            names.kind,
            names.api_version()
        );
        let resource = Arc::clone(self.resource);
        ListBody::new(head.into_bytes(), items, move |item| resource.left_out_of_list(item))
    }

    fn partial_list(&self, metadata: &Value, items: &[Object]) -> Vec<u8> {
        let head = format!(
            "{{\"kind\":\"{PARTIAL}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            self.format.meta_version
        );
        let mut out = head.into_bytes();
        if items.is_empty() {
            // As in Kubernetes, whose list of nothing is none at all here.
            out.truncate(out.len() - 1);
            out.extend_from_slice(b"null}\n");
        } else {
            join(items, &mut out, |item, out| self.partial_json(item, out));
        }
        out
    }

    fn protobuf_list(&self, metadata: &Value, items: &[Object]) -> Result<Vec<u8>, EncodeError> {
        let names = self.resource.names();
        let (api_version, metadata) = (names.api_version(), metadata.to_string());
        let (list_kind, whole) = (format!("{}List", names.kind), self.format.view == View::Whole);
        let head = protobuf::ListHead {
            api_version: if whole { &api_version } else { self.format.meta_version },
            kind: if whole { &list_kind } else { "PartialObjectMetadataList" },
            item: if whole { (&api_version, names.kind) } else { (self.format.meta_version, PARTIAL) },
            metadata: &metadata,
        };
        let size: usize = if whole { items.iter().map(Object::len).sum() } else { 256 * items.len() };
        let mut list = protobuf::list(&head, size)?;
        for item in items {
            protobuf::push_item(&mut list, &item.json())?;
        }
        Ok(protobuf::end_list(list))
    }

    /// `meta.k8s.io/v1` `Table`. In a watch only the first event carries the columns.
    fn table(&self, objects: &[Object], metadata: &Value, include: Include, with_columns: bool) -> Value {
        let rows: Vec<Value> = objects.iter().map(|object| self.row(&object.value(), include)).collect();
        let columns = if with_columns { self.columns() } else { Value::Null };
        json!({"kind": "Table", "apiVersion": self.format.meta_version, "metadata": metadata, "columnDefinitions": columns, "rows": rows})
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
        let ends_initial_events = object.pointer("/metadata/annotations/k8s.io~1initial-events-end").is_some();
        let shown = match include {
            Include::None if !ends_initial_events => Value::Null,
            Include::Object => object.clone(),
            Include::None | Include::Metadata => {
                let metadata = object.get("metadata").cloned().unwrap_or_default();
                json!({"kind": PARTIAL, "apiVersion": self.format.meta_version, "metadata": metadata})
            }
        };
        row.insert("object".to_owned(), shown);
        Value::Object(row)
    }

    /// Appends one watch event: a line, or a frame of protobuf.
    pub(crate) fn event(
        &self,
        event: &WatchEvent,
        is_first: bool,
        shared: &protobuf::Shared,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        if self.format.encoding == Encoding::Protobuf {
            let object = match self.format.view {
                View::Partial => protobuf::object_as(self.format.meta_version, PARTIAL, &event.object.json())?.into(),
                _ => shared.object(&event.object)?,
            };
            protobuf::event(event.kind.name(), &object, out);
            return Ok(());
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(event.kind.name().as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match self.format.view {
            // Kubernetes does not find the list that was asked for, and sends what it has.
            View::Whole | View::PartialList => event.object.write(out),
            View::Partial => self.partial_json(&event.object, out),
            View::Table(include) => {
                let metadata = json!({"resourceVersion": event.object.revision.to_string()});
                let table = self.table(std::slice::from_ref(&event.object), &metadata, include, is_first);
                out.extend_from_slice(table.to_string().as_bytes());
            }
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn partial(&self, object: &Object) -> Result<Bytes, ApiError> {
        if self.format.encoding == Encoding::Protobuf {
            return Ok(protobuf::object_as(self.format.meta_version, PARTIAL, &object.json())?.into());
        }
        let mut out = Vec::new();
        self.partial_json(object, &mut out);
        text(&out, self.format.encoding)
    }

    fn partial_json(&self, object: &Object, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
        out.extend_from_slice(self.format.meta_version.as_bytes());
        out.extend_from_slice(b"\",\"metadata\":");
        object.write_metadata(out);
        out.push(b'}');
    }

    fn not_a_list(&self) -> ApiError {
        let found = go_type(self.resource, "");
        ApiError::new(
            406,
            "NotAcceptable",
            format!("you requested PartialObjectMetadataList, but the requested object is not a list ({found})"),
        )
    }

    fn a_list(&self) -> ApiError {
        let found = go_type(self.resource, "List");
        ApiError::new(
            406,
            "NotAcceptable",
            format!("you requested PartialObjectMetadata, but the requested object is a list ({found})"),
        )
    }
}

/// How Kubernetes' server calls the type in its own source: it stands in some of its answers.
fn go_type(resource: &Resource, suffix: &str) -> String {
    let names = resource.names();
    if !protobuf::has(&names.api_version(), names.kind) {
        return format!("*unstructured.Unstructured{suffix}");
    }
    let package = match names.group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("*{package}.{}{suffix}", names.kind)
}

/// Appends the event that ends a watch with an error.
pub(crate) fn error_event(error: &ApiError, encoding: Encoding, out: &mut Vec<u8>) {
    let status = error.status();
    if encoding == Encoding::Protobuf {
        if let Ok(object) = protobuf::object(status.to_string().as_bytes()) {
            protobuf::event("ERROR", &object, out);
        }
        return;
    }
    out.extend_from_slice(json!({"type": "ERROR", "object": status}).to_string().as_bytes());
    out.push(b'\n');
}

/// A value in the wanted encoding. One that has no protobuf form is answered in JSON: the request was served.
pub(crate) fn value_as(code: StatusCode, value: &Value, encoding: Encoding) -> Answer {
    match value_text(value, encoding) {
        Ok(body) => response::answer(code, encoding.media_type(), full(body)),
        Err(_) => response::json(code, value),
    }
}

/// A `Status`, in the wanted encoding.
pub(crate) fn status_as(code: StatusCode, status: &Value, encoding: Encoding) -> Answer {
    match text(status::text(status).as_bytes(), encoding) {
        Ok(body) => response::answer(code, encoding.media_type(), full(body)),
        Err(_) => response::json(code, status),
    }
}

fn value_text(value: &Value, encoding: Encoding) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Yaml => Ok(yaml::write(value).into()),
        _ => text(value.to_string().as_bytes(), encoding),
    }
}

/// A text of JSON (without the line break at its end) in the wanted encoding.
pub(crate) fn text(json: &[u8], encoding: Encoding) -> Result<Bytes, ApiError> {
    Ok(match encoding {
        Encoding::Json => {
            let mut line = Vec::with_capacity(json.len() + 1);
            line.extend_from_slice(json);
            line.push(b'\n');
            line.into()
        }
        Encoding::Pretty => pretty::indent(json).into(),
        Encoding::Yaml => yaml::write(&serde_json::from_slice(json).map_err(ApiError::internal)?).into(),
        Encoding::Protobuf => protobuf::object(json)?.into(),
    })
}

fn text_of(json: Vec<u8>, encoding: Encoding) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Json => Ok(json.into()),
        _ => text(json.trim_ascii_end(), encoding),
    }
}

/// Packs a text for the wire, quick rather than small.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Bytes, BoxError> {
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::fast());
    packer.write_all(bytes)?;
    Ok(packer.finish()?.into())
}

/// What is made when it is asked for has no version.
fn version_metadata(revision: Revision) -> Map<String, Value> {
    let version = (revision > Revision(0)).then(|| ("resourceVersion".to_owned(), revision.to_string().into()));
    version.into_iter().collect()
}

fn list_metadata(list: &List) -> Value {
    let mut metadata = version_metadata(list.revision);
    if !list.continue_token.is_empty() {
        metadata.insert("continue".to_owned(), list.continue_token.as_str().into());
    }
    if let Some(remaining) = list.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(metadata)
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
