//! The seam between the store and the disk: what the Raft log and the snapshots need of a file system, and no
//! more. It knows nothing of what is in the files.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// A step on the disk that failed. A failed sync is final: what was written since the last one may be lost.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}")]
pub struct DiskError {
    /// What was tried.
    pub verb: &'static str,
    /// With what: the full path.
    pub path: String,
    /// The operating system's words.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Whether there was no room, and nothing is known to be lost: a sync that says so has failed like any other.
    pub(crate) fn is_full(&self) -> bool {
        let no_room = matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        no_room && self.verb != VERB_SYNC
    }
}

/// How a failed sync is called.
pub(crate) const VERB_SYNC: &str = "sync";

/// Why a data folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("data folder {folder} is in use by process {holder}")]
    Held {
        /// The folder.
        folder: String,
        /// The process id, as it wrote it down.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Holds a data folder as long as it lives.
pub type DiskLock = Box<dyn Send + Sync>;

/// A file that is written once, front to back.
pub trait DiskFile: Send {
    /// Makes room for so many bytes, which are zeros until they are written, so that a sync need not make a new length
    /// durable, too: that is half of what it costs. Where it cannot be done nothing is lost but time.
    fn reserve(&mut self, _bytes: u64) {}

    /// Says that much will be appended for which nobody waits: it goes to the disk in small steps, with a rest after
    /// each, so that the syncs of others find the disk free. Without it all would go at once, with the next sync, and
    /// everybody's next sync would wait for that.
    fn ease(&mut self) {}

    /// Adds bytes at the end.
    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError>;

    /// Returns when everything appended survives a power cut (`fdatasync`).
    fn sync(&mut self) -> Result<(), DiskError>;
}

/// One member's data folder. Files are named by paths below it, like `log/00.log`. All methods block.
/// Implementations: [`RealDisk`] and [`crate::SimDisk`].
pub trait Disk: Send + Sync + Debug {
    /// Takes the folder for this process alone.
    fn lock(&self) -> Result<DiskLock, LockError>;

    /// Differs after each start of the machine: then what was not synced may be gone.
    fn boot_id(&self) -> Result<String, DiskError>;

    /// The names of the files in a folder, sorted; none when there is no such folder.
    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError>;

    /// Opens a file for reading from its beginning; `None` when there is none.
    fn open(&self, file: &str) -> Result<Option<Box<dyn Read + Send>>, DiskError>;

    /// Makes an empty file, and the folder around it if it is missing. Replaces a file of that name.
    fn create(&self, file: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Cuts a file to a length, which may be the one it has, and syncs it.
    fn truncate(&self, file: &str, len: u64) -> Result<(), DiskError>;

    /// Gives a file another name in its folder, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    fn remove(&self, file: &str) -> Result<(), DiskError>;

    /// Returns when the names made, changed and removed in a folder survive a power cut.
    fn sync_folder(&self, folder: &str) -> Result<(), DiskError>;

    /// Bytes that we may still write.
    fn free_bytes(&self) -> Result<u64, DiskError>;

    /// How messages call a file.
    fn path_of(&self, file: &str) -> String;
}

/// Everything in a file; `None` when there is none.
pub(crate) fn read_file(disk: &dyn Disk, file: &str) -> Result<Option<Vec<u8>>, DiskError> {
    let Some(mut reader) = disk.open(file)? else { return Ok(None) };
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|source| DiskError { verb: "read", path: disk.path_of(file), source })?;
    Ok(Some(bytes))
}

/// Replaces a small file so that after a crash it is the old or the new one.
pub(crate) fn replace_file(disk: &dyn Disk, file: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = format!("{file}.tmp");
    let mut new = disk.create(&temporary)?;
    new.append(bytes)?;
    new.sync()?;
    disk.rename(&temporary, file)?;
    disk.sync_folder(folder_of(file))
}

/// The folder part of a file's name.
pub(crate) fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A folder of the machine's file system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    folder: PathBuf,
}

impl RealDisk {
    /// A data folder; it is made when it is first written to.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, file: &str) -> PathBuf {
        if file.is_empty() { self.folder.clone() } else { self.folder.join(file) }
    }

    fn error(&self, verb: &'static str, file: &str) -> impl FnOnce(io::Error) -> DiskError {
        let path = self.path_of(file);
        move |source| DiskError { verb, path, source }
    }
}

/// Makes a folder and those around it, and makes their names durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => Err(err),
        _ => File::open(parent)?.sync_all(),
    }
}

impl Disk for RealDisk {
    fn lock(&self) -> Result<DiskLock, LockError> {
        const LOCK: &str = "LOCK";
        make_folder(&self.folder).map_err(self.error("make", ""))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(LOCK))
            .map_err(self.error("open", LOCK))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(self.error("read", LOCK))?;
                let holder = holder.trim().to_owned();
                return Err(LockError::Held { folder: self.path_of(""), holder });
            }
            Err(TryLockError::Error(err)) => return Err(self.error("lock", LOCK)(err).into()),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(self.error("write", LOCK))?;
        Ok(Box::new(file))
    }

    fn boot_id(&self) -> Result<String, DiskError> {
        // Source: random(4), /proc/sys/kernel/random/boot_id.
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let read = fs::read_to_string(BOOT_ID);
        Ok(read.map_err(|source| DiskError { verb: "read", path: BOOT_ID.to_owned(), source })?.trim().to_owned())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        let entries = match fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(self.error("list", folder)(err)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(self.error("list", folder))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, file: &str) -> Result<Option<Box<dyn Read + Send>>, DiskError> {
        match File::open(self.path(file)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(self.error("open", file)(err)),
        }
    }

    fn create(&self, file: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        make_folder(&self.path(folder_of(file))).map_err(self.error("make", folder_of(file)))?;
        let inner = File::create(self.path(file)).map_err(self.error("make", file))?;
        Ok(Box::new(RealFile { inner, path: self.path_of(file), unsynced: None }))
    }

    fn truncate(&self, file: &str, len: u64) -> Result<(), DiskError> {
        let open = OpenOptions::new().write(true).open(self.path(file));
        open.and_then(|file| file.set_len(len).and_then(|()| file.sync_all())).map_err(self.error("cut", file))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.path(from), self.path(to)).map_err(self.error("rename", from))
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        fs::remove_file(self.path(file)).map_err(self.error("remove", file))
    }

    fn sync_folder(&self, folder: &str) -> Result<(), DiskError> {
        File::open(self.path(folder)).and_then(|folder| folder.sync_all()).map_err(self.error(VERB_SYNC, folder))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let found = rustix::fs::statvfs(&self.folder).map_err(|err| self.error("measure", "")(err.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn path_of(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }
}

/// What goes to the disk at once of files that are written gently: some milliseconds.
pub(crate) const GENTLE_BYTES: usize = 1024 * 1024;
/// The longest rest between two steps: a disk that hardly answers is left alone, but not for ever.
const REST_MAX: Duration = Duration::from_millis(200);

/// Syncs a file that much is being written to and for which nobody waits, then rests for as long as that took: half of
/// the disk's time is left for others. Blocks.
pub(crate) fn sync_gently(file: &File) -> io::Result<()> {
    let began = Instant::now();
    file.sync_data()?;
    std::thread::sleep(began.elapsed().min(REST_MAX));
    Ok(())
}

struct RealFile {
    inner: File,
    path: String,
    /// Bytes that were appended since the last gentle sync; `None`: it is not written gently.
    unsynced: Option<usize>,
}

impl RealFile {
    fn error(&self, verb: &'static str) -> impl FnOnce(io::Error) -> DiskError {
        let path = self.path.clone();
        move |source| DiskError { verb, path, source }
    }

    fn append_gently(&mut self, bytes: &[u8], mut unsynced: usize) -> Result<(), DiskError> {
        for step in bytes.chunks(GENTLE_BYTES) {
            self.inner.write_all(step).map_err(self.error("write"))?;
            unsynced += step.len();
            if unsynced >= GENTLE_BYTES {
                sync_gently(&self.inner).map_err(self.error(VERB_SYNC))?;
                unsynced = 0;
            }
        }
        self.unsynced = Some(unsynced);
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn reserve(&mut self, bytes: u64) {
        if let Err(err) = rustix::fs::fallocate(&self.inner, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            tracing::debug!(path = self.path, %err, "No room is made beforehand.");
        }
    }

    fn ease(&mut self) {
        self.unsynced = Some(0);
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        match self.unsynced {
            Some(unsynced) => self.append_gently(bytes, unsynced),
            None => self.inner.write_all(bytes).map_err(self.error("write")),
        }
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.inner.sync_data().map_err(self.error(VERB_SYNC))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_belongs_to_one_and_the_other_is_told_to_whom() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path().join("made/on/the/way"));
        let held = disk.lock().unwrap();
        let message = disk.lock().err().unwrap().to_string();
        assert!(message.ends_with(&format!("is in use by process {}", std::process::id())), "{message}");
        drop(held);
        disk.lock().unwrap();
    }
}
