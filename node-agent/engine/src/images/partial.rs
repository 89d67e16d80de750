//! Blobs that did not come whole: a part of some size is kept for a day, and the next pull goes on behind it, in
//! whatever process.
//!
//! What lies here is nobody's word: it may be anything, and only what the whole blob's digest confirms is ever used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::Digest as _;
use tempfile::{NamedTempFile, TempPath};

use super::error::{ImageError, Step};
use super::reference::Digest;

/// So much is worth to be kept.
pub(super) const KEPT_BYTES_MIN: u64 = 1 << 20;
/// How long; containerd's time.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// What is read of a part at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The folder of such parts.
#[derive(Debug, Clone)]
pub(super) struct Partials(PathBuf);

/// A part that is this process's alone.
#[derive(Debug)]
pub(super) struct Part {
    /// Written to its end.
    pub(super) file: NamedTempFile,
    pub(super) hash: sha2::Sha256,
    pub(super) size: u64,
}

impl Partials {
    pub(super) fn open(root: &Path) -> Result<Self, ImageError> {
        let dir = root.join("partial");
        fs::create_dir_all(&dir).step("create", &dir)?;
        Ok(Self(dir))
    }

    /// What there is of a blob, empty if nothing is; `None` when it is being written by somebody else.
    pub(super) fn take(&self, digest: &Digest) -> Result<Option<Part>, ImageError> {
        let path = self.0.join(digest.hex());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&path).step("open", &path)?;
        if !lock(&file).step("lock", &path)? || !leads_to(&path, &file) {
            return Ok(None);
        }
        let (mut hash, mut size, mut chunk) = (sha2::Sha256::new(), 0, vec![0; CHUNK_BYTES]);
        loop {
            let read = file.read(&mut chunk).step("read", &path)?;
            if read == 0 {
                break;
            }
            hash.update(chunk.get(..read).unwrap_or_default());
            size += read as u64;
        }
        let path = TempPath::try_from_path(&path).step("use", &path)?;
        Ok(Some(Part { file: NamedTempFile::from_parts(file, path), hash, size }))
    }

    /// Removes what nobody has come back for. To be called when nobody writes.
    pub(super) fn sweep(&self, now: Timestamp) -> Result<(), ImageError> {
        self.remove(|age| age > KEPT.as_secs(), now)
    }

    /// Removes everything. To be called when nobody writes.
    pub(super) fn clear(&self, now: Timestamp) -> Result<(), ImageError> {
        self.remove(|_| true, now)
    }

    fn remove(&self, is_over: impl Fn(u64) -> bool, now: Timestamp) -> Result<(), ImageError> {
        for entry in fs::read_dir(&self.0).step("list", &self.0)? {
            let path = entry.step("list", &self.0)?.path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if is_over(u64::try_from(now.as_second() - meta.mtime()).unwrap_or(0)) {
                fs::remove_file(&path).step("remove", &path)?;
            }
        }
        Ok(())
    }
}

/// Whether the file is ours as long as it is open.
fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file still has this name: whoever had it before may have finished it.
fn leads_to(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_part_is_one_writers_and_is_there_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let partials = Partials::open(dir.path()).unwrap();
        let digest = Digest::of(b"whole");
        let mut part = partials.take(&digest).unwrap().unwrap();
        assert_eq!(part.size, 0);
        assert!(partials.take(&digest).unwrap().is_none(), "it is being written");
        part.file.write_all(b"who").unwrap();
        part.file.disable_cleanup(true);
        drop(part);
        let part = partials.take(&digest).unwrap().unwrap();
        assert_eq!((part.size, Digest::from_sha256(&part.hash.clone().finalize())), (3, Digest::of(b"who")));
        drop(part);
        assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0, "what is not to be kept is not");
    }

    #[test]
    fn a_part_that_nobody_comes_back_for_goes_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let partials = Partials::open(dir.path()).unwrap();
        let mut part = partials.take(&Digest::of(b"x")).unwrap().unwrap();
        part.file.disable_cleanup(true);
        let written = part.file.as_file().metadata().unwrap().mtime();
        drop(part);
        partials.sweep(at(written + 60)).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 1);
        partials.sweep(at(written + 25 * 60 * 60)).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
    }
}
