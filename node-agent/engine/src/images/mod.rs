//! The images of a cluster: names, content, unpacked layers. Everything lies in one folder, which the running
//! engine and the `reeve image` and `reeve build` commands use at the same time, without talking to each other:
//!
//! ```text
//! images.json        which images there are (replaced atomically under index.lock)
//! blobs/sha256/HEX   manifests, configurations, layers as they came
//! layers/NAME/fs     each layer unpacked, once
//! containers/ID/     root file systems (see `snapshot`)
//! partial/HEX        what came of blobs that did not come whole; kept for a day
//! tmp/               what is being written; swept when nobody writes
//! ```
//!
//! Whoever adds something holds `content.lock` shared until the index refers to it; whoever collects garbage holds
//! it alone. An image in the index is complete and unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use reeve_api::clock::SharedClock;

use crate::build::cache::BuildCache;
use crate::engine::Image;
use crate::snapshot::layers::{Layer, Layers, OpenLayer};
pub use crate::snapshot::unpack::Limits;

mod archive;
mod arrival;
pub(crate) mod blobs;
mod challenge;
pub(crate) mod changes;
mod client;
mod credentials;
pub(crate) mod error;
pub(crate) mod index;
pub(crate) mod manifest;
mod partial;
pub mod peers;
pub(crate) mod pull;
mod push;
pub(crate) mod reference;
pub mod registries;
mod save;
mod transfer;
mod unsent;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod pull_tests;
#[cfg(test)]
pub(crate) mod tests;

use blobs::Blobs;
pub use credentials::{DockerConfig, ImagePattern};
pub use error::ImageError;
use error::Step;
use index::{Index, LayerRef, Lock, Record};
pub use manifest::architecture;
use manifest::{Document, Manifest};
pub use pull::{PullEvent, PullTeller};
pub use push::Pushed;
pub use reference::{Digest, Fault, Reference, ReferenceError};
use registries::Registries;

/// Shortest prefix of an id that names an image.
const ID_PREFIX_MIN: usize = 4;

/// The images in one folder. Cheap to clone; any number of processes may have the same folder open.
///
/// All methods block (files, locks); those that only look something up cost a `stat` or two.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    blobs: Blobs,
    layers: Layers,
    index: Index,
    options: StoreOptions,
    clock: SharedClock,
    pulls: pull::Pulls,
}

/// What a store may do and take.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// What an image may cost.
    pub limits: Limits,
    /// The file that says where images of a registry come from, see [`registries`].
    pub registries: PathBuf,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), registries: registries::REGISTRIES_FILE.into() }
    }
}

impl From<Limits> for StoreOptions {
    fn from(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
}

/// Held while content is added that the index does not refer to yet: nothing is collected meanwhile. Whoever lets go
/// last does the collection that was put off.
#[derive(Debug)]
pub(crate) struct Session {
    lock: Option<Lock>,
    store: ImageStore,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.lock = None;
        if let Err(error) = self.store.collect_if_marked() {
            tracing::warn!(%error, "images that nobody uses could not be removed");
        }
    }
}

/// An image whose blobs lie in the store, to be unpacked and named.
#[derive(Debug, Default)]
pub(crate) struct NewImage {
    /// The manifest as it came: its digest is known to others.
    pub(crate) manifest: Vec<u8>,
    /// Normalised names with tag; they are taken from whatever image has them.
    pub(crate) names: Vec<String>,
    /// Normalised names with digest.
    pub(crate) digests: Vec<String>,
    /// Whether it was built or loaded, see [`Record`].
    pub(crate) made: bool,
}

/// Where the images of a cluster lie, in its data folder.
#[must_use]
pub fn images_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("images")
}

impl ImageStore {
    /// Opens or makes the store in `dir` (see [`images_dir`]), which becomes root's alone.
    pub fn open(dir: impl AsRef<Path>, clock: SharedClock) -> Result<Self, ImageError> {
        Self::open_with(dir, clock, StoreOptions::default())
    }

    /// [`ImageStore::open`] with other limits or registries.
    pub fn open_with(dir: impl AsRef<Path>, clock: SharedClock, options: StoreOptions) -> Result<Self, ImageError> {
        let dir = dir.as_ref();
        use std::os::unix::fs::DirBuilderExt as _;
        // Unpacked layers hold setuid programs and devices: other users may not get near them.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).step("create", dir)?;
        let dir = dir.canonicalize().step("open", dir)?;
        let (blobs, layers, index) = (Blobs::open(&dir)?, Layers::open(&dir)?, Index::open(&dir));
        let store = Self {
            inner: Arc::new(Inner { dir, blobs, layers, index, options, clock, pulls: pull::Pulls::default() }),
        };
        store.sweep()?;
        Ok(store)
    }

    /// The folder it lies in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// All images, in the order they came.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(self.inner.index.read()?.iter().map(Record::to_image).collect())
    }

    /// The image of that name (normalised here), digest reference, id or unambiguous beginning of an id.
    pub fn get(&self, reference_or_id: &str) -> Result<Option<Image>, ImageError> {
        match self.record(reference_or_id) {
            Ok(record) => Ok(Some(record.to_image())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Yields when images came or went, by whatever process. Call it inside a runtime.
    ///
    /// # Errors
    /// When the store's folder cannot be watched.
    pub fn changes(&self) -> Result<futures::stream::BoxStream<'static, ()>, ImageError> {
        let root = self.dir();
        changes::changes(root).step("watch", root)
    }

    /// The configuration of an image: entrypoint, environment, user.
    pub fn config(&self, reference_or_id: &str) -> Result<ImageConfiguration, ImageError> {
        let record = self.record(reference_or_id)?;
        let bytes = self.inner.blobs.read(&record.id)?;
        Ok(manifest::parse_config(record.id.as_str(), &bytes)?.0)
    }

    /// The document of an image's configuration, as it was built.
    pub fn config_document(&self, reference_or_id: &str) -> Result<serde_json::Value, ImageError> {
        let record = self.record(reference_or_id)?;
        let bytes = self.inner.blobs.read(&record.id)?;
        serde_json::from_slice(&bytes).map_err(|error| ImageError::invalid(record.id.as_str(), error.to_string()))
    }

    /// What an image's manifest says of it.
    pub(crate) fn annotations(&self, reference_or_id: &str) -> Result<BTreeMap<String, String>, ImageError> {
        let record = self.record(reference_or_id)?;
        match Document::parse(record.manifest.as_str(), &self.inner.blobs.read(&record.manifest)?)? {
            Document::Manifest(manifest) => Ok(manifest.annotations),
            Document::Index(_) => Ok(BTreeMap::new()),
        }
    }

    /// The bytes of each layer of an image as it lies here, lowest first.
    pub fn layer_sizes(&self, reference_or_id: &str) -> Result<Vec<u64>, ImageError> {
        let record = self.record(reference_or_id)?;
        Ok(self.unpack(&record.layers)?.iter().map(|layer| layer.bytes).collect())
    }

    /// Gives an image a further name, taking it from another image if need be. Answers the image.
    pub fn tag(&self, source: &str, name: &str) -> Result<Image, ImageError> {
        let reference = Reference::parse(name)?;
        let name = reference.tagged().ok_or_else(|| ImageError::invalid(name, "a digest is not a name to give"))?;
        self.inner.index.update(|records| {
            let id = find(records, source)?.id.clone();
            take_name(records, &name);
            let record = records.iter_mut().find(|record| record.id == id);
            let record = record.ok_or_else(|| ImageError::NotFound(source.to_owned()))?;
            record.names.push(name);
            record.names.sort();
            record.removed = false;
            Ok(record.to_image())
        })
    }

    /// Removes a name; with the last name, or by id, the image. While a container uses it, it stays without names.
    pub fn remove(&self, reference_or_id: &str) -> Result<(), ImageError> {
        let used = self.images_in_use()?;
        self.inner.index.update(|records| {
            let id = find(records, reference_or_id)?.id.clone();
            let name = Reference::parse(reference_or_id).map(|r| stored_name(&r)).unwrap_or_default();
            let by_name = |names: &[String]| names.contains(&name);
            records.retain_mut(|record| {
                if record.id != id {
                    return true;
                }
                if by_name(&record.names) || by_name(&record.digests) {
                    record.names.retain(|other| *other != name);
                    record.digests.retain(|other| *other != name);
                } else {
                    record.names.clear();
                    record.digests.clear();
                }
                let nameless = record.names.is_empty();
                record.removed = nameless;
                !nameless || used.contains(record.id.as_str())
            });
            Ok(())
        })?;
        self.collect()
    }

    /// Removes images without a name that no container uses, and what builds have kept for later ones: their layers
    /// and the folders of cache mounts. Fails while something is being added. Answers how many images have gone.
    pub fn prune(&self) -> Result<usize, ImageError> {
        let used = self.images_in_use()?;
        {
            let busy =
                || ImageError::invalid("images", "something is being pulled or built: try again when it is done");
            let lock = Lock::try_exclusive(&self.inner.dir.join("content.lock"))?;
            let _lock = lock.ok_or_else(busy)?;
            BuildCache::of(self.dir()).clear()?;
            self.inner.blobs.partials().clear(self.inner.clock.now())?;
        }
        let gone = self.inner.index.update(|records| {
            let before = records.len();
            records.retain(|record| !record.names.is_empty() || used.contains(record.id.as_str()));
            Ok(before - records.len())
        })?;
        self.collect()?;
        Ok(gone)
    }

    /// Unpacks an image whose blobs are here and writes it into the index.
    pub(crate) fn add(&self, _session: &Session, new: NewImage) -> Result<Image, ImageError> {
        let manifest_blob = self.inner.blobs.put(&new.manifest)?;
        let Document::Manifest(manifest) = Document::parse(manifest_blob.digest.as_str(), &new.manifest)? else {
            return Err(ImageError::invalid(manifest_blob.digest.as_str(), "an index, not an image manifest"));
        };
        let mut record = self.describe(manifest_blob.digest, &manifest)?;
        let layers = self.unpack(&record.layers)?;
        record.size_bytes = layers.iter().map(|layer| layer.bytes).sum();
        self.inner.index.update(|records| {
            for name in &new.names {
                take_name(records, name);
            }
            match records.iter_mut().find(|other| other.id == record.id) {
                // The same image from elsewhere: its own blobs stay, it gains names.
                Some(known) => {
                    add_all(&mut known.names, new.names);
                    add_all(&mut known.digests, new.digests);
                    known.removed = false;
                    known.made |= new.made;
                    // What was built now says of it what was asked for now.
                    if new.made {
                        (known.manifest, known.layers) = (record.manifest, record.layers);
                    }
                    Ok(known.to_image())
                }
                None => {
                    add_all(&mut record.names, new.names);
                    add_all(&mut record.digests, new.digests);
                    record.made = new.made;
                    let image = record.to_image();
                    records.push(record);
                    Ok(image)
                }
            }
        })
    }

    /// Starts to add content.
    pub(crate) fn begin(&self) -> Result<Session, ImageError> {
        Ok(Session { lock: Some(Lock::shared(&self.inner.dir.join("content.lock"))?), store: self.clone() })
    }

    /// An image's id and its layers, lowest first, unpacked anew if somebody took them away.
    pub(crate) fn unpacked(&self, reference_or_id: &str) -> Result<(String, Vec<Layer>), ImageError> {
        let record = self.record(reference_or_id)?;
        let mut layers = self.unpack(&record.layers)?;
        if layers.is_empty() {
            layers.push(Layers::empty());
        }
        Ok((record.id.to_string(), layers))
    }

    /// These layers unpacked, lowest first.
    pub(crate) fn unpack(&self, refs: &[LayerRef]) -> Result<Vec<Layer>, ImageError> {
        self.inner.layers.ensure(refs, &self.inner.blobs, &self.inner.options.limits)
    }

    /// The same, each that is not unpacked yet from what `open` gives for it, and its size there.
    pub(crate) fn unpack_from(&self, refs: &[LayerRef], open: &OpenLayer<'_>) -> Result<Vec<Layer>, ImageError> {
        self.inner.layers.ensure_from(refs, open, &self.inner.options.limits)
    }

    pub(crate) fn layers_dir(&self) -> &Path {
        self.inner.layers.dir()
    }

    pub(crate) fn tmp_dir(&self) -> PathBuf {
        self.inner.dir.join("tmp")
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.options.limits
    }

    fn pulls(&self) -> &pull::Pulls {
        &self.inner.pulls
    }

    /// Where images come from, as it is now. Blocks on the disk.
    fn registries(&self) -> Result<Registries, ImageError> {
        Registries::read(&self.inner.options.registries)
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    /// Lets go of images that were removed while a container still used them.
    pub(crate) fn on_container_removed(&self) -> Result<(), ImageError> {
        if !self.inner.index.read()?.iter().any(|record| record.removed) {
            return Ok(());
        }
        let used = self.images_in_use()?;
        self.inner.index.update(|records| {
            records.retain(|record| !record.removed || used.contains(record.id.as_str()));
            Ok(())
        })?;
        self.collect()
    }

    pub(crate) fn records(&self) -> Result<Arc<Vec<Record>>, ImageError> {
        self.inner.index.read()
    }

    pub(crate) fn record(&self, reference_or_id: &str) -> Result<Record, ImageError> {
        find(&self.inner.index.read()?, reference_or_id).cloned()
    }

    fn describe(&self, manifest_digest: Digest, manifest: &Manifest) -> Result<Record, ImageError> {
        let subject = manifest.config.digest.as_str();
        let (config, diff_ids) = manifest::parse_config(subject, &self.inner.blobs.read(&manifest.config.digest)?)?;
        if *config.os() != oci_spec::image::Os::Linux {
            let reason =
                format!("image operating system {:?} cannot be used on this platform", config.os().to_string());
            return Err(ImageError::invalid(subject, reason));
        }
        if diff_ids.len() != manifest.layers.len() {
            let reason = format!("it has {} layers, but its manifest {}", diff_ids.len(), manifest.layers.len());
            return Err(ImageError::invalid(subject, reason));
        }
        let blobs = manifest.layers.iter().map(|layer| layer.digest.clone());
        Ok(Record {
            id: manifest.config.digest.clone(),
            manifest: manifest_digest,
            names: Vec::new(),
            digests: Vec::new(),
            layers: blobs.zip(diff_ids).map(|(blob, diff_id)| LayerRef { blob, diff_id }).collect(),
            size_bytes: 0,
            created_at: config.created().as_deref().and_then(|time| time.parse().ok()),
            user: config.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default(),
            removed: false,
            made: false,
        })
    }

    fn images_in_use(&self) -> Result<BTreeSet<String>, ImageError> {
        let rootfs = crate::snapshot::records(&self.inner.dir.join("containers"))?;
        Ok(rootfs.iter().flat_map(|rootfs| rootfs.images().cloned()).collect())
    }

    /// Removes blobs and layers that no image needs. While somebody adds content it is put off: a mark stays, and
    /// the last of them does it.
    fn collect(&self) -> Result<(), ImageError> {
        let mark = self.inner.dir.join("collect");
        fs::write(&mark, b"").step("write", &mark)?;
        self.collect_if_marked()
    }

    fn collect_if_marked(&self) -> Result<(), ImageError> {
        let mark = self.inner.dir.join("collect");
        if !mark.exists() {
            return Ok(());
        }
        let Some(_lock) = Lock::try_exclusive(&self.inner.dir.join("content.lock"))? else { return Ok(()) };
        let records = self.inner.index.read()?;
        let cached = BuildCache::of(self.dir()).kept();
        let kept: BTreeSet<&Digest> = records.iter().flat_map(Record::blobs).chain(&cached).collect();
        for blob in self.inner.blobs.list()?.iter().filter(|blob| !kept.contains(blob)) {
            self.inner.blobs.remove(blob)?;
        }
        let mut layers: BTreeSet<String> = records.iter().flat_map(|record| Layers::names(&record.layers)).collect();
        // An image's record stays while a container stands on it; this is for records of a damaged index.
        for rootfs in crate::snapshot::records(&self.inner.dir.join("containers"))? {
            let names = rootfs.layers().filter_map(|dir| dir.parent()?.file_name()?.to_str());
            layers.extend(names.map(str::to_owned));
        }
        self.inner.layers.retain(&layers)?;
        match fs::remove_file(&mark) {
            // Another process has just done the same.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).step("remove", &mark),
            _ => Ok(()),
        }
    }

    /// Removes what killed processes left half-written, and does a collection that was put off.
    fn sweep(&self) -> Result<(), ImageError> {
        {
            let Some(_lock) = Lock::try_exclusive(&self.inner.dir.join("content.lock"))? else { return Ok(()) };
            self.inner.blobs.partials().sweep(self.inner.clock.now())?;
            let (tmp, containers) = (self.tmp_dir(), self.inner.dir.join("containers"));
            for dir in [tmp, containers].iter().filter(|dir| dir.exists()) {
                for entry in fs::read_dir(dir).step("list", dir)? {
                    let path = entry.step("list", dir)?.path();
                    // A root file system has its record before it is mounted; without one it was never complete.
                    if path.join("rootfs.json").exists() {
                        continue;
                    }
                    let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                    removed.step("remove", &path)?;
                }
            }
        }
        self.collect_if_marked()
    }
}

/// Finds an image as people and pods name it.
fn find<'a>(records: &'a [Record], text: &str) -> Result<&'a Record, ImageError> {
    let not_found = || ImageError::NotFound(text.to_owned());
    if let Ok(id) = Digest::parse(text) {
        return records.iter().find(|r| r.id == id || r.manifest == id).ok_or_else(not_found);
    }
    let hex = text.len() >= ID_PREFIX_MIN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match Reference::parse(text) {
        Ok(reference) => {
            let by_name = find_name(records, &reference);
            if by_name.is_some() || !hex {
                return by_name.ok_or_else(not_found);
            }
        }
        Err(error) if !hex => return Err(error.into()),
        Err(_) => {}
    }
    let mut by_id = records.iter().filter(|record| record.id.hex().starts_with(text));
    match (by_id.next(), by_id.next()) {
        (Some(record), None) => Ok(record),
        (Some(_), Some(_)) => Err(ImageError::Ambiguous(text.to_owned())),
        (None, _) => Err(not_found()),
    }
}

fn find_name<'a>(records: &'a [Record], reference: &Reference) -> Option<&'a Record> {
    let name = stored_name(reference);
    records.iter().find(|record| record.names.contains(&name) || record.digests.contains(&name))
}

/// A name as records have it: beside a digest the tag says nothing.
fn stored_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.repository()),
        None => reference.to_string(),
    }
}

fn take_name(records: &mut [Record], name: &str) {
    for record in records {
        record.names.retain(|other| other != name);
    }
}

fn add_all(names: &mut Vec<String>, more: Vec<String>) {
    names.extend(more);
    names.sort();
    names.dedup();
}
