//! What commands gave before: from everything a command depends on to the layer it made.
//!
//! A record is a small file, `build-cache/KEY.json` in the store; its layer is kept as long as it is. Folders of
//! `--mount=type=cache` lie beside, in `mounts/`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::mounts::{Owner, Sharing};
use crate::images::Digest;
use crate::images::error::{ImageError, Step};
use crate::images::index::LayerRef;

/// Results that are kept, the last used first, and the bytes that their layers may have together.
const RECORDS_MAX: usize = 1024;
const BYTES_MAX: u64 = 10 << 30;
/// Version of a record's form; one of another version is none.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    form: u32,
    /// `None`: the command changed nothing.
    layer: Option<LayerRef>,
    bytes: u64,
}

/// The cache of one store.
#[derive(Debug, Clone)]
pub(crate) struct BuildCache {
    dir: PathBuf,
}

/// A folder for `--mount=type=cache`, and what keeps others out of it.
pub(super) struct CacheFolder {
    pub(super) path: PathBuf,
    _lock: Option<File>,
    _own: Option<tempfile::TempDir>,
}

impl BuildCache {
    /// The cache of the store in `root`.
    pub(crate) fn of(root: &Path) -> Self {
        Self { dir: root.join("build-cache") }
    }

    /// What a key gave, if that is known.
    pub(super) fn get(&self, key: &Digest) -> Option<Option<LayerRef>> {
        let path = self.path(key);
        let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        if record.form != FORM {
            return None;
        }
        // When it was used last; a cache that cannot be written still serves.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty());
        Some(record.layer)
    }

    /// Notes what a key has given.
    pub(super) fn put(&self, key: &Digest, layer: Option<LayerRef>, bytes: u64) -> Result<(), ImageError> {
        fs::create_dir_all(&self.dir).step("make", &self.dir)?;
        let path = self.path(key);
        let json = serde_json::to_vec(&Record { form: FORM, layer, bytes }).map_err(io::Error::other);
        let file = tempfile::NamedTempFile::new_in(&self.dir).step("create a file in", &self.dir)?;
        fs::write(file.path(), json.step("encode", &path)?).step("write", file.path())?;
        file.persist(&path).map_err(|error| error.error).step("replace", &path)?;
        Ok(())
    }

    /// The blobs that are to be kept; results that have not been used for long are dropped before. For the garbage
    /// collector of the store.
    pub(crate) fn kept(&self) -> Vec<Digest> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut records: Vec<(SystemTime, PathBuf, Record)> = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            match (record.filter(|record| record.form == FORM), used) {
                (Some(record), Ok(used)) => records.push((used, path, record)),
                _ => drop(fs::remove_file(path)),
            }
        }
        records.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let (mut kept, mut bytes) = (Vec::new(), 0_u64);
        for (at, (_, path, record)) in records.into_iter().enumerate() {
            bytes = bytes.saturating_add(record.bytes);
            if at >= RECORDS_MAX || bytes > BYTES_MAX {
                let _ = fs::remove_file(path);
            } else {
                kept.extend(record.layer.map(|layer| layer.blob));
            }
        }
        kept
    }

    /// Forgets everything, the folders of cache mounts included.
    pub(crate) fn clear(&self) -> Result<(), ImageError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).step("remove", &self.dir),
            _ => Ok(()),
        }
    }

    /// The folder of a cache mount; a new one is filled by `fill`. Waits, where only one build may have it.
    pub(super) fn folder<E: From<ImageError>>(
        &self,
        id: &str,
        sharing: Sharing,
        owner: Owner,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<CacheFolder, E> {
        let name = Digest::from_sha256(&Sha256::digest(id.as_bytes()));
        let home = self.dir.join("mounts").join(name.hex());
        let path = home.join("files");
        fs::create_dir_all(&home).step("make", &home)?;
        let lock_path = home.join("lock");
        let lock = File::create(&lock_path).step("make", &lock_path)?;
        let operation = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Private => FlockOperation::NonBlockingLockExclusive,
            Sharing::Locked => FlockOperation::LockExclusive,
        };
        match rustix::fs::flock(&lock, operation) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let own = tempfile::tempdir_in(&self.dir).step("create a folder in", &self.dir)?;
                let path = own.path().join("files");
                make(&path, owner)?;
                fill(&path)?;
                return Ok(CacheFolder { path, _lock: None, _own: Some(own) });
            }
            other => other.step("lock", &lock_path)?,
        }
        if !path.exists() {
            // Whoever shares it may be making it, too: who comes second takes what is there.
            let new = tempfile::tempdir_in(&home).step("create a folder in", &home)?;
            let files = new.path().join("files");
            make(&files, owner)?;
            fill(&files)?;
            match fs::rename(&files, &path) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
                other => other.step("rename a folder to", &path)?,
            }
        }
        Ok(CacheFolder { path, _lock: Some(lock), _own: None })
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.dir.join(format!("{}.json", key.hex()))
    }
}

/// Makes a folder that belongs to somebody.
fn make(path: &Path, owner: Owner) -> Result<(), ImageError> {
    fs::create_dir_all(path).step("make", path)?;
    own(path, owner)
}

/// Gives a file or folder to somebody.
pub(super) fn own(path: &Path, owner: Owner) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).step("give away", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(owner.mode)).step("set the mode of", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::from_sha256(&Sha256::digest(text))
    }

    #[test]
    fn what_was_used_last_is_kept_when_there_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BuildCache::of(dir.path());
        let layer = |name: &str| LayerRef { blob: digest(name), diff_id: digest(name) };
        assert_eq!(cache.get(&digest("a")), None);
        for name in ["a", "b", "c"] {
            cache.put(&digest(name), Some(layer(name)), BYTES_MAX / 2).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        cache.put(&digest("nothing"), None, 0).unwrap();
        assert_eq!(cache.get(&digest("a")), Some(Some(layer("a"))), "and it is the last used now");
        let mut kept = cache.kept();
        kept.sort_by_key(ToString::to_string);
        let mut expected = [digest("a"), digest("c")];
        expected.sort_by_key(ToString::to_string);
        assert_eq!(kept, expected);
        assert_eq!(cache.get(&digest("b")), None);
        assert_eq!(cache.get(&digest("nothing")), Some(None));
        cache.clear().unwrap();
        assert_eq!(cache.get(&digest("a")), None);
    }

    #[test]
    fn a_private_cache_that_is_in_use_is_not_given_to_a_second_build() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BuildCache::of(dir.path());
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw(), mode: 0o700 };
        let empty = |_: &Path| Ok::<_, ImageError>(());
        let first = cache.folder("x", Sharing::Private, owner, empty).unwrap();
        fs::write(first.path.join("f"), "1").unwrap();
        let second = cache.folder("x", Sharing::Private, owner, empty).unwrap();
        assert!(!second.path.join("f").exists());
        drop((first, second));
        assert!(cache.folder("x", Sharing::Locked, owner, empty).unwrap().path.join("f").exists());
    }
}
