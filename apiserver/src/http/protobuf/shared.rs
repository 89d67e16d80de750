//! Objects that several watchers get as protobuf, encoded for the first of them and kept for a moment for the others.
//!
//! Watchers of the same resource get the very same JSON bytes: where they lie in memory tells which object it is. An
//! entry keeps those bytes alive, so no other object can come to lie there while the entry is looked at.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::encode::EncodeError;

/// So many objects are kept, each in the place that its address gives it: the newest there wins.
const PLACES: usize = 128;

/// Larger objects are not kept: with their JSON they would take more than 4 MiB together.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// One object in both forms.
struct Pair {
    json: Bytes,
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
    pub(crate) fn object(&self, json: &Bytes) -> Result<Bytes, EncodeError> {
        // The lowest bits are the same for all: allocations begin at multiples of 16.
        let place = self.places.get((json.as_ptr() as usize >> 4) % PLACES).filter(|_| json.len() <= KEPT_BYTES_MAX);
        let Some(place) = place else { return super::encode::object(json).map(Bytes::from) };
        let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        // Encoded under the lock: the others of this object wait for it rather than do it again.
        if let Some(pair) = kept.as_ref().filter(|pair| pair.json.as_ptr() == json.as_ptr() && pair.json == *json) {
            return Ok(pair.protobuf.clone());
        }
        let protobuf = Bytes::from(super::encode::object(json)?);
        *kept = Some(Pair { json: json.clone(), protobuf: protobuf.clone() });
        Ok(protobuf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_encoded_once_for_all_who_hold_the_same_bytes() {
        let shared = Shared::default();
        let json = Bytes::from_static(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}"#);
        let first = shared.object(&json).unwrap();
        let second = shared.object(&json.clone()).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        let other = Bytes::copy_from_slice(&json);
        assert_eq!(shared.object(&other).unwrap(), first);
        assert!(shared.object(&Bytes::from_static(b"{}")).is_err());
    }
}
