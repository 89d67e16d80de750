//! The view on files: what it holds and where that lies is in memory ([`crate::index`]), large records lie in files of
//! their own ([`crate::values`]), and a buffer in front of both lets writes wait for neither. Nothing is durable but
//! after a clean close: whether what lies here may be used is decided by [`crate::recover`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::buffer::BufferedView;
use crate::index::{Index, Stored};
use crate::values::{FILE_BYTES, Found, Place, ValueFiles};
use crate::verify::{Report, check_record};
use crate::view::{Scanner, View, ViewBatch, ViewError, Views, Visit, Visitor};

/// Below the folder of a view.
const INDEX_FOLDER: &str = "index";
const VALUES_FOLDER: &str = "values";

/// Larger records lie in [`ValueFiles`], smaller ones in memory.
const INLINE_BYTES_MAX: usize = 64;
/// What waits in memory before it is written to files whatever else goes on; the member has it written long before.
const BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Values that may be of no use besides as many as are of use, before files are looked through for them.
const USELESS_BYTES: u64 = 2 * FILE_BYTES;
/// Values that are moved at a time: the next batch of changes waits for them.
const MOVED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Values that are read and written together while they are moved.
const MOVED_STEP: usize = 64;
/// Records that a visit looks up at once: first few, for most visits are short, then more.
const LOOKED_UP_MIN: usize = 4;
const LOOKED_UP_MAX: usize = 128;

/// Views in numbered folders below one: a view that is thrown away while somebody still reads it and its successor
/// never meet in a folder.
#[derive(Debug)]
pub struct FileViews {
    folder: PathBuf,
}

impl FileViews {
    /// Views below `folder`, which is theirs alone.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Reads every record of the newest view and every value beside it; nothing else may have it open.
    pub(crate) fn verify(&self, report: &mut Report) -> Result<(), ViewError> {
        let numbers = self.numbers().map_err(from_disk("cannot be read"))?;
        let Some(number) = numbers.last() else { return Ok(()) };
        let folder = self.folder.join(number.to_string());
        let index = Index::read(&folder.join(INDEX_FOLDER)).map_err(from_disk("cannot be read"))?;
        let values = ValueFiles::open(folder.join(VALUES_FOLDER)).map_err(from_disk("cannot be opened"))?;
        report.files += 1 + values.full().map_err(from_disk("cannot be measured"))?.len() as u64;
        for (key, stored) in index {
            report.records += 1;
            let record = match stored {
                Stored::Here(record) => record.into_vec(),
                Stored::There(place) => match values.read(place).map_err(from_disk("cannot be read"))? {
                    Found::Value(record) => record,
                    Found::Gone | Found::Damaged => {
                        let what = "a value is not what was written".to_owned();
                        report.stale(values.path_of(place), place.offset.into(), what);
                        continue;
                    }
                },
            };
            if let Err(err) = check_record(&key, &record) {
                report.stale(folder.join(INDEX_FOLDER).display().to_string(), 0, err.to_string());
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

impl Views for FileViews {
    fn open(&self) -> Result<Arc<dyn View>, ViewError> {
        let failed = from_disk("cannot be opened");
        let mut number = self.numbers().map_err(failed)?.pop().unwrap_or(1);
        let is_old = |folder: &Path| folder.exists() && !folder.join(INDEX_FOLDER).exists();
        if is_old(&self.folder.join(number.to_string())) {
            // Of an earlier version; an empty view is filled from snapshot and log.
            self.discard().map_err(failed)?;
            number += 1;
        }
        let folder = self.folder.join(number.to_string());
        let view = FileView {
            index: Index::open(folder.join(INDEX_FOLDER)).map_err(failed)?,
            values: ValueFiles::open(folder.join(VALUES_FOLDER)).map_err(failed)?,
            folder,
            writing: Mutex::default(),
            reclaim_at: AtomicU64::new(USELESS_BYTES),
        };
        Ok(Arc::new(BufferedView::new(Arc::new(view), BUFFER_BYTES_MAX)))
    }

    fn discard(&self) -> io::Result<()> {
        let numbers = self.numbers()?;
        let next = numbers.last().map_or(1, |last| last + 1);
        fs::create_dir_all(self.folder.join(next.to_string()).join(INDEX_FOLDER))?;
        numbers.iter().try_for_each(|number| fs::remove_dir_all(self.folder.join(number.to_string())))
    }
}

/// Sees a key and what the index says of it.
type Shower<'a> = dyn FnMut(&[u8], &Stored) -> Result<Visit, ViewError> + 'a;

/// One index and the values beside it.
#[derive(Debug)]
struct FileView {
    index: Index,
    values: ValueFiles,
    folder: PathBuf,
    /// Held by whoever changes it.
    writing: Mutex<()>,
    /// How large the files of values may become before those of no use are looked for again.
    reclaim_at: AtomicU64,
}

impl FileView {
    /// The record that lies at a place; `None` when it has gone: a reader does not stop a batch.
    fn record(&self, key: &[u8], place: Place) -> Result<Option<Bytes>, ViewError> {
        let mut place = place;
        loop {
            if let Found::Value(record) = self.values.read(place).map_err(from_disk("cannot be read"))? {
                return Ok(Some(record.into()));
            }
            // It may have moved on, or gone, since we were told where it lies.
            match self.index.get(key) {
                None => return Ok(None),
                Some(Stored::Here(record)) => return Ok(Some(Bytes::from(record))),
                Some(Stored::There(now)) if now == place => return Err(ViewError::malformed("cannot read", key)),
                Some(Stored::There(now)) => place = now,
            }
        }
    }

    /// Shows what the index says, from `from` up to, not including, `to`, and goes where it is told.
    fn each(&self, from: &[u8], to: &[u8], show: &mut Shower<'_>) -> Result<(), ViewError> {
        let mut from = from.to_vec();
        let mut n = LOOKED_UP_MIN;
        'look_up: while *from < *to {
            let found = self.index.range(&from, to, n);
            for (key, stored) in &found {
                match show(key, stored)? {
                    Visit::Next => {}
                    Visit::Seek(key) => {
                        from = key;
                        n = LOOKED_UP_MIN;
                        continue 'look_up;
                    }
                    Visit::Stop => return Ok(()),
                }
            }
            match found.last().filter(|_| found.len() == n) {
                Some((last, _)) => from = [last, &[0][..]].concat(), // the first key that may be behind it
                None => return Ok(()),
            }
            n = (2 * n).min(LOOKED_UP_MAX);
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
        self.index.every_place(|_, place| *of_file.entry(place.file).or_default() += u64::from(place.len));
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
        self.index.every_place(|key, place| {
            if going.contains(&place.file) {
                moving.push((Box::from(key), place));
            }
        });
        moving.chunks(MOVED_STEP).try_for_each(|step| self.relocate(step))?;
        going.iter().try_for_each(|number| self.values.remove(*number)).map_err(from_disk("cannot be tidied"))
    }

    fn relocate(&self, step: &[(Box<[u8]>, Place)]) -> Result<(), ViewError> {
        let mut values = Vec::with_capacity(step.len());
        for (key, place) in step {
            match self.values.read(*place).map_err(from_disk("cannot be read"))? {
                Found::Value(value) => values.push(value),
                Found::Gone | Found::Damaged => return Err(ViewError::malformed("cannot move", key)),
            }
        }
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let places = self.values.append(&slices).map_err(from_disk("cannot be written"))?;
        let changes = step.iter().zip(places).map(|((key, _), place)| (&**key, Some(Stored::There(place))));
        self.index.apply(changes.collect()).map_err(from_disk("cannot be written"))
    }
}

impl View for FileView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        match self.index.get(key) {
            None => Ok(None),
            Some(Stored::Here(record)) => Ok(Some(Bytes::from(record))),
            Some(Stored::There(place)) => self.record(key, place),
        }
    }

    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
        self.each(from, to, &mut |key, stored| {
            Ok(match stored {
                Stored::Here(record) => visitor(key, record),
                Stored::There(place) => self.record(key, *place)?.map_or(Visit::Next, |record| visitor(key, &record)),
            })
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], scanner: &mut Scanner<'_>) -> Result<(), ViewError> {
        self.each(from, to, &mut |key, stored| {
            Ok(match stored {
                Stored::Here(record) => scanner(key, Some(record)),
                Stored::There(_) => scanner(key, None),
            })
        })
    }

    fn apply(&self, batch: ViewBatch) -> Result<(), ViewError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_large = |record: &&[u8]| record.len() > INLINE_BYTES_MAX;
        let records = batch.changes.iter().filter_map(|(_, record)| record.as_deref());
        let large: Vec<&[u8]> = records.filter(is_large).collect();
        let mut places = self.values.append(&large).map_err(from_disk("cannot be written"))?.into_iter();
        let changes = batch.changes.iter().map(|(key, record)| {
            let stored = match record.as_deref() {
                Some(record) if is_large(&record) => places.next().map(Stored::There),
                Some(record) => Some(Stored::Here(record.into())),
                None => None,
            };
            (&key[..], stored)
        });
        self.index.apply(changes.collect()).map_err(from_disk("cannot be written"))
    }

    fn settle(&self) -> Result<(), ViewError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.reclaim()?;
        self.index.tidy().map_err(from_disk("cannot be tidied"))
    }

    fn settle_gently(&self) -> Result<(), ViewError> {
        self.values.sync_gently().map_err(from_disk("cannot be synced"))
    }

    fn sync(&self) -> Result<(), ViewError> {
        sync_tree(&self.folder).map_err(from_disk("cannot be synced"))
    }
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
            view.apply(changes.collect()).unwrap();
            view.settle().unwrap();
        }
    }

    #[test]
    fn what_is_overwritten_gives_its_space_back_and_what_lay_beside_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let views = FileViews::new(folder.path());
        let view = views.open().unwrap();
        view.apply([(&b"kept"[..], Some(value(200)))].into_iter().collect()).unwrap();
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
        let view = FileViews::new(folder.path()).open().unwrap();
        let keys = [&b"a"[..], b"b", b"z"];
        view.apply(keys.map(|key| (key, Some(value(100)))).into_iter().collect()).unwrap();
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
        let view = FileViews::new(folder.path()).open().unwrap();
        assert_eq!(view.get(b"a").unwrap(), None);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["8"]);
    }
}
