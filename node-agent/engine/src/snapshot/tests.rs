//! Tests of unpacking, of hostile archives and of real overlay mounts (these need root).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::images::tests::{Fixture, docker_archive};
use crate::snapshot::tar::TarReader;
use crate::snapshot::unpack::{Limits, UnpackError, Unpacked, unpack};
use ::tar::{Builder, EntryType, Header};

/// A layer under construction, byte for byte as told: the `tar` crate refuses to write what we must refuse to read.
#[derive(Default)]
struct LayerTar(Vec<u8>);

impl LayerTar {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_mtime(1_000_000_000);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    fn unpack_with(&self, into: &Path, parents: &[PathBuf], limits: &Limits) -> Result<Unpacked, UnpackError> {
        fs::create_dir_all(into).unwrap();
        unpack(&mut TarReader::new(self.0.as_slice()), into, parents, limits)
    }

    fn unpack(&self, into: &Path) -> Result<Unpacked, UnpackError> {
        self.unpack_with(into, &[], &Limits::default())
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: this test mounts or sets owners and needs root");
    }
    root
}

fn opaque(path: &Path) -> bool {
    let mut value = [0_u8; 1];
    rustix::fs::getxattr(path, "trusted.overlay.opaque", &mut value).is_ok()
}

#[test]
fn owner_mode_time_and_attributes_are_the_archives() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Builder::new(Vec::new());
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.user.note", b"hi"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
    ];
    builder.append_pax_extensions(records).unwrap();
    let mut header = Header::new_gnu();
    header.set_mode(0o6755);
    header.set_uid(1234);
    header.set_gid(4321);
    header.set_mtime(1_234_567_890);
    header.set_size(2);
    builder.append_data(&mut header, "bin/ping", &b"x\n"[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    unpack(&mut TarReader::new(bytes.as_slice()), dir.path(), &[], &Limits::default()).unwrap();
    let file = dir.path().join("bin/ping");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (1234, 4321, 1_234_567_890));
    assert_eq!(meta.permissions().mode() & 0o7777, 0o6755);
    let mut value = [0_u8; 64];
    assert_eq!(rustix::fs::getxattr(&file, "security.capability", &mut value).unwrap(), 20);
    assert_eq!(rustix::fs::getxattr(&file, "user.note", &mut value).unwrap(), 2);
    assert!(rustix::fs::getxattr(&file, "trusted.overlay.redirect", &mut value).is_err());
}

#[test]
fn folders_keep_their_time_though_files_are_put_into_them() {
    let dir = tempfile::tempdir().unwrap();
    LayerTar::default().dir("a/").dir("a/b").file("a/b/c", "1").file("a/d", "2").unpack(dir.path()).unwrap();
    for path in ["a", "a/b"] {
        assert_eq!(fs::metadata(dir.path().join(path)).unwrap().mtime(), 1_000_000_000, "{path}");
    }
}

#[test]
fn whiteouts_take_the_form_of_overlayfs() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layer = LayerTar::default()
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.gone", "")
        .file("d/.wh..wh.plnk", "")
        .file("d/.wh.again", "")
        .dir("d/again")
        .file("d/here", "1")
        .file("d/.wh.here", "");
    layer.unpack(dir.path()).unwrap();
    let gone = fs::symlink_metadata(dir.path().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(opaque(&dir.path().join("d")));
    assert!(opaque(&dir.path().join("d/again")), "a folder over a whiteout hides the folder below");
    assert_eq!(fs::read_to_string(dir.path().join("d/here")).unwrap(), "1");
    assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 3);
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_another_kind() {
    let dir = tempfile::tempdir().unwrap();
    let layer = LayerTar::default()
        .dir("a")
        .file("a/deep/x", "1")
        .file("a", "file now")
        .symlink("l", "a")
        .file("l", "not through the link")
        .file("b", "1")
        .hardlink("c", "b");
    layer.unpack(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "file now");
    assert_eq!(fs::read_to_string(dir.path().join("l")).unwrap(), "not through the link");
    assert_eq!(fs::metadata(dir.path().join("c")).unwrap().nlink(), 2);
}

#[test]
fn nothing_that_an_archive_says_leads_out_of_its_folder() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    let out = outside.path().to_str().unwrap();
    let secret_text = secret.to_str().unwrap();
    let cases: [(&str, LayerTar); 12] = [
        ("parent", LayerTar::default().file("../secret", "x")),
        ("parent inside", LayerTar::default().file("a/../../secret", "x")),
        ("absolute", LayerTar::default().file(secret_text, "x")),
        ("absolute symlink", LayerTar::default().symlink("l", out).file("l/secret", "x")),
        (
            "relative symlink",
            LayerTar::default().symlink("l", "../../../../../..").file(&format!("l{secret_text}"), "x"),
        ),
        ("symlink to symlink", LayerTar::default().symlink("a", out).symlink("b", "a").file("b/secret", "x")),
        ("through the last component", LayerTar::default().symlink("l", secret_text).file("l", "x")),
        ("hard link out", LayerTar::default().hardlink("l", secret_text).file("l", "x")),
        ("hard link by parent", LayerTar::default().hardlink("l", &format!("../../../..{secret_text}"))),
        ("hard link through a symlink", LayerTar::default().symlink("d", out).hardlink("l", "d/secret").file("l", "x")),
        ("whiteout out", LayerTar::default().symlink("d", out).file("d/.wh.secret", "")),
        ("whiteout of the parent", LayerTar::default().file("d/.wh...", "")),
    ];
    for (name, layer) in cases {
        let inside = tempfile::tempdir().unwrap();
        let result = layer.unpack(&inside.path().join("layer"));
        assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched", "{name}: {result:?}");
        assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1, "{name}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{name}");
        assert_eq!(fs::read_dir(inside.path()).unwrap().count(), 1, "{name}");
    }
}

#[test]
fn archives_that_break_a_rule_are_refused_with_the_entry() {
    let limits = Limits { layer_bytes_max: 1000, layer_entries_max: 5, ..Limits::default() };
    let deep = "d/".repeat(45);
    let many = (0..6).fold(LayerTar::default(), |layer, n| layer.file(&format!("{n}"), ""));
    for (layer, words) in [
        (LayerTar::default().file("../x", ""), "\"../x\": leads out of the image's root"),
        (LayerTar::default().hardlink("x", "nowhere"), "failed to link to \"nowhere\""),
        (LayerTar::default().hardlink("x", "."), "a hard link to the root"),
        (LayerTar::default().symlink("l", "nowhere").file("l/x", ""), "failed to make \"l\""),
        (LayerTar::default().file("f", "").file("f/x", ""), "failed to open \"f\""),
        (LayerTar::default().symlink("l", "l").file("l/x", ""), "failed to open \"l\""),
        (LayerTar::default().file(".wh.", ""), "a whiteout of nothing"),
        (LayerTar::default().file(&deep, "").file("big", &"x".repeat(1001)), "more than 1000 bytes"),
        (many, "more than 5 entries"),
        (LayerTar::default().entry(EntryType::new(b'S'), "s", "", b""), "unsupported tar entry: sparse file"),
        (LayerTar(b"garbage".to_vec()), "failed to read the archive"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = layer.unpack_with(dir.path(), &[], &limits).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} should say {words:?}");
    }
}

#[test]
fn a_bomb_is_stopped_long_before_it_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { ratio_bytes_min: 1 << 20, ratio_max: 10, ..Limits::default() };
    let store = crate::images::ImageStore::open_with(dir.path(), reeve_api::clock::RealClock::shared(), limits.into());
    let zeros = LayerTar::default().file("zeros", &"\0".repeat(8 << 20)).0;
    let archive = docker_archive(&["bomb"], std::slice::from_ref(&zeros), "");
    assert!(store.as_ref().unwrap().load(archive.as_slice()).is_ok(), "as a plain layer it is only large");
    store.as_ref().unwrap().remove("bomb").unwrap();
    // The same layer compressed: 8 MiB out of 8 KiB.
    let config = crate::images::tests::config(std::slice::from_ref(&zeros), "");
    let saved = br#"[{"Config":"c","RepoTags":["bomb"],"Layers":["l"]}]"#.to_vec();
    let files = [
        ("c".to_owned(), config),
        ("l".to_owned(), zstd::encode_all(zeros.as_slice(), 1).unwrap()),
        ("manifest.json".to_owned(), saved),
    ];
    let error = store.unwrap().load(crate::images::tests::archive(&files).as_slice()).unwrap_err().to_string();
    assert!(error.contains("unpacks to far more than its size allows"), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_layer_that_arrives_unpacks_to_no_more_than_what_has_come_allows() {
    use crate::images::Digest;
    use crate::snapshot::layers::Compressed;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { ratio_bytes_min: 1 << 20, ratio_max: 10, ..Limits::default() };
    let clock = reeve_api::clock::RealClock::shared();
    let store = crate::images::ImageStore::open_with(dir.path(), clock, limits.into()).unwrap();
    let zeros = LayerTar::default().file("zeros", &"\0".repeat(8 << 20)).0;
    let blob = zstd::encode_all(zeros.as_slice(), 1).unwrap();
    let refs = [crate::images::index::LayerRef { blob: Digest::of(&blob), diff_id: Digest::of(&zeros) }];
    let unpack = |compressed: Compressed| {
        let open = |_: &crate::images::index::LayerRef| {
            Ok((Box::new(std::io::Cursor::new(blob.clone())) as Box<dyn std::io::Read>, compressed.clone()))
        };
        store.unpack_from(&refs, &open).map(|layers| layers[0].bytes)
    };
    let come = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(8 << 10));
    let error = unpack(Compressed::SoFar(come)).unwrap_err().to_string();
    assert!(error.contains("unpacks to far more than its size allows"), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(unpack(Compressed::Known(1 << 20)).unwrap(), 8 << 20, "it has another chance");
}

#[test]
fn a_folder_the_layer_only_implies_looks_as_in_the_layers_below() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
    fs::create_dir_all(lower.join("tmp")).unwrap();
    fs::set_permissions(lower.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let layer = LayerTar::default().file("tmp/new/x", "1");
    layer.unpack_with(&upper, &[lower], &Limits::default()).unwrap();
    assert_eq!(fs::metadata(upper.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(upper.join("tmp/new")).unwrap().permissions().mode() & 0o7777, 0o755);
}

/// A store with one image of these layers, and root file systems on it.
fn mounted(layers: &[LayerTar]) -> (Fixture, Snapshots) {
    let fixture = Fixture::new();
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| layer.0.clone()).collect();
    fixture.load(&docker_archive(&["x"], &layers, ""));
    let snapshots = Snapshots::open(fixture.store.clone()).unwrap();
    (fixture, snapshots)
}

#[test]
fn a_container_sees_all_layers_and_writes_only_its_own_folder() {
    if !is_root() {
        return;
    }
    let (fixture, snapshots) = mounted(&[
        LayerTar::default().file("etc/a", "1").file("etc/b", "1").dir("old").file("old/x", "").dir("root"),
        LayerTar::default().file("etc/b", "2").file("etc/.wh.a", "").dir("old").file("old/.wh..wh..opq", ""),
    ]);
    let rootfs = snapshots.prepare("c1", "x", &[]).unwrap();
    snapshots.attach(&rootfs).unwrap();
    snapshots.attach(&rootfs).unwrap();
    assert_eq!(fs::read_to_string(rootfs.path.join("etc/b")).unwrap(), "2");
    assert!(!rootfs.path.join("etc/a").exists());
    assert_eq!(fs::read_dir(rootfs.path.join("old")).unwrap().count(), 0);
    fs::write(rootfs.path.join("etc/b"), "mine").unwrap();
    let other = snapshots.prepare("c2", "x", &[]).unwrap();
    snapshots.attach(&other).unwrap();
    assert_eq!(fs::read_to_string(other.path.join("etc/b")).unwrap(), "2");
    // A later life of the process finds and removes what an earlier one made.
    let later = Snapshots::open(fixture.store.clone()).unwrap();
    assert_eq!(later.list().unwrap().len(), 2);
    assert_eq!(later.prepare("c1", "x", &[]).unwrap(), rootfs);
    snapshots.unmount("c1").unwrap();
    later.attach(&rootfs).unwrap();
    assert_eq!(fs::read_to_string(rootfs.path.join("etc/b")).unwrap(), "mine");
    for id in ["c1", "c2", "c2", "never"] {
        later.remove(id).unwrap();
    }
    assert!(later.list().unwrap().is_empty());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(fixture.dir.path().to_str().unwrap()), "nothing stays mounted");
}

#[test]
fn a_mount_is_seen_by_nobody_until_it_is_attached_however_it_was_made() {
    if !is_root() {
        return;
    }
    let (fixture, snapshots) = mounted(&[LayerTar::default().file("a", "1")]);
    let seen = || fs::read_to_string("/proc/self/mounts").unwrap().contains(fixture.dir.path().to_str().unwrap());
    for (id, aside) in [("c1", false), ("c2", true)] {
        let rootfs = snapshots.prepare(id, "x", &[]).unwrap();
        let mount =
            if aside { snapshots.mount_aside(&rootfs).unwrap().unwrap() } else { snapshots.mount(&rootfs).unwrap() };
        assert!(!seen());
        let file = rustix::fs::openat(&mount, "a", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).unwrap();
        rustix::io::write(&file, b"2").unwrap();
        assert_eq!(fs::read_to_string(rootfs.upper.join("a")).unwrap(), "2", "what is written lies in its folder");
        drop((file, mount));
        snapshots.attach(&rootfs).unwrap();
        assert!(seen() && fs::read_to_string(rootfs.path.join("a")).unwrap() == "2");
        snapshots.remove(id).unwrap();
        assert!(!seen());
    }
}

#[test]
fn an_image_may_have_as_many_layers_as_docker_allows() {
    if !is_root() {
        return;
    }
    let layers: Vec<LayerTar> =
        (0..127).map(|n| LayerTar::default().file(&format!("f{n}"), "").file("last", &n.to_string())).collect();
    let (_fixture, snapshots) = mounted(&layers);
    let id = "0123456789abcdef".repeat(4);
    let rootfs = snapshots.prepare(&id, "x", &[]).unwrap();
    snapshots.attach(&rootfs).unwrap();
    let names = fs::read_dir(&rootfs.path).unwrap().count();
    let last = fs::read_to_string(rootfs.path.join("last")).unwrap();
    snapshots.remove(&id).unwrap();
    assert_eq!((names, last.as_str()), (128, "126"));
}

#[test]
fn a_data_folder_may_be_called_anything() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["plain", "a:b", "a,b=c", "a\\b c", "ü"] {
        let store = ImageStore::open(dir.path().join(name), reeve_api::clock::RealClock::shared()).unwrap();
        let layers = [LayerTar::default().file("a", "1").0, LayerTar::default().file("b", "2").0];
        store.load(docker_archive(&["x"], &layers, "").as_slice()).unwrap();
        let snapshots = Snapshots::open(store).unwrap();
        let rootfs = snapshots.prepare("c", "x", &[]).unwrap();
        let mounted = snapshots.attach(&rootfs);
        let content = fs::read_to_string(rootfs.path.join("a")).unwrap_or_default();
        snapshots.remove("c").unwrap();
        assert!(mounted.is_ok() && content == "1", "{name}: {mounted:?}");
    }
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    if !is_root() {
        return;
    }
    let (_fixture, snapshots) = mounted(&[]);
    let rootfs = snapshots.prepare("c1", "x", &[]).unwrap();
    snapshots.attach(&rootfs).unwrap();
    let count = fs::read_dir(&rootfs.path).unwrap().count();
    snapshots.remove("c1").unwrap();
    assert_eq!(count, 0);
}

#[test]
fn container_ids_cannot_be_paths() {
    let (_fixture, snapshots) = mounted(&[]);
    for id in ["", "..", "a/b", ".", "a b"] {
        assert!(snapshots.prepare(id, "x", &[]).is_err(), "{id:?}");
    }
}

/// To open is to act: a device of the node may be what starts then, and an image may hold any.
#[test]
fn only_regular_files_of_an_image_are_opened() {
    use rustix::fs::{CWD, FileType, Mode, inotify, mknodat};
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("etc")).unwrap();
    fs::write(place("etc/passwd"), "root:x:0:0::/:\n").unwrap();
    mknodat(CWD, place("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
    let mut others = vec!["fifo", "socket"];
    let null = rustix::fs::makedev(1, 3);
    match mknodat(CWD, place("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), null) {
        Ok(()) => others.push("device"),
        Err(_) => eprintln!("SKIPPED: device nodes need root"),
    }
    std::os::unix::fs::symlink("/fifo", place("link")).unwrap();
    others.push("link");
    let root = Root::open(dir.path()).unwrap();
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    for name in ["fifo", "socket", "device", "etc/passwd"] {
        let _ = inotify::add_watch(&watch, place(name), inotify::WatchFlags::OPEN);
    }
    let was_opened = || rustix::io::read(&watch, &mut [0; 1024]).is_ok();
    for name in others {
        assert_eq!(root.file(Path::new(name)).unwrap_err(), Errno::INVAL, "{name}");
        assert_eq!(crate::runtime::users::read_in_root(root.fd(), name), "", "{name}");
        assert!(!was_opened(), "{name}");
    }
    assert_eq!(root.file(Path::new("etc")).unwrap_err(), Errno::ISDIR);
    assert_eq!(crate::runtime::users::read_in_root(root.fd(), "etc/passwd"), "root:x:0:0::/:\n");
    assert!(was_opened(), "it would be seen");
}
