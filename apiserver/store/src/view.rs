//! The materialized view: an ordered map of bytes that holds the applied state. It knows nothing of
//! revisions; [`crate::encoding`] says what lies in it. It is never the truth: what it loses is rebuilt
//! from snapshot and log.

use std::fmt::Debug;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use imbl::OrdMap;

/// What a visitor of [`View::visit`] wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visit {
    /// The next record.
    Next,
    /// The first record at or behind this key, which must lie behind the current one.
    Seek(Vec<u8>),
    /// Nothing more.
    Stop,
}

/// A visitor of records: key, value.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> Visit + 'a;

/// A visitor that need not know large records: key, value or `None`.
pub type Scanner<'a> = dyn FnMut(&[u8], Option<&[u8]>) -> Visit + 'a;

/// Writes that become visible together.
#[derive(Debug, Clone, Default)]
pub struct ViewBatch {
    /// Key and new value, `None` to remove. Of two changes of one key the later one counts.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

impl ViewBatch {
    /// Writes a record.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Removes a record, if it is there.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.changes.push((key.into(), None));
    }
}

impl<K: Into<Bytes>, R: Into<Bytes>> FromIterator<(K, Option<R>)> for ViewBatch {
    fn from_iter<I: IntoIterator<Item = (K, Option<R>)>>(changes: I) -> Self {
        let into = |(key, record): (K, Option<R>)| (key.into(), record.map(Into::into));
        Self { changes: changes.into_iter().map(into).collect() }
    }
}

/// The view cannot be used any more; it must be rebuilt. Nobody's fault but the disk's, or a bug of ours.
#[derive(Debug, Clone, thiserror::Error)]
#[error("view {what}: {reason}")]
pub struct ViewError {
    /// The step that failed.
    pub what: &'static str,
    /// In the words of who refused it.
    pub reason: String,
}

impl ViewError {
    /// A record that is not what it must be.
    pub(crate) fn malformed(what: &'static str, key: &[u8]) -> Self {
        Self { what, reason: format!("malformed record {}", key.escape_ascii()) }
    }
}

/// An ordered map of bytes. Called from any thread; one batch at a time.
/// Implementations: [`MemoryView`], `FileView`, and `BufferedView` in front of one; all pass the tests of this module.
pub trait View: Send + Sync + Debug {
    /// One record.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError>;

    /// Shows the records from `from` (included) to `to` (excluded) in ascending order. Every record that is
    /// there during the whole visit is shown; one that comes or goes meanwhile may or may not be.
    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError>;

    /// As [`View::visit`], but records of more than a few bytes need not be read: they may be shown as `None`.
    fn scan(&self, from: &[u8], to: &[u8], scanner: &mut Scanner<'_>) -> Result<(), ViewError> {
        self.visit(from, to, &mut |key, record| scanner(key, Some(record)))
    }

    /// Makes a batch visible. After a crash its first records may be there and the others not, in its order.
    fn apply(&self, batch: ViewBatch) -> Result<(), ViewError>;

    /// Writes everything to disk, for a clean close. Not needed for durability.
    fn sync(&self) -> Result<(), ViewError>;

    /// Bytes that [`View::settle`] would write.
    fn unsettled(&self) -> usize {
        0
    }

    /// Hands on what is only held in memory so far. Blocks; may run beside everything else.
    fn settle(&self) -> Result<(), ViewError> {
        Ok(())
    }

    /// [`View::settle`], and then what was handed on goes to the disk at once, and the disk gets a rest: for whoever
    /// fills a view with much while others need the disk. Blocks.
    fn settle_gently(&self) -> Result<(), ViewError> {
        self.settle()
    }
}

/// Where a member's view comes from.
pub trait Views: Send + Sync + Debug {
    /// Opens the view that is there, or an empty one.
    fn open(&self) -> Result<Arc<dyn View>, ViewError>;

    /// Throws away what is there, so that the next [`Views::open`] is empty. The view must be dropped before.
    fn discard(&self) -> io::Result<()>;
}

/// A view in memory. Its content lasts as long as one of its handles.
#[derive(Debug, Clone, Default)]
pub struct MemoryView {
    records: Arc<RwLock<OrdMap<Bytes, Bytes>>>,
}

impl MemoryView {
    fn snapshot(&self) -> OrdMap<Bytes, Bytes> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.records.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
        let records = self.snapshot();
        let mut from = from.to_vec();
        'seek: while *from < *to {
            for (key, value) in records.range::<_, [u8]>((Bound::Included(&from[..]), Bound::Excluded(to))) {
                match visitor(key, value) {
                    Visit::Next => {}
                    Visit::Seek(key) => {
                        from = key;
                        continue 'seek;
                    }
                    Visit::Stop => return Ok(()),
                }
            }
            break;
        }
        Ok(())
    }

    fn apply(&self, batch: ViewBatch) -> Result<(), ViewError> {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch.changes {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), ViewError> {
        Ok(())
    }
}

impl Views for MemoryView {
    fn open(&self) -> Result<Arc<dyn View>, ViewError> {
        Ok(Arc::new(self.clone()))
    }

    fn discard(&self) -> io::Result<()> {
        self.records.write().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferedView;
    use crate::file_view::FileViews;

    /// Buffered views on one in memory.
    #[derive(Debug)]
    struct Buffered {
        inner: MemoryView,
        settles: bool,
    }

    impl Views for Buffered {
        fn open(&self) -> Result<Arc<dyn View>, ViewError> {
            let settles_at = if self.settles { 0 } else { usize::MAX };
            Ok(Arc::new(BufferedView::new(Arc::new(self.inner.clone()), settles_at)))
        }

        fn discard(&self) -> io::Result<()> {
            self.inner.discard()
        }
    }

    /// Runs a check on every implementation, named in failures.
    fn on_all(check: impl Fn(&str, &dyn Views)) {
        let folder = tempfile::tempdir().unwrap();
        check("memory", &MemoryView::default());
        check("buffered", &Buffered { inner: MemoryView::default(), settles: false });
        check("buffered, settled after each batch", &Buffered { inner: MemoryView::default(), settles: true });
        check("files", &FileViews::new(folder.path().join("view")));
    }

    fn batch(changes: &[(&str, Option<&str>)]) -> ViewBatch {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let owned = |(key, value): &(&str, Option<&str>)| (bytes(key), value.map(bytes));
        ViewBatch { changes: changes.iter().map(owned).collect() }
    }

    fn visited(view: &dyn View, from: &str, to: &str, next: impl Fn(&[u8]) -> Visit) -> String {
        let mut seen = Vec::new();
        let mut visitor = |key: &[u8], value: &[u8]| {
            seen.push(format!("{}={}", key.escape_ascii(), value.escape_ascii()));
            next(key)
        };
        view.visit(from.as_bytes(), to.as_bytes(), &mut visitor).unwrap();
        seen.join(" ")
    }

    #[test]
    fn a_visit_shows_a_range_in_order_and_goes_where_it_is_told() {
        on_all(|name, views| {
            let view = views.open().unwrap();
            view.apply(batch(&[("c", Some("3")), ("a", Some("1")), ("b", Some("2")), ("d", Some("4"))])).unwrap();
            view.apply(batch(&[("b", None), ("a", Some("new"))])).unwrap();
            assert_eq!(visited(&*view, "a", "d", |_| Visit::Next), "a=new c=3", "{name}");
            assert_eq!(
                visited(&*view, "a", "z", |key| if key == b"a" { Visit::Seek(b"d".to_vec()) } else { Visit::Next }),
                "a=new d=4",
                "{name}"
            );
            assert_eq!(visited(&*view, "a", "z", |_| Visit::Stop), "a=new", "{name}");
            assert_eq!(visited(&*view, "z", "a", |_| Visit::Next), "", "{name}");
        });
    }

    #[test]
    fn a_large_record_that_goes_while_it_is_visited_is_no_damage() {
        on_all(|name, views| {
            let view = views.open().unwrap();
            let large = "x".repeat(100_000);
            view.apply(batch(&[("a", Some("1")), ("k", Some(&large)), ("z", Some("2"))])).unwrap();
            let mut seen = Vec::new();
            let mut visitor = |key: &[u8], _: &[u8]| {
                if key == b"a" {
                    view.apply(batch(&[("k", None)])).unwrap();
                }
                seen.push(key.to_vec());
                Visit::Next
            };
            view.visit(b"a", b"zz", &mut visitor).unwrap();
            assert!(seen.starts_with(&[b"a".to_vec()]) && seen.ends_with(&[b"z".to_vec()]), "{name}: {seen:?}");
            assert_eq!(view.get(b"k").unwrap(), None, "{name}");
        });
    }

    #[test]
    fn a_large_record_comes_back_and_leaves_nothing_when_it_goes() {
        on_all(|name, views| {
            let view = views.open().unwrap();
            let large: String = (0..100_000).map(|n| char::from(b'a' + u8::try_from(n % 7).unwrap())).collect();
            view.apply(batch(&[("k", Some(&large)), ("l", Some("small"))])).unwrap();
            assert_eq!(view.get(b"k").unwrap().as_deref(), Some(large.as_bytes()), "{name}");
            assert_eq!(visited(&*view, "k", "m", |_| Visit::Next), format!("k={large} l=small"), "{name}");
            view.apply(batch(&[("k", None)])).unwrap();
            let mut left = 0;
            view.visit(b"", b"\xff\xff", &mut |_, _| {
                left += 1;
                Visit::Next
            })
            .unwrap();
            assert_eq!((view.get(b"k").unwrap(), left), (None, 1), "{name}");
        });
    }

    #[test]
    fn a_view_is_there_again_until_it_is_discarded_even_while_somebody_reads_it() {
        on_all(|name, views| {
            let view = views.open().unwrap();
            view.apply(batch(&[("a", Some("1"))])).unwrap();
            view.sync().unwrap();
            drop(view);
            let old = views.open().unwrap();
            assert_eq!(old.get(b"a").unwrap().as_deref(), Some(&b"1"[..]), "{name}");
            views.discard().unwrap();
            assert_eq!(views.open().unwrap().get(b"a").unwrap(), None, "{name}");
        });
    }
}
