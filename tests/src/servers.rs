//! Servers of one control plane, each on a machine of its own as far as the network goes: a network namespace with one
//! link to a bridge, in a further namespace from which the tests look at them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::binary;
use crate::command::{Run, run};
use crate::patience::eventually;

/// Ends what runs in the namespaces, and takes them away, should the test itself be killed. `$0`: what their names
/// begin with.
const GUARD: &str = "read -r done && exit; for n in $(ip -o netns list | cut -d' ' -f1 | grep \"^$0-\"); do \
    ip netns pids $n | xargs -r kill -9; ip netns del $n; done";

/// The network of some servers, and their data; everything goes when it is dropped.
#[derive(Debug)]
pub struct Servers {
    tag: String,
    home: TempDir,
    guard: Child,
    all: Vec<Server>,
}

/// One server, running or not.
#[derive(Debug)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its address, `192.0.2.N`.
    pub address: String,
    child: Option<Child>,
    /// What its processes find in their environment besides.
    env: Vec<(String, String)>,
    /// Whose machine it is on.
    machine: String,
}

impl Servers {
    /// The network without a server.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn prepare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        binary::reeve();
        let tag = format!("rvs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let home = tempfile::Builder::new().prefix("reeve-servers-").tempdir().expect("a temporary folder");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, &tag]).process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let servers = Self { tag, home, guard: guard.spawn().expect("sh starts"), all: Vec::new() };
        let hub = servers.hub();
        servers.ip(&format!("netns add {hub}"));
        servers.ip(&format!("-n {hub} link set lo up"));
        servers.ip(&format!("-n {hub} link add br0 type bridge"));
        servers.ip(&format!("-n {hub} addr add 192.0.2.1/24 dev br0"));
        servers.ip(&format!("-n {hub} link set br0 up"));
        servers
    }

    /// The namespace that the tests look from.
    fn hub(&self) -> String {
        format!("{}-hub", self.tag)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    #[track_caller]
    #[allow(clippy::unused_self, reason = "part of the network")]
    fn ip(&self, arguments: &str) {
        run(Command::new("ip").args(arguments.split(' ')), "").done();
    }

    /// A machine for a server, which does not run yet.
    #[track_caller]
    pub fn add_machine(&mut self, name: &str) {
        let number = self.all.len() + 10;
        let (hub, own, address) = (self.hub(), self.namespace(name), format!("192.0.2.{number}"));
        self.ip(&format!("netns add {own}"));
        self.ip(&format!("-n {own} link add eth0 type veth peer name s{number} netns {hub}"));
        self.ip(&format!("-n {own} addr add {address}/24 dev eth0"));
        self.ip(&format!("-n {own} link set lo up"));
        self.ip(&format!("-n {own} link set eth0 up"));
        self.ip(&format!("-n {hub} link set s{number} master br0"));
        self.ip(&format!("-n {hub} link set s{number} up"));
        self.all.push(Server {
            name: name.to_owned(),
            address,
            child: None,
            env: Vec::new(),
            machine: name.to_owned(),
        });
    }

    /// Another server on the machine of that one, which does not run yet.
    pub fn share_machine(&mut self, name: &str, with: &str) {
        let (machine, address) = (self.server(with).machine.clone(), self.server(with).address.clone());
        self.all.push(Server { name: name.to_owned(), address, child: None, env: Vec::new(), machine });
    }

    /// Gives a machine another address, `192.0.2.NUMBER`. Its server must not run.
    #[track_caller]
    pub fn readdress_machine(&mut self, name: &str, number: u8) {
        let (own, address) = (self.namespace(name), format!("192.0.2.{number}"));
        self.ip(&format!("-n {own} addr flush dev eth0"));
        self.ip(&format!("-n {own} addr add {address}/24 dev eth0"));
        if let Some(server) = self.all.iter_mut().find(|server| server.name == name) {
            server.address = address;
        }
    }

    /// All servers, in the order of their machines.
    #[must_use]
    pub fn all(&self) -> &[Server] {
        &self.all
    }

    /// The server of that name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn server(&self, name: &str) -> &Server {
        self.all.iter().find(|server| server.name == name).expect("a server of that name")
    }

    /// Starts a server; it may have ended before it is up.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn spawn(&mut self, name: &str, arguments: &[&str]) {
        let machine = self.server(name).machine.clone();
        let (namespace, data, out) = (self.namespace(&machine), self.data_dir(name), self.out(name));
        let file = |path: PathBuf| File::options().create(true).append(true).open(path).expect("a log");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg(binary::reeve());
        let own_name = if arguments.contains(&"--name") { &[][..] } else { &["--name", name][..] };
        command.arg("server").args(own_name);
        if !arguments.contains(&"--data-dir") {
            command.arg("--data-dir").arg(data);
        }
        command.args(arguments);
        command.env_remove("KUBECONFIG").env_remove("REEVE_TOKEN").env("HOME", self.home.path());
        command.envs(self.server(name).env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(File::create(out).expect("a file")).stderr(file(self.log(name)));
        let child = command.spawn().expect("nsenter starts");
        let server = self.all.iter_mut().find(|server| server.name == name).expect("a server of that name");
        server.child = Some(child);
    }

    /// Gives a server's next processes a setting in their environment.
    pub fn set_env(&mut self, name: &str, key: &str, value: &str) {
        if let Some(server) = self.all.iter_mut().find(|server| server.name == name) {
            server.env.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Starts a server and waits until it is up.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(&mut self, name: &str, arguments: &[&str]) {
        self.spawn(name, arguments);
        self.up(name);
    }

    /// Waits until a server that was started says that it is up.
    ///
    /// # Panics
    /// When it does not, or ends.
    #[track_caller]
    #[allow(clippy::panic, reason = "the failure of the calling test")]
    pub fn up(&mut self, name: &str) {
        let out = self.out(name);
        let log = self.log(name);
        let child = self.all.iter_mut().find(|server| server.name == name).and_then(|server| server.child.as_mut());
        let Some(child) = child else { panic!("{name} was not started") };
        eventually(&format!("server {name}"), || {
            let text = std::fs::read_to_string(&out).unwrap_or_default();
            if text.contains("is up:") {
                return Ok(());
            }
            let ended = child.try_wait().ok().flatten();
            let tail = tail(&log);
            assert!(ended.is_none(), "{name} has ended: {ended:?}\n{tail}");
            Err(tail)
        });
    }

    /// What the first server has printed for the next one: `--join`, its address, `--token`, the token.
    ///
    /// # Panics
    /// When it has printed nothing.
    #[must_use]
    #[track_caller]
    pub fn join_arguments(&self, name: &str) -> Vec<String> {
        joining(&std::fs::read_to_string(self.out(name)).unwrap_or_default())
    }

    /// `kill -9`.
    pub fn kill(&mut self, name: &str) {
        if let Some(child) = self.all.iter_mut().find(|server| server.name == name).and_then(|s| s.child.as_mut()) {
            let _ = child.kill();
        }
        self.wait(name);
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str, signal: &str) {
        if let Some(child) = &self.server(name).child {
            let _ = run(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]), "");
        }
    }

    /// Waits until the server has ended; its exit code, if it had one.
    pub fn wait(&mut self, name: &str) -> Option<i32> {
        let server = self.all.iter_mut().find(|server| server.name == name);
        server.and_then(|server| server.child.take()).and_then(|mut child| child.wait().ok()?.code())
    }

    /// Whether the server runs, as far as the tests have started and killed it.
    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.server(name).child.is_some()
    }

    /// A server's data folder.
    #[must_use]
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A server's admin kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.data_dir(name).join("admin.kubeconfig")
    }

    /// A path beside the data of all servers.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}.out"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}.log"))
    }

    /// The end of a server's log.
    #[must_use]
    pub fn log_tail(&self, name: &str) -> String {
        tail(&self.log(name))
    }

    /// Runs a program where the tests look from.
    #[must_use]
    pub fn run(&self, program: &[&str]) -> Run {
        run(Command::new("nsenter").arg(format!("--net=/run/netns/{}", self.hub())).args(program), "")
    }

    /// Runs a program on a server's machine.
    #[must_use]
    pub fn run_on(&self, name: &str, program: &[&str]) -> Run {
        run(Command::new("nsenter").arg(format!("--net=/run/netns/{}", self.namespace(name))).args(program), "")
    }

    /// `reeve ARGS`, as administrator of that server.
    #[must_use]
    pub fn reeve(&self, server: &str, arguments: &[&str]) -> Run {
        let (program, kubeconfig) = (binary::reeve().to_string_lossy(), self.kubeconfig(server));
        let kubeconfig = kubeconfig.to_string_lossy();
        self.run(&[&[&*program, "--kubeconfig", &kubeconfig], arguments].concat())
    }

    /// `kubectl ARGS`, likewise.
    #[must_use]
    pub fn kubectl(&self, server: &str, arguments: &[&str]) -> Run {
        let (program, kubeconfig) = (binary::kubectl().to_string_lossy(), self.kubeconfig(server));
        let kubeconfig = kubeconfig.to_string_lossy();
        self.run(&[&[&*program, "--kubeconfig", &kubeconfig], arguments].concat())
    }

    /// The pin of the namespace that the tests look from, for [`enter`].
    #[must_use]
    pub fn pin(&self) -> String {
        format!("/run/netns/{}", self.hub())
    }
}

/// Puts this thread into a network namespace; sockets that it opens from then on are there.
///
/// # Panics
/// When the namespace cannot be entered.
#[track_caller]
#[allow(clippy::expect_used, reason = "the failure of the calling test")]
pub fn enter(pin: &str) {
    let file = File::open(pin).expect("the network namespace");
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering the namespace");
}

/// The arguments in a printed join command.
///
/// # Panics
/// When there is none.
#[must_use]
#[track_caller]
#[allow(clippy::panic, reason = "the failure of the calling test")]
pub fn joining(printed: &str) -> Vec<String> {
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("reeve server "));
    let Some(line) = line else { panic!("no join command in {printed:?}") };
    line.split(' ').map(str::to_owned).collect()
}

fn tail(path: &std::path::Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

impl Drop for Servers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in &self.all {
                eprintln!("--- the log of {}:\n{}", server.name, tail(&self.log(&server.name)));
            }
        }
        for child in self.all.iter_mut().filter_map(|server| server.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let names = self.all.iter().map(|server| self.namespace(&server.name)).chain([self.hub()]);
        for name in names.collect::<Vec<_>>() {
            let _ = run(Command::new("ip").args(["netns", "del", &name]), "");
        }
        let _ = self.guard.stdin.take().map(|mut stdin| stdin.write_all(b"done\n"));
        let _ = self.guard.wait();
    }
}

/// How long one request of a writer may take: longer than an election, shorter than a test.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
