//! What the registry answers: objects as the JSON that is sent, lists and watches of them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use reeve_store::Revision;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::encode;
use crate::status::ApiError;

/// One object of which somebody is sent the JSON text, with `metadata.resourceVersion` in it. Clones share the bytes,
/// and with them the store: a stored text carries no resourceVersion, it enters as the text is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// As it is stored, or as it is sent.
    text: Bytes,
    /// Where the resourceVersion enters; 0: nothing is missing.
    place: usize,
    /// The revision of its last change; for a deleted object that of its deletion.
    pub revision: Revision,
}

/// What stands before the place of the resourceVersion.
const METADATA: &[u8] = b"\"metadata\":{";

impl Object {
    /// An object whose text is complete.
    pub fn whole(text: impl Into<Bytes>, revision: Revision) -> Self {
        let mut text = text.into();
        if text.ends_with(b"\n") {
            text.truncate(text.len() - 1);
        }
        Self { text, place: 0, revision }
    }

    /// An object of the store: its `metadata` is the first of its fields that is an object, and has no
    /// resourceVersion.
    #[must_use]
    pub fn stored(text: Bytes, revision: Revision) -> Self {
        let found = text.windows(METADATA.len()).position(|window| window == METADATA);
        let place = found.map_or(0, |at| at + METADATA.len());
        Self { text, place, revision }
    }

    /// The text but for the resourceVersion, which a stored object does not have: for who looks for other fields.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many bytes are sent.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.place == 0 {
            return self.text.len();
        }
        let digits = self.revision.0.checked_ilog10().unwrap_or(0) as usize + 1;
        self.text.len() + "\"resourceVersion\":\"\"".len() + digits + self.comma().len()
    }

    /// What stands between the resourceVersion and what follows.
    fn comma(&self) -> &'static str {
        if self.text.get(self.place) == Some(&b'}') { "" } else { "," }
    }

    fn write_version(&self, out: &mut Vec<u8>) {
        if self.place > 0 {
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(self.revision.to_string().as_bytes());
            out.push(b'"');
            out.extend_from_slice(self.comma().as_bytes());
        }
    }

    /// Never: even `{}` has a text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Appends what is sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_without(0, out);
    }

    /// Appends what is sent but for so many bytes behind the opening brace; they stand before the metadata.
    pub fn write_without(&self, left_out: usize, out: &mut Vec<u8>) {
        let (head, rest) = if self.place == 0 { (&self.text[..], &[][..]) } else { self.text.split_at(self.place) };
        let (brace, head) = head.split_at(head.len().min(1));
        out.extend_from_slice(brace);
        out.extend_from_slice(head.get(left_out..).unwrap_or_default());
        self.write_version(out);
        out.extend_from_slice(rest);
    }

    /// What is sent.
    #[must_use]
    pub fn json(&self) -> Bytes {
        if self.place == 0 {
            return self.text.clone();
        }
        let mut out = Vec::with_capacity(self.len());
        self.write(&mut out);
        out.into()
    }

    /// The object parsed; costs a parse on every call. The stored bytes are our own and always parse.
    #[must_use]
    pub fn value(&self) -> Value {
        let mut value = self.parsed();
        if self.place > 0
            && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        }
        value
    }

    /// The same without resourceVersion: as the kinds and the store know it.
    #[must_use]
    pub fn bare(&self) -> Value {
        let mut value = self.parsed();
        if self.place == 0
            && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("resourceVersion");
        }
        value
    }

    fn parsed(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap_or_default()
    }

    /// Its `metadata`, as it is sent.
    pub(crate) fn write_metadata(&self, out: &mut Vec<u8>) {
        #[derive(Deserialize)]
        struct MetadataOnly<'j> {
            #[serde(borrow)]
            metadata: &'j RawValue,
        }
        let found = serde_json::from_slice::<MetadataOnly<'_>>(&self.text).map_or("{}", |found| found.metadata.get());
        let (brace, rest) = found.split_at(found.len().min(1));
        out.extend_from_slice(brace.as_bytes());
        self.write_version(out);
        out.extend_from_slice(rest.as_bytes());
    }

    /// With another resourceVersion.
    pub(crate) fn at(&self, revision: Revision) -> Self {
        if self.place == 0 {
            return Self::stored(encode::stored(&self.bare()), revision);
        }
        Self { revision, ..self.clone() }
    }

    /// Which bytes, as which revision: two objects that are the same one in memory say the same.
    pub(crate) fn identity(&self) -> (usize, Revision) {
        (self.text.as_ptr() as usize, self.revision)
    }
}

/// The answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The object after the write; for a deletion that is complete its last state, or a `Status`
    /// (see [`Written::is_status`]).
    pub object: Object,
    /// Whether a new object was made: the HTTP code is 201 then.
    pub created: bool,
    /// Whether `object` is a `metav1.Status` rather than an object of the kind.
    pub is_status: bool,
    /// Texts for the `Warning` header.
    pub warnings: Vec<String>,
}

/// A list, consistent as of `revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The list's `resourceVersion`.
    pub revision: Revision,
    /// `metadata.continue`; empty on the last page.
    pub continue_token: String,
    /// `metadata.remainingItemCount`, where it is known.
    pub remaining: Option<u64>,
    /// The objects, ordered by namespace and name.
    pub items: Vec<Object>,
}

/// The type of a watch event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The object is new to the watcher.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone, or does not match the watcher's selectors any more.
    Deleted,
    /// No object, only its `resourceVersion`: everything up to it has been delivered.
    Bookmark,
}

impl EventType {
    /// As it stands in the event's `type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
        }
    }
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventType,
    /// To what.
    pub object: Object,
}

/// A running watch. Ends when its timeout is over or the watcher is too slow; an `Err` is sent as an `ERROR`
/// event with its `Status` and is always the last item. Dropping it ends the watch.
pub struct Watch(BoxStream<'static, Result<WatchEvent, ApiError>>);

impl Watch {
    pub(crate) fn new(events: impl Stream<Item = Result<WatchEvent, ApiError>> + Send + 'static) -> Self {
        Self(Box::pin(events))
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
