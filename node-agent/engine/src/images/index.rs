//! Which images there are: one small file that the engine and `reeve image` read and write at the same time.
//!
//! Writers take a file lock and replace the file atomically. Readers look at the file's inode on every question
//! (one `stat`): what another process added is seen at once, and nothing polls.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::blobs::sync_dir;
use super::error::{ImageError, Step};
use super::reference::Digest;
use crate::engine::Image;

/// Version of the file's form; a file of another version is refused, never guessed at.
const FORM: u32 = 1;
/// Largest index: some 50,000 images.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// One complete image. Its blobs and layers lie in the store as long as its record does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Digest of the configuration: the image's id.
    pub(crate) id: Digest,
    /// Blob of the manifest.
    pub(crate) manifest: Digest,
    /// Normalised names with tag.
    pub(crate) names: Vec<String>,
    /// Normalised names with digest.
    pub(crate) digests: Vec<String>,
    /// Layers, lowest first.
    pub(crate) layers: Vec<LayerRef>,
    /// Bytes of the layers, unpacked.
    pub(crate) size_bytes: u64,
    /// When it was built, if it says so.
    pub(crate) created_at: Option<Timestamp>,
    /// User from the configuration.
    pub(crate) user: String,
    /// Somebody removed it while a container used it: it goes with its last container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
    /// Built or loaded, here or on another node, and not only fetched from a registry: other nodes may have it, for
    /// there is nobody whose permission it would take.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) made: bool,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRef {
    /// The blob, compressed or not.
    pub(crate) blob: Digest,
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: Digest,
}

impl Record {
    /// Every blob the image needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        [&self.id, &self.manifest].into_iter().chain(self.layers.iter().map(|layer| &layer.blob))
    }

    /// As the engine's callers see it.
    pub(crate) fn to_image(&self) -> Image {
        Image {
            id: self.id.to_string(),
            tags: self.names.clone(),
            digests: self.digests.clone(),
            size_bytes: self.size_bytes,
            created_at: self.created_at,
            user: self.user.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    form: u32,
    images: Vec<Record>,
}

/// The file and what was last read from it.
#[derive(Debug)]
pub(crate) struct Index {
    root: PathBuf,
    path: PathBuf,
    cache: Mutex<Option<Cached>>,
}

/// The open file keeps its inode from being used again, so that "same inode" means "same content".
#[derive(Debug)]
struct Cached {
    file: File,
    records: Arc<Vec<Record>>,
}

impl Index {
    /// The index of the store in `root`.
    pub(crate) fn open(root: &Path) -> Self {
        Self { root: root.to_owned(), path: root.join("images.json"), cache: Mutex::new(None) }
    }

    /// All records, as they are now.
    pub(crate) fn read(&self) -> Result<Arc<Vec<Record>>, ImageError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            other => other.step("open", &self.path)?,
        };
        if let Some(cached) = cache.as_ref()
            && identity(&cached.file).step("stat", &self.path)? == identity(&file).step("stat", &self.path)?
        {
            return Ok(Arc::clone(&cached.records));
        }
        let records = Arc::new(self.parse(&file)?);
        *cache = Some(Cached { file, records: Arc::clone(&records) });
        Ok(records)
    }

    /// Changes the records under the lock; on disk when it returns. An error changes nothing.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Vec<Record>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _lock = Lock::exclusive(&self.root.join("index.lock"))?;
        let before = self.read()?;
        let mut records = before.as_ref().clone();
        let result = change(&mut records)?;
        if records != *before {
            self.write(records)?;
        }
        Ok(result)
    }

    fn parse(&self, file: &File) -> Result<Vec<Record>, ImageError> {
        let mut bytes = Vec::new();
        file.take(INDEX_BYTES_MAX).read_to_end(&mut bytes).step("read", &self.path)?;
        let invalid = |reason: String| ImageError::invalid(self.path.display().to_string(), reason);
        let on_disk: OnDisk = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if on_disk.form != FORM {
            return Err(invalid(format!("form {} is not known here (only {FORM})", on_disk.form)));
        }
        Ok(on_disk.images)
    }

    fn write(&self, images: Vec<Record>) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec_pretty(&OnDisk { form: FORM, images })
            .map_err(|error| ImageError::invalid(self.path.display().to_string(), error.to_string()))?;
        // One fixed name: only the holder of the lock writes it, and one that a killed process left is overwritten.
        let new = self.root.join("images.json.new");
        let mut file = File::create(&new).step("create", &new)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).step("write", &new)?;
        fs::rename(&new, &self.path).step("replace", &self.path)?;
        sync_dir(&self.root)
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

/// A file lock between processes and, as each holds a descriptor of its own, between threads.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else holds it.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, ImageError> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Waits until nobody holds it exclusively.
    pub(crate) fn shared(path: &Path) -> Result<Self, ImageError> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// `None` when somebody holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, ImageError> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Err(ImageError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self, ImageError> {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).step("open", path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    other.step("lock", path)?;
                    return Ok(Self { _file: file });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &str) -> Record {
        let digest = Digest::of(content.as_bytes());
        Record {
            id: digest.clone(),
            manifest: digest,
            names: vec![format!("docker.io/library/{content}:latest")],
            digests: Vec::new(),
            layers: Vec::new(),
            size_bytes: 0,
            created_at: None,
            user: String::new(),
            removed: false,
            made: false,
        }
    }

    fn add(index: &Index, content: &str) {
        let push = |records: &mut Vec<Record>| {
            records.push(record(content));
            Ok(())
        };
        index.update(push).unwrap();
    }

    #[test]
    fn what_one_process_adds_another_sees_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, cli) = (Index::open(dir.path()), Index::open(dir.path()));
        assert!(engine.read().unwrap().is_empty());
        for n in 1..20 {
            add(&cli, &format!("i{n}"));
            assert_eq!(engine.read().unwrap().len(), n);
        }
    }

    #[test]
    fn changes_made_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let index = Index::open(dir.path());
                scope.spawn(move || {
                    for n in 0..5 {
                        add(&index, &format!("t{thread}n{n}"));
                    }
                });
            }
        });
        assert_eq!(Index::open(dir.path()).read().unwrap().len(), 20);
    }

    #[test]
    fn an_error_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path());
        let result: Result<(), _> = index.update(|records| {
            records.push(record("half"));
            Err(ImageError::NotFound("x".to_owned()))
        });
        assert!(result.is_err());
        assert!(index.read().unwrap().is_empty());
    }
}
