//! The documents of an image: manifests, indexes, descriptors, configurations. Pure.
//!
//! Source: the OCI image specification 1.1 and Docker's image manifest version 2, schema 2. Own structs, because
//! what arrives is older and sloppier than the specification: null lists, Docker's media types.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Deserializer, Serialize};

use super::error::ImageError;
use super::reference::Digest;

/// Media type of the manifests we write.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of OCI indexes.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of the configurations we write.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of plain layers.
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Docker's counterpart of [`OCI_MANIFEST`].
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's counterpart of [`OCI_INDEX`].
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Most layers of one image; Docker's own limit, and what fits into overlayfs' mount options.
pub(crate) const LAYERS_MAX: usize = 127;

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What an image was built for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Images of several platforms, or the top of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageIndex {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a manifest document can be.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(ImageIndex),
}

impl Descriptor {
    /// A descriptor without frills.
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, platform: None, annotations: BTreeMap::new() }
    }
}

impl Document {
    /// Tells a manifest from an index by its content, as the media type may be missing.
    pub(crate) fn parse(subject: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Probe {
            manifests: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let invalid = |error: serde_json::Error| ImageError::invalid(subject, format!("not a manifest: {error}"));
        let probe: Probe = serde_json::from_slice(bytes).map_err(invalid)?;
        match probe {
            // Both at once is the trick of CVE-2021-41190: one document that reads differently to two readers.
            Probe { manifests: Some(_), config: None, layers: None } => {
                serde_json::from_slice(bytes).map(Self::Index).map_err(invalid)
            }
            Probe { manifests: None, config: Some(_), .. } => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(invalid)?;
                if manifest.layers.len() > LAYERS_MAX {
                    return Err(ImageError::invalid(subject, format!("more than {LAYERS_MAX} layers")));
                }
                Ok(Self::Manifest(manifest))
            }
            _ => Err(ImageError::invalid(subject, "neither an image manifest nor an image index")),
        }
    }
}

impl ImageIndex {
    /// The entry for the platform this program was built for. Entries without a platform count as fitting.
    pub(crate) fn for_this_platform(&self) -> Option<&Descriptor> {
        let architecture = architecture();
        let fits = |entry: &&Descriptor| {
            entry.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture)
        };
        self.manifests.iter().find(fits)
    }
}

/// The media type of a layer that begins with these bytes.
pub(crate) fn layer_media_type(magic: [u8; 4]) -> &'static str {
    match magic {
        [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => OCI_LAYER,
    }
}

/// This machine in Go's words, as images have it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Parses a configuration and its layers' digests.
pub(crate) fn parse_config(subject: &str, bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>), ImageError> {
    let config: ImageConfiguration = serde_json::from_slice(bytes)
        .map_err(|error| ImageError::invalid(subject, format!("not an image configuration: {error}")))?;
    let diff_ids = config.rootfs().diff_ids().iter().map(|id| Digest::parse(id)).collect::<Result<_, _>>()?;
    Ok((config, diff_ids))
}

/// The identity of each layer on top of those below it: the digest of the parent's and its own.
/// Source: OCI image specification, "Layer ChainID".
pub(crate) fn chain_ids<'a>(diff_ids: impl IntoIterator<Item = &'a Digest>) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    #[test]
    fn a_chain_id_depends_on_every_layer_below() {
        let (a, b) = (digest(1), digest(2));
        let chain = chain_ids([&a, &b]);
        assert_eq!(chain, [a.clone(), Digest::of(format!("{a} {b}").as_bytes())]);
        assert_ne!(chain_ids([&b, &a]).last(), chain.last());
    }

    #[test]
    fn a_document_that_is_manifest_and_index_at_once_is_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{0}"}},"layers":[],"manifests":[{{"digest":"{0}"}}]}}"#,
            digest(1)
        );
        assert!(Document::parse("x", both.as_bytes()).is_err());
        assert!(Document::parse("x", b"{}").is_err());
        assert!(Document::parse("x", b"[1").is_err());
    }

    #[test]
    fn the_entry_of_this_platform_is_chosen() {
        let entry = |n: u8, os: &str, architecture: &str| {
            let platform = Platform { architecture: architecture.to_owned(), os: os.to_owned(), variant: None };
            Descriptor { platform: Some(platform), ..Descriptor::new(OCI_MANIFEST, digest(n), 1) }
        };
        let mut index = ImageIndex {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests: vec![
                entry(1, "unknown", "unknown"),
                entry(2, "windows", architecture()),
                entry(3, "linux", "vax"),
                entry(4, "linux", architecture()),
            ],
        };
        assert_eq!(index.for_this_platform().map(|d| &d.digest), Some(&digest(4)));
        index.manifests.pop();
        assert_eq!(index.for_this_platform(), None);
    }
}
