//! Debian's containerd, started for the test with folders of its own.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reeve_engine::engine::{Engine as _, EngineError};

use crate::bed::{Bed, image_archive};
use crate::{client, prove_all};

/// Programs without which there is nothing to test.
const PROGRAMS: [&str; 3] = ["containerd", "ctr", "runc"];
/// Where Debian has CNI plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";
/// Addresses of the test's pods; nobody else's on a machine that runs tests.
const SUBNET: &str = "10.213.77.0/24";

/// A containerd of our own; ends with the value.
struct Containerd {
    child: Child,
    dir: PathBuf,
}

impl Containerd {
    fn start(dir: &Path) -> Self {
        let conf = dir.join("net.d");
        std::fs::create_dir_all(&conf).unwrap();
        let network = serde_json::json!({"cniVersion": "0.4.0", "name": "reeve-test", "plugins": [
            {"type": "ptp", "ipMasq": false,
             "ipam": {"type": "host-local", "subnet": SUBNET, "dataDir": dir.join("addresses")}}]});
        std::fs::write(conf.join("10-test.conflist"), network.to_string()).unwrap();
        let path = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {socket:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"docker.io/library/busybox:pause\"\n\
             restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {PLUGINS:?}\nconf_dir = {conf:?}\n",
            root = path("root"),
            state = path("state"),
            socket = path("containerd.sock"),
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("log")).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dir: dir.to_owned() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    fn ctr(&self, args: &[&str]) {
        let mut command = Command::new("ctr");
        let done = command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(args);
        let output = done.output().unwrap();
        assert!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.into_iter().any(|dir| dir.join(program).is_file())
}

pub(crate) async fn keeps_every_promise() {
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() || !Path::new(PLUGINS).join("ptp").exists() {
        println!("SKIPPED: needs containerd, runc and containernetworking-plugins; {missing:?} is missing");
        return;
    }
    let dir = Bed::folder();
    let containerd = Containerd::start(&dir);
    let archive = dir.join("busybox.tar");
    std::fs::write(&archive, image_archive()).unwrap();
    let engine = ready(&containerd, &dir).await;
    containerd.ctr(&["images", "import", "--all-platforms", &archive.display().to_string()]);
    std::fs::write(&archive, crate::bed::image_archive_of("busybox:pause", &["sleep", "1000000"])).unwrap();
    containerd.ctr(&["images", "import", "--all-platforms", &archive.display().to_string()]);
    prove_all(&engine, &dir).await;
    drop(engine);
    drop(containerd);
    remove_groups(&format!("reeve-test-{}", dir.file_name().unwrap().to_string_lossy()));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Removes the groups that containerd made around our pods and leaves, in every hierarchy there is.
fn remove_groups(name: &str) {
    fn remove(group: &Path) {
        for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        std::fs::remove_dir(group).unwrap_or_else(|err| panic!("{}: {err}", group.display()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let group = Path::new(line.split(' ').nth(4).unwrap()).join(name);
        if group.is_dir() {
            remove(&group);
        }
    }
}

/// A client once it answers.
async fn ready(containerd: &Containerd, dir: &Path) -> reeve_cri::client::CriEngine {
    let listens = || std::os::unix::net::UnixStream::connect(containerd.socket()).is_ok();
    crate::bed::eventually("containerd listens", listens).await;
    let engine = client(&containerd.socket(), dir).await;
    for _ in 0..100 {
        match engine.list_images().await {
            Ok(_) => return engine,
            Err(EngineError::Unsupported(_) | EngineError::Io { .. }) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("containerd's CRI does not begin: see {}", dir.join("log").display());
}
