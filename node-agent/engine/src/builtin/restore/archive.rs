//! What a checkpoint consists of, taken from an image or from an archive on the node. All of it is hostile: names are
//! known ones or refused, files are regular ones below its own root, and nothing it says is a path for us.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, OFlags, linkat};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::images::{self, Mounts};
use crate::engine::EngineError;
use crate::images::{ImageStore, Limits};
use crate::snapshot::layers::decompressed;
use crate::snapshot::root::Root;
use crate::snapshot::tar::{Kind, TarReader};
use crate::snapshot::unpack::{relative, unpack};
use crate::snapshot::{Rootfs, open_merged};
use crate::supervisor::plan::BpfProgram;

/// Folder of CRIU's images.
const IMAGES: &str = "checkpoint";
/// What lies among them and is none: of CRI-O's and containerd's checkpoints, and of CRIU.
const BESIDE: [&str; 4] = ["descriptors.json", "dump.log", "stats-dump", "irmap-cache"];
/// Largest description.
const DOCUMENT_MAX: u64 = 4 << 20;
/// Largest image that is looked into.
const IMAGE_MAX: u64 = 64 << 20;
/// Longest name of a stream.
const KEY_MAX: usize = 256;

/// What is known of the container that the checkpoint was made of.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Dumped {
    /// Its image: an id, or a name with a digest.
    pub(super) rootfs_image_ref: String,
    /// What its image was called.
    pub(super) rootfs_image_name: String,
}

/// An opened checkpoint.
#[derive(Debug)]
pub(super) struct Archive {
    root: Root,
    /// Where it was unpacked; goes with this.
    _unpacked: Option<tempfile::TempDir>,
    /// What it is called in messages.
    name: String,
}

/// What is kept of a checkpoint until its container is started, beside CRIU's images.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::builtin) struct Kept {
    /// What messages call the checkpoint.
    pub(super) name: String,
    /// What CRIU calls the streams 0, 1, 2; empty where there is none.
    pub(super) streams: Vec<String>,
    /// What it has mounted.
    pub(super) mounts: Mounts,
}

impl Archive {
    /// The checkpoint that an image holds.
    pub(super) fn of_image(store: &ImageStore, image: &str) -> Result<Self, EngineError> {
        let _session = store.begin()?;
        let (id, layers) = store.unpacked(image)?;
        let name = store.get(&id)?.and_then(|image| image.tags.into_iter().next()).unwrap_or(id);
        // Files of one layer can be linked; others must be copied.
        let root = match layers.as_slice() {
            [only] => {
                let dir = store.layers_dir().join(&only.path);
                Root::open(&dir).map_err(|errno| io_error("open", &dir, errno))?
            }
            layers => open_merged(store.layers_dir(), layers)?,
        };
        Ok(Self { root, _unpacked: None, name })
    }

    /// The checkpoint in an archive on the node.
    pub(super) fn of_file(store: &ImageStore, path: &Path) -> Result<Self, EngineError> {
        let name = path.display().to_string();
        let broken =
            |why: String| EngineError::Invalid(format!("failed to open checkpoint archive {name} for import: {why}"));
        let file =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let file = File::from(file.map_err(|errno| broken(io::Error::from(errno).to_string()))?);
        let tmp = store.tmp_dir();
        let unpacked = tempfile::tempdir_in(&tmp).map_err(|error| io_error("make a folder in", &tmp, error))?;
        let unpack = |file: File| {
            let mut tar = TarReader::new(bounded(file, store.limits()).map_err(|error| error.to_string())?);
            unpack(&mut tar, unpacked.path(), &[], store.limits()).map_err(|error| error.to_string())
        };
        unpack(file)
            .map_err(|why| EngineError::Invalid(format!("unpacking of checkpoint archive {name} failed: {why}")))?;
        let root = Root::open(unpacked.path()).map_err(|errno| io_error("open", unpacked.path(), errno))?;
        Ok(Self { root, _unpacked: Some(unpacked), name })
    }

    /// What it says of its container.
    pub(super) fn dumped(&self) -> Result<Dumped, EngineError> {
        self.document("config.dump")
    }

    /// What its first process was executed as.
    pub(super) fn command(&self) -> Result<Vec<String>, EngineError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Process {
            args: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Spec {
            #[serde(default)]
            process: Process,
        }
        Ok(self.document::<Spec>("spec.dump")?.process.args)
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T, EngineError> {
        let read = self.read(name, DOCUMENT_MAX);
        let parsed = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        parsed.map_err(|error| self.refused(&format!("failed to read {name:?}: {error}")))
    }

    fn refused(&self, why: &str) -> EngineError {
        EngineError::Invalid(format!("checkpoint {:?}: {why}", self.name))
    }

    /// A regular file of it.
    fn open(&self, path: &Path) -> io::Result<File> {
        self.root.file_itself(path).map_err(|errno| match errno {
            Errno::INVAL | Errno::ISDIR => io::Error::other("not a regular file"),
            other => other.into(),
        })
    }

    fn read(&self, path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path.as_ref())?.take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max { Err(io::Error::other(format!("larger than {max} bytes"))) } else { Ok(bytes) }
    }

    /// What CRIU calls the streams. Those that were no pipes or files of the node's are found without.
    fn streams(&self) -> Result<Vec<String>, EngineError> {
        let beside = format!("{IMAGES}/descriptors.json");
        let place = if self.root.lstat(Path::new(&beside)).is_ok() { beside.as_str() } else { "descriptors.json" };
        let names: Vec<String> = self.document(place)?;
        let is_stream =
            |name: &String| name.len() <= KEY_MAX && (name.starts_with("file[") || name.starts_with("pipe:["));
        Ok(names.into_iter().take(3).map(|name| if is_stream(&name) { name } else { String::new() }).collect())
    }

    /// Looks at CRIU's images, and puts them into the new folder `dir`, for their owner alone. `filter` is the new
    /// container's; `own_network` says whether it is on another network than the node's.
    pub(super) fn keep(
        &self,
        dir: &Path,
        filter: Option<&BpfProgram>,
        own_network: bool,
        limits: &Limits,
    ) -> Result<Kept, EngineError> {
        let step = |error| io_error("write into", dir, error);
        fs::create_dir(dir).map_err(step)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(step)?;
        let names = self.root.list(Path::new(IMAGES));
        let names = names.map_err(|errno| self.refused(&format!("failed to read {IMAGES:?}: {errno}")))?;
        let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
        let (mut kept, mut ids) = (Kept { name: self.name.clone(), ..Kept::default() }, Vec::new());
        for name in names.filter(|name| !BESIDE.contains(&name.as_str())) {
            if !images::is_known(&name) {
                return Err(self.refused(&format!("{name:?} is no image that is restored")));
            }
            let path = Path::new(IMAGES).join(&name);
            let failed = |error: io::Error| self.refused(&format!("failed to read {name:?}: {error}"));
            if name.starts_with("mountpoints-") {
                let image = self.read(&path, IMAGE_MAX).map_err(failed)?;
                kept.mounts.add(&image).map_err(|why| self.refused(&why))?;
            } else if name.starts_with("ids-") {
                ids.push(self.read(&path, IMAGE_MAX).map_err(failed)?);
            }
            self.take(&path, &dir.join(&name)).map_err(failed)?;
        }
        self.check_contents(&kept.mounts, limits)?;
        let inventory = self.read(Path::new(IMAGES).join("inventory.img"), IMAGE_MAX);
        let inventory =
            inventory.map_err(|error| self.refused(&format!("failed to read \"inventory.img\": {error}")))?;
        images::check_namespaces(&inventory, &ids, own_network).map_err(|why| self.refused(&why))?;
        if let Some(filter) = filter {
            let image = self.read(Path::new(IMAGES).join("seccomp.img"), IMAGE_MAX).unwrap_or_default();
            if !images::is_filtered_by(&image, filter) {
                return Err(self.refused("its processes do not have the seccomp filter that the container has"));
            }
        }
        kept.streams = self.streams()?;
        Ok(kept)
    }

    /// What a tmpfs held is unpacked by tar, and then mounted upon: CRIU follows links there, from the node's root.
    fn check_contents(&self, mounts: &Mounts, limits: &Limits) -> Result<(), EngineError> {
        let names = self.root.list(Path::new(IMAGES)).unwrap_or_default();
        for name in names.iter().filter(|name| name.to_string_lossy().starts_with("tmpfs-")) {
            let file = self.open(&Path::new(IMAGES).join(name)).and_then(|file| bounded(file, limits));
            let file = file.map_err(|error| self.refused(&format!("failed to read {name:?}: {error}")))?;
            check_links(TarReader::new(file), &mounts.plain)
                .map_err(|why| self.refused(&format!("{name:?}: {why}")))?;
        }
        Ok(())
    }

    /// Links a file, or copies it where it lies on another file system.
    fn take(&self, path: &Path, to: &Path) -> io::Result<()> {
        let mut file = self.open(path)?;
        let place = format!("/proc/self/fd/{}", file.as_raw_fd());
        if linkat(CWD, &place, CWD, to, AtFlags::SYMLINK_FOLLOW).is_ok() {
            return Ok(());
        }
        let mut copy = File::create_new(to)?;
        io::copy(&mut file, &mut copy)?;
        copy.set_permissions(fs::Permissions::from_mode(0o600))
    }

    /// Gives a root file system that nobody has mounted yet what the container had changed in its own.
    pub(super) fn change(&self, rootfs: &Rootfs, limits: &Limits) -> Result<(), EngineError> {
        let path = Path::new("rootfs-diff.tar");
        if self.root.lstat(path).is_ok() {
            let file = self.open(path).and_then(|file| bounded(file, limits));
            let file = file.map_err(|error| self.refused(&format!("failed to read {path:?}: {error}")))?;
            unpack(&mut TarReader::new(file), &rootfs.upper, &rootfs.lowerdirs, limits)
                .map_err(|error| self.refused(&format!("failed to unpack {path:?}: {error}")))?;
        }
        if self.root.lstat(Path::new("deleted.files")).is_ok() {
            let gone: Vec<PathBuf> = self.document("deleted.files")?;
            let marks = whiteouts(&gone).map_err(|error| self.refused(&format!("\"deleted.files\": {error}")))?;
            unpack(&mut TarReader::new(marks.as_slice()), &rootfs.upper, &rootfs.lowerdirs, limits)
                .map_err(|error| self.refused(&format!("\"deleted.files\": {error}")))?;
        }
        Ok(())
    }
}

/// Checks that no link lies at, or on the way to, any of these paths.
fn check_links(mut tar: TarReader<impl io::Read>, plain: &BTreeSet<PathBuf>) -> Result<(), String> {
    while let Some(entry) = tar.next().map_err(|error| error.to_string())? {
        let path = relative(&entry.path).map_err(|error| error.to_string())?;
        let is_link = matches!(entry.kind, Kind::Symlink | Kind::HardLink);
        if is_link && plain.iter().any(|place| place.starts_with(&path)) {
            return Err(format!("{} is a link, and something is to be mounted there", path.display()));
        }
    }
    Ok(())
}

/// CRI-O's and Podman's list of what is gone, as a layer that says so.
fn whiteouts(gone: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for path in gone {
        let parts: PathBuf = path.components().filter(|part| !matches!(part, Component::RootDir)).collect();
        let Some(name) = parts.file_name().and_then(|name| name.to_str()) else { continue };
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        tar.append_data(&mut header, parts.with_file_name(format!(".wh.{name}")), io::empty())?;
    }
    tar.into_inner()
}

/// The uncompressed bytes of a file, which must not be many more than it has.
fn bounded(file: File, limits: &Limits) -> io::Result<Box<dyn io::Read>> {
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let max = file.metadata()?.len().saturating_mul(limits.ratio_max).max(limits.ratio_bytes_min);
    Ok(Box::new(decompressed(file)?.take(max)))
}

fn io_error(what: &str, path: &Path, error: impl Into<io::Error>) -> EngineError {
    EngineError::Io { step: format!("{what} {}", path.display()), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_upon_a_link() {
        let plain = BTreeSet::from([PathBuf::from("null"), "pts/deep".into()]);
        let judged = |name: &str, kind: tar::EntryType| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            match kind {
                tar::EntryType::Symlink | tar::EntryType::Link => tar.append_link(&mut header, name, "etc").unwrap(),
                _ => tar.append_data(&mut header, name, io::empty()).unwrap(),
            }
            let bytes = tar.into_inner().unwrap();
            check_links(TarReader::new(bytes.as_slice()), &plain)
        };
        for (name, kind) in [
            ("./stdin", tar::EntryType::Symlink),
            ("null", tar::EntryType::Char),
            ("pts", tar::EntryType::Directory),
            ("nul", tar::EntryType::Symlink),
        ] {
            assert_eq!(judged(name, kind), Ok(()), "{name}");
        }
        for (name, kind) in [
            ("./null", tar::EntryType::Symlink),
            (".//null", tar::EntryType::Link),
            ("pts", tar::EntryType::Symlink),
            ("pts/deep", tar::EntryType::Symlink),
        ] {
            assert!(judged(name, kind).unwrap_err().contains("is a link"), "{name}");
        }
    }

    #[test]
    fn what_is_gone_becomes_a_layer_that_says_so() {
        let layer = whiteouts(&["/etc/gone".into(), "there".into(), "/".into()]).unwrap();
        let names = |entry: tar::Entry<'_, &[u8]>| entry.path().unwrap().display().to_string();
        let names: Vec<String> =
            tar::Archive::new(layer.as_slice()).entries().unwrap().map(|entry| names(entry.unwrap())).collect();
        assert_eq!(names, ["etc/.wh.gone", ".wh.there"]);
        assert!(whiteouts(&["../../etc/passwd".into()]).is_err());
    }
}
