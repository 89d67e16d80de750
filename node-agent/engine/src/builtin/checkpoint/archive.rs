//! The archive of a checkpoint, in the form that containerd, CRI-O and Podman share: CRIU's images in `checkpoint/`,
//! what the container was in `config.dump` and `spec.dump`, what it has written in `rootfs-diff.tar`.
//!
//! Source: github.com/checkpoint-restore/checkpointctl, "lib/metadata".

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::engine::{Container, Mount};

/// Folder of CRIU's images in the archive.
pub(super) const IMAGES: &str = "checkpoint";
/// What the container has written into its own root, as a layer upon its image.
pub(super) const ROOTFS_DIFF: &str = "rootfs-diff.tar";
/// Files of CRIU's that lie beside its images, not among them.
const BESIDE: [&str; 2] = ["dump.log", "stats-dump"];

/// What the archive says of a container.
#[derive(Debug)]
pub(super) struct About<'a> {
    pub(super) container: &'a Container,
    /// Name, namespace and UID of its pod.
    pub(super) pod: [&'a str; 3],
    pub(super) sandbox: &'a str,
    /// The name that the image was asked for, and what it is.
    pub(super) image: (String, String),
    pub(super) runtime: String,
    pub(super) at: Timestamp,
    /// What CRIU calls the container's streams: 0, 1, 2.
    pub(super) descriptors: Vec<String>,
}

/// Writes the descriptions beside the images in `dir`.
pub(super) fn describe(dir: &Path, about: &About<'_>) -> io::Result<()> {
    let write = |name: &str, value: &Value| fs::write(dir.join(name), serde_json::to_vec_pretty(value)?);
    write("config.dump", &config(about))?;
    write("spec.dump", &spec(about))?;
    write("bind.mounts", &binds(about.container))?;
    write("descriptors.json", &json!(about.descriptors))
}

fn config(about: &About<'_>) -> Value {
    let (name, id) = &about.image;
    json!({
        "id": about.container.id,
        "name": about.container.config.name,
        "rootfsImage": id,
        "rootfsImageRef": id,
        "rootfsImageName": name,
        "runtime": about.runtime,
        "createdTime": about.container.created_at,
        "checkpointedTime": about.at,
        "restoredTime": Timestamp::UNIX_EPOCH,
        "restored": false,
    })
}

/// As much of an OCI configuration as tells whose container it was.
fn spec(about: &About<'_>) -> Value {
    let (config, [name, namespace, uid]) = (&about.container.config, about.pod);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": config.tty,
            "args": config.command.iter().chain(&config.args).collect::<Vec<_>>(),
            "env": config.env.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
            "cwd": config.working_dir,
        },
        "mounts": config.mounts.iter().map(mount).collect::<Vec<_>>(),
        "annotations": {
            "io.container.manager": "reeve",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": config.name,
            "io.kubernetes.cri.image-name": about.image.0,
            "io.kubernetes.cri.sandbox-id": about.sandbox,
            "io.kubernetes.cri.sandbox-name": name,
            "io.kubernetes.cri.sandbox-namespace": namespace,
            "io.kubernetes.cri.sandbox-uid": uid,
        },
    })
}

/// Something of the node's, or of an image.
fn mount(mount: &Mount) -> Value {
    match &mount.image {
        Some(shown) => json!({
            "destination": mount.target, "source": shown.reference, "type": "image", "options": ["ro"],
        }),
        None => json!({
            "destination": mount.target, "source": mount.source, "type": "bind",
            "options": [if mount.read_only { "ro" } else { "rw" }, "rbind"],
        }),
    }
}

/// What must be there on whichever node it is restored.
fn binds(container: &Container) -> Value {
    let bind = |mount: &Mount| {
        let is_dir = mount.source.is_dir();
        json!({ "source": mount.source, "destination": mount.target, "file_type": if is_dir { "directory" } else { "file" } })
    };
    container.config.mounts.iter().filter(|mount| mount.image.is_none()).map(bind).collect()
}

/// Packs the folder into one file at `place`, which is there whole or not at all, and for its owner alone: it holds
/// the container's memory.
pub(super) fn pack(dir: &Path, place: &Path) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    let file = tempfile::Builder::new().prefix(".checkpoint-").tempfile_in(folder)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    let mut tar = tar::Builder::new(file);
    for name in entries(dir)? {
        if name == Path::new(IMAGES) {
            images(&mut tar, &dir.join(IMAGES))?;
        } else {
            tar.append_file(&name, &mut File::open(dir.join(&name))?)?;
        }
    }
    let file = tar.into_inner()?;
    file.as_file().sync_all()?;
    file.persist(place).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn images(tar: &mut tar::Builder<tempfile::NamedTempFile>, dir: &Path) -> io::Result<()> {
    tar.append_dir(IMAGES, dir)?;
    for name in entries(dir)? {
        let mut file = File::open(dir.join(&name))?;
        let beside = BESIDE.iter().any(|own| Path::new(own) == name);
        tar.append_file(if beside { name } else { Path::new(IMAGES).join(name) }, &mut file)?;
    }
    Ok(())
}

/// Names in a folder, in order.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into()));
    let mut names: Vec<PathBuf> = names.collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}
