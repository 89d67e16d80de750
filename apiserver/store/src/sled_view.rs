//! The view on sled, with a buffer in front of it: sled takes a few large batches well, many small ones badly (each
//! wakes its threads and rewrites pages). sled's own durability is not relied upon (its `flush` was seen not to sync):
//! whether what it holds may be used is decided by [`crate::recover`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::buffer::BufferedView;
use crate::view::{View, ViewBatch, ViewError, Views, Visit, Visitor};

/// sled keeps values of this size within its pages; larger ones would cost a file each. A page holds up to 16
/// records and must stay well below sled's segment of 512 KiB.
const CHUNK_BYTES: usize = 8 * 1024;
/// Chunks lie behind all other records, under this byte, the record's key and a number of four bytes.
const CHUNK_SPACE: u8 = 0xff;
/// What waits in memory before it is written to sled whatever else goes on; the member has it written long before.
const BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// sled writes in the background, pages many times over, from buffers that nothing bounds: after so many bytes it is
/// waited for.
const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024;
const WHOLE: u8 = 0;
const CHUNKED: u8 = 1;

/// Views in numbered folders below one: a view that is thrown away while somebody still reads it and its successor
/// never meet in a folder.
#[derive(Debug)]
pub struct SledViews {
    folder: PathBuf,
    cache_bytes: u64,
}

impl SledViews {
    /// Views below `folder`, which is theirs alone. `cache_bytes` bounds the pages sled keeps in memory.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, cache_bytes: u64) -> Self {
        Self { folder: folder.into(), cache_bytes }
    }

    /// The numbers of the views that are there, sorted.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        match fs::read_dir(&self.folder) {
            Ok(entries) => {
                for entry in entries {
                    numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
                }
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

impl Views for SledViews {
    fn open(&self) -> Result<Arc<dyn View>, ViewError> {
        let failed = |err: io::Error| ViewError { what: "cannot be opened", reason: err.to_string() };
        let number = self.numbers().map_err(failed)?.pop().unwrap_or(1);
        let folder = self.folder.join(number.to_string());
        fs::create_dir_all(&folder).map_err(failed)?;
        let config = sled::Config::new().path(&folder).cache_capacity(self.cache_bytes).flush_every_ms(None);
        let db = config.open().map_err(from_sled("cannot be opened"))?;
        Ok(Arc::new(BufferedView::new(
            Arc::new(SledView { db, folder, in_flight: AtomicUsize::new(0) }),
            BUFFER_BYTES_MAX,
        )))
    }

    fn discard(&self) -> io::Result<()> {
        let numbers = self.numbers()?;
        let next = numbers.last().map_or(1, |last| last + 1);
        fs::create_dir_all(self.folder.join(next.to_string()))?;
        numbers.iter().try_for_each(|number| fs::remove_dir_all(self.folder.join(number.to_string())))
    }
}

/// One sled database.
#[derive(Debug)]
struct SledView {
    db: sled::Db,
    folder: PathBuf,
    /// Bytes given to sled since it was last waited for.
    in_flight: AtomicUsize,
}

impl SledView {
    /// The value in the chunks of the record under `key`; `None` when the record has gone or changed meanwhile: its
    /// chunks go with it, and a reader does not stop a batch.
    fn chunked(&self, key: &[u8], stored: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        let malformed = || ViewError::malformed("cannot read", key);
        let n = stored.strip_prefix(&[CHUNKED]).ok_or_else(malformed)?;
        let n = u32::from_be_bytes(n.try_into().map_err(|_| malformed())?);
        let mut value = Vec::new();
        for chunk in 0..n {
            match self.stored(&chunk_key(key, chunk))? {
                Some(found) => value.extend_from_slice(&found),
                None if self.stored(key)?.is_some_and(|now| now == stored) => return Err(malformed()),
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    fn stored(&self, key: &[u8]) -> Result<Option<sled::IVec>, ViewError> {
        self.db.get(key).map_err(from_sled("cannot be read"))
    }

    /// Shows one record, unless it has gone; what the visitor wants next.
    fn show(&self, key: &[u8], stored: &[u8], visitor: &mut Visitor<'_>) -> Result<Visit, ViewError> {
        if let Some((&WHOLE, value)) = stored.split_first() {
            return Ok(visitor(key, value));
        }
        Ok(self.chunked(key, stored)?.map_or(Visit::Next, |value| visitor(key, &value)))
    }

    /// Adds the removal of the chunks of a record that is about to be replaced or removed.
    fn remove_chunks(&self, key: &[u8], batch: &mut sled::Batch) -> Result<(), ViewError> {
        let Some(stored) = self.stored(key)? else { return Ok(()) };
        if let Some((&CHUNKED, n)) = stored.split_first() {
            let n = n.try_into().map(u32::from_be_bytes).map_err(|_| ViewError::malformed("cannot remove", key))?;
            (0..n).for_each(|chunk| batch.remove(chunk_key(key, chunk)));
        }
        Ok(())
    }
}

impl View for SledView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        while let Some(stored) = self.stored(key)? {
            if let Some((&WHOLE, value)) = stored.split_first() {
                return Ok(Some(Bytes::copy_from_slice(value)));
            }
            if let Some(value) = self.chunked(key, &stored)? {
                return Ok(Some(value.into()));
            }
        }
        Ok(None)
    }

    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
        let mut from = from.to_vec();
        'seek: while *from < *to {
            for record in self.db.range(&from[..]..to) {
                let (key, stored) = record.map_err(from_sled("cannot be read"))?;
                match self.show(&key, &stored, visitor)? {
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
        let mut out = sled::Batch::default();
        let size = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        let bytes: usize = batch.changes.iter().map(size).sum();
        for (key, value) in batch.changes {
            match value {
                Some(value) if value.len() < CHUNK_BYTES => {
                    let mut stored = Vec::with_capacity(1 + value.len());
                    stored.push(WHOLE);
                    stored.extend_from_slice(&value);
                    out.insert(key, stored);
                }
                Some(value) => {
                    let mut n: u32 = 0;
                    for chunk in value.chunks(CHUNK_BYTES) {
                        out.insert(chunk_key(&key, n), chunk);
                        n += 1;
                    }
                    out.insert(key, [&[CHUNKED][..], &n.to_be_bytes()].concat());
                }
                None => {
                    self.remove_chunks(&key, &mut out)?;
                    out.remove(key);
                }
            }
        }
        self.db.apply_batch(out).map_err(from_sled("cannot be written"))?;
        if self.in_flight.fetch_add(bytes, Ordering::Relaxed) + bytes > IN_FLIGHT_BYTES_MAX {
            self.db.flush().map_err(from_sled("cannot be flushed"))?;
            self.in_flight.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), ViewError> {
        self.db.flush().map_err(from_sled("cannot be flushed"))?;
        sync_tree(&self.folder).map_err(|err| ViewError { what: "cannot be synced", reason: err.to_string() })
    }
}

fn chunk_key(key: &[u8], chunk: u32) -> Vec<u8> {
    [&[CHUNK_SPACE], key, &chunk.to_be_bytes()].concat()
}

fn from_sled(what: &'static str) -> impl FnOnce(sled::Error) -> ViewError {
    move |err| ViewError { what, reason: err.to_string() }
}

/// Syncs every file and folder below one.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}
