//! The image store under `kill -9`: a child process loads, tags and removes images without end and is killed at any
//! moment. What is left is always whole.

#![allow(clippy::unwrap_used, reason = "what goes wrong here is to be seen")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use reeve_api::clock::RealClock;
use reeve_engine::images::{Digest, ImageStore};
use reeve_engine::snapshot::Snapshots;

/// Tells a copy of this program to be the child.
const CHILD: &str = "REEVE_TEST_IMAGE_CRASHES";
const ROUNDS: u64 = 15;

fn open(dir: &Path) -> ImageStore {
    ImageStore::open(dir, RealClock::shared()).unwrap()
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image of two layers; the lower one is the same in all, the upper one holds 40 files that tell its number.
fn archive(n: u64) -> Vec<u8> {
    let base = tar(&[("base".to_owned(), vec![b'b'; 100_000])]);
    let files: Vec<_> = (0..40).map(|f| (format!("d/{f}"), format!("image {n}").repeat(200).into_bytes())).collect();
    let layers = [base, tar(&files)];
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let saved = serde_json::json!([{"Config": "c", "RepoTags": [format!("i{n}")], "Layers": ["0", "1"]}]);
    let [base, top] = layers;
    tar(&[
        ("c".to_owned(), serde_json::to_vec(&config).unwrap()),
        ("0".to_owned(), base),
        ("1".to_owned(), top),
        ("manifest.json".to_owned(), serde_json::to_vec(&saved).unwrap()),
    ])
}

/// Works until it is killed.
fn child(dir: &Path) -> ! {
    let store = open(dir);
    let archives: Vec<Vec<u8>> = (0..4).map(archive).collect();
    loop {
        for (n, archive) in archives.iter().enumerate() {
            store.load(archive.as_slice()).unwrap();
            store.tag(&format!("i{n}"), "newest").unwrap();
            let _ = store.remove(&format!("i{}", (n + 2) % archives.len()));
        }
    }
}

/// Every image that the index has is complete: its layers' files are what they should be, and it can be saved.
fn check(store: &ImageStore, snapshots: &Snapshots) -> usize {
    let images = store.list().unwrap();
    for image in &images {
        let mut saved = Vec::new();
        store.save(std::slice::from_ref(&image.id), &mut saved).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let copies = open(elsewhere.path()).load(saved.as_slice()).unwrap();
        assert!(copies.iter().all(|copy| copy.id == image.id));
        let rootfs = snapshots.prepare("check", &image.id, &[]).unwrap();
        let [top, base]: &[PathBuf; 2] = rootfs.lowerdirs.as_slice().try_into().unwrap();
        assert_eq!(std::fs::read(base.join("base")).unwrap().len(), 100_000);
        let first = std::fs::read(top.join("d/0")).unwrap();
        for f in 0..40 {
            assert_eq!(std::fs::read(top.join(format!("d/{f}"))).unwrap(), first);
        }
        assert_eq!(first.len(), 1400);
        snapshots.remove("check").unwrap();
    }
    images.len()
}

#[test]
fn whatever_is_killed_when_every_image_in_the_index_is_whole() {
    if let Some(dir) = std::env::var_os(CHILD) {
        child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "whatever_is_killed_when_every_image_in_the_index_is_whole"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Different moments: the first rounds hit the first load, the later ones anything.
        std::thread::sleep(Duration::from_millis(15 + 23 * round));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "the child worked to its end");
        let store = open(dir.path());
        let snapshots = Snapshots::open(store.clone()).unwrap();
        seen += check(&store, &snapshots);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "what was half-written is swept");
    }
    assert!(seen > 0, "the rounds were too short to load anything");
    let store = open(dir.path());
    for image in store.list().unwrap() {
        store.remove(&image.id).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
}
