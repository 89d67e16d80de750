//! `reeve image save`: images into one archive that Docker, Podman, containerd and [`ImageStore::load`] read: an
//! OCI layout with docker-save's `manifest.json` beside it. The same images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::ImageStore;
use super::error::{ImageError, Step};
use super::index::Record;
use super::manifest::{Descriptor, ImageIndex, OCI_INDEX, OCI_MANIFEST};
use super::reference::{Digest, Reference};

/// An entry of docker-save's `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl ImageStore {
    /// Writes the images of these names or ids to `out` as a plain tar archive. An image asked for by id keeps all
    /// its names, one asked for by name only that.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<(), ImageError> {
        let _session = self.begin()?;
        let mut chosen: BTreeMap<Digest, (Record, BTreeSet<String>)> = BTreeMap::new();
        for name in names {
            let record = self.record(name)?;
            let asked = Reference::parse(name).ok().and_then(|reference| reference.tagged());
            let asked = asked.filter(|asked| record.names.contains(asked));
            let entry = chosen.entry(record.id.clone()).or_insert_with(|| (record.clone(), BTreeSet::new()));
            match asked {
                Some(asked) => drop(entry.1.insert(asked)),
                None => entry.1.extend(record.names),
            }
        }
        let chosen: Vec<_> = chosen.into_values().collect();
        self.write_archive(&chosen, out)
            .map_err(|source| ImageError::Io { step: "write the archive".to_owned(), source })
    }

    fn write_archive(&self, chosen: &[(Record, BTreeSet<String>)], out: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        let blobs: BTreeSet<&Digest> = chosen.iter().flat_map(|(record, _)| record.blobs()).collect();
        for digest in blobs {
            let file = self.blobs().reader(digest).map_err(io::Error::other)?;
            append(&mut tar, &blob_path(digest), file.metadata()?.len(), file)?;
        }
        let mut index = ImageIndex { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests: Vec::new() };
        let mut saved = Vec::new();
        for (record, names) in chosen {
            let size = self.blobs().get(&record.manifest).map_or(0, |blob| blob.size);
            index.manifests.extend(descriptors(&record.manifest, size, names));
            saved.push(Saved {
                config: blob_path(&record.id),
                repo_tags: names.iter().map(|name| familiar(name)).collect(),
                layers: record.layers.iter().map(|layer| blob_path(&layer.blob)).collect(),
            });
        }
        append_json(&mut tar, "index.json", &index)?;
        append_json(&mut tar, "manifest.json", &saved)?;
        append_json(&mut tar, "oci-layout", &serde_json::json!({"imageLayoutVersion": "1.0.0"}))?;
        tar.into_inner()?.flush()
    }

    /// [`ImageStore::save`] into a file, which appears only when it is complete.
    pub fn save_file(&self, names: &[String], path: &Path) -> Result<(), ImageError> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(dir).step("create a file in", dir)?;
        self.save(names, io::BufWriter::with_capacity(128 << 10, file.as_file()))?;
        file.persist(path).map_err(|error| error.error).step("rename the archive to", path)?;
        Ok(())
    }
}

/// One descriptor per name, as Docker writes them; one without a name for a nameless image.
fn descriptors(manifest: &Digest, size: u64, names: &BTreeSet<String>) -> Vec<Descriptor> {
    let plain = Descriptor::new(OCI_MANIFEST, manifest.clone(), size);
    if names.is_empty() {
        return vec![plain];
    }
    let annotated = |name: &String| {
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let annotations = [("io.containerd.image.name", name.as_str()), ("org.opencontainers.image.ref.name", tag)];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Descriptor { annotations, ..plain.clone() }
    };
    names.iter().map(annotated).collect()
}

fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn append_json<W: Write>(tar: &mut tar::Builder<W>, path: &str, value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    append(tar, path, bytes.len() as u64, bytes.as_slice())
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, path, content)
}
