//! `reeve image load`: images out of docker-save and OCI archives, plain, gzip or zstd. The archive is read once,
//! front to back, so that it may come from a pipe.
//!
//! Source: OCI image layout 1.1; Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::blobs::{Blobs, Parked, check};
use super::error::{ImageError, Step};
use super::manifest::{
    Descriptor, Document, ImageIndex, Manifest, OCI_CONFIG, OCI_MANIFEST, architecture, layer_media_type, parse_config,
};
use super::reference::{Digest, Reference};
use super::{ImageStore, NewImage};
use crate::engine::Image;
use crate::snapshot::layers::decompressed;
use crate::snapshot::tar::{Kind, TarReader};
use crate::snapshot::unpack::relative;

/// Most files, links and folders in an archive; an archive of 100 images has some 2,000.
const ENTRIES_MAX: usize = 16 << 10;
/// How deep indexes may nest; Docker writes two.
const INDEX_DEPTH_MAX: u32 = 4;
/// How many links in a row are followed.
const LINKS_MAX: u32 = 8;

/// An entry of docker-save's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl ImageStore {
    /// Loads every image of an archive that fits this machine. Answers them in the archive's order, each with the names
    /// that it has there: what else it is called here was not loaded.
    pub fn load(&self, source: impl Read) -> Result<Vec<Image>, ImageError> {
        let session = self.begin()?;
        let mut archive = Archive::read(source, self.blobs().clone(), self.limits().transfer_bytes_max)?;
        let mut images = Vec::new();
        for new in archive.images()? {
            archive.commit_blobs(&new.manifest)?;
            let names = new.names.clone();
            let mut image = self.add(&session, new)?;
            image.tags.retain(|tag| names.contains(tag));
            images.push(image);
        }
        Ok(images)
    }

    /// [`ImageStore::load`] from a file.
    pub fn load_file(&self, path: &Path) -> Result<Vec<Image>, ImageError> {
        let file = File::open(path).step("open", path)?;
        self.load(file).map_err(|error| match error {
            ImageError::Invalid { subject, reason } if subject == SUBJECT => {
                ImageError::invalid(path.display().to_string(), reason)
            }
            other => other,
        })
    }
}

/// What the archive is called where its file name is not known.
const SUBJECT: &str = "image archive";

/// The files of an archive, waiting to be claimed by an image.
struct Archive {
    blobs: Blobs,
    files: HashMap<PathBuf, Digest>,
    links: HashMap<PathBuf, PathBuf>,
    parked: BTreeMap<Digest, Parked>,
}

impl Archive {
    fn read(source: impl Read, blobs: Blobs, bytes_max: u64) -> Result<Self, ImageError> {
        let mut archive = Self { blobs, files: HashMap::new(), links: HashMap::new(), parked: BTreeMap::new() };
        let not_one = |reason: String| ImageError::invalid(SUBJECT, format!("not an image archive: {reason}"));
        let plain = decompressed(source).map_err(|error| not_one(error.to_string()))?;
        let mut tar = TarReader::new(plain);
        let (mut bytes, mut entries) = (0_u64, 0_usize);
        while let Some(entry) = tar.next().map_err(|error| not_one(error.to_string()))? {
            let path = relative(&entry.path).map_err(|error| not_one(error.to_string()))?;
            bytes = bytes.saturating_add(entry.size);
            if bytes > bytes_max {
                return Err(not_one(format!("it holds more than {bytes_max} bytes")));
            }
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(not_one(format!("it holds more than {ENTRIES_MAX} files")));
            }
            match entry.kind {
                Kind::File => {
                    let mut writer = archive.blobs.writer()?;
                    io::copy(&mut tar, &mut writer).map_err(|error| not_one(error.to_string()))?;
                    let parked = writer.park();
                    archive.files.insert(path, parked.digest.clone());
                    archive.parked.insert(parked.digest.clone(), parked);
                }
                Kind::Symlink | Kind::HardLink => {
                    let base = if entry.kind == Kind::Symlink { path.parent() } else { None };
                    let target = lexical(base.unwrap_or(Path::new("")), &String::from_utf8_lossy(&entry.link));
                    archive.links.insert(path, target);
                }
                _ => {}
            }
        }
        Ok(archive)
    }

    /// What the archive says is in it. Manifests of Docker's own form are translated.
    fn images(&mut self) -> Result<Vec<NewImage>, ImageError> {
        let saved: Vec<Saved> = self.document("manifest.json")?.unwrap_or_default();
        let index: Option<ImageIndex> = self.document("index.json")?;
        let mut images = match &index {
            Some(index) => self.oci_images(index)?,
            None => saved.iter().map(|saved| self.docker_image(saved)).collect::<Result<_, _>>()?,
        };
        if images.is_empty() {
            let reason = match (&index, saved.is_empty()) {
                (None, true) => "not an image archive: there is no manifest.json and no index.json in it".to_owned(),
                _ => format!("no image for linux/{} in it", architecture()),
            };
            return Err(ImageError::invalid(SUBJECT, reason));
        }
        // Docker writes both forms; the names of its own form are the complete ones.
        for saved in saved.iter().filter(|_| index.is_some()) {
            let Ok(config) = self.digest_of(&saved.config) else { continue };
            for image in &mut images {
                if manifest_of(&image.manifest)?.config.digest == config {
                    image.names.extend(names(saved)?);
                }
            }
        }
        Ok(images)
    }

    fn oci_images(&mut self, index: &ImageIndex) -> Result<Vec<NewImage>, ImageError> {
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let other_platform =
                descriptor.platform.as_ref().is_some_and(|p| p.os != "linux" || p.architecture != architecture());
            if other_platform {
                continue;
            }
            if let Some(manifest) = self.manifest(descriptor, INDEX_DEPTH_MAX)? {
                images.push(NewImage { manifest, names: annotated_names(descriptor), digests: Vec::new(), made: true });
            }
        }
        Ok(images)
    }

    /// The manifest a descriptor leads to, through indexes; `None` when there is none for this machine.
    fn manifest(&self, descriptor: &Descriptor, depth: u32) -> Result<Option<Vec<u8>>, ImageError> {
        let bytes = self.blob(&descriptor.digest)?;
        match Document::parse(descriptor.digest.as_str(), &bytes)? {
            Document::Manifest(_) => Ok(Some(bytes)),
            Document::Index(_) if depth == 0 => {
                Err(ImageError::invalid(descriptor.digest.as_str(), "indexes nested too deep"))
            }
            Document::Index(index) => match index.for_this_platform() {
                Some(inner) => self.manifest(inner, depth - 1),
                None => Ok(None),
            },
        }
    }

    /// Writes the manifest that an image of docker-save's form never had.
    fn docker_image(&self, saved: &Saved) -> Result<NewImage, ImageError> {
        let config = self.parked_at(&saved.config)?;
        parse_config(&saved.config, &config.read(&saved.config)?)?;
        let mut layers = Vec::new();
        for path in &saved.layers {
            let layer = self.parked_at(path)?;
            let media_type = layer_media_type(layer.magic()?);
            layers.push(Descriptor::new(media_type, layer.digest.clone(), layer.size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: Descriptor::new(OCI_CONFIG, config.digest.clone(), config.size),
            layers,
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(io::Error::other).step("encode", Path::new("manifest"))?;
        Ok(NewImage { manifest, names: names(saved)?, digests: Vec::new(), made: true })
    }

    /// Moves what an image needs into the store.
    fn commit_blobs(&mut self, manifest: &[u8]) -> Result<(), ImageError> {
        let manifest = manifest_of(manifest)?;
        for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
            match self.parked.remove(&descriptor.digest) {
                Some(parked) => drop(parked.commit()?),
                None if self.blobs.get(&descriptor.digest).is_some() => {}
                None => return Err(self.missing(&descriptor.digest)),
            }
        }
        Ok(())
    }

    /// A JSON file of the archive.
    fn document<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<Option<T>, ImageError> {
        let Ok(parked) = self.parked_at(path) else { return Ok(None) };
        let parsed = serde_json::from_slice(&parked.read(path)?);
        parsed.map(Some).map_err(|error| ImageError::invalid(SUBJECT, format!("{path}: {error}")))
    }

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        match self.parked.get(digest) {
            Some(parked) => parked.read(digest.as_str()),
            None if self.blobs.get(digest).is_some() => self.blobs.read(digest),
            None => Err(self.missing(digest)),
        }
    }

    /// A blob is found by what is in it. One that lies under the right name with other content is damaged.
    fn missing(&self, digest: &Digest) -> ImageError {
        let path = Path::new("blobs/sha256").join(digest.hex());
        let damaged = self.files.get(&path).and_then(|actual| check(actual, digest).err());
        damaged.unwrap_or_else(|| ImageError::invalid(SUBJECT, format!("{digest} is missing in it")))
    }

    fn digest_of(&self, path: &str) -> Result<Digest, ImageError> {
        let mut path = lexical(Path::new(""), path);
        for _ in 0..LINKS_MAX {
            if let Some(digest) = self.files.get(&path) {
                return Ok(digest.clone());
            }
            let Some(target) = self.links.get(&path) else { break };
            path.clone_from(target);
        }
        Err(ImageError::invalid(SUBJECT, format!("{} is missing in it", path.display())))
    }

    fn parked_at(&self, path: &str) -> Result<&Parked, ImageError> {
        let digest = self.digest_of(path)?;
        self.parked.get(&digest).ok_or_else(|| self.missing(&digest))
    }
}

fn manifest_of(bytes: &[u8]) -> Result<Manifest, ImageError> {
    match Document::parse(SUBJECT, bytes)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(ImageError::invalid(SUBJECT, "an index where a manifest is needed")),
    }
}

fn names(saved: &Saved) -> Result<Vec<String>, ImageError> {
    let tags = saved.repo_tags.iter().flatten();
    let references = tags.map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>, _>>()?;
    Ok(references.iter().filter_map(Reference::tagged).collect())
}

/// containerd's annotation holds the whole name; OCI's often the tag alone, which names nothing.
fn annotated_names(descriptor: &Descriptor) -> Vec<String> {
    let whole = descriptor.annotations.get("io.containerd.image.name");
    let reference = descriptor.annotations.get("org.opencontainers.image.ref.name");
    let name = whole.or(reference.filter(|name| name.contains(['/', ':'])));
    name.and_then(|name| Reference::parse(name).ok()?.tagged()).into_iter().collect()
}

/// `path` from `base`, with `.` and `..` taken away, never above the archive's root.
fn lexical(base: &Path, path: &str) -> PathBuf {
    let mut out = if path.starts_with('/') { PathBuf::new() } else { base.to_owned() };
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => drop(out.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}
