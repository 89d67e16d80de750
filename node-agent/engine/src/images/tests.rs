//! Tests of the store: loading archives, names, garbage, several processes. Archives are made here, as the tools
//! make them; `Fixture` is the only caller of the API.

use std::fs;
use std::io::Write;
use std::path::Path;

use reeve_api::clock::RealClock;
use serde_json::json;

use super::*;
use crate::snapshot::Snapshots;

/// One layer as uncompressed tar: files with content.
pub(crate) fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A configuration with these (uncompressed) layers.
pub(crate) fn config(layers: &[Vec<u8>], note: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({
        "architecture": manifest::architecture(), "os": "linux", "author": note,
        "created": "2024-01-02T03:04:05Z",
        "config": {"User": "app", "Entrypoint": ["/bin/app"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).unwrap()
}

pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An archive as `docker save` of old wrote it.
pub(crate) fn docker_archive(names: &[&str], layers: &[Vec<u8>], note: &str) -> Vec<u8> {
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": paths}]);
    let mut files = vec![
        ("config.json".to_owned(), config(layers, note)),
        ("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()),
    ];
    files.extend(paths.into_iter().zip(layers.iter().cloned()));
    archive(&files)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI archive whose layers are compressed by `compress`; its index nests one more, with other platforms in it.
fn oci_archive(name: &str, layers: &[Vec<u8>], compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let descriptor = json!({"mediaType": "x", "digest": digest, "size": bytes.len()});
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        descriptor
    };
    let config = blob(config(layers, "oci"));
    let layers: Vec<_> = layers.iter().map(|layer| blob(compress(layer))).collect();
    let manifest = blob(json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes());
    let mut attestation = manifest.clone();
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let mut fitting = manifest;
    fitting["platform"] = json!({"os": "linux", "architecture": manifest::architecture()});
    let mut inner = blob(json!({"schemaVersion": 2, "manifests": [attestation, fitting]}).to_string().into_bytes());
    inner["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"});
    files.push(("index.json".to_owned(), json!({"schemaVersion": 2, "manifests": [inner]}).to_string().into_bytes()));
    archive(&files)
}

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { registries: dir.path().join("registries.yaml"), ..StoreOptions::default() };
        let store = ImageStore::open_with(dir.path().join("images"), RealClock::shared(), options).unwrap();
        Self { dir, store }
    }

    /// Says where images come from.
    pub(crate) fn registries(&self, text: &str) {
        fs::write(self.dir.path().join("registries.yaml"), text).unwrap();
    }

    /// Another process with the same folder.
    fn again(&self) -> ImageStore {
        ImageStore::open(self.store.dir(), RealClock::shared()).unwrap()
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Image {
        let mut images = self.store.load(archive).unwrap();
        assert_eq!(images.len(), 1);
        images.remove(0)
    }

    fn count(&self, below: &str) -> usize {
        fs::read_dir(self.store.dir().join(below)).unwrap().count()
    }

    fn file(&self, image: &str, path: &str) -> Option<String> {
        let (_, layers) = self.store.unpacked(image).unwrap();
        let mut dirs = layers.iter().rev().map(|layer| self.store.layers_dir().join(&layer.path));
        dirs.find_map(|dir| fs::read_to_string(dir.join(path)).ok())
    }
}

#[test]
fn a_docker_archive_loads_with_its_names_and_configuration() {
    let fixture = Fixture::new();
    let layers = [layer(&[("etc/a", "one")]), layer(&[("etc/b", "two!")])];
    let image = fixture.load(&docker_archive(&["web:1", "localhost:5000/web"], &layers, ""));
    assert_eq!(image.tags, ["docker.io/library/web:1", "localhost:5000/web:latest"]);
    assert_eq!((image.user.as_str(), image.size_bytes), ("app", 7));
    assert_eq!(image.created_at.unwrap().to_string(), "2024-01-02T03:04:05Z");
    for name in ["web:1", "docker.io/library/web:1", "localhost:5000/web", &image.id, &image.id[7..19]] {
        assert_eq!(fixture.store.get(name).unwrap().as_ref(), Some(&image), "{name}");
    }
    assert_eq!(fixture.store.get("web").unwrap(), None);
    let config = fixture.store.config("web:1").unwrap();
    assert_eq!(config.config().as_ref().unwrap().entrypoint().as_deref(), Some(&["/bin/app".to_owned()][..]));
    assert_eq!(fixture.file("web:1", "etc/a").as_deref(), Some("one"));
    assert_eq!(fixture.file("web:1", "etc/b").as_deref(), Some("two!"));
}

#[test]
fn oci_archives_load_whatever_their_compression() {
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let layers = [layer(&[("a", "oci")])];
    for (n, archive) in [
        oci_archive("docker.io/library/x:1", &layers, <[u8]>::to_vec),
        oci_archive("docker.io/library/x:1", &layers, gzip),
        oci_archive("docker.io/library/x:1", &layers, zstd),
        gzip(&oci_archive("docker.io/library/x:1", &layers, zstd)),
        zstd(&docker_archive(&["x:1"], &layers, "")),
    ]
    .iter()
    .enumerate()
    {
        let fixture = Fixture::new();
        let image = fixture.load(archive);
        assert_eq!(image.tags, ["docker.io/library/x:1"], "{n}");
        assert_eq!(fixture.file("x:1", "a").as_deref(), Some("oci"), "{n}");
    }
}

#[test]
fn what_is_saved_loads_as_the_same_image() {
    let (first, second) = (Fixture::new(), Fixture::new());
    let image = first.load(&docker_archive(&["a:1", "b/c:2"], &[layer(&[("f", "x")])], ""));
    let mut bytes = Vec::new();
    first.store.save(std::slice::from_ref(&image.id), &mut bytes).unwrap();
    assert_eq!(second.load_all(&bytes), std::slice::from_ref(&image));
    let mut again = Vec::new();
    second.store.save(&[image.id], &mut again).unwrap();
    assert_eq!(bytes, again, "the same images give the same archive");
    let mut only = Vec::new();
    first.store.save(&["a:1".to_owned()], &mut only).unwrap();
    assert_eq!(Fixture::new().load(&only).tags, ["docker.io/library/a:1"]);
}

impl Fixture {
    /// The images of an archive, each once: names of one image may come as several entries.
    fn load_all(&self, archive: &[u8]) -> Vec<Image> {
        self.store.load(archive).unwrap();
        self.store.list().unwrap()
    }
}

#[test]
fn archives_that_hold_no_image_are_refused_and_leave_nothing() {
    let layers = [layer(&[("a", "b")])];
    let whole = docker_archive(&["x"], &layers, "");
    let mut wrong_layer = config(&[layer(&[("other", "")])], "");
    wrong_layer.push(b' ');
    let windows = String::from_utf8(config(&layers, "")).unwrap().replace("\"linux\"", "\"windows\"").into_bytes();
    let saved = json!([{"Config": "c", "RepoTags": ["x"], "Layers": ["l"]}]).to_string().into_bytes();
    let named = |c: &[u8], tag: &str| {
        let saved = json!([{"Config": "c", "RepoTags": [tag], "Layers": ["l"]}]).to_string().into_bytes();
        archive(&[
            ("c".to_owned(), c.to_vec()),
            ("l".to_owned(), layers[0].clone()),
            ("manifest.json".to_owned(), saved),
        ])
    };
    for (bytes, words) in [
        (b"no archive at all".to_vec(), "not an image archive"),
        (Vec::new(), "there is no manifest.json and no index.json in it"),
        (archive(&[("readme".to_owned(), b"hi".to_vec())]), "there is no manifest.json and no index.json in it"),
        (archive(&[("manifest.json".to_owned(), saved)]), "c is missing in it"),
        (archive(&[("manifest.json".to_owned(), b"[{".to_vec())]), "manifest.json: EOF while parsing"),
        (whole[..whole.len() / 2].to_vec(), "not an image archive"),
        (named(&wrong_layer, "x"), "unexpected digest"),
        (named(b"{}", "x"), "not an image configuration"),
        (named(&windows, "x"), "image operating system \"windows\" cannot be used on this platform"),
        (named(&config(&[], ""), "x"), "it has 0 layers, but its manifest 1"),
        (named(&config(&layers, ""), "X"), "must be lowercase"),
    ] {
        let fixture = Fixture::new();
        let error = fixture.store.load(bytes.as_slice()).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} should say {words:?}");
        assert!(fixture.store.list().unwrap().is_empty());
        assert_eq!((fixture.count("tmp"), fixture.count("layers")), (0, 1), "{words}");
    }
}

#[test]
fn what_is_loaded_is_told_by_the_names_of_the_archive() {
    let (fixture, layers) = (Fixture::new(), [layer(&[("a", "1")])]);
    fixture.load(&docker_archive(&["first:1"], &layers, ""));
    let again = fixture.load(&docker_archive(&["second:1"], &layers, ""));
    assert_eq!(again.tags, ["docker.io/library/second:1"]);
    let nameless = fixture.load(&docker_archive(&[], &layers, ""));
    assert!(nameless.tags.is_empty());
    assert_eq!(fixture.store.get("first:1").unwrap().unwrap().tags.len(), 2, "it has both names");
}

#[test]
fn a_name_moves_to_the_image_loaded_last() {
    let fixture = Fixture::new();
    let old = fixture.load(&docker_archive(&["x"], &[layer(&[("a", "old")])], ""));
    let new = fixture.load(&docker_archive(&["x"], &[layer(&[("a", "new")])], ""));
    assert_eq!(fixture.store.get("x").unwrap().unwrap().id, new.id);
    assert_eq!(fixture.store.get(&old.id).unwrap().unwrap().tags, Vec::<String>::new());
    fixture.store.tag(&old.id, "y:2").unwrap();
    assert_eq!(fixture.store.get("y:2").unwrap().unwrap().id, old.id);
    fixture.store.tag("y:2", "x").unwrap();
    assert_eq!(fixture.store.get("x").unwrap().unwrap().id, old.id);
}

#[test]
fn an_image_goes_with_its_last_name_and_takes_only_what_no_other_needs() {
    let fixture = Fixture::new();
    let shared = layer(&[("base", "b")]);
    fixture.load(&docker_archive(&["a:1", "a:2"], &[shared.clone(), layer(&[("a", "1")])], ""));
    let b = fixture.load(&docker_archive(&["b"], &[shared, layer(&[("b", "1")])], ""));
    assert_eq!((fixture.count("blobs/sha256"), fixture.count("layers")), (7, 4));
    fixture.store.remove("a:1").unwrap();
    assert!(fixture.store.get("a:2").unwrap().is_some());
    fixture.store.remove("a:2").unwrap();
    assert_eq!((fixture.count("blobs/sha256"), fixture.count("layers")), (4, 3));
    assert_eq!(fixture.file("b", "base").as_deref(), Some("b"));
    fixture.store.remove(&b.id).unwrap();
    assert_eq!((fixture.count("blobs/sha256"), fixture.count("layers")), (0, 1));
    assert!(fixture.store.remove("b").unwrap_err().is_not_found());
}

#[test]
fn an_image_in_use_stays_until_its_last_container_goes() {
    let fixture = Fixture::new();
    let snapshots = Snapshots::open(fixture.store.clone()).unwrap();
    let image = fixture.load(&docker_archive(&["x"], &[layer(&[("a", "1")])], ""));
    let rootfs = snapshots.prepare("c1", "x", &[]).unwrap();
    fixture.again().remove("x").unwrap();
    assert_eq!(fixture.store.get("x").unwrap(), None);
    assert!(fixture.store.get(&image.id).unwrap().is_some());
    assert_eq!(fs::read_to_string(rootfs.lowerdirs[0].join("a")).unwrap(), "1");
    snapshots.remove("c1").unwrap();
    assert_eq!(fixture.store.get(&image.id).unwrap(), None);
    assert_eq!((fixture.count("blobs/sha256"), fixture.count("layers"), fixture.count("tmp")), (0, 1, 0));
}

#[test]
fn another_process_sees_new_images_at_once_and_does_not_disturb_a_load() {
    let fixture = Fixture::new();
    let cli = fixture.again();
    let image = cli.load(docker_archive(&["x"], &[layer(&[("a", "1")])], "").as_slice()).unwrap().remove(0);
    assert_eq!(fixture.store.get("x").unwrap(), Some(image));
    // While somebody adds, garbage stays; when the last of them is done it goes.
    let session = cli.begin().unwrap();
    let blob = cli.blobs().put(b"not referred to yet").unwrap();
    fixture.store.remove("x").unwrap();
    fs::write(fixture.store.dir().join("tmp/half"), "").unwrap();
    fixture.again();
    assert!(cli.blobs().get(&blob.digest).is_some());
    drop(session);
    assert!(cli.blobs().get(&blob.digest).is_none());
    fixture.again();
    assert_eq!((fixture.count("blobs/sha256"), fixture.count("layers"), fixture.count("tmp")), (0, 1, 0));
}

#[tokio::test]
async fn images_that_another_process_brings_are_told() {
    use futures::StreamExt as _;
    let fixture = Fixture::new();
    let mut changes = fixture.store.changes().unwrap();
    let cli = fixture.again();
    let soon = std::time::Duration::from_secs(10);
    let archive = docker_archive(&["x"], &[layer(&[("a", "1")])], "");
    tokio::task::spawn_blocking(move || cli.load(archive.as_slice()).map(drop)).await.unwrap().unwrap();
    tokio::time::timeout(soon, changes.next()).await.expect("told").expect("not over");
    assert!(fixture.store.get("x").unwrap().is_some());
}

#[test]
fn layers_that_somebody_took_away_are_unpacked_again() {
    let fixture = Fixture::new();
    fixture.load(&docker_archive(&["x"], &[layer(&[("a", "1")])], ""));
    let (_, layers) = fixture.store.unpacked("x").unwrap();
    fs::remove_dir_all(fixture.store.layers_dir().join(&layers[0].path).parent().unwrap()).unwrap();
    assert_eq!(fixture.file("x", "a").as_deref(), Some("1"));
}

#[test]
fn the_store_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    assert_eq!(fs::metadata(fixture.store.dir()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(images_dir(Path::new("/d")), Path::new("/d/images"));
}
