//! Where a test's containers live: folders of its own, an engine, an image of Debian's busybox. Leaves nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_engine::builtin::{BuiltinEngine, EngineConfig};
use reeve_engine::engine::{Container, ContainerConfig, ContainerState, Engine as _, Sandbox, SandboxConfig};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

/// Programs of busybox that the image links.
const APPLETS: [&str; 33] = [
    "sh", "true", "false", "echo", "cat", "sleep", "ls", "id", "mount", "umount", "hostname", "env", "printf", "kill",
    "ps", "touch", "mkdir", "mknod", "stat", "grep", "wc", "seq", "dd", "tty", "stty", "unshare", "nc", "head",
    "chroot", "ip", "rm", "ln", "test",
];

/// A test's surroundings.
pub(crate) struct Bed {
    pub(crate) engine: BuiltinEngine,
    dir: PathBuf,
    cgroup_root: String,
    owner: bool,
}

impl Bed {
    /// A bed with an engine and the image `busybox`.
    pub(crate) async fn new() -> Self {
        Self::furnished(Self::folder()).await
    }

    /// A folder for a bed.
    pub(crate) fn folder() -> PathBuf {
        let dir = tempfile::Builder::new().prefix("reeve-rt-").tempdir().unwrap().keep();
        // Container users must be able to enter.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    /// An engine in that folder, and the image.
    pub(crate) async fn furnished(dir: PathBuf) -> Self {
        let bed = Self::at(dir).await;
        let archive = image_archive();
        bed.engine.images().load(archive.as_slice()).unwrap();
        bed
    }

    /// The engine of a folder that another bed or process made.
    pub(crate) async fn at(dir: PathBuf) -> Self {
        let cgroup_root = format!("reeve-test-{}", dir.file_name().unwrap().to_string_lossy());
        let engine = BuiltinEngine::open(config(&dir, &cgroup_root)).await.unwrap();
        Self { engine, dir, cgroup_root, owner: true }
    }

    /// Another engine on the same folders, as after the agent's death.
    pub(crate) async fn reopen(&self) -> BuiltinEngine {
        BuiltinEngine::open(config(&self.dir, &self.cgroup_root)).await.unwrap()
    }

    /// Name of the engine's group below each base.
    pub(crate) fn cgroup_root(&self) -> &str {
        &self.cgroup_root
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A sandbox with names and nothing special.
    pub(crate) async fn sandbox(&self) -> Sandbox {
        self.engine.run_pod_sandbox(self.sandbox_config()).await.unwrap()
    }

    pub(crate) fn sandbox_config(&self) -> SandboxConfig {
        SandboxConfig {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            uid: "u1".to_owned(),
            hostname: "web-0".to_owned(),
            cgroup: "kubepods/burstable/podu1".to_owned(),
            log_dir: self.dir.join("logs"),
            ..SandboxConfig::default()
        }
    }

    /// A container that runs a shell script.
    pub(crate) fn script(&self, name: &str, script: &str) -> ContainerConfig {
        self.command(name, &["sh", "-c", script])
    }

    pub(crate) fn command(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            name: name.to_owned(),
            image: self.engine.images().get("busybox").unwrap().unwrap().id,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: self.dir.join("logs").join(format!("{name}.log")),
            ..ContainerConfig::default()
        }
    }

    pub(crate) async fn start(&self, sandbox: &Sandbox, config: ContainerConfig) -> String {
        let id = self.engine.create_container(&sandbox.id, config).await.unwrap();
        self.engine.start_container(&id).await.unwrap();
        id
    }

    /// Waits for the end of a container; its exit code, reason and message.
    pub(crate) async fn end(&self, id: &str) -> (Option<i32>, String, String) {
        let container = wait_exit(&self.engine, id).await;
        match container.state {
            ContainerState::Exited { exit_code, reason, message, .. } => (exit_code, reason, message),
            state => panic!("{state:?}"),
        }
    }

    /// Runs a script in a sandbox of its own, and returns its exit code and output.
    pub(crate) async fn run(&self, config: ContainerConfig) -> (i32, String) {
        let sandbox = self.sandbox().await;
        let log = config.log_path.clone();
        let _ = std::fs::remove_file(&log);
        let id = self.start(&sandbox, config).await;
        let (code, ..) = self.end(&id).await;
        let text = log_text(&log);
        self.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
        (code.unwrap(), text)
    }

    /// Ends everything and proves that nothing is left.
    pub(crate) async fn close(mut self) {
        self.owner = false;
        self.engine.purge().await.unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.to_string_lossy().into_owned();
        assert!(!mounts.contains(&dir), "mounts are left: {mounts}");
        for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            let point = line.split(' ').nth(4).unwrap();
            let left = Path::new(point).join(&self.cgroup_root);
            assert!(!left.exists(), "{} is left", left.display());
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.owner {
            eprintln!("left for inspection: {}", self.dir.display());
        }
    }
}

fn config(dir: &Path, cgroup_root: &str) -> EngineConfig {
    EngineConfig {
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        cgroup_root: cgroup_root.to_owned(),
        supervisor_program: "/proc/self/exe".into(),
        ends_with_engine: false,
        hook_dirs: vec![dir.join("hooks.d")],
        clock: RealClock::shared(),
        rng: SeededRng::shared(),
    }
}

/// Waits for a container's end through the engine's events.
async fn wait_exit(engine: &BuiltinEngine, id: &str) -> Container {
    let mut events = engine.events();
    let now = engine.container_status(id).await.unwrap();
    if matches!(now.state, ContainerState::Exited { .. }) {
        return now;
    }
    while let Some(event) = events.next().await {
        if event.container.id == id && matches!(event.container.state, ContainerState::Exited { .. }) {
            return event.container;
        }
    }
    panic!("the events ended");
}

/// Waits until something holds, at most ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}

/// A log's content without its stamps and tags.
pub(crate) fn log_text(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| {
            let mut fields = line.splitn(4, ' ');
            let tag = fields.nth(2).unwrap_or_default();
            let content = fields.next().unwrap_or_default();
            if tag == "F" { format!("{content}\n") } else { content.to_owned() }
        })
        .collect()
}

/// Reads a stream to its end.
pub(crate) async fn read_all(stream: Option<reeve_engine::engine::OutputStream>) -> String {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut text).await.unwrap();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The image `busybox`, as an archive in `docker save`'s format.
pub(crate) fn image_archive() -> Vec<u8> {
    image_archive_of("busybox:latest", &["sh"])
}

/// The same under another name, with another command.
pub(crate) fn image_archive_of(name: &str, command: &[&str]) -> Vec<u8> {
    image_archive_with(name, command, &[layer()])
}

/// An image of these layers, lowest first.
pub(crate) fn image_archive_with(name: &str, command: &[&str], layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{:x}", Sha256::digest(layer))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let files: Vec<String> = (0..layers.len()).map(|number| format!("layer{number}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": files}]);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, layer) in files.iter().zip(layers) {
        append(&mut tar, name, layer, 0o644);
    }
    append(&mut tar, "config.json", &serde_json::to_vec(&config).unwrap(), 0o644);
    append(&mut tar, "manifest.json", &serde_json::to_vec(&manifest).unwrap(), 0o644);
    tar.into_inner().unwrap()
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for dir in ["bin/", "etc/", "proc/", "tmp/", "home/app/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if dir == "tmp/" { 0o1777 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, dir, std::io::empty()).unwrap();
    }
    append(&mut tar, "bin/busybox", &std::fs::read("/bin/busybox").expect("busybox-static is installed"), 0o755);
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    append(&mut tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n", 0o644);
    append(&mut tar, "etc/group", b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n", 0o644);
    append(&mut tar, "etc/secret", b"no program\n", 0o600);
    // An image may point its own paths anywhere; nothing outside may be touched through them.
    append_link(&mut tar, "escape", "../../../../../../tmp");
    append_link(&mut tar, "etc/dangling", "../reeve-absent/deep/file");
    append_link(&mut tar, "hollow", "/reeve-absent/folder");
    append_link(&mut tar, "round", "round");
    tar.into_inner().unwrap()
}

pub(crate) fn append_link(tar: &mut tar::Builder<Vec<u8>>, name: &str, to: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, name, to).unwrap();
}

pub(crate) fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes).unwrap();
}
