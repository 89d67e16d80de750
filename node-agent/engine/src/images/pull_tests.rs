//! Pulling from Debian's `docker-registry` on loopback, and from a registry of ours that lies and breaks off.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use reeve_api::clock::RealClock;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::ImageStore;
use super::client::{Access, Repository};
use super::manifest::{OCI_INDEX, OCI_MANIFEST, architecture};
use super::reference::Digest;
use super::registries::Endpoint;
use super::tests::{Fixture, config, layer};
use crate::engine::{EngineError, RegistryAuth};

/// `alice` with the password `s3cret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "alice:$2b$04$sXUs6G2MhX0VhCO3AFjjdupX3aNGzcCZulleSp14OkqdmdoXrkHZ6\n";

/// A real registry, killed when the test ends.
struct Registry {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts one on a free port; `None`, loudly, where the package is not installed.
    async fn start(htpasswd: bool) -> Option<Self> {
        Self::start_with(htpasswd, None).await
    }

    /// With a certificate and its key, both PEM: over HTTPS.
    async fn start_with(htpasswd: bool, tls: Option<(String, String)>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut text = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {"addr": address},
        });
        if htpasswd {
            let path = dir.path().join("htpasswd");
            fs::write(&path, HTPASSWD).unwrap();
            text["auth"] = json!({"htpasswd": {"realm": "test", "path": path}});
        }
        if let Some((certificate, key)) = tls {
            let paths = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
            fs::write(&paths[0], certificate).unwrap();
            fs::write(&paths[1], key).unwrap();
            text["http"]["tls"] = json!({"certificate": paths[0], "key": paths[1]});
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, text.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("SKIPPED: no docker-registry on PATH (apt-get install docker-registry)");
            return None;
        };
        let registry = Self { child, address, _dir: dir };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(&registry.address).await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("docker-registry did not come up");
    }

    /// Pushes an image and answers its manifest's digest.
    async fn push(&self, name: &str, layers: &[Vec<u8>], auth: Option<RegistryAuth>) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let target = self.repository(repository, auth);
        let config = config(layers, name);
        let mut descriptors = Vec::new();
        for (n, layer) in layers.iter().enumerate() {
            let blob = if n % 2 == 0 { zstd::encode_all(layer.as_slice(), 1).unwrap() } else { layer.clone() };
            descriptors.push(json!({"mediaType": "x", "digest": Digest::of(&blob), "size": blob.len()}));
            target.put_blob(&Digest::of(&blob), blob.len() as u64, blob.into()).await.unwrap();
        }
        target.put_blob(&Digest::of(&config), config.len() as u64, config.clone().into()).await.unwrap();
        let manifest = manifest(&config, &descriptors);
        target.put_manifest(tag, OCI_MANIFEST, &manifest).await.unwrap();
        // An index over it, as multi-platform images have.
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {"mediaType": OCI_MANIFEST, "digest": Digest::of(&manifest), "size": manifest.len(),
             "platform": {"os": "linux", "architecture": architecture()}},
        ]});
        let index = serde_json::to_vec(&index).unwrap();
        target.put_manifest(&format!("{tag}-multi"), OCI_INDEX, &index).await.unwrap();
        Digest::of(&manifest).to_string()
    }

    fn repository(&self, repository: &str, auth: Option<RegistryAuth>) -> Repository {
        let (host, repository) = (self.address.clone(), repository.to_owned());
        let endpoint = Endpoint { host, repository, plain: true, ca: None, skip_verify: false, auth, is_mirror: false };
        Repository::new(endpoint, Access::Push, Duration::from_secs(5)).unwrap()
    }
}

fn manifest(config: &[u8], layers: &[serde_json::Value]) -> Vec<u8> {
    let config = json!({"mediaType": super::manifest::OCI_CONFIG, "digest": Digest::of(config), "size": config.len()});
    serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_by_tag_by_digest_and_by_platform() {
    super::pull::install_crypto();
    let Some(registry) = Registry::start(false).await else { return };
    let layers = [layer(&[("a", "1")]), layer(&[("b", "22")]), layer(&[("c", "333")])];
    let digest = registry.push("team/app:v1", &layers, None).await;
    let fixture = Fixture::new();
    let name = format!("{}/team/app", registry.address);
    let image = fixture.store.pull(&format!("{name}:v1"), None).await.unwrap();
    assert_eq!(image.tags, [format!("{name}:v1")]);
    assert_eq!(image.digests, [format!("{name}@{digest}")]);
    assert_eq!(image.size_bytes, 6);
    assert_eq!(fixture.store.get(&format!("{name}@{digest}")).unwrap().as_ref(), Some(&image));
    let by_digest = fixture.store.pull(&format!("{name}@{digest}"), None).await.unwrap();
    assert_eq!(by_digest, image);
    let by_index = fixture.store.pull(&format!("{name}:v1-multi"), None).await.unwrap();
    assert_eq!(by_index.id, image.id);
    let nothing = fixture.store.pull(&format!("{name}:v2"), None).await.unwrap_err();
    assert_eq!(
        nothing.to_string(),
        format!(
            "failed to pull and unpack image \"{name}:v2\": failed to resolve reference \"{name}:v2\": \
             {name}:v2: not found"
        )
    );
    assert!(matches!(EngineError::from(nothing), EngineError::Pull { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_with_passwords_gives_images_only_to_those_who_have_one() {
    super::pull::install_crypto();
    let Some(registry) = Registry::start(true).await else { return };
    let login = RegistryAuth { username: "alice".to_owned(), password: "s3cret".to_owned() };
    registry.push("app:1", &[layer(&[("a", "1")])], Some(login)).await;
    let fixture = Fixture::new();
    let name = format!("{}/app:1", registry.address);
    let auth = |password: &str| Some(RegistryAuth { username: "alice".to_owned(), password: password.to_owned() });
    for wrong in [None, auth("guess")] {
        let error = fixture.store.pull(&name, wrong).await.unwrap_err().to_string();
        assert!(error.contains("pull access denied"), "{error}");
        assert!(!error.contains("guess"), "{error}");
    }
    assert!(fixture.store.pull(&name, auth("s3cret")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_pulled_elsewhere_and_travels_once() {
    super::pull::install_crypto();
    let Some(registry) = Registry::start(true).await else { return };
    let auth = |password: &str| Some(RegistryAuth { username: "alice".to_owned(), password: password.to_owned() });
    let (layers, name) = ([layer(&[("a", "1")]), layer(&[("b", "22")])], format!("{}/team/app:v1", registry.address));
    let fixture = Fixture::new();
    let archive = super::tests::docker_archive(&[&name], &layers, "");
    let image = fixture.load(&archive);
    for wrong in [None, auth("guess")] {
        let error = fixture.store.push(&name, wrong).await.unwrap_err().to_string();
        let start = format!("failed to push image \"{name}\": ");
        assert!(error.starts_with(&start) && error.contains("denied"), "{error}");
    }
    let pushed = fixture.store.push(&name, auth("s3cret")).await.unwrap();
    assert_eq!((pushed.sent, pushed.known), (3, 0));
    let again = fixture.store.push(&name, auth("s3cret")).await.unwrap();
    assert_eq!((again.sent, again.known, again.digest.as_str()), (0, 3, pushed.digest.as_str()));
    // Another repository of the same registry gets it from there.
    let copy = format!("{}/team/copy:v2", registry.address);
    fixture.store.tag(&name, &copy).unwrap();
    let copied = fixture.store.push(&copy, auth("s3cret")).await.unwrap();
    assert_eq!((copied.sent, copied.known, copied.digest.as_str()), (0, 3, pushed.digest.as_str()));
    let other = Fixture::new();
    let by_digest = format!("{}/team/copy@{}", registry.address, pushed.digest);
    assert_eq!(other.store.pull(&by_digest, auth("s3cret")).await.unwrap().id, image.id);
    // Where it is not, though its name says so, it travels.
    let absent = format!("{}/team/absent:v1", registry.address);
    let own = fixture.load(&super::tests::docker_archive(&[&absent], &[layer(&[("c", "333")])], ""));
    let real = format!("{}/team/real:v1", registry.address);
    fixture.store.tag(&own.id, &real).unwrap();
    let sent = fixture.store.push(&real, auth("s3cret")).await.unwrap();
    assert_eq!((sent.sent, sent.known), (2, 0));
    assert_eq!(other.store.pull(&real, auth("s3cret")).await.unwrap().id, own.id);
    let by_digest = format!("{}/team/app@{}", registry.address, pushed.digest);
    assert_eq!(other.store.pull(&by_digest, auth("s3cret")).await.unwrap().id, image.id);
    let error = fixture.store.push("nothing:here", None).await.unwrap_err().to_string();
    assert_eq!(error, "no such image: nothing:here");
    assert!(fixture.store.push(&by_digest, None).await.unwrap_err().to_string().contains("push a tag"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_are_asked_before_the_registry_and_named_when_nobody_has_the_image() {
    super::pull::install_crypto();
    let Some(mirror) = Registry::start(false).await else { return };
    let digest = mirror.push("hub/team/app:v1", &[layer(&[("a", "1")])], None).await;
    // Nobody listens there: neither as a mirror nor as the registry itself.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fixture = Fixture::new();
    let file = |endpoints: &str| fixture.registries(&format!("mirrors: {{'{nobody}': {{endpoint: [{endpoints}]}}}}"));
    file(&format!("'https://{nobody}/v2/x', 'http://{}/v2/hub'", mirror.address));
    let image = fixture.store.pull(&format!("{nobody}/team/app:v1"), None).await.unwrap();
    assert_eq!(image.tags, [format!("{nobody}/team/app:v1")]);
    assert_eq!(image.digests, [format!("{nobody}/team/app@{digest}")]);
    let error = fixture.store.pull(&format!("{nobody}/team/none"), None).await.unwrap_err().to_string();
    assert!(
        error.contains("connect: connection refused") && error.contains(&format!("; mirror {}: ", mirror.address)),
        "{error}"
    );
    file("'mirror.lan'");
    let error = fixture.store.pull(&format!("{nobody}/team/app:v1"), None).await.unwrap_err().to_string();
    assert!(error.contains("registries.yaml: mirrors") && error.contains("must start with http://"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_with_a_certificate_of_ones_own_authority_is_trusted_when_the_authority_is_named() {
    super::pull::install_crypto();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let Some(registry) = Registry::start_with(false, Some((own.pem(), key.serialize_pem()))).await else { return };
    let fixture = Fixture::new();
    let name = format!("{}/app:1", registry.address);
    fixture.load(&super::tests::docker_archive(&[&name], &[layer(&[("a", "1")])], ""));
    let ca = fixture.dir.path().join("ca.crt");
    fs::write(&ca, own.pem()).unwrap();
    let address = &registry.address;
    let say = |tls: &str| {
        let text = format!(
            "mirrors: {{'{address}': {{endpoint: ['https://{address}']}}}}\nconfigs: {{'{address}': {{tls: {{{tls}}}}}}}"
        );
        fixture.registries(&text);
    };
    say("");
    let error = fixture.store.push(&name, None).await.unwrap_err().to_string();
    let words = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(error.ends_with(words), "{error}");
    say(&format!("ca_file: {}", ca.display()));
    fixture.store.push(&name, None).await.unwrap();
    say("insecure_skip_verify: true");
    let other = Fixture::new();
    fs::copy(fixture.dir.path().join("registries.yaml"), other.dir.path().join("registries.yaml")).unwrap();
    assert_eq!(other.store.pull(&name, None).await.unwrap().tags, [name]);
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_in_the_error() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Fixture::new().store.pull(&format!("{address}/x"), None).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("failed to pull and unpack image \"{address}/x:latest\": ")), "{error}");
    let words = format!("failed to do request: \"http://{address}/v2/x/manifests/latest\": dial tcp {address}: ");
    assert!(error.ends_with(&format!("{words}connect: connection refused")), "{error}");
}

/// One answer of the lying registry.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
    /// Bytes after which the connection is cut.
    pub(super) cut: Option<usize>,
    /// Told when the rest may be sent: then it is not cut.
    pub(super) goes_on: Option<Arc<tokio::sync::Notify>>,
}

pub(super) fn ok(body: &[u8]) -> Answer {
    Answer { status: 200, headers: String::new(), body: body.to_vec(), cut: None, goes_on: None }
}

pub(super) type Log = Arc<Mutex<Vec<String>>>;

/// A registry that answers each path from a list, the last one again and again; `Range` is honoured.
pub(super) async fn lying_registry(answers: Vec<(String, Vec<Answer>)>) -> (String, Log) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers: Arc<Mutex<BTreeMap<String, Vec<Answer>>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
    let log = Log::default();
    let seen = Arc::clone(&log);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answers, seen) = (Arc::clone(&answers), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head.clone());
                let answer = {
                    let mut answers = answers.lock().unwrap();
                    match answers.get_mut(&path) {
                        Some(list) if list.len() > 1 => list.remove(0),
                        Some(list) => list[0].clone(),
                        None => Answer { status: 404, ..ok(b"") },
                    }
                };
                let start: usize =
                    head.split("bytes=").nth(1).map_or(0, |r| r.split('-').next().unwrap().parse().unwrap());
                let body = &answer.body[start..];
                let status = if start > 0 { 206 } else { answer.status };
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{}\r\n",
                    answer.headers
                );
                let _ = stream.write_all(text.as_bytes()).await;
                let (now, later) = body.split_at(answer.cut.unwrap_or(length).min(length));
                let _ = stream.write_all(now).await;
                if let Some(goes_on) = answer.goes_on {
                    goes_on.notified().await;
                    let _ = stream.write_all(later).await;
                }
            });
        }
    });
    (address, log)
}

/// What a registry with one image `x:1` answers.
pub(super) fn one_image() -> (Vec<(String, Vec<Answer>)>, [String; 2]) {
    image_of(&"content ".repeat(1000))
}

/// The same with this in its only file.
fn image_of(content: &str) -> (Vec<(String, Vec<Answer>)>, [String; 2]) {
    let layer = layer(&[("a", content)]);
    let config = config(std::slice::from_ref(&layer), "");
    let descriptor = json!({"mediaType": "x", "digest": Digest::of(&layer), "size": layer.len()});
    let manifest_path = "/v2/x/manifests/1".to_owned();
    let layer_path = format!("/v2/x/blobs/{}", Digest::of(&layer));
    let answers = vec![
        (manifest_path.clone(), vec![typed(&manifest(&config, &[descriptor]))]),
        (format!("/v2/x/blobs/{}", Digest::of(&config)), vec![ok(&config)]),
        (layer_path.clone(), vec![ok(&layer)]),
    ];
    (answers, [manifest_path, layer_path])
}

fn typed(manifest: &[u8]) -> Answer {
    Answer { headers: format!("Content-Type: {OCI_MANIFEST}\r\n"), ..ok(manifest) }
}

pub(super) fn edit(answers: &mut [(String, Vec<Answer>)], path: &str, change: impl FnOnce(&mut Vec<Answer>)) {
    change(&mut answers.iter_mut().find(|(other, _)| other == path).unwrap().1);
}

#[tokio::test]
async fn a_transfer_that_breaks_off_goes_on_where_it_stopped() {
    let (mut answers, [manifest, layer]) = one_image();
    edit(&mut answers, &manifest, |list| list.insert(0, Answer { status: 503, ..ok(b"busy") }));
    edit(&mut answers, &layer, |list| list.insert(0, Answer { cut: Some(4000), ..list[0].clone() }));
    let (address, log) = lying_registry(answers).await;
    let fixture = Fixture::new();
    fixture.store.pull(&format!("{address}/x:1"), None).await.unwrap();
    let requests = log.lock().unwrap();
    assert!(requests.iter().any(|head| head.contains("range: bytes=4000-")), "{requests:?}");
}

/// Opens the store of a fixture again, as another process does.
fn again(fixture: &Fixture) -> ImageStore {
    ImageStore::open(fixture.store.dir(), RealClock::shared()).unwrap()
}

fn parts(fixture: &Fixture) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(fixture.store.dir().join("partial")).unwrap().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn what_came_before_a_process_ended_does_not_travel_again() {
    let (mut answers, [_, layer]) = image_of(&"content ".repeat(400_000));
    let cut = |answer: &Answer, at| Answer { cut: Some(at), ..answer.clone() };
    edit(&mut answers, &layer, |list| {
        let whole = list[0].clone();
        *list = vec![cut(&whole, 2 << 20), cut(&whole, 0), cut(&whole, 0), cut(&whole, 0), whole];
    });
    let (address, log) = lying_registry(answers).await;
    let (fixture, name) = (Fixture::new(), format!("{address}/x:1"));
    let error = fixture.store.pull(&name, None).await.unwrap_err().to_string();
    assert!(error.contains("failed to fetch sha256:"), "{error}");
    assert_eq!(parts(&fixture).len(), 1);
    log.lock().unwrap().clear();
    let image = again(&fixture).pull(&name, None).await.unwrap();
    assert_eq!(image.size_bytes, 3_200_000);
    assert!(parts(&fixture).is_empty());
    let requests = log.lock().unwrap();
    let of_layer: Vec<_> = requests.iter().filter(|head| head.starts_with(&format!("get {layer} "))).collect();
    assert!(of_layer.len() == 1 && of_layer[0].contains("range: bytes=2097152-"), "{of_layer:?}");
}

#[tokio::test]
async fn a_kept_part_that_is_not_of_the_blob_does_no_harm() {
    let content = "content ".repeat(400_000);
    for size in [Some(2 << 20), Some(4 << 20), None] {
        let (answers, [_, layer]) = image_of(&content);
        // As much as the blob has, if not otherwise said.
        let size = size.unwrap_or(answers[2].1[0].body.len());
        let (address, _) = lying_registry(answers).await;
        let fixture = Fixture::new();
        let hex = layer.rsplit(':').next().unwrap();
        fs::write(fixture.store.dir().join("partial").join(hex), vec![b'x'; size]).unwrap();
        let image = again(&fixture).pull(&format!("{address}/x:1"), None).await.unwrap();
        assert_eq!(image.size_bytes, 3_200_000);
        assert!(parts(&fixture).is_empty());
    }
}

#[tokio::test]
async fn a_pull_that_fills_the_disk_leaves_nothing_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(dir.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a file system of its own needs root");
        return;
    }
    let store = ImageStore::open(dir.path().join("images"), RealClock::shared()).unwrap();
    // As a blob it has room, unpacked beside it no more.
    let (address, _) = lying_registry(image_of(&"content ".repeat(400_000)).0).await;
    let error = store.pull(&format!("{address}/x:1"), None).await.unwrap_err().to_string();
    let left: Vec<_> = ["blobs/sha256", "layers", "partial", "tmp"]
        .into_iter()
        .flat_map(|name| fs::read_dir(store.dir().join(name)).unwrap().flatten())
        .map(|entry| entry.path())
        // Images without layers stand on this.
        .filter(|path| !path.ends_with("layers/empty"))
        .collect();
    drop(store);
    let unmounted = Command::new("umount").arg("-l").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
    assert!(error.contains("No space left on device"), "{error}");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn of_a_blob_that_is_forged_nothing_is_kept() {
    let (mut answers, [_, layer]) = image_of(&"content ".repeat(400_000));
    edit(&mut answers, &layer, |list| list[0].body = vec![b'x'; list[0].body.len() + 1]);
    let (address, _) = lying_registry(answers).await;
    let fixture = Fixture::new();
    assert!(fixture.store.pull(&format!("{address}/x:1"), None).await.is_err());
    assert!(parts(&fixture).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_is_unpacked_while_it_arrives() {
    let (mut answers, [_, layer]) = one_image();
    let goes_on = Arc::new(tokio::sync::Notify::new());
    edit(&mut answers, &layer, |list| {
        list[0] = Answer { cut: Some(4000), goes_on: Some(Arc::clone(&goes_on)), ..list[0].clone() };
    });
    let (address, log) = lying_registry(answers).await;
    let fixture = Fixture::new();
    let (store, name) = (fixture.store.clone(), format!("{address}/x:1"));
    let pull = tokio::spawn(async move { store.pull(&name, None).await });
    let begun = || {
        let entries = fs::read_dir(fixture.store.dir().join("tmp")).unwrap().flatten();
        entries.into_iter().any(|entry| entry.path().join("fs/a").exists())
    };
    for _ in 0..3000 {
        if begun() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun(), "half of the layer is here, and what is in it");
    assert!(fixture.store.list().unwrap().is_empty());
    goes_on.notify_one();
    let image = pull.await.unwrap().unwrap();
    assert_eq!(image.size_bytes, 8000);
    assert!(log.lock().unwrap().iter().filter(|head| head.contains("/blobs/")).count() == 2, "nothing travels twice");
}

#[tokio::test]
async fn content_that_is_not_what_was_asked_for_is_never_kept() {
    let (answers, [manifest_path, layer_path]) = one_image();
    let size = answers[2].1[0].body.len();
    let with = |path: &str, answer: Answer| {
        let mut answers = answers.clone();
        edit(&mut answers, path, |list| *list = vec![answer]);
        answers
    };
    let huge = json!({"mediaType": "x", "digest": Digest::of(b""), "size": 1_u64 << 62});
    for (name, answers, words) in [
        ("forged layer", with(&layer_path, ok(&vec![b'x'; size])), "unexpected digest"),
        ("longer layer", with(&layer_path, ok(&vec![b'x'; size + 1])), "longer than its"),
        ("manifest that is none", with(&manifest_path, typed(b"{}")), "neither an image manifest nor"),
        ("huge layer", with(&manifest_path, typed(&manifest(b"{}", &[huge]))), "at most"),
        ("layer gone", with(&layer_path, Answer { status: 404, ..ok(b"") }), "failed to fetch sha256:"),
    ] {
        let (address, _) = lying_registry(answers).await;
        let fixture = Fixture::new();
        let error = fixture.store.pull(&format!("{address}/x:1"), None).await.unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
        assert!(fixture.store.list().unwrap().is_empty(), "{name}");
        // A transfer beside the one that failed lets go of its file a moment later.
        for _ in 0..100 {
            if fs::read_dir(fixture.store.dir().join("tmp")).unwrap().count() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(fs::read_dir(fixture.store.dir().join("tmp")).unwrap().count(), 0, "{name}");
    }
    let (address, _) = lying_registry(answers).await;
    let other = Digest::of(b"another manifest");
    let error = Fixture::new().store.pull(&format!("{address}/x@{other}"), None).await.unwrap_err().to_string();
    assert!(error.contains("not found"), "{error}");
}

#[tokio::test]
async fn calls_for_the_same_image_share_one_transfer() {
    let (answers, [manifest, layer]) = one_image();
    let (address, log) = lying_registry(answers).await;
    let fixture = Fixture::new();
    let name = format!("{address}/x:1");
    let images = join_all((0..20).map(|_| fixture.store.pull(&name, None))).await;
    assert!(images.iter().all(|image| image.as_ref().unwrap().tags == [name.clone()]));
    let requests = log.lock().unwrap();
    for path in [manifest, layer] {
        assert_eq!(requests.iter().filter(|head| head.starts_with(&format!("get {path} "))).count(), 1, "{path}");
    }
}

#[tokio::test]
async fn a_transfer_that_nobody_waited_for_is_not_taken_for_a_new_one() {
    let (answers, [manifest, _]) = one_image();
    let (address, log) = lying_registry(answers).await;
    let fixture = Fixture::new();
    let name = format!("{address}/x:1");
    assert!(tokio::time::timeout(Duration::from_millis(1), fixture.store.pull(&name, None)).await.is_err());
    while fixture.store.get(&name).unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.store.remove(&name).unwrap();
    // The image is there a moment before its task has ended.
    tokio::time::sleep(Duration::from_millis(50)).await;
    fixture.store.pull(&name, None).await.unwrap();
    assert!(fixture.store.get(&name).unwrap().is_some());
    let asked = log.lock().unwrap().iter().filter(|head| head.starts_with(&format!("get {manifest} "))).count();
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn a_registry_that_wants_a_token_gets_one_for_the_password() {
    let (mut answers, [manifest, layer]) = one_image();
    let (token_server, token_log) = lying_registry(vec![(
        "/token?scope=repository%3ax%3apull&service=s".to_owned(),
        vec![ok(br#"{"token":"tok"}"#)],
    )])
    .await;
    let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{token_server}/token\",service=\"s\"\r\n");
    edit(&mut answers, &manifest, |list| list.insert(0, Answer { status: 401, headers: challenge, ..ok(b"") }));
    let (address, log) = lying_registry(answers).await;
    let auth = RegistryAuth { username: "alice".to_owned(), password: "s3cret".to_owned() };
    Fixture::new().store.pull(&format!("{address}/x:1"), Some(auth)).await.unwrap();
    let login = token_log.lock().unwrap();
    // "alice:s3cret" in base64, in lower case as the log has it.
    assert!(login[0].contains("authorization: basic ywxpy2u6cznjcmv0"), "{login:?}");
    let requests = log.lock().unwrap();
    for path in [manifest, layer] {
        let head = requests.iter().rfind(|head| head.starts_with(&format!("get {path} "))).unwrap();
        assert!(head.contains("authorization: bearer tok"), "{head}");
    }
}
