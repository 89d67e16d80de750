//! A machine of a test's own, as far as the network goes: a network namespace with one link and a default route, and a
//! neighbour behind it. A cluster without `--netns` in it takes it for the host's.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::command::{Run, run};

/// The machine's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The neighbour's, which is the machine's gateway too.
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Takes the network namespaces away should the test itself be killed: after the guards of its clusters, which need
/// them, had a minute.
const GUARD: &str = "read -r done && exit; n=0; \
    while ls -d /run/reeve/e2e-$0-* >/dev/null 2>&1 && [ $n -lt 60 ]; do n=$((n + 1)); sleep 1; done; \
    ip netns del $1; ip netns del $2";

/// The machine and its neighbour; both go when it is dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    guard: Child,
}

impl Machine {
    /// A fresh one, with forwarding on, as on a machine that has run containers before: `down` leaves that on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        let name = format!("rvm-{process}-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, &process.to_string(), &name, &format!("{name}-out")]).process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let machine = Self { name, guard: guard.spawn().expect("sh starts") };
        let (own, other) = (&machine.name, machine.neighbour());
        let steps = [
            format!("ip netns add {own}"),
            format!("ip netns add {other}"),
            format!("ip -n {own} link add eth0 type veth peer name eth0 netns {other}"),
            format!("ip -n {own} addr add {ADDRESS}/24 dev eth0"),
            format!("ip -n {other} addr add {NEIGHBOUR}/24 dev eth0"),
            format!("ip -n {own} link set lo up"),
            format!("ip -n {own} link set eth0 up"),
            format!("ip -n {other} link set lo up"),
            format!("ip -n {other} link set eth0 up"),
            format!("ip -n {own} route add default via {NEIGHBOUR}"),
        ];
        for step in steps {
            let words: Vec<&str> = step.split(' ').collect();
            run(Command::new(words[0]).args(&words[1..]), "").done();
        }
        machine.run(&["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]).done();
        machine
    }

    fn neighbour(&self) -> String {
        format!("{}-out", self.name)
    }

    /// The file that the network namespace is pinned at.
    #[must_use]
    pub fn pin(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a program on the machine.
    #[must_use]
    pub fn run(&self, program: &[&str]) -> Run {
        enter(&self.pin(), program)
    }

    /// Runs a program at the neighbour's.
    #[must_use]
    pub fn run_outside(&self, program: &[&str]) -> Run {
        enter(&format!("/run/netns/{}", self.neighbour()), program)
    }

    /// Does something in the neighbour's network, on a thread of its own.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `work` panics.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pin = format!("/run/netns/{}", self.neighbour());
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let file = std::fs::File::open(pin).expect("the neighbour's network namespace");
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work()
            });
            inside.join().expect("what runs at the neighbour's")
        })
    }

    /// Everything of the network that a cluster changes, in words.
    #[must_use]
    pub fn network(&self) -> String {
        let looks: [&[&str]; 6] = [
            &["ip", "-o", "link"],
            &["ip", "-o", "-4", "addr"],
            &["ip", "-4", "route", "show", "table", "all"],
            &["ip", "rule"],
            &["nft", "list", "ruleset"],
            &[
                "sh",
                "-c",
                "cd /proc/sys/net && grep -s . ipv4/ip_* ipv4/conf/*/* ipv4/neigh/*/* netfilter/*_max netfilter/*_timeout*",
            ],
        ];
        looks.iter().map(|look| self.run(look).stdout).collect::<Vec<_>>().join("---\n")
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

fn enter(pin: &str, program: &[&str]) -> Run {
    run(Command::new("nsenter").arg(format!("--net={pin}")).args(program), "")
}

impl Drop for Machine {
    fn drop(&mut self) {
        for name in [self.neighbour(), self.name.clone()] {
            let _ = run(Command::new("ip").args(["netns", "del", &name]), "");
        }
        let _ = self.guard.stdin.take().map(|mut stdin| stdin.write_all(b"done\n"));
        let _ = self.guard.wait();
    }
}
