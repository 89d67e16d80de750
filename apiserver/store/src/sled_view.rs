//! The view on sled, with a buffer in front of it: what is written in the order of keys, one record after the other,
//! costs sled a quarter of the same in batches (it takes them apart at random, and writes each to the disk at once,
//! where the log's syncs then wait for it). Values lie beside it in files of their own ([`crate::values`]). sled's own
//! durability is not relied upon (its `flush` was seen not to sync): whether what it holds may be used is decided by
//! [`crate::recover`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::buffer::BufferedView;
use crate::values::{FILE_BYTES, Found, Place, ValueFiles};
use crate::verify::{Report, check_record};
use crate::view::{View, ViewBatch, ViewError, Views, Visit, Visitor};

/// Below the folder of a view.
const DATABASE_FOLDER: &str = "sled";
const VALUES_FOLDER: &str = "values";

/// Larger records lie in [`ValueFiles`], and sled holds where: it rewrites its pages many times over, and with small
/// records they stay small.
const INLINE_BYTES_MAX: usize = 64;
/// What waits in memory before it is written to sled whatever else goes on; the member has it written long before.
const BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// sled writes in the background, pages many times over, from buffers that nothing bounds: after so many bytes it is
/// waited for.
const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024;
/// Values that may be of no use besides as many as are of use, before files are looked through for them.
const USELESS_BYTES: u64 = 2 * FILE_BYTES;
/// Values that are moved at a time: the next batch of changes waits for them.
const MOVED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Values that are read and written together while they are moved.
const MOVED_STEP: usize = 64;
const INLINE: u8 = 0;
const PLACED: u8 = 1;

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

    /// Reads every record of the newest view and every value beside it; nothing else may have it open.
    pub(crate) fn verify(&self, report: &mut Report) -> Result<(), ViewError> {
        let numbers = self.numbers().map_err(from_disk("cannot be read"))?;
        let Some(number) = numbers.last() else { return Ok(()) };
        let folder = self.folder.join(number.to_string());
        let config = sled::Config::new().path(folder.join(DATABASE_FOLDER)).cache_capacity(self.cache_bytes);
        let db = config.flush_every_ms(None).open().map_err(from_sled("cannot be opened"))?;
        let values = ValueFiles::open(folder.join(VALUES_FOLDER)).map_err(from_disk("cannot be opened"))?;
        report.files += 1 + values.full().map_err(from_disk("cannot be measured"))?.len() as u64;
        for record in db.iter() {
            let (key, stored) = record.map_err(from_sled("cannot be read"))?;
            report.records += 1;
            let record = match (stored.split_first(), place_of(&stored)) {
                (Some((&INLINE, record)), _) => record.to_vec(),
                (_, Some(place)) => match values.read(place).map_err(from_disk("cannot be read"))? {
                    Found::Value(record) => record,
                    Found::Gone | Found::Damaged => {
                        let what = "a value is not what was written".to_owned();
                        report.stale(values.path_of(place), place.offset.into(), what);
                        continue;
                    }
                },
                _ => return Err(ViewError::malformed("cannot be read", &key)),
            };
            if let Err(err) = check_record(&key, &record) {
                report.stale(folder.join(DATABASE_FOLDER).display().to_string(), 0, err.to_string());
            }
        }
        Ok(())
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
        let failed = from_disk("cannot be opened");
        let mut number = self.numbers().map_err(failed)?.pop().unwrap_or(1);
        let is_old = |folder: &Path| folder.exists() && !folder.join(DATABASE_FOLDER).exists();
        if is_old(&self.folder.join(number.to_string())) {
            // Of an earlier version; an empty view is filled from snapshot and log.
            self.discard().map_err(failed)?;
            number += 1;
        }
        let folder = self.folder.join(number.to_string());
        let database = folder.join(DATABASE_FOLDER);
        fs::create_dir_all(&database).map_err(failed)?;
        let config = sled::Config::new().path(&database).cache_capacity(self.cache_bytes).flush_every_ms(None);
        let view = SledView {
            db: config.open().map_err(from_sled("cannot be opened"))?,
            values: ValueFiles::open(folder.join(VALUES_FOLDER)).map_err(failed)?,
            folder,
            in_flight: AtomicUsize::new(0),
            reclaim_at: AtomicU64::new(USELESS_BYTES),
        };
        Ok(Arc::new(BufferedView::new(Arc::new(view), BUFFER_BYTES_MAX)))
    }

    fn discard(&self) -> io::Result<()> {
        let numbers = self.numbers()?;
        let next = numbers.last().map_or(1, |last| last + 1);
        fs::create_dir_all(self.folder.join(next.to_string()).join(DATABASE_FOLDER))?;
        numbers.iter().try_for_each(|number| fs::remove_dir_all(self.folder.join(number.to_string())))
    }
}

/// One sled database and the values beside it.
#[derive(Debug)]
struct SledView {
    db: sled::Db,
    values: ValueFiles,
    folder: PathBuf,
    /// Bytes given to sled since it was last waited for.
    in_flight: AtomicUsize,
    /// How large the files of values may become before those of no use are looked for again.
    reclaim_at: AtomicU64,
}

impl SledView {
    fn stored(&self, key: &[u8]) -> Result<Option<sled::IVec>, ViewError> {
        self.db.get(key).map_err(from_sled("cannot be read"))
    }

    /// The record that is stored so; `None` when it has gone: a reader does not stop a batch.
    fn record(&self, key: &[u8], stored: sled::IVec) -> Result<Option<Bytes>, ViewError> {
        let malformed = || ViewError::malformed("cannot read", key);
        let mut stored = stored;
        loop {
            if let Some((&INLINE, record)) = stored.split_first() {
                return Ok(Some(Bytes::copy_from_slice(record)));
            }
            let place = place_of(&stored).ok_or_else(malformed)?;
            if let Found::Value(record) = self.values.read(place).map_err(from_disk("cannot be read"))? {
                return Ok(Some(record.into()));
            }
            // It may have moved on, or gone, since we were told where it lies.
            match self.stored(key)? {
                None => return Ok(None),
                Some(now) if now == stored => return Err(malformed()),
                Some(now) => stored = now,
            }
        }
    }

    /// Writes one record down, or that there is none. A process that is killed leaves all records up to some one of
    /// them, in the order of the calls.
    fn write(&self, key: &[u8], stored: Option<Vec<u8>>) -> Result<(), ViewError> {
        let bytes = key.len() + stored.as_ref().map_or(0, Vec::len);
        match stored {
            Some(stored) => self.db.insert(key, stored),
            None => self.db.remove(key),
        }
        .map_err(from_sled("cannot be written"))?;
        if self.in_flight.fetch_add(bytes, Ordering::Relaxed) + bytes > IN_FLIGHT_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), ViewError> {
        self.db.flush().map_err(from_sled("cannot be flushed"))?;
        self.in_flight.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Shows where every value lies.
    fn every_place(&self, mut show: impl FnMut(sled::IVec, Place)) -> Result<(), ViewError> {
        for record in self.db.iter() {
            let (key, stored) = record.map_err(from_sled("cannot be read"))?;
            if let Some(place) = place_of(&stored) {
                show(key, place);
            }
        }
        Ok(())
    }

    /// Removes files most of whose values are of no use, when there may be enough of them; the others move on before.
    fn reclaim(&self) -> Result<(), ViewError> {
        let full = self.values.full().map_err(from_disk("cannot be measured"))?;
        if full.values().sum::<u64>() <= self.reclaim_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut of_file: BTreeMap<u32, u64> = full.keys().map(|number| (*number, 0)).collect();
        self.every_place(|_, place| *of_file.entry(place.file).or_default() += u64::from(place.len))?;
        let going = worth_removing(&full, &of_file);
        let left: u64 = full.iter().filter(|(number, _)| !going.contains(number)).map(|(_, bytes)| bytes).sum();
        let useful: u64 = of_file.values().sum();
        // Looking costs as much as there are records: it is done when that many more may have come.
        let again = (2 * useful + USELESS_BYTES).max(left + useful / 4 + FILE_BYTES);
        self.reclaim_at.store(again, Ordering::Relaxed);
        if going.is_empty() {
            return Ok(());
        }
        let mut moving = Vec::new();
        self.every_place(|key, place| {
            if going.contains(&place.file) {
                moving.push((key, place));
            }
        })?;
        for step in moving.chunks(MOVED_STEP) {
            self.relocate(step)?;
        }
        // sled may write later: a process that is killed before must find the values where they were.
        self.flush()?;
        going.iter().try_for_each(|number| self.values.remove(*number)).map_err(from_disk("cannot be tidied"))
    }

    fn relocate(&self, step: &[(sled::IVec, Place)]) -> Result<(), ViewError> {
        let mut values = Vec::with_capacity(step.len());
        for (key, place) in step {
            match self.values.read(*place).map_err(from_disk("cannot be read"))? {
                Found::Value(value) => values.push(value),
                Found::Gone | Found::Damaged => return Err(ViewError::malformed("cannot move", key)),
            }
        }
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let places = self.values.append(&slices).map_err(from_disk("cannot be written"))?;
        step.iter().zip(places).try_for_each(|((key, _), place)| self.write(key, Some(stored_at(place))))
    }
}

impl View for SledView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.stored(key)?.map_or(Ok(None), |stored| self.record(key, stored))
    }

    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
        let mut from = from.to_vec();
        'seek: while *from < *to {
            for entry in self.db.range(&from[..]..to) {
                let (key, stored) = entry.map_err(from_sled("cannot be read"))?;
                let wanted = match stored.split_first() {
                    Some((&INLINE, record)) => visitor(&key, record),
                    _ => self.record(&key, stored)?.map_or(Visit::Next, |record| visitor(&key, &record)),
                };
                match wanted {
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
        let is_large = |record: &&[u8]| record.len() > INLINE_BYTES_MAX;
        let large: Vec<&[u8]> =
            batch.changes.iter().filter_map(|(_, record)| record.as_deref()).filter(is_large).collect();
        let mut places = self.values.append(&large).map_err(from_disk("cannot be written"))?.into_iter();
        batch.changes.iter().try_for_each(|(key, record)| match record.as_deref() {
            Some(record) if !is_large(&record) => self.write(key, Some([&[INLINE], record].concat())),
            Some(_) => places.next().map_or(Ok(()), |place| self.write(key, Some(stored_at(place)))),
            None => self.write(key, None),
        })
    }

    fn settle(&self) -> Result<(), ViewError> {
        self.reclaim()
    }

    fn sync(&self) -> Result<(), ViewError> {
        self.flush()?;
        sync_tree(&self.folder).map_err(from_disk("cannot be synced"))
    }
}

/// What sled holds of a record that lies elsewhere.
fn stored_at(place: Place) -> Vec<u8> {
    [&[PLACED][..], &place.encode()].concat()
}

fn place_of(stored: &[u8]) -> Option<Place> {
    stored.strip_prefix(&[PLACED]).and_then(Place::decode)
}

/// The files that are better gone: less than half of what they could hold is of use. Those first that cost least to
/// move, and not more than can be moved at a time.
fn worth_removing(full: &BTreeMap<u32, u64>, useful: &BTreeMap<u32, u64>) -> BTreeSet<u32> {
    let of_use = |number: &u32| useful.get(number).copied().unwrap_or(0);
    let mut files: Vec<(u64, u32)> = full.keys().map(|number| (of_use(number), *number)).collect();
    files.retain(|(useful, _)| *useful < FILE_BYTES / 2);
    files.sort_unstable();
    let mut moved = 0;
    let fits = |(useful, _): &&(u64, u32)| {
        moved += useful;
        moved <= MOVED_BYTES_MAX
    };
    files.iter().take_while(fits).map(|(_, number)| *number).collect()
}

fn from_disk(what: &'static str) -> impl Fn(io::Error) -> ViewError + Copy {
    move |err| ViewError { what, reason: err.to_string() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_below(folder: &Path) -> u64 {
        let size = |entry: fs::DirEntry| {
            if entry.path().is_dir() { bytes_below(&entry.path()) } else { entry.metadata().unwrap().len() }
        };
        fs::read_dir(folder).unwrap().map(|entry| size(entry.unwrap())).sum()
    }

    fn value(n: u8) -> Vec<u8> {
        vec![n; 256 * 1024]
    }

    /// Overwrites the same 4 MiB so often that 160 MiB are of no use.
    fn overwrite(view: &dyn View) {
        for round in 1..=40 {
            let changes = (0..16).map(|key| (format!("k{key:02}").into_bytes(), Some(value(round))));
            view.apply(ViewBatch { changes: changes.collect() }).unwrap();
            view.settle().unwrap();
        }
    }

    #[test]
    fn what_is_overwritten_gives_its_space_back_and_what_lay_beside_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let views = SledViews::new(folder.path(), 1024 * 1024);
        let view = views.open().unwrap();
        view.apply(ViewBatch { changes: vec![(b"kept".to_vec(), Some(value(200)))] }).unwrap();
        overwrite(&*view);
        let bytes = bytes_below(folder.path());
        assert!(bytes < 2 * USELESS_BYTES, "{bytes} bytes for 4 MiB");
        view.sync().unwrap();
        drop(view);
        let view = views.open().unwrap();
        assert_eq!(view.get(b"kept").unwrap(), Some(value(200).into()));
        assert_eq!(view.get(b"k15").unwrap(), Some(value(40).into()));
        overwrite(&*view);
        assert_eq!(view.get(b"kept").unwrap(), Some(value(200).into()));
        assert!(bytes_below(folder.path()) < 2 * USELESS_BYTES);
    }

    #[test]
    fn a_reader_finds_what_moves_on_while_it_reads() {
        let folder = tempfile::tempdir().unwrap();
        let view = SledViews::new(folder.path(), 1024 * 1024).open().unwrap();
        let keys = [&b"a"[..], b"b", b"z"];
        view.apply(ViewBatch { changes: keys.map(|key| (key.to_vec(), Some(value(100)))).to_vec() }).unwrap();
        view.settle().unwrap();
        let mut seen = Vec::new();
        let mut visitor = |key: &[u8], record: &[u8]| {
            if key == b"a" {
                overwrite(&*view);
            }
            if !key.starts_with(b"k") {
                assert_eq!(record, value(100));
            }
            seen.push(key.to_vec());
            Visit::Next
        };
        view.visit(b"a", b"zz", &mut visitor).unwrap();
        assert!(keys.iter().all(|key| seen.iter().any(|seen| seen == key)), "{seen:?}");
    }

    #[test]
    fn those_files_go_that_cost_least_and_not_all_at_once() {
        let mega = |n: u64| n * 1024 * 1024;
        let full = BTreeMap::from([1, 2, 3, 4, 5].map(|number| (number, FILE_BYTES)));
        let useful = BTreeMap::from([(1, mega(3)), (2, 0), (3, mega(16)), (4, mega(1)), (6, mega(1))]);
        assert_eq!(worth_removing(&full, &useful), BTreeSet::from([1, 2, 4, 5]));
        let useful = BTreeMap::from([(1, mega(3)), (2, mega(2)), (3, mega(9)), (4, mega(1)), (5, mega(12))]);
        assert_eq!(worth_removing(&full, &useful), BTreeSet::from([2, 4]));
    }

    #[test]
    fn a_view_of_an_earlier_version_is_not_read_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("7/blobs")).unwrap();
        let view = SledViews::new(folder.path(), 1024 * 1024).open().unwrap();
        assert_eq!(view.get(b"a").unwrap(), None);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["8"]);
    }
}
