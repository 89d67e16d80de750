//! What a view holds and where it lies: an ordered map in memory, and a file that grows by every change of it, from
//! which it is read at the start. When the file is much larger than what it says, a new one is written that says only
//! that. Nothing is synced but at a clean close: a machine that crashes loses the view ([`crate::recover`]).
//!
//! A file is a sequence of batches, each with length and checksum, and a batch a sequence of changes:
//!
//! | change | bytes |
//! |---|---|
//! | length of the key (4), `0`, key | the record is gone |
//! | length of the key (4), `1`, key, length (1), record | a small record |
//! | length of the key (4), `2`, key, place (16) | a record that lies in [`crate::values`] |

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::values::Place;

/// Length and CRC-32 of a batch, each 4 bytes.
const HEADER_LEN: usize = 8;
/// What a change costs in the file besides its key: the largest kind.
const CHANGE_BYTES: u64 = 4 + 1 + Place::LEN as u64;
/// A new file is written when the one there is has so many bytes more than a new one would have, or half as many again.
const GROWTH_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of a batch in a file that is written anew.
const BATCH_BYTES: usize = 64 * 1024;
/// Where a file is written before it gets its name.
const WRITING: &str = "writing.tmp";
const REMOVED: u8 = 0;
const HERE: u8 = 1;
const THERE: u8 = 2;

/// A record, or where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// A record of at most 255 bytes.
    Here(Box<[u8]>),
    /// One that lies elsewhere.
    There(Place),
}

/// A key and what has become of it; `None`: it is gone.
pub(crate) type Change<'c> = (&'c [u8], Option<Stored>);

type Map = BTreeMap<Box<[u8]>, Stored>;

/// See the module. Reading is for everybody at any time; writing for one at a time.
#[derive(Debug)]
pub(crate) struct Index {
    folder: PathBuf,
    state: RwLock<State>,
    /// The file that grows.
    journal: Mutex<Journal>,
}

#[derive(Debug, Default)]
struct State {
    map: Map,
    /// Of all keys.
    key_bytes: u64,
}

#[derive(Debug)]
struct Journal {
    number: u64,
    file: File,
    bytes: u64,
}

impl State {
    fn change(&mut self, key: &[u8], stored: Option<Stored>) {
        let len = key.len() as u64;
        match stored {
            Some(stored) => match self.map.get_mut(key) {
                Some(place) => *place = stored,
                None => {
                    self.key_bytes += len;
                    self.map.insert(key.into(), stored);
                }
            },
            None => {
                if self.map.remove(key).is_some() {
                    self.key_bytes -= len;
                }
            }
        }
    }

    /// What a new file would have, at most.
    fn bytes(&self) -> u64 {
        self.key_bytes + self.map.len() as u64 * CHANGE_BYTES
    }
}

impl Index {
    /// Opens what is in a folder, or makes an empty index there.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let numbers = numbers(&folder)?;
        let number = numbers.last().copied().unwrap_or(1);
        let (state, bytes) = load(&folder, number)?;
        // A process that was killed may have left the beginning of a batch, and a file that was replaced.
        numbers
            .iter()
            .filter(|other| **other != number)
            .try_for_each(|other| fs::remove_file(path(&folder, *other)))?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path(&folder, number))?;
        file.set_len(bytes)?;
        let journal = Mutex::new(Journal { number, file, bytes });
        Ok(Self { folder, state: RwLock::new(state), journal })
    }

    /// Reads what is in a folder, and changes nothing there.
    pub(crate) fn read(folder: &Path) -> io::Result<Vec<(Box<[u8]>, Stored)>> {
        let number = numbers(folder)?.last().copied().unwrap_or(1);
        Ok(load(folder, number)?.0.map.into_iter().collect())
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Stored> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).map.get(key).cloned()
    }

    /// The first `n` keys from `from` up to, not including, `to`.
    pub(crate) fn range(&self, from: &[u8], to: &[u8], n: usize) -> Vec<(Box<[u8]>, Stored)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let range = state.map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        range.take(n).map(|(key, stored)| (key.clone(), stored.clone())).collect()
    }

    /// Shows where every record lies that is not here. Nothing can be changed meanwhile.
    pub(crate) fn every_place(&self, mut show: impl FnMut(&[u8], Place)) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        for (key, stored) in &state.map {
            if let Stored::There(place) = stored {
                show(key, *place);
            }
        }
    }

    /// Writes changes down, then makes them visible, all at once.
    pub(crate) fn apply(&self, changes: Vec<Change<'_>>) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::default();
        changes.iter().for_each(|(key, stored)| batch.add(key, stored.as_ref()));
        journal.append(batch)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|(key, stored)| state.change(key, stored));
        Ok(())
    }

    /// Writes a new file, if that is worth it.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let least = state.bytes();
        if journal.bytes <= least + GROWTH_BYTES.max(least / 2) {
            return Ok(());
        }
        let writing = self.folder.join(WRITING);
        let number = journal.number + 1;
        let mut new = Journal { number, file: File::create(&writing)?, bytes: 0 };
        let mut batch = Batch::default();
        for (key, stored) in &state.map {
            batch.add(key, Some(stored));
            if batch.bytes.len() >= BATCH_BYTES {
                new.append(std::mem::take(&mut batch))?;
            }
        }
        drop(state);
        new.append(batch)?;
        fs::rename(&writing, path(&self.folder, number))?;
        let former = std::mem::replace(&mut *journal, new).number;
        fs::remove_file(path(&self.folder, former))
    }
}

impl Journal {
    fn append(&mut self, batch: Batch) -> io::Result<()> {
        let bytes = batch.whole()?;
        if let Err(err) = self.file.write_all_at(&bytes, self.bytes) {
            let _ = self.file.set_len(self.bytes); // the view is not used any more; whatever is left says so
            return Err(err);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Changes on their way into a file.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes: vec![0; HEADER_LEN] }
    }
}

impl Batch {
    fn add(&mut self, key: &[u8], stored: Option<&Stored>) {
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX); // keys are far shorter
        self.bytes.extend_from_slice(&len.to_le_bytes());
        match stored {
            None => self.bytes.push(REMOVED),
            Some(Stored::Here(_)) => self.bytes.push(HERE),
            Some(Stored::There(_)) => self.bytes.push(THERE),
        }
        self.bytes.extend_from_slice(key);
        match stored {
            None => {}
            Some(Stored::Here(record)) => {
                self.bytes.push(u8::try_from(record.len()).unwrap_or(u8::MAX));
                self.bytes.extend_from_slice(record);
            }
            Some(Stored::There(place)) => self.bytes.extend_from_slice(&place.encode()),
        }
    }

    /// With its header; nothing, when nothing was added.
    fn whole(mut self) -> io::Result<Vec<u8>> {
        let len = self.bytes.len() - HEADER_LEN;
        if len == 0 {
            return Ok(Vec::new());
        }
        let told = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let crc = crc32fast::hash(&self.bytes[HEADER_LEN..]);
        self.bytes[..4].copy_from_slice(&told.to_le_bytes());
        self.bytes[4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        Ok(self.bytes)
    }
}

/// What a file says, and how long it is without the beginning of a batch at its end.
fn load(folder: &Path, number: u64) -> io::Result<(State, u64)> {
    let bytes = match fs::read(path(folder, number)) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(err) => return Err(err),
    };
    let mut state = State::default();
    let mut rest = &bytes[..];
    // The end of a file that a killed process was writing to is shorter than its header says.
    while let Some((batch, behind)) = split_batch(rest) {
        let batch = batch.ok_or_else(|| damaged(folder, number, bytes.len() - rest.len()))?;
        take(&mut state, batch).ok_or_else(|| damaged(folder, number, bytes.len() - rest.len()))?;
        rest = behind;
    }
    Ok((state, (bytes.len() - rest.len()) as u64))
}

/// The first batch, `None` in it when it is damaged, and what is behind it; `None` when no whole batch is there.
#[allow(clippy::type_complexity, reason = "a batch that is not there is something else than one that is damaged")]
fn split_batch(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (len, rest) = split_number(bytes)?;
    let (crc, rest) = split_number(rest)?;
    let (batch, behind) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    Some((Some(batch).filter(|batch| crc32fast::hash(batch) == crc && !batch.is_empty()), behind))
}

/// Takes over the changes of a batch; `None` when it is none.
fn take(state: &mut State, mut batch: &[u8]) -> Option<()> {
    while !batch.is_empty() {
        let (len, rest) = split_number(batch)?;
        let (kind, rest) = rest.split_first()?;
        let (key, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        let (stored, rest) = match *kind {
            REMOVED => (None, rest),
            HERE => {
                let (len, rest) = rest.split_first()?;
                let (record, rest) = rest.split_at_checked(usize::from(*len))?;
                (Some(Stored::Here(record.into())), rest)
            }
            THERE => {
                let (place, rest) = rest.split_at_checked(Place::LEN)?;
                (Some(Stored::There(Place::decode(place)?)), rest)
            }
            _ => return None,
        };
        state.change(key, stored);
        batch = rest;
    }
    Some(())
}

fn split_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn damaged(folder: &Path, number: u64, offset: usize) -> io::Error {
    let path = path(folder, number);
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged at offset {offset}", path.display()))
}

/// The numbers of the files that are there, sorted. The highest one counts.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(text: &str) -> Option<Stored> {
        Some(Stored::Here(text.as_bytes().into()))
    }

    fn texts(index: &Index) -> String {
        let text = |(key, stored): (Box<[u8]>, Stored)| match stored {
            Stored::Here(record) => format!("{}={} ", key.escape_ascii(), record.escape_ascii()),
            Stored::There(place) => format!("{}@{} ", key.escape_ascii(), place.offset),
        };
        index.range(b"", b"~", usize::MAX).into_iter().map(text).collect()
    }

    fn filled(folder: &Path) -> Index {
        let index = Index::open(folder.to_owned()).unwrap();
        let place = Place::decode(&[0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4]).unwrap();
        index.apply(vec![(b"a", here("1")), (b"b", Some(Stored::There(place))), (b"c", here(""))]).unwrap();
        index.apply(vec![(b"a", here("new")), (b"c", None), (b"d", None)]).unwrap();
        index
    }

    #[test]
    fn what_was_written_is_there_again_also_behind_a_batch_that_a_killed_process_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(texts(&filled(folder.path())), "a=new b@7 ");
        let whole = fs::metadata(folder.path().join("1")).unwrap().len();
        for torn in [0, 3, 11] {
            let file = OpenOptions::new().write(true).open(folder.path().join("1")).unwrap();
            file.write_all_at(&[0xee; 11][..torn], whole).unwrap();
            let index = Index::open(folder.path().to_owned()).unwrap();
            assert_eq!(texts(&index), "a=new b@7 ", "{torn} bytes");
            assert_eq!(fs::metadata(folder.path().join("1")).unwrap().len(), whole, "{torn} bytes");
        }
        Index::open(folder.path().to_owned()).unwrap().apply(vec![(b"e", here("5"))]).unwrap();
        assert_eq!(texts(&Index::open(folder.path().to_owned()).unwrap()), "a=new b@7 e=5 ");
    }

    #[test]
    fn a_changed_byte_is_damage_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path()));
        let sound = fs::read(folder.path().join("1")).unwrap();
        for at in (0..sound.len()).filter(|at| *at >= HEADER_LEN || *at == 5) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            fs::write(folder.path().join("1"), &bytes).unwrap();
            let read = Index::read(folder.path());
            // A length that is too large looks like the end of a file that was being written to: what is before counts.
            let is_end = read.as_ref().is_ok_and(|records| records.len() == 3);
            assert!(read.is_err() || is_end, "byte {at}: {read:?}");
        }
    }

    #[test]
    fn a_file_that_says_little_is_written_anew_and_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let index = filled(folder.path());
        index.tidy().unwrap();
        assert!(folder.path().join("1").exists());
        let long = [b'k'; 4000];
        for round in 0..(2 * GROWTH_BYTES / 4000) {
            index.apply(vec![(&long, here(&round.to_string()))]).unwrap();
            index.tidy().unwrap();
        }
        let files: Vec<_> = numbers(folder.path()).unwrap();
        let bytes = fs::metadata(path(folder.path(), files[0])).unwrap().len();
        assert!(files.len() == 1 && files[0] > 1 && bytes < GROWTH_BYTES + 100_000, "{files:?}, {bytes} bytes");
        let before = texts(&index);
        // Killed before the file that was replaced was removed.
        fs::write(path(folder.path(), files[0] - 1), b"older").unwrap();
        drop(index);
        assert_eq!(texts(&Index::open(folder.path().to_owned()).unwrap()), before);
        assert_eq!(numbers(folder.path()).unwrap(), files);
    }
}
