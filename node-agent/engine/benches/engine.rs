//! The engine beside the programs that people use today: `cargo bench -p reeve-engine --bench engine`, as root; with one
//! of `one`, `many`, `memory`, `logs`, `images` behind `--` only that part.
//!
//! Prints a table. crun and runc get bundles with the same files, command, namespaces, groups and system calls, podman
//! the same archive and the same Dockerfile; what is not installed is left out, loudly. Makes folders and groups of its
//! own and leaves nothing.
//!
//! `TMPDIR` is where all of them keep their files. Without a journal, ext4 looks at every inode that was deleted in the
//! last minutes before it gives one away (`recently_deleted`): that is then measured, too, and no node is so.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code, reason = "a program for developers")]

#[path = "../tests/runtime/bed.rs"]
mod bed;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use futures::future::join_all;
use reeve_engine::build::{BuildRequest, build};
use reeve_engine::engine::{self, Engine as _, Sandbox};
use reeve_engine::images::ImageStore;
use reeve_engine::runtime::caps::CapabilitySet;
use reeve_engine::runtime::seccomp::default::default_profile;
use tokio::time::Instant;

use crate::bed::Bed;

/// Containers one after the other, and at once.
const ONE_BY_ONE: usize = 100;
const AT_ONCE: usize = 100;
/// How often each is measured.
const ROUNDS: usize = 5;
/// Containers that run while memory is read.
const RUNNING: usize = 50;
/// Bytes that a container writes into its log.
const LOG_MIB: usize = 512;
/// The image that is unpacked: files of this size.
const IMAGE_FILES: usize = 2000;
const IMAGE_FILE_BYTES: usize = 100 << 10;

fn main() -> ExitCode {
    if let Some(code) = reeve_engine::supervisor::supervisor_main(std::env::args_os()) {
        return code;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: containers need root");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{:<44} {:>12} {:>12} {:>8}  GOAL", "WORK", "REEVE", "OTHER", "RATIO");
    let part = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    runtime.block_on(async {
        if wanted("one") {
            one_by_one().await;
        }
        if wanted("many") {
            many().await;
        }
        if wanted("memory") {
            memory().await;
        }
        if wanted("logs") {
            logs().await;
        }
        if wanted("images") {
            images().await;
        }
    });
    ExitCode::SUCCESS
}

/// One line: ours, theirs, the ratio of theirs to ours.
fn row(work: &str, ours: Duration, other: Option<(&str, Duration)>, goal: &str) {
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let (name, theirs, ratio) = match other {
        Some((name, theirs)) => (name, ms(theirs), format!("{:.2}", theirs.as_secs_f64() / ours.as_secs_f64())),
        None => ("", "–".to_owned(), String::new()),
    };
    println!(
        "{:<44} {:>12} {theirs:>12} {ratio:>8}  {goal}",
        format!("{work}{}{name}", if name.is_empty() { "" } else { " / " }),
        ms(ours)
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("SKIPPED: {program} is not installed");
    }
    there
}

/// What both get. crun's configuration says what a plan of ours does: the pod's namespaces, groups of its own, and the
/// same system calls.
#[derive(Clone, Copy)]
enum Seccomp {
    Unconfined,
    RuntimeDefault,
}

impl Seccomp {
    const ALL: [Self; 2] = [Self::Unconfined, Self::RuntimeDefault];

    fn word(self) -> &'static str {
        match self {
            Self::Unconfined => "seccomp unconfined",
            Self::RuntimeDefault => "default seccomp",
        }
    }
}

/// Create, start, wait, remove.
async fn one(bed: &Bed, sandbox: &Sandbox, name: String, seccomp: Seccomp) {
    let mut config = bed.command(&name, &["true"]);
    config.security.seccomp = match seccomp {
        Seccomp::Unconfined => engine::Seccomp::Unconfined,
        Seccomp::RuntimeDefault => engine::Seccomp::RuntimeDefault,
    };
    let id = bed.start(sandbox, config).await;
    bed.end(&id).await;
    bed.engine.remove_container(&id).await.unwrap();
}

async fn one_by_one() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    for seccomp in Seccomp::ALL {
        let bundle = bundle(&bed, &sandbox, seccomp);
        let mut ours = Vec::new();
        for n in 0..ONE_BY_ONE {
            let at = Instant::now();
            one(&bed, &sandbox, format!("t{n}"), seccomp).await;
            ours.push(at.elapsed());
        }
        let ours = median(ours);
        for runtime in ["crun", "runc"].into_iter().filter(|runtime| installed(runtime)) {
            let all = || {
                let times = (0..ONE_BY_ONE).map(|n| {
                    let at = Instant::now();
                    run_all(&bed, runtime, &bundle, n..n + 1);
                    at.elapsed()
                });
                times.collect()
            };
            let times = if runtime == "crun" { with_one_version(all) } else { all() };
            let goal = if runtime == "crun" { "≤ crun" } else { "" };
            row(&format!("`true`, {}, p50", seccomp.word()), ours, Some((runtime, median(times))), goal);
        }
        std::fs::remove_dir_all(&bundle).unwrap();
    }
    bed.close().await;
}

async fn many() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    for seccomp in Seccomp::ALL {
        let bundle = bundle(&bed, &sandbox, seccomp);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // In turn, so that what else the machine does meets both.
        for round in 0..ROUNDS {
            let at = Instant::now();
            join_all((0..AT_ONCE).map(|n| one(&bed, &sandbox, format!("a{round}-{n}"), seccomp))).await;
            ours.push(at.elapsed());
            if installed("crun") {
                theirs.push(with_one_version(|| {
                    let at = Instant::now();
                    run_all(&bed, "crun", &bundle, 0..AT_ONCE);
                    at.elapsed()
                }));
            }
        }
        let theirs = (!theirs.is_empty()).then(|| ("crun", median(theirs)));
        row(&format!("100 at once, {}", seccomp.word()), median(ours), theirs, "≤ half of crun");
        std::fs::remove_dir_all(&bundle).unwrap();
    }
    bed.close().await;
}

/// A bundle with the image's files that runs `true` in the pod's namespaces.
fn bundle(bed: &Bed, sandbox: &Sandbox, seccomp: Seccomp) -> std::path::PathBuf {
    let dir = tempfile::Builder::new().prefix("reeve-bundle-").tempdir().unwrap().keep();
    let bin = dir.join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", bin.join("true")).unwrap();
    if Command::new("crun").arg("spec").current_dir(&dir).status().is_ok() {
        let path = dir.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["process"]["terminal"] = false.into();
        config["linux"]["resources"] = serde_json::json!({});
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
        config["process"]["args"] = serde_json::json!(["true"]);
        config.as_object_mut().unwrap().remove("hostname");
        let pod = bed.dir().join("run/engine/sandboxes").join(&sandbox.id);
        let namespaces = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")]
            .map(|(kind, file)| serde_json::json!({"type": kind, "path": pod.join(file)}));
        let own = ["pid", "mount", "cgroup"].map(|kind| serde_json::json!({"type": kind}));
        config["linux"]["namespaces"] = namespaces.into_iter().chain(own).collect();
        if matches!(seccomp, Seccomp::RuntimeDefault) {
            config["linux"]["seccomp"] =
                serde_json::to_value(default_profile(CapabilitySet::containerd_default())).unwrap();
        }
        std::fs::write(path, config.to_string()).unwrap();
    }
    dir
}

/// Runs `work` where only one version of cgroups is to be seen: crun does not run beside controllers of both.
fn with_one_version<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use nix::mount::{MsFlags, mount};
    let root = Path::new("/sys/fs/cgroup");
    if !root.join("unified").exists() {
        return work();
    }
    let world = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).unwrap();
        let aside = tempfile::tempdir().unwrap();
        let bind =
            |from: &Path, to: &Path| mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount(Some("tmpfs"), aside.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        for hierarchy in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()) {
            if hierarchy != "unified" {
                std::fs::create_dir(aside.path().join(&hierarchy)).unwrap();
                bind(&root.join(&hierarchy), &aside.path().join(&hierarchy));
            }
        }
        let with_all_below = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(aside.path()), root, None::<&str>, with_all_below, None::<&str>).unwrap();
        nix::mount::umount2(aside.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(world).join().unwrap())
}

/// Runs the bundle as often as there are numbers, all at once.
fn run_all(bed: &Bed, runtime: &str, bundle: &Path, numbers: std::ops::Range<usize>) {
    let run = |number: usize| {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(bed.dir().join(runtime));
        if runtime == "crun" {
            command.arg("--cgroup-manager=cgroupfs");
        }
        command.args(["run", "--bundle"]).arg(bundle).arg(format!("reeve-bench-{}-{number}", std::process::id()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    };
    for mut child in numbers.map(run).collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success(), "{runtime}");
    }
}

async fn memory() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let pid = bed.engine.supervisor_pid().await.unwrap();
    let before = private_dirty(pid);
    join_all((0..RUNNING).map(|n| bed.start(&sandbox, bed.command(&format!("s{n}"), &["sleep", "1000"])))).await;
    let each = private_dirty(pid).saturating_sub(before) / RUNNING as u64;
    println!("{:<44} {:>9} KiB {:>12} {:>8}  ≤ 2048 KiB", "supervisor, private dirty, empty", before, "", "");
    println!("{:<44} {:>9} KiB {:>12} {:>8}  ≤ 100 KiB", "  and per running container", each, "", "");
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    bed.close().await;
}

/// In KiB.
fn private_dirty(pid: i32) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = smaps.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn logs() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let line = "x".repeat(1023);
    let script = format!(
        "i=0; while [ $i -lt 1024 ]; do echo {line}; i=$((i+1)); done >/tmp/1; \
         i=0; while [ $i -lt 64 ]; do cat /tmp/1; i=$((i+1)); done >/tmp/64; \
         i=0; while [ $i -lt {} ]; do cat /tmp/64; i=$((i+1)); done",
        LOG_MIB / 64
    );
    // What it takes without a log.
    let at = Instant::now();
    let id = bed.start(&sandbox, bed.script("none", &format!("{{ {script}; }} >/dev/null"))).await;
    bed.end(&id).await;
    let idle = at.elapsed();
    let at = Instant::now();
    let id = bed.start(&sandbox, bed.script("log", &script)).await;
    bed.end(&id).await;
    let rate = LOG_MIB as f64 * 1.048_576 / at.elapsed().saturating_sub(idle).as_secs_f64();
    println!("{:<44} {:>7.0} MB/s {:>12} {:>8}  ≥ 500 MB/s", "log, lines of 1 KB", rate, "", "");
    bed.engine.remove_container(&id).await.unwrap();
    bed.close().await;
}

async fn images() {
    let bed = Bed::new().await;
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    big_archive(&archive);
    let podman = installed("podman").then(|| Podman::new(dir.path()));
    let store = bed.engine.images().clone();
    let at = Instant::now();
    store.load_file(&archive).unwrap();
    let ours = at.elapsed();
    let theirs =
        podman.as_ref().map(|podman| ("podman", podman.time(&["load", "-q", "-i", archive.to_str().unwrap()])));
    row("load of a 200 MB image, 2,000 files", ours, theirs, "≥ 1.5");
    let context = dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    let text = "FROM localhost/big:1\nWORKDIR /app\nCOPY a /app/\nCOPY b /app/\nCMD [\"x\"]\n";
    for (file, content) in [("Dockerfile", text), ("a", "1"), ("b", "1")] {
        std::fs::write(context.join(file), content).unwrap();
    }
    let first = ours_built(&store, &context);
    let built =
        |podman: &Podman| ("podman", podman.time(&["build", "-q", "-t", "localhost/out", context.to_str().unwrap()]));
    let theirs = podman.as_ref().map(&built);
    row("build of two COPY layers", first, theirs, "");
    let cached = ours_built(&store, &context);
    row("cached rebuild", cached, podman.as_ref().map(&built), "≤ 100 ms");
    std::fs::write(context.join("b"), "2").unwrap();
    row("one changed COPY layer", ours_built(&store, &context), podman.as_ref().map(&built), "≤ 300 ms");
    drop(podman);
    pulls(&store, dir.path()).await;
    bed.close().await;
}

/// The same image out of a registry on this machine, into empty folders.
async fn pulls(store: &ImageStore, dir: &Path) {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = serde_json::json!({
        "version": "0.1", "log": {"level": "error"}, "http": {"addr": address},
        "storage": {"filesystem": {"rootdirectory": dir.join("registry")}},
    });
    let file = dir.join("registry.yml");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut registry) = command.spawn() else {
        println!("SKIPPED: no docker-registry on PATH");
        return;
    };
    while std::net::TcpStream::connect(&address).is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let name = format!("{address}/big:1");
    store.tag("localhost/big:1", &name).unwrap();
    store.push(&name, None).await.unwrap();
    let other = ImageStore::open(dir.join("other"), reeve_api::clock::RealClock::shared()).unwrap();
    let at = Instant::now();
    other.pull(&name, None).await.unwrap();
    let ours = at.elapsed();
    let podman = installed("podman").then(|| Podman::new(&dir.join("pulled")));
    let args = ["pull", "-q", "--tls-verify=false", &name];
    row("pull of it from a registry here", ours, podman.as_ref().map(|podman| ("podman", podman.time(&args))), "");
    registry.kill().unwrap();
    registry.wait().unwrap();
}

fn ours_built(store: &ImageStore, context: &Path) -> Duration {
    let request =
        BuildRequest { context: context.to_owned(), tags: vec!["localhost/out".to_owned()], ..Default::default() };
    let at = Instant::now();
    tokio::task::block_in_place(|| build(store, &request, &mut |_| {})).unwrap();
    at.elapsed()
}

/// podman with folders of its own.
struct Podman {
    root: std::path::PathBuf,
}

impl Podman {
    fn new(dir: &Path) -> Self {
        Self { root: dir.join("podman") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.root.join("root")).arg("--runroot").arg(self.root.join("run"));
        command.args(["--storage-driver", "overlay"]).args(args).stdout(Stdio::null());
        command
    }

    fn time(&self, args: &[&str]) -> Duration {
        let at = Instant::now();
        assert!(self.command(args).status().unwrap().success(), "podman {args:?}");
        at.elapsed()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rmi", "-a", "-f"]).status();
        for mount in ["root/overlay", "root"] {
            let _ = Command::new("umount").arg(self.root.join(mount)).stderr(Stdio::null()).status();
        }
    }
}

/// An archive as `docker save` makes it, of one layer that does not compress.
fn big_archive(path: &Path) {
    use sha2::{Digest as _, Sha256};
    let mut layer = tar::Builder::new(Vec::new());
    let mut state = 1_u64;
    for n in 0..IMAGE_FILES {
        let mut content = Vec::with_capacity(IMAGE_FILE_BYTES);
        while content.len() < IMAGE_FILE_BYTES {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            content.extend_from_slice(&state.to_le_bytes());
        }
        append(&mut layer, &format!("d{}/f{n}", n % 50), &content);
    }
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": reeve_engine::images::architecture(), "os": "linux", "config": {}, "history": [{"created_by": "bench"}],
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{:x}", Sha256::digest(&layer))]},
    });
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": ["localhost/big:1"], "Layers": ["l.tar"]}]);
    let mut archive = tar::Builder::new(std::fs::File::create(path).unwrap());
    let files =
        [("l.tar", layer), ("c.json", config.to_string().into()), ("manifest.json", manifest.to_string().into())];
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    archive.finish().unwrap();
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).unwrap();
}
