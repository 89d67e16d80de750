//! What the registry answers: objects as the JSON that is sent, lists and watches of them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use reeve_store::Revision;
use serde_json::Value;

use crate::status::ApiError;

/// One object as it is sent: JSON with `metadata.resourceVersion` in it. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The JSON text.
    pub json: Bytes,
    /// The revision of its last change; for a deleted object that of its deletion.
    pub revision: Revision,
}

impl Object {
    /// The object parsed; costs a parse on every call. The stored bytes are our own and always parse.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
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
