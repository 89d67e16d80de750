//! Decides for each remark: hold it back, merge it with an earlier one, or write a new event. Pure.
//!
//! The three stages and their numbers are those of client-go's `EventCorrelator`: a spam filter per source and
//! object, an aggregator for remarks that differ only in their message, a counter for equal remarks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EventSource, ObjectReference};

use super::{EventType, Remark, namespace_of};

/// Different keys that each stage remembers; the oldest is forgotten first.
const MEMORY_LEN: usize = 4096;
/// A source may say this much about one object at once …
const SPAM_BURST: f64 = 25.0;
/// … and one remark more per this time.
const SPAM_REFILL: Duration = Duration::from_secs(300);
/// From this number of similar remarks on they are merged into one event …
const SIMILAR_MAX: usize = 10;
/// … if each came within this time of the one before.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// Source: client-go `EventAggregatorByReasonMessageFunc`.
const COMBINED_PREFIX: &str = "(combined from similar events): ";

/// One request to the API server.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) source: EventSource,
    pub(super) remark: Remark,
    pub(super) first: Timestamp,
    pub(super) count: i32,
    /// Whether an event of that name exists already and only counts up.
    pub(super) merged: bool,
    key: EqualKey,
}

/// Remarks that differ in their message only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SimilarKey {
    uid: String,
    about: String,
    field_path: String,
    kind: EventType,
    reason: String,
}

/// Equal remarks, or all similar ones once there are too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct EqualKey {
    similar: SimilarKey,
    message: Option<String>,
}

#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Timestamp,
}

#[derive(Debug)]
struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

#[derive(Debug, Clone)]
struct Written {
    name: String,
    first: Timestamp,
    count: i32,
}

/// The memory of one recorder.
#[derive(Debug)]
pub(super) struct Correlator {
    source: EventSource,
    tokens: Memory<String, Tokens>,
    similar: Memory<SimilarKey, Similar>,
    written: Memory<EqualKey, Written>,
}

impl Correlator {
    pub(super) fn new(source: EventSource) -> Self {
        Self { source, tokens: Memory::default(), similar: Memory::default(), written: Memory::default() }
    }

    /// What is to be written for a remark; `None` if it is held back as spam.
    pub(super) fn correlate(&mut self, mut remark: Remark) -> Option<Write> {
        if !self.passes_spam_filter(&remark) {
            return None;
        }
        let similar = similar_key(&remark);
        let key = if self.is_one_of_too_many(&similar, &remark) {
            remark.message.insert_str(0, COMBINED_PREFIX);
            EqualKey { similar, message: None }
        } else {
            EqualKey { similar, message: Some(remark.message.clone()) }
        };
        let namespace = namespace_of(&remark.about);
        let name = event_name(&remark);
        let source = self.source.clone();
        let write = match self.written.get(&key) {
            Some(before) => {
                let (name, first, count) = (before.name.clone(), before.first, before.count.saturating_add(1));
                Write { namespace, name, source, first, count, merged: true, remark, key }
            }
            None => Write { namespace, name, source, first: remark.at, count: 1, merged: false, remark, key },
        };
        Some(write)
    }

    /// Remembers that the server took it.
    pub(super) fn written(&mut self, write: &Write) {
        let written = Written { name: write.name.clone(), first: write.first, count: write.count };
        self.written.put(write.key.clone(), written);
    }

    fn passes_spam_filter(&mut self, remark: &Remark) -> bool {
        let about = about_text(&remark.about);
        let tokens = self.tokens.get_or_put(about, || Tokens { left: SPAM_BURST, at: remark.at });
        let refill = seconds_between(tokens.at, remark.at) / SPAM_REFILL.as_secs_f64();
        tokens.left = (tokens.left + refill).min(SPAM_BURST);
        tokens.at = remark.at;
        let passes = tokens.left >= 1.0;
        if passes {
            tokens.left -= 1.0;
        }
        passes
    }

    fn is_one_of_too_many(&mut self, key: &SimilarKey, remark: &Remark) -> bool {
        let new = || Similar { messages: HashSet::new(), last: remark.at };
        let similar = self.similar.get_or_put(key.clone(), new);
        if seconds_between(similar.last, remark.at) > SIMILAR_WITHIN.as_secs_f64() {
            similar.messages.clear();
        }
        similar.last = remark.at;
        similar.messages.insert(remark.message.clone());
        if similar.messages.len() < SIMILAR_MAX {
            return false;
        }
        // The set stays at its limit: it has to know that there are many, not which.
        similar.messages.remove(&remark.message);
        true
    }
}

fn similar_key(remark: &Remark) -> SimilarKey {
    SimilarKey {
        uid: remark.about.uid.clone().unwrap_or_default(),
        about: about_text(&remark.about),
        field_path: remark.about.field_path.clone().unwrap_or_default(),
        kind: remark.kind,
        reason: remark.reason.clone(),
    }
}

fn about_text(about: &ObjectReference) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    [&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version].map(part).join("/")
}

/// Object name and time in hexadecimal nanoseconds, as client-go names events.
fn event_name(remark: &Remark) -> String {
    let name = remark.about.name.as_deref().unwrap_or_default();
    format!("{name}.{:x}", remark.at.as_nanosecond())
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64().max(0.0)
}

/// A map that forgets its oldest entry when it is full.
#[derive(Debug)]
struct Memory<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Memory<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.remember(key);
        }
    }

    fn get_or_put(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.remember(key.clone());
        }
        self.entries.entry(key).or_insert_with(new)
    }

    fn remember(&mut self, key: K) {
        self.order.push_back(key);
        if self.order.len() > MEMORY_LEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn correlator() -> Correlator {
        Correlator::new(EventSource { component: Some("test".into()), host: None })
    }

    fn remark(message: &str, at_seconds: i64) -> Remark {
        let about = ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some("web".into()),
            uid: Some("u1".into()),
            ..ObjectReference::default()
        };
        let at = Timestamp::from_second(at_seconds).unwrap();
        Remark { about, kind: EventType::Warning, reason: "Failed".into(), message: message.into(), at }
    }

    #[test]
    fn an_equal_remark_counts_up_the_same_event() {
        let mut correlator = correlator();
        let first = correlator.correlate(remark("no", 10)).unwrap();
        assert!(!first.merged);
        assert_eq!(first.name, "web.2540be400");
        correlator.written(&first);
        let second = correlator.correlate(remark("no", 20)).unwrap();
        assert!(second.merged);
        assert_eq!((second.name, second.count, second.first.as_second()), (first.name, 2, 10));
    }

    #[test]
    fn an_event_that_was_never_written_is_not_counted_up() {
        let mut correlator = correlator();
        correlator.correlate(remark("no", 10)).unwrap();
        assert!(!correlator.correlate(remark("no", 20)).unwrap().merged);
    }

    #[test]
    fn a_source_that_says_too_much_about_one_object_is_held_back_until_time_has_passed() {
        let mut correlator = correlator();
        let written = (0..40).filter(|_| correlator.correlate(remark("no", 10)).is_some()).count();
        assert_eq!(written, 25);
        assert!(correlator.correlate(remark("no", 11)).is_none());
        assert!(correlator.correlate(remark("no", 311)).is_some());
    }

    #[test]
    fn many_similar_remarks_become_one_combined_event() {
        let mut correlator = correlator();
        let writes: Vec<Write> = (0..12)
            .filter_map(|n| {
                let write = correlator.correlate(remark(&format!("message {n}"), 10))?;
                correlator.written(&write);
                Some(write)
            })
            .collect();
        assert!(writes[..9].iter().all(|write| !write.merged && write.remark.message.starts_with("message")));
        assert_eq!(writes[9].remark.message, "(combined from similar events): message 9");
        assert!(writes[10].merged);
        assert_eq!(writes[11].count, 3);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..2 * MEMORY_LEN {
            memory.put(n, ());
        }
        assert_eq!(memory.entries.len(), MEMORY_LEN);
        assert!(memory.get(&0).is_none());
    }
}
