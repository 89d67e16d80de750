//! Objects that several watchers get as protobuf, encoded for the first of them and kept for a moment for the others.
//!
//! Watchers of the same resource get the very same JSON bytes: where they lie in memory tells which object it is. An
//! entry keeps those bytes alive, so no other object can come to lie there while the entry is looked at.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::encode::EncodeError;
use crate::registry::Object;

/// So many objects are kept, each in the place that its address gives it: the newest there wins.
const PLACES: usize = 128;

/// Larger objects are not kept: with their JSON they would take more than 4 MiB together.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// One object in both forms.
struct Pair {
    object: Object,
    protobuf: Bytes,
}

/// The objects that were encoded last. One per server.
pub(crate) struct Shared {
    places: Vec<Mutex<Option<Pair>>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::new(None)).collect() }
    }
}

impl Shared {
    /// The object as protobuf with its envelope; its kind is what the text says.
    pub(crate) fn object(&self, object: &Object) -> Result<Bytes, EncodeError> {
        let identity = object.identity();
        // The lowest bits are the same for all: allocations begin at multiples of 16.
        let place = self.places.get((identity.0 >> 4) % PLACES).filter(|_| object.len() <= KEPT_BYTES_MAX);
        let Some(place) = place else { return super::encode::object(&object.json()).map(Bytes::from) };
        let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        // Encoded under the lock: the others of this object wait for it rather than do it again.
        if let Some(pair) = kept.as_ref().filter(|pair| pair.object.identity() == identity && pair.object == *object) {
            return Ok(pair.protobuf.clone());
        }
        let protobuf = Bytes::from(super::encode::object(&object.json())?);
        *kept = Some(Pair { object: object.clone(), protobuf: protobuf.clone() });
        Ok(protobuf)
    }
}

#[cfg(test)]
mod tests {
    use reeve_store::Revision;

    use super::*;

    #[test]
    fn an_object_is_encoded_once_for_all_who_hold_the_same_bytes() {
        let shared = Shared::default();
        let text = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}"#;
        let object = Object::stored(Bytes::from_static(text), Revision(7));
        let first = shared.object(&object).unwrap();
        let second = shared.object(&object.clone()).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        let other = Object::stored(Bytes::copy_from_slice(text), Revision(7));
        assert_eq!(shared.object(&other).unwrap(), first);
        assert_ne!(shared.object(&object.at(Revision(8))).unwrap(), first);
        assert!(shared.object(&Object::whole(Bytes::from_static(b"{}"), Revision(7))).is_err());
    }
}
