//! Values of a view, beside the database that says where they lie: files that only grow. What is overwritten or removed
//! stays in them until most of a file is of no use; then what is left moves on and the file goes
//! ([`crate::file_view`] decides that). Nothing is synced but at a clean close, or where much is written at once.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::disk;

/// A file that has this many bytes is full.
pub(crate) const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file's number.
    pub(crate) file: u32,
    pub(crate) offset: u32,
    /// Bytes of the value.
    pub(crate) len: u32,
    /// CRC-32 of the value.
    crc: u32,
}

impl Place {
    /// Length of an encoded place.
    pub(crate) const LEN: usize = 16;

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        for (at, number) in out.chunks_exact_mut(4).zip([self.file, self.offset, self.len, self.crc]) {
            at.copy_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// `None` when the bytes are not a place.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let number = |n: usize| Some(u32::from_be_bytes(bytes[4 * n..4 * n + 4].try_into().ok()?));
        Some(Self { file: number(0)?, offset: number(1)?, len: number(2)?, crc: number(3)? })
    }
}

/// What [`ValueFiles::read`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The value.
    Value(Vec<u8>),
    /// The file has gone: the value has moved on, or is of no use any more.
    Gone,
    /// What lies there is not what was written.
    Damaged,
}

/// See the module. Reading is for everybody at any time; appending and removing for one at a time.
#[derive(Debug)]
pub(crate) struct ValueFiles {
    folder: PathBuf,
    files: RwLock<BTreeMap<u32, Arc<File>>>,
    /// The file that grows, and its length.
    growing: Mutex<Option<(u32, u64)>>,
    /// From this file on there may be something that [`ValueFiles::sync_gently`] has not synced.
    unsynced: AtomicU32,
}

impl ValueFiles {
    /// Opens what is in a folder, which is made if it is missing. Old files are not appended to.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            files.insert(number, Arc::new(File::open(entry.path())?));
        }
        Ok(Self { folder, files: RwLock::new(files), growing: Mutex::default(), unsynced: AtomicU32::new(0) })
    }

    /// Writes values behind each other; where each lies.
    pub(crate) fn append(&self, values: &[&[u8]]) -> io::Result<Vec<Place>> {
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut places = Vec::with_capacity(values.len());
        let mut rest = values;
        while !rest.is_empty() {
            let (number, at) = match *growing {
                Some((number, bytes)) if bytes < FILE_BYTES => (number, bytes),
                _ => (self.create()?, 0),
            };
            let mut bytes = Vec::new();
            while let Some((value, behind)) = rest.split_first() {
                // The file is full when it has reached its size; one large value may lie across that.
                if at + bytes.len() as u64 >= FILE_BYTES {
                    break;
                }
                let offset = too_large(u32::try_from(at + bytes.len() as u64))?;
                let len = too_large(u32::try_from(value.len()))?;
                places.push(Place { file: number, offset, len, crc: crc32fast::hash(value) });
                bytes.extend_from_slice(value);
                rest = behind;
            }
            let file = self.file(number).ok_or_else(|| io::Error::other("the growing file is gone"))?;
            *growing = None; // unless this goes well: whatever lies behind `at` then is of no use
            file.write_all_at(&bytes, at)?;
            *growing = Some((number, at + bytes.len() as u64));
        }
        Ok(places)
    }

    /// The value at a place.
    pub(crate) fn read(&self, place: Place) -> io::Result<Found> {
        let Some(file) = self.file(place.file) else { return Ok(Found::Gone) };
        let mut value = vec![0; place.len as usize];
        match file.read_exact_at(&mut value, place.offset.into()) {
            Ok(()) if crc32fast::hash(&value) == place.crc => Ok(Found::Value(value)),
            Ok(()) => Ok(Found::Damaged),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(Found::Damaged),
            Err(err) => Err(err),
        }
    }

    /// Has what was appended since the last call written to the disk, which gets a rest then. Blocks.
    pub(crate) fn sync_gently(&self) -> io::Result<()> {
        let from = self.unsynced.load(Ordering::Relaxed);
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner).clone();
        files.range(from..).try_for_each(|(_, file)| disk::sync_gently(file))?;
        let last = files.last_key_value().map_or(0, |(last, _)| *last);
        self.unsynced.store(last, Ordering::Relaxed);
        Ok(())
    }

    /// The size of every file that does not grow any more, by its number.
    pub(crate) fn full(&self) -> io::Result<BTreeMap<u32, u64>> {
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner).map(|(number, _)| number);
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner).clone();
        let full = files.iter().filter(|(number, _)| Some(**number) != growing);
        full.map(|(number, file)| Ok((*number, file.metadata()?.len()))).collect()
    }

    /// Removes a file. Who is reading it reads on.
    pub(crate) fn remove(&self, number: u32) -> io::Result<()> {
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        fs::remove_file(self.path(number))
    }

    fn create(&self) -> io::Result<u32> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let number = files.last_key_value().map_or(1, |(last, _)| last + 1);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path(number))?;
        files.insert(number, Arc::new(file));
        Ok(number)
    }

    fn file(&self, number: u32) -> Option<Arc<File>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The file of a place, for messages.
    pub(crate) fn path_of(&self, place: Place) -> String {
        self.path(place.file).display().to_string()
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(number.to_string())
    }
}

fn too_large(number: Result<u32, std::num::TryFromIntError>) -> io::Result<u32> {
    number.map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(files: &ValueFiles, places: &[Place]) -> Vec<String> {
        let text = |place: &Place| match files.read(*place).unwrap() {
            Found::Value(value) => String::from_utf8(value).unwrap(),
            other => format!("{other:?}"),
        };
        places.iter().map(text).collect()
    }

    #[test]
    fn values_are_read_from_where_they_were_written_also_after_the_files_were_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let files = ValueFiles::open(folder.path().join("values")).unwrap();
        let mut places = files.append(&[b"one", b"", b"three"]).unwrap();
        places.extend(files.append(&[b"four"]).unwrap());
        assert_eq!(texts(&files, &places), ["one", "", "three", "four"]);
        assert_eq!(files.full().unwrap(), BTreeMap::new());
        drop(files);

        let files = ValueFiles::open(folder.path().join("values")).unwrap();
        places.extend(files.append(&[b"five"]).unwrap());
        assert_eq!(texts(&files, &places), ["one", "", "three", "four", "five"]);
        assert_eq!(files.full().unwrap(), BTreeMap::from([(1, 12)]));
    }

    #[test]
    fn a_file_that_is_full_is_followed_by_another_and_can_go() {
        let folder = tempfile::tempdir().unwrap();
        let files = ValueFiles::open(folder.path().to_owned()).unwrap();
        let half = vec![b'x'; usize::try_from(FILE_BYTES / 2 + 1).unwrap()];
        let places = files.append(&[&half, &half, b"behind"]).unwrap();
        assert_eq!(places.iter().map(|place| place.file).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(files.full().unwrap(), BTreeMap::from([(1, FILE_BYTES + 2)]));
        files.remove(1).unwrap();
        assert_eq!(files.read(places[0]).unwrap(), Found::Gone);
        assert_eq!(texts(&files, &places[2..]), ["behind"]);
    }

    #[test]
    fn a_value_that_changed_on_disk_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let files = ValueFiles::open(folder.path().to_owned()).unwrap();
        let places = files.append(&[b"one", b"two"]).unwrap();
        let file = OpenOptions::new().write(true).open(folder.path().join("1")).unwrap();
        file.write_all_at(b"X", 1).unwrap();
        assert_eq!((files.read(places[0]).unwrap(), texts(&files, &places[1..])), (Found::Damaged, vec!["two".into()]));
        file.set_len(4).unwrap();
        assert_eq!(files.read(places[1]).unwrap(), Found::Damaged);
    }

    #[test]
    fn a_place_comes_back_from_its_bytes_and_from_no_others() {
        let place = Place { file: 1, offset: 2, len: 3, crc: u32::MAX };
        assert_eq!(Place::decode(&place.encode()), Some(place));
        assert_eq!(Place::decode(b"short"), None);
    }
}
