//! Series and the table they are found in without a lock.

use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::Gauge;
use super::histogram::{BYTES, EVENT_BYTES, Histogram};

/// Most series of a table: verbs times resources times scopes are some hundreds.
pub(super) const SERIES_MAX: usize = 4096;

/// How many places a key may stand behind the one that its hash names.
const PROBES_MAX: usize = 32;

/// Answers to one kind of request have few codes; further ones are not counted.
const CODES_MAX: usize = 16;

/// What a series is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Key<'k> {
    pub(crate) verb: &'k str,
    pub(crate) group: &'k str,
    pub(crate) version: &'k str,
    pub(crate) resource: &'k str,
    pub(crate) subresource: &'k str,
    pub(crate) scope: &'static str,
    pub(crate) component: &'static str,
    pub(crate) dry_run: bool,
}

/// What a table holds.
pub(super) trait Keyed {
    fn new(key: &Key<'_>) -> Self;
    fn is(&self, key: &Key<'_>) -> bool;
}

/// Series by key. They are added and never taken away.
pub(super) struct Table<S> {
    places: Vec<OnceLock<Arc<S>>>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { places: (0..SERIES_MAX).map(|_| OnceLock::new()).collect() }
    }
}

impl<S: Keyed> Table<S> {
    /// The series of the key; made when it is missing, `make` agrees and there is room.
    pub(super) fn get(&self, key: &Key<'_>, make: impl FnOnce() -> bool) -> Option<Arc<S>> {
        let mut hasher = std::hash::DefaultHasher::new();
        key.hash(&mut hasher);
        let home = usize::try_from(hasher.finish() % SERIES_MAX as u64).unwrap_or_default();
        let mut make = Some(make);
        for place in self.places.iter().cycle().skip(home).take(PROBES_MAX) {
            if place.get().is_none() && !make.take().is_none_or(|make| make()) {
                return None;
            }
            // Another request may be making the very same series here: then that one is meant.
            let found = place.get_or_init(|| Arc::new(S::new(key)));
            if found.is(key) {
                return Some(Arc::clone(found));
            }
        }
        None
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<S>> {
        self.places.iter().filter_map(OnceLock::get)
    }
}

/// The texts of a key, kept.
struct OwnKey {
    texts: [String; 5],
    scope: &'static str,
    component: &'static str,
    dry_run: bool,
}

impl OwnKey {
    fn new(key: &Key<'_>) -> Self {
        let texts = [key.verb, key.group, key.version, key.resource, key.subresource].map(str::to_owned);
        Self { texts, scope: key.scope, component: key.component, dry_run: key.dry_run }
    }

    fn is(&self, key: &Key<'_>) -> bool {
        let texts = [key.verb, key.group, key.version, key.resource, key.subresource];
        self.texts.iter().zip(texts).all(|(own, other)| own == other)
            && (self.scope, self.component, self.dry_run) == (key.scope, key.component, key.dry_run)
    }
}

/// The requests of one kind.
pub(crate) struct Series {
    key: OwnKey,
    /// As they stand in the text, but for `dry_run`, which not every family has.
    pub(super) labels: String,
    /// Code and count; a code of zero is a free place.
    codes: Vec<(AtomicU16, AtomicU64)>,
    pub(super) duration: Histogram,
    pub(super) size: Histogram,
    pub(super) running: Gauge,
}

impl Keyed for Series {
    fn new(key: &Key<'_>) -> Self {
        let Key { verb, group, version, resource, subresource, scope, component, .. } = *key;
        let labels = format!(
            "component=\"{component}\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        );
        Self {
            key: OwnKey::new(key),
            labels,
            codes: (0..CODES_MAX).map(|_| (AtomicU16::new(0), AtomicU64::new(0))).collect(),
            duration: Histogram::of_requests(),
            size: Histogram::new(BYTES, 1.0),
            running: Gauge::default(),
        }
    }

    fn is(&self, key: &Key<'_>) -> bool {
        self.key.is(key)
    }
}

impl Series {
    fn verb(&self) -> &str {
        self.key.texts.first().map_or("", String::as_str)
    }

    /// Group, version, resource and subresource.
    pub(super) fn resource(&self) -> [&str; 4] {
        let [_, group, version, resource, subresource] = &self.key.texts;
        [group, version, resource, subresource]
    }

    /// Whether these are watches.
    pub(crate) fn is_watch(&self) -> bool {
        self.verb() == "WATCH"
    }

    pub(super) fn is_long_running(&self) -> bool {
        matches!(self.verb(), "WATCH" | "CONNECT")
    }

    /// Only of reading it is asked how much comes back.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.verb(), "GET" | "LIST")
    }

    pub(super) fn dry_run(&self) -> &'static str {
        if self.key.dry_run { "dry_run=\"All\"" } else { "dry_run=\"\"" }
    }

    /// Counts a request that has been answered.
    pub(crate) fn finish(&self, code: u16, took: Duration, bytes: Option<u64>) {
        for (own, count) in &self.codes {
            let is_own = own.load(Ordering::Relaxed) == code
                || own
                    .compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed)
                    .map_or_else(|is| is == code, |_| true);
            if is_own {
                count.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        self.duration.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if let Some(bytes) = bytes.filter(|_| self.is_read() && code < 400) {
            self.size.observe(bytes);
        }
    }

    pub(super) fn codes(&self) -> impl Iterator<Item = (u16, u64)> {
        let codes =
            self.codes.iter().map(|(code, count)| (code.load(Ordering::Relaxed), count.load(Ordering::Relaxed)));
        codes.filter(|(_, count)| *count > 0)
    }
}

/// A watch that goes on; counted as a request when it is dropped.
pub(crate) struct Running {
    series: Arc<Series>,
    began: Instant,
}

impl Running {
    pub(crate) fn begin(series: Arc<Series>) -> Self {
        series.running.up();
        Self { series, began: Instant::now() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.series.running.down();
        self.series.finish(200, self.began.elapsed(), None);
    }
}

/// The watches of one resource.
pub(crate) struct WatchSeries {
    key: OwnKey,
    pub(super) labels: String,
    pub(super) sizes: Histogram,
}

impl WatchSeries {
    /// Counts an event that is sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sizes.observe(bytes as u64);
    }
}

impl Keyed for WatchSeries {
    fn new(key: &Key<'_>) -> Self {
        let labels = format!("group=\"{}\",resource=\"{}\",version=\"{}\"", key.group, key.resource, key.version);
        Self { key: OwnKey::new(key), labels, sizes: Histogram::new(EVENT_BYTES, 1.0) }
    }

    fn is(&self, key: &Key<'_>) -> bool {
        self.key.is(key)
    }
}
