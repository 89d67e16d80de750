//! Keys that stand twice in YAML, told as Kubernetes' YAML reader tells them: by the line of the second value.
//!
//! The reader gives places away only in errors. So the text is read again, once for each key that is told, up to it.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{COMPLAINTS_MAX, DEPTH_MAX, Key};

/// So much is read again for all keys together; there is always enough for one.
const BYTES_READ_MAX: usize = 4 * 1024 * 1024;

/// How each complaint begins.
const LINE: &str = "line ";

/// Whether a complaint is one of these.
pub(crate) fn is_of_yaml(complaint: &str) -> bool {
    complaint.starts_with(LINE) && complaint.ends_with(" already set in map")
}

/// All complaints in one text.
pub(crate) fn yaml_errors(complaints: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", complaints.join("\n  "))
}

/// `line 4: key "replicas" already set in map`, for the first `count` keys that stand twice.
pub(super) fn in_yaml(text: &[u8], count: usize) -> Vec<String> {
    let affordable = (BYTES_READ_MAX / text.len().max(1)).max(1);
    (0..count.min(COMPLAINTS_MAX).min(affordable)).filter_map(|index| nth(text, index)).collect()
}

fn nth(text: &[u8], index: usize) -> Option<String> {
    let finder = Finder { left: Cell::new(index), found: Cell::default() };
    let error = Walk { finder: &finder, depth: 0 }.deserialize(serde_yaml::Deserializer::from_slice(text)).err()?;
    let (key, line) = (finder.found.take()?, error.location()?.line());
    Some(format!("{LINE}{line}: key {key:?} already set in map"))
}

struct Finder {
    /// How many keys that stand twice are passed over.
    left: Cell<usize>,
    /// The key at which reading has stopped.
    found: Cell<Option<String>>,
}

#[derive(Clone, Copy)]
struct Walk<'f> {
    finder: &'f Finder,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        if self.depth > DEPTH_MAX {
            return Err(D::Error::custom("too deep"));
        }
        input.deserialize_any(self)
    }
}

/// What takes no value at all, so that the error says where it stands.
struct Stop;

impl<'de> DeserializeSeed<'de> for Stop {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl Visitor<'_> for Stop {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no value")
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _value: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        while input.next_element_seed(Self { depth: self.depth + 1, ..self })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = input.next_key_seed(Key)? {
            if seen.contains(&key) {
                match self.finder.left.get().checked_sub(1) {
                    Some(left) => self.finder.left.set(left),
                    None => {
                        self.finder.found.set(Some(key));
                        return input.next_value_seed(Stop);
                    }
                }
            }
            seen.insert(key);
            input.next_value_seed(Self { depth: self.depth + 1, ..self })?;
        }
        Ok(())
    }
}
