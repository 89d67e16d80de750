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

/// Writes that become visible together.
#[derive(Debug, Clone, Default)]
pub struct ViewBatch {
    /// Key and new value, `None` to remove. Of two changes of one key the later one counts.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl ViewBatch {
    /// Writes a record.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((key, Some(value)));
    }

    /// Removes a record, if it is there.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.changes.push((key, None));
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

/// An ordered map of bytes with atomic batches. Called from any thread; one batch at a time.
/// Implementations: [`MemoryView`] and `SledView`; both pass the tests of this module.
pub trait View: Send + Sync + Debug {
    /// One record.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError>;

    /// Shows the records from `from` (included) to `to` (excluded) in ascending order. Every record that is
    /// there during the whole visit is shown; one that comes or goes meanwhile may or may not be.
    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError>;

    /// Makes a batch visible: all of it or, after a crash, none.
    fn apply(&self, batch: ViewBatch) -> Result<(), ViewError>;

    /// Writes everything to disk, for a clean close. Not needed for durability.
    fn sync(&self) -> Result<(), ViewError>;
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
                Some(value) => records.insert(key.into(), value.into()),
                None => records.remove(&key[..]),
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
