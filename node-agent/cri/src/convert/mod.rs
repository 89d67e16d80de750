//! What the messages of CRI say in the engine's terms, and the other way round. Pure.

pub mod container;
pub mod image;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod signal;
pub mod stats;

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

/// A request that cannot be done as it is, whoever made it. Ends as gRPC's `InvalidArgument`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Refused {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Annotation under which a message lies in the engine's records, beside what the engine itself understands of it:
/// what it does not is still told, also in a later life.
pub const RECORD: &str = "cri.reeve/record";

/// A message as a record's text.
#[must_use]
pub fn to_record(message: &impl prost::Message) -> String {
    STANDARD.encode(message.encode_to_vec())
}

/// Annotations as hooks see them, with the whole message beside them.
fn noted(given: &HashMap<String, String>, message: &impl prost::Message) -> BTreeMap<String, String> {
    let given = given.iter().map(|(name, value)| (name.clone(), value.clone()));
    given.chain([(RECORD.to_owned(), to_record(message))]).collect()
}

/// The message of a record; `None` where somebody else than we has made what it describes.
#[must_use]
pub fn from_record<M: prost::Message + Default>(annotations: &BTreeMap<String, String>) -> Option<M> {
    let bytes = STANDARD.decode(annotations.get(RECORD)?).ok()?;
    M::decode(bytes.as_slice()).ok()
}

/// Nanoseconds since 1970, CRI's time. 0 is no time.
#[must_use]
pub fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The same, of a time that may not have come.
#[must_use]
pub fn nanoseconds_or_none(time: Option<Timestamp>) -> i64 {
    time.map_or(0, nanoseconds)
}

/// The time that so many nanoseconds mean.
#[must_use]
pub fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

/// Whether all of a selector's labels are there.
#[must_use]
pub fn selects<'s, S>(selector: S, labels: &HashMap<String, String>) -> bool
where
    S: IntoIterator<Item = (&'s String, &'s String)>,
{
    selector.into_iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// A number that means nothing when it is not above zero.
fn positive<T: Default + PartialOrd>(number: T) -> Option<T> {
    (number > T::default()).then_some(number)
}

/// A text that means nothing when it is empty.
fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// An id of a user or group.
fn id(what: &str, value: i64) -> Result<u32, Refused> {
    u32::try_from(value).map_err(|_| Refused::new(format!("invalid {what} {value}")))
}
