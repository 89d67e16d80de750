//! The content store: files named by the digest of what is in them. Knows nothing of images.
//!
//! A blob is written to `tmp/`, hashed on the way, fsynced and renamed: under its final name it is whole,
//! whatever was killed when.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::Digest as _;
use tempfile::{NamedTempFile, TempPath};

use super::arrival::Arriving;
use super::error::{ImageError, Step};
use super::partial::{KEPT_BYTES_MIN, Part, Partials};
use super::reference::Digest;

/// Largest blob that is read into memory (manifests and configurations); containerd's limit is 8 MiB.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

/// Blobs of one store.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    dir: PathBuf,
    tmp: PathBuf,
    partials: Partials,
}

/// A blob that lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// A blob on its way into the store. Dropping it removes what was written.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    file: NamedTempFile,
    hash: sha2::Sha256,
    size: u64,
    dir: PathBuf,
    /// Whether what is written is kept for a later transfer, if this one breaks off.
    kept: bool,
    /// Who reads along.
    arriving: Option<Arriving>,
}

/// A blob that is written but not in the store yet; holds no descriptor, unless it must keep others away. Dropping it
/// removes it.
#[derive(Debug)]
pub(crate) struct Parked {
    file: TempPath,
    /// As long as it is open, the file is nobody else's.
    _lock: Option<File>,
    dir: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    arriving: Option<Arriving>,
}

impl Blobs {
    /// Blobs below `root/blobs/sha256`, made when missing.
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        let partials = Partials::open(root)?;
        let blobs = Self { dir: root.join("blobs/sha256"), tmp: root.join("tmp"), partials };
        for dir in [&blobs.dir, &blobs.tmp] {
            fs::create_dir_all(dir).step("create", dir)?;
        }
        Ok(blobs)
    }

    /// Where a blob lies or would lie.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// The blob, if it is here.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Blob> {
        let meta = fs::metadata(self.path(digest)).ok()?;
        Some(Blob { digest: digest.clone(), size: meta.len() })
    }

    /// Opens a blob for reading.
    pub(crate) fn reader(&self, digest: &Digest) -> Result<File, ImageError> {
        let path = self.path(digest);
        File::open(&path).step("open", &path)
    }

    /// A blob's first bytes, which tell its compression.
    pub(crate) fn magic(&self, digest: &Digest) -> Result<[u8; 4], ImageError> {
        magic(&self.path(digest))
    }

    /// A small blob's bytes, checked against its digest.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let limited = self.reader(digest)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        limited.step("read", &self.path(digest))?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(ImageError::invalid(digest.as_str(), format!("larger than {DOCUMENT_BYTES_MAX} bytes")));
        }
        check(&Digest::of(&bytes), digest)?;
        Ok(bytes)
    }

    /// Starts a new blob.
    pub(crate) fn writer(&self) -> Result<BlobWriter, ImageError> {
        let file = NamedTempFile::new_in(&self.tmp).step("create a file in", &self.tmp)?;
        Ok(BlobWriter { file, hash: sha2::Sha256::new(), size: 0, dir: self.dir.clone(), kept: false, arriving: None })
    }

    /// Starts a blob that comes from elsewhere, or goes on with what came of it before; others read along.
    pub(crate) fn writer_of(&self, digest: &Digest, arriving: Option<Arriving>) -> Result<BlobWriter, ImageError> {
        let writer = match self.partials.take(digest)? {
            Some(Part { file, hash, size }) => {
                let mut writer = BlobWriter { file, hash, size, dir: self.dir.clone(), kept: true, arriving: None };
                writer.keep();
                writer
            }
            None => self.writer()?,
        };
        if let Some(arriving) = &arriving {
            arriving.begin(writer.file.reopen().step("open", writer.file.path())?);
            arriving.grew(writer.size);
        }
        Ok(BlobWriter { arriving, ..writer })
    }

    /// What came of blobs that did not come whole.
    pub(super) fn partials(&self) -> &Partials {
        &self.partials
    }

    /// Writes a small blob.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Blob, ImageError> {
        let digest = Digest::of(bytes);
        if let Some(blob) = self.get(&digest) {
            return Ok(blob);
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).step("write a blob in", &self.tmp)?;
        writer.commit(Some(&digest))
    }

    /// Every blob.
    pub(crate) fn list(&self) -> Result<Vec<Digest>, ImageError> {
        let entries = fs::read_dir(&self.dir).step("list", &self.dir)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| Digest::parse(&format!("sha256:{name}")).ok()).collect())
    }

    /// Removes a blob; one that is gone is fine.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), ImageError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).step("remove", &path),
            _ => Ok(()),
        }
    }
}

impl BlobWriter {
    /// Bytes written so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The digest of what was written so far.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_sha256(&self.hash.clone().finalize())
    }

    /// What was written is of no use, for nobody.
    pub(crate) fn discard(mut self) {
        self.kept = false;
        self.file.disable_cleanup(false);
    }

    fn keep(&mut self) {
        self.file.disable_cleanup(self.kept && self.size >= KEPT_BYTES_MIN);
    }

    /// Throws away what was written: a transfer starts over.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        use std::io::Seek as _;
        if let Some(arriving) = self.arriving.as_ref().filter(|_| self.size > 0) {
            arriving.lose();
        }
        self.file.as_file_mut().set_len(0)?;
        self.file.as_file_mut().rewind()?;
        self.hash = sha2::Sha256::new();
        self.size = 0;
        self.keep();
        Ok(())
    }

    /// Ends it, so that its digest is known.
    pub(crate) fn park(self) -> Parked {
        let digest = Digest::from_sha256(&self.hash.finalize());
        let (open, mut file) = self.file.into_parts();
        file.disable_cleanup(false);
        let _lock = self.kept.then_some(open);
        Parked { file, _lock, dir: self.dir, digest, size: self.size, arriving: self.arriving }
    }

    /// Puts the blob in its place, on disk; refuses content that is not `expected`.
    pub(crate) fn commit(self, expected: Option<&Digest>) -> Result<Blob, ImageError> {
        let parked = self.park();
        if let Some(expected) = expected {
            check(&parked.digest, expected)?;
        }
        parked.commit()
    }
}

impl Parked {
    /// Its bytes, if it is a document.
    pub(crate) fn read(&self, subject: &str) -> Result<Vec<u8>, ImageError> {
        if self.size > DOCUMENT_BYTES_MAX {
            return Err(ImageError::invalid(subject, format!("larger than {DOCUMENT_BYTES_MAX} bytes")));
        }
        fs::read(&self.file).step("read", &self.file)
    }

    /// Its first bytes, which tell its compression.
    pub(crate) fn magic(&self) -> Result<[u8; 4], ImageError> {
        magic(&self.file)
    }

    /// Puts the blob in its place, on disk.
    pub(crate) fn commit(self) -> Result<Blob, ImageError> {
        let path = self.dir.join(self.digest.hex());
        File::open(&self.file).and_then(|file| file.sync_all()).step("sync", &self.file)?;
        self.file.persist(&path).map_err(|error| error.error).step("rename a blob to", &path)?;
        sync_dir(&self.dir)?;
        if let Some(arriving) = self.arriving {
            arriving.finish();
        }
        Ok(Blob { digest: self.digest, size: self.size })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.as_file_mut().write(buf)?;
        self.hash.update(buf.get(..n).unwrap_or_default());
        self.size += n as u64;
        self.keep();
        if let Some(arriving) = &self.arriving {
            arriving.grew(n as u64);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn magic(path: &Path) -> Result<[u8; 4], ImageError> {
    let mut magic = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic)).step("read", path)?;
    Ok(magic.try_into().unwrap_or_default())
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), ImageError> {
    File::open(dir).and_then(|file| file.sync_all()).step("sync", dir)
}

/// A digest that does not fit is damage on disk or on the wire, or a forgery.
pub(crate) fn check(actual: &Digest, expected: &Digest) -> Result<(), ImageError> {
    if actual == expected {
        return Ok(());
    }
    Err(ImageError::invalid(expected.as_str(), format!("unexpected digest {actual}: the content is damaged")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_kept_only_under_the_digest_of_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.writer().unwrap();
        writer.write_all(b"not what was asked for").unwrap();
        let asked = Digest::of(b"what was asked for");
        assert!(writer.commit(Some(&asked)).unwrap_err().to_string().contains("unexpected digest"));
        assert_eq!(blobs.get(&asked), None);
        assert_eq!(blobs.list().unwrap(), []);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn damage_on_disk_is_found_when_a_document_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let blob = blobs.put(b"{}").unwrap();
        assert_eq!(blobs.read(&blob.digest).unwrap(), b"{}");
        fs::write(blobs.path(&blob.digest), b"[]").unwrap();
        assert!(blobs.read(&blob.digest).is_err());
    }
}
