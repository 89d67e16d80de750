//! A one-node cluster for tests: `reeve up --netns` with a home, a kubeconfig and a data folder of its own; taken down
//! and looked for remains at the end. A guard process takes it down should the test itself be killed.
#![allow(unsafe_code, reason = "`atexit`: statics are not dropped, and the shared cluster must go at the end")]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::command::{Run, run};
use crate::leftovers::Traces;
use crate::machine::Machine;
use crate::processes::{Process, all};
use crate::space::Space;

/// Names of the image that [`Cluster::up`] builds: busybox with all its commands, two names of one image.
pub const IMAGE: &str = "box:v1";
/// The same image, for rollouts.
pub const IMAGE_2: &str = "box:v2";

/// Commands that the image has, as links to busybox.
const COMMANDS: &[&str] = &[
    "cat", "chmod", "cp", "date", "dd", "echo", "env", "false", "grep", "head", "hostname", "httpd", "id", "kill",
    "ln", "ls", "mkdir", "mount", "mv", "nc", "nslookup", "ping", "ps", "pwd", "rm", "sh", "sleep", "stat", "stty",
    "tail", "test", "touch", "true", "tty", "wc", "wget", "yes",
];

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    home: TempDir,
    traces: Option<Traces>,
    guard: Option<Child>,
    /// The pin of the network namespace that it takes for the host's; `None` with `--netns`.
    machine: Option<String>,
}

impl Cluster {
    /// A cluster of this test alone. The tag becomes part of its name, which no other process uses.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    #[must_use]
    pub fn up(tag: &str) -> Self {
        Self::started(Self::prepare(tag))
    }

    /// The same without `--netns`, on a machine of the test's own.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    #[must_use]
    pub fn up_on(machine: &Machine, tag: &str) -> Self {
        Self::started(Self::prepare_on(Some(machine.pin()), tag))
    }

    #[track_caller]
    fn started(mut cluster: Self) -> Self {
        cluster.up_again().done();
        cluster.build_image();
        cluster.note_traces();
        cluster
    }

    /// Everything but the `up`.
    ///
    /// # Panics
    /// When there is no temporary folder.
    #[must_use]
    pub fn prepare(tag: &str) -> Self {
        Self::prepare_on(None, tag)
    }

    /// The same on a machine of the test's own.
    ///
    /// # Panics
    /// When there is no temporary folder.
    #[must_use]
    pub fn prepare_for(machine: &Machine, tag: &str) -> Self {
        Self::prepare_on(Some(machine.pin()), tag)
    }

    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    fn prepare_on(machine: Option<String>, tag: &str) -> Self {
        // Before there is anything to take down again.
        binary::reeve();
        let home = tempfile::Builder::new().prefix("reeve-e2e-").tempdir().expect("a temporary folder");
        let name = format!("e2e-{}-{tag}", std::process::id());
        let mut cluster = Self { name, home, traces: None, guard: None, machine };
        // Ends with its standard input, which ends with this process, however that ends.
        let mut guard = cluster.command("sh");
        guard.args(["-c", "read -r done || \"$0\" down --purge --name \"$1\" --data-dir \"$2\""]);
        guard.arg(binary::reeve()).arg(&cluster.name).arg(cluster.data_dir()).process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        cluster.guard = Some(guard.spawn().expect("sh starts"));
        cluster
    }

    /// The cluster that all tests of this process share, taken down at the end of the process.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            // SAFETY: the handler is a function of this program and unwinds nowhere.
            unsafe { libc::atexit(take_shared_down) };
            Self::up("all")
        })
    }

    /// A namespace for one test.
    ///
    /// # Panics
    /// When it exists already.
    #[track_caller]
    #[must_use]
    pub fn space(&self, name: &str) -> Space<'_> {
        Space::new(self, name)
    }

    /// A command with this cluster's surroundings: home, kubeconfig, nobody's sudo.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.machine {
            Some(_) => Command::new("nsenter"),
            None => Command::new(program.as_ref()),
        };
        if let Some(pin) = &self.machine {
            command.arg(format!("--net={pin}")).arg(program.as_ref());
        }
        command.env("HOME", self.home.path()).env("KUBECONFIG", self.kubeconfig());
        for name in ["SUDO_USER", "SUDO_UID", "SUDO_GID", "RUST_LOG", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        command.current_dir(self.home.path());
        command
    }

    /// `reeve up` for this cluster, the first time or again.
    #[must_use]
    pub fn up_again(&self) -> Run {
        run(&mut self.up_command(), "")
    }

    /// The command line of `reeve up` for this cluster, to be started by the caller.
    #[must_use]
    pub fn up_command(&self) -> Command {
        let mut command = self.command(binary::reeve());
        command.args(if self.machine.is_some() { &["up"][..] } else { &["up", "--netns"] });
        command.args(["--name", &self.name, "--data-dir"]).arg(self.data_dir());
        command
    }

    /// The command line of `reeve down` for this cluster.
    #[must_use]
    pub fn down_command(&self, purge: bool) -> Command {
        let mut command = self.command(binary::reeve());
        command.args(["down", "--name", &self.name, "--data-dir"]).arg(self.data_dir());
        if purge {
            command.arg("--purge");
        }
        command
    }

    /// `reeve down` for this cluster, its data kept.
    #[must_use]
    pub fn down(&self) -> Run {
        run(&mut self.down_command(false), "")
    }

    /// `reeve ARGS`
    #[must_use]
    pub fn reeve(&self, args: &[&str]) -> Run {
        run(self.command(binary::reeve()).args(args), "")
    }

    /// `kubectl ARGS`
    #[must_use]
    pub fn kubectl(&self, args: &[&str]) -> Run {
        self.kubectl_with(args, "")
    }

    /// `kubectl ARGS` with standard input.
    #[must_use]
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Run {
        run(self.command(binary::kubectl()).args(args), stdin)
    }

    /// Runs `work` in the node's network namespace, on a thread of its own.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `work` panics.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn in_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pin = self.network();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let file = std::fs::File::open(pin).expect("the node's network namespace");
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work()
            });
            inside.join().expect("what runs on the node")
        })
    }

    /// The pin of the node's network namespace.
    fn network(&self) -> PathBuf {
        self.machine.as_ref().map_or_else(|| self.run_dir().join("netns"), PathBuf::from)
    }

    /// Its data folder.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Its folder of what does not outlive the machine's uptime.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run/reeve").join(&self.name)
    }

    /// A folder of this test's own, for `hostPath` volumes and manifests.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The kubeconfig that its commands use.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// What its main process wrote down of it.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    #[must_use]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn state(&self) -> Value {
        let text = std::fs::read(self.run_dir().join("cluster.json")).expect("the state of a running cluster");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// The node's address.
    ///
    /// # Panics
    /// When the cluster does not run.
    #[track_caller]
    #[must_use]
    pub fn node_ip(&self) -> String {
        self.state()["nodeIp"].as_str().unwrap_or_default().to_owned()
    }

    /// The main process.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[track_caller]
    #[must_use]
    pub fn main_process(&self) -> Process {
        self.only("--background-child")
    }

    /// The supervisor of the containers.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[track_caller]
    #[must_use]
    pub fn supervisor(&self) -> Process {
        self.only(&format!("supervisor --run-dir {}/", self.run_dir().display()))
    }

    #[track_caller]
    #[allow(clippy::panic, reason = "the failure of the calling test")]
    fn only(&self, mark: &str) -> Process {
        let found = all(|process| process.command.contains(mark) && process.command.contains(&self.name));
        match found.as_slice() {
            [one] => one.clone(),
            other => panic!("{mark}: wanted one process, found {other:?}"),
        }
    }

    /// The end of the cluster's log, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.data_dir().join("reeve.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    /// Builds the test image under both its names, with `reeve build`.
    ///
    /// # Panics
    /// When that fails, or there is no static busybox here.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn build_image(&self) {
        let context = self.home.path().join("image");
        let bin = context.join("root/bin");
        std::fs::create_dir_all(&bin).expect("a folder for the image");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.expect("busybox-static is installed");
        std::fs::copy(busybox, bin.join("busybox")).expect("a copy of busybox");
        for command in COMMANDS {
            let link = bin.join(command);
            if !link.is_symlink() {
                std::os::unix::fs::symlink("busybox", link).expect("a link to busybox");
            }
        }
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY root/ /\nENV PATH=/bin FROM_IMAGE=yes\n")
            .expect("a Dockerfile");
        let (data_dir, context) = (self.data_dir(), context.to_string_lossy().into_owned());
        let data_dir = data_dir.to_string_lossy();
        let place = ["--name", &self.name, "--data-dir", &data_dir];
        let build = ["build", "--quiet", "-t", IMAGE, "-t", IMAGE_2];
        self.reeve(&[&build[..], &place, &[&context]].concat()).done();
    }

    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    fn note_traces(&mut self) {
        // On a machine's network others run too.
        let own = self.machine.is_none();
        let network = own.then(|| Arc::new(std::fs::File::open(self.network()).expect("the node's network namespace")));
        let index = self.state()["config"]["index"].as_u64().expect("the cluster's number");
        self.traces = Some(Traces { name: self.name.clone(), index, data_dir: self.data_dir(), network });
    }

    /// `reeve down --purge`; then everything that is left of it, one line each.
    #[must_use]
    pub fn purge(&self) -> (Run, Vec<String>) {
        let run = run(&mut self.down_command(true), "");
        let by_name = || Traces::of_name(&self.name, self.data_dir());
        (run, self.traces.clone().unwrap_or_else(by_name).left())
    }

    fn take_down(&mut self) -> Result<(), String> {
        let expected = self.data_dir().exists() || self.run_dir().exists();
        let (run, left) = self.purge();
        if let Some(guard) = &mut self.guard {
            use std::io::Write as _;
            let _ = guard.stdin.take().map(|mut stdin| stdin.write_all(b"done\n"));
            let _ = guard.wait();
        }
        if expected && run.code != 0 {
            return Err(run.to_string());
        }
        if left.is_empty() { Ok(()) } else { Err(format!("left behind by {}:\n  {}", self.name, left.join("\n  "))) }
    }
}

impl Drop for Cluster {
    #[allow(clippy::panic, reason = "the failure of the calling test")]
    fn drop(&mut self) {
        let outcome = self.take_down();
        match outcome {
            // The first failure is the one to tell.
            Err(text) if std::thread::panicking() => eprintln!("{text}"),
            Err(text) => panic!("{text}"),
            Ok(()) => {}
        }
    }
}

static SHARED: OnceLock<Cluster> = OnceLock::new();

/// Ends the shared cluster at the end of the process; remains are a failure of the whole run.
extern "C" fn take_shared_down() {
    let Some(shared) = SHARED.get() else { return };
    let (run, left) = shared.purge();
    let _ = std::fs::remove_dir_all(shared.home.path());
    if run.code == 0 && left.is_empty() {
        return;
    }
    eprintln!("the shared cluster: {run}\nleft behind:\n  {}", left.join("\n  "));
    // SAFETY: ends the process at once; nothing of it is needed any more.
    unsafe { libc::_exit(101) }
}
