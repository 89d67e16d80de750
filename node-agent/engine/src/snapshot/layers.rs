//! The unpacked layers: each lies once, as a folder named by its chain id, under all images and containers that
//! use it. A layer under its final name is whole and on disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::tar::TarReader;
use super::unpack::{Limits, UnpackError, Unpacked, unpack};
use crate::images::blobs::{Blobs, check, sync_dir};
use crate::images::error::{ImageError, Step};
use crate::images::index::LayerRef;
use crate::images::manifest::chain_ids;
use crate::images::pull::is_full;
use crate::images::reference::Digest;

/// Digits of the chain id in a folder's name: 127 of them fit into the one page that mount(2) takes as options.
const NAME_LEN: usize = 20;
/// The folder that stands for an image without layers.
const EMPTY: &str = "empty";
/// Up to this many entries each file is synced by itself; beyond, the whole file system at once is cheaper.
const SYNC_EACH_MAX: u64 = 64;

/// Opens a layer's blob.
pub(crate) type OpenLayer<'o> = dyn Fn(&LayerRef) -> Result<(Box<dyn Read + 'o>, Compressed), ImageError> + 'o;

/// How large a layer is before it is unpacked, which bounds what it may unpack to.
#[derive(Debug, Clone)]
pub(crate) enum Compressed {
    /// All of it is here.
    Known(u64),
    /// What has been read of it by now, while it arrives. A layer whose beginning unpacks to more than its whole may is
    /// refused then, and has another chance when its size is known.
    SoFar(Arc<AtomicU64>),
}

/// The folder of layers.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    dir: PathBuf,
    tmp: PathBuf,
}

/// Lies beside the layer's files, written with them.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    chain_id: Digest,
    bytes: u64,
}

/// One unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Path below [`Layers::dir`], as the mount options have it.
    pub(crate) path: String,
    /// Bytes of its files.
    pub(crate) bytes: u64,
}

impl Layers {
    /// Layers below `root/layers`, made when missing.
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        let layers = Self { dir: root.join("layers"), tmp: root.join("tmp") };
        let empty = layers.dir.join(EMPTY);
        fs::create_dir_all(&empty).step("create", &empty)?;
        Ok(layers)
    }

    /// Where the layers' paths start.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The layer under images that have none.
    pub(crate) fn empty() -> Layer {
        Layer { path: EMPTY.to_owned(), bytes: 0 }
    }

    /// All these layers unpacked, lowest first. Those that are here already cost one look.
    pub(crate) fn ensure(&self, refs: &[LayerRef], blobs: &Blobs, limits: &Limits) -> Result<Vec<Layer>, ImageError> {
        let open = |layer: &LayerRef| {
            let file = blobs.reader(&layer.blob)?;
            let size = file.metadata().step("stat", &blobs.path(&layer.blob))?.len();
            Ok((Box::new(file) as Box<dyn Read>, Compressed::Known(size)))
        };
        self.ensure_from(refs, &open, limits)
    }

    /// The same, from wherever `open` finds the layers that are not here.
    pub(crate) fn ensure_from(
        &self,
        refs: &[LayerRef],
        open: &OpenLayer<'_>,
        limits: &Limits,
    ) -> Result<Vec<Layer>, ImageError> {
        let chain = chain_ids(refs.iter().map(|layer| &layer.diff_id));
        let mut done: Vec<Layer> = Vec::with_capacity(refs.len());
        for (layer, chain_id) in refs.iter().zip(&chain) {
            let found = match self.find(chain_id)? {
                Some(found) => found,
                None => {
                    let parents: Vec<PathBuf> = done.iter().rev().map(|l| self.dir.join(&l.path)).collect();
                    self.unpack(layer, chain_id, &parents, (open, limits))?
                }
            };
            done.push(found);
        }
        Ok(done)
    }

    /// Removes layers that are not among `used`.
    pub(crate) fn retain(&self, used: &BTreeSet<String>) -> Result<(), ImageError> {
        for entry in fs::read_dir(&self.dir).step("list", &self.dir)? {
            let entry = entry.step("list", &self.dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == EMPTY || used.contains(&name) {
                continue;
            }
            // Out of sight first: what is half removed must not be found.
            let doomed = tempfile::tempdir_in(&self.tmp).step("create a folder in", &self.tmp)?;
            fs::rename(entry.path(), doomed.path().join("layer")).step("move away", &entry.path())?;
        }
        Ok(())
    }

    /// Names of the folders that these layers are in.
    pub(crate) fn names(refs: &[LayerRef]) -> impl Iterator<Item = String> {
        chain_ids(refs.iter().map(|layer| &layer.diff_id)).into_iter().map(|id| name(&id))
    }

    fn find(&self, chain_id: &Digest) -> Result<Option<Layer>, ImageError> {
        let path = self.dir.join(name(chain_id)).join("layer.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.step("read", &path)?,
        };
        let invalid = |reason: String| ImageError::invalid(path.display().to_string(), reason);
        let about: About = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if about.chain_id != *chain_id {
            return Err(invalid(format!("holds layer {}, not {chain_id}", about.chain_id)));
        }
        Ok(Some(Layer { path: format!("{}/fs", name(chain_id)), bytes: about.bytes }))
    }

    fn unpack(
        &self,
        layer: &LayerRef,
        chain_id: &Digest,
        parents: &[PathBuf],
        (open, limits): (&OpenLayer<'_>, &Limits),
    ) -> Result<Layer, ImageError> {
        let staging = tempfile::tempdir_in(&self.tmp).step("create a folder in", &self.tmp)?;
        let files = staging.path().join("fs");
        fs::create_dir(&files).step("create", &files)?;
        let (done, diff_id) =
            unpack_blob(open(layer)?, &files, parents, limits).map_err(|error| in_layer(&layer.blob, error))?;
        check(&diff_id, &layer.diff_id)?;
        let about = About { chain_id: chain_id.clone(), bytes: done.bytes };
        let about_path = staging.path().join("layer.json");
        let json = serde_json::to_vec(&about).map_err(io::Error::other).step("encode", &about_path)?;
        fs::write(&about_path, json).step("write", &about_path)?;
        sync(staging.path(), done.entries)?;
        let target = self.dir.join(name(chain_id));
        match fs::rename(staging.path(), &target) {
            // Somebody else unpacked it meanwhile.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            other => other.step("rename a layer to", &target)?,
        }
        sync_dir(&self.dir)?;
        Ok(Layer { path: format!("{}/fs", name(chain_id)), bytes: done.bytes })
    }
}

fn name(chain_id: &Digest) -> String {
    chain_id.hex().chars().take(NAME_LEN).collect()
}

fn in_layer(blob: &Digest, error: ImageError) -> ImageError {
    match error {
        ImageError::Invalid { reason, .. } => ImageError::invalid(format!("layer {blob}"), reason),
        other => other,
    }
}

/// Whose fault it is: that there is no room is not the image's.
fn refused(error: UnpackError) -> ImageError {
    match error {
        UnpackError::Os { step, path, errno } if matches!(errno, Errno::NOSPC | Errno::DQUOT) => {
            ImageError::Io { step: format!("{step} {path:?} of a layer"), source: errno.into() }
        }
        UnpackError::Copy { path, source } if is_full(&source) => {
            ImageError::Io { step: format!("write {path:?} of a layer"), source }
        }
        other => ImageError::invalid("layer", other.to_string()),
    }
}

/// Unpacks a blob and answers with the digest of its uncompressed bytes, all of them to the end.
fn unpack_blob(
    (blob, compressed): (Box<dyn Read + '_>, Compressed),
    files: &Path,
    parents: &[PathBuf],
    limits: &Limits,
) -> Result<(Unpacked, Digest), ImageError> {
    let inner = decompressed(blob).step("decompress into", files)?;
    let hashed = Hashed { inner, hash: sha2::Sha256::new(), passed: 0, compressed, limits: *limits };
    let mut archive = TarReader::new(hashed);
    let done = unpack(&mut archive, files, parents, limits).map_err(refused)?;
    let mut hashed = archive.into_inner();
    io::copy(&mut hashed, &mut io::sink()).map_err(|error| ImageError::invalid("layer", error.to_string()))?;
    Ok((done, Digest::from_sha256(&hashed.hash.finalize())))
}

/// A stream of the uncompressed bytes; the compression is known by its first bytes.
pub(crate) fn decompressed<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(128 << 10, source);
    let mut magic = Vec::new();
    (&mut source).take(4).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(source);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Hashes what passes through, and stops a bomb.
struct Hashed<R> {
    inner: R,
    hash: sha2::Sha256,
    passed: u64,
    compressed: Compressed,
    limits: Limits,
}

impl<R> Hashed<R> {
    /// Bytes that may have passed by now. Headers and padding come on top of the files' bytes.
    fn max(&self) -> u64 {
        let compressed = match &self.compressed {
            Compressed::Known(size) => *size,
            Compressed::SoFar(read) => read.load(Ordering::Relaxed),
        };
        let ratio_bytes = compressed.saturating_mul(self.limits.ratio_max).max(self.limits.ratio_bytes_min);
        ratio_bytes.min(self.limits.layer_bytes_max.saturating_mul(2))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.passed += n as u64;
        if self.passed > self.max() {
            return Err(io::Error::other("the layer unpacks to far more than its size allows"));
        }
        self.hash.update(buf.get(..n).unwrap_or_default());
        Ok(n)
    }
}

/// Puts a staged layer on disk before it gets its name.
fn sync(dir: &Path, entries: u64) -> Result<(), ImageError> {
    if entries > SYNC_EACH_MAX {
        let file = File::open(dir).step("open", dir)?;
        return rustix::fs::syncfs(&file).step("sync", dir);
    }
    for entry in fs::read_dir(dir).step("list", dir)? {
        let entry = entry.step("list", dir)?;
        let kind = entry.file_type().step("stat", &entry.path())?;
        if kind.is_dir() {
            sync(&entry.path(), entries)?;
        } else if kind.is_file() {
            sync_dir(&entry.path())?;
        }
    }
    sync_dir(dir)
}
