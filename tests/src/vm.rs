//! A small virtual machine of the distribution's own kernel on pure cgroup v2: for what the machine under the tests may
//! not have, and for power cuts.
//!
//! `deploy/scripts/vm.sh` makes what it boots from, `deploy/vm/` is what runs in it. Without KVM the processor is
//! emulated: a boot takes some ten seconds, and everything in it is ten times as slow.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use reeve_api::clock::{Clock as _, RealClock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::binary;
use crate::command::Run;
use crate::source::root;

/// Exit code of `vm.sh` where the machine cannot be made: a package or a tool cannot be had.
const CANNOT: i32 = 75;
/// Longest time for a boot, and for one script in the machine; an emulated processor on a busy machine is slow.
const BOOT_MAX: Duration = Duration::from_secs(180);
const SCRIPT_MAX: Duration = Duration::from_secs(240);
/// Ends a script on the wire; see `deploy/vm/agent`.
const END: &str = "%%%";
/// Emulated processors are threads of QEMU.
const PROCESSORS: &str = "2";
const MEMORY_MIB: &str = "1024";

/// A machine that is switched off: kernel and disk. Removed at the end.
#[derive(Debug)]
pub struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// Makes one with the program under test in it; `None`, and says why, where that is not possible.
    ///
    /// # Panics
    /// When it should be possible and fails.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn make() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("reeve-vm-").tempdir().expect("a temporary folder");
        let mut command = Command::new(root().join("deploy/scripts/vm.sh"));
        command.arg(binary::reeve()).arg(dir.path());
        // No bound on its time but the test's: it fetches a package.
        let made = command.output().expect("bash starts");
        let said = String::from_utf8_lossy(&made.stderr);
        if made.status.code() == Some(CANNOT) {
            eprintln!("SKIPPED: no virtual machine can be made here: {said}");
            return None;
        }
        assert!(made.status.success(), "vm.sh: {said}");
        Some(Self { dir })
    }

    /// Switches it on and waits until it takes commands.
    ///
    /// # Panics
    /// When it does not boot.
    #[track_caller]
    #[must_use]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn boot(&self) -> Vm {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", accelerator(), "-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY_MIB]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]);
        qemu.args(["-kernel", &path("kernel"), "-initrd", &path("initramfs.gz")]);
        qemu.args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off"]);
        qemu.args(["-drive", &format!("file={},format=raw,if=virtio", path("disk.img"))]);
        // The kernel's console, the commands, and what the machine reports on its own.
        qemu.args(["-serial", &format!("file:{}", path("console.log")), "-serial", "stdio"]);
        qemu.args(["-serial", &format!("file:{}", path("report"))]);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = qemu.spawn().expect("qemu starts");
        let (stdin, stdout) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        let mut vm = Vm { child, stdin, stdout, read: Vec::new(), console: self.dir.path().join("console.log") };
        let clock = RealClock::new();
        let deadline = clock.monotonic() + BOOT_MAX;
        while vm.line(&clock, deadline).trim() != "ready" {}
        vm
    }

    /// What the machine has written to its third serial port (`/dev/ttyS2`) since it was last switched on.
    #[must_use]
    pub fn report(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("report")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// KVM where the processor can virtualize; a `/dev/kvm` alone does not say so.
fn accelerator() -> &'static str {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let can = flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if can && std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok() { "kvm" } else { "tcg" }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    read: Vec<u8>,
    console: PathBuf,
}

impl Vm {
    /// Runs a shell script as root, in a session's scope. Standard output and error come together.
    ///
    /// # Panics
    /// When it does not end in time, or the machine dies.
    #[track_caller]
    #[must_use]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn run(&mut self, script: &str) -> Run {
        self.stdin.write_all(format!("{script}\n{END}\n").as_bytes()).expect("the machine listens");
        let clock = RealClock::new();
        let deadline = clock.monotonic() + SCRIPT_MAX;
        let answer = self.line(&clock, deadline);
        let (code, len) = answer.split_once(' ').expect("a code and a length");
        let len: usize = len.trim().parse().expect("a length");
        while self.read.len() < len {
            self.fill(&clock, deadline);
        }
        let rest = self.read.split_off(len);
        let text = std::mem::replace(&mut self.read, rest);
        let stdout = String::from_utf8_lossy(&text).into_owned();
        Run { command: script.to_owned(), code: code.parse().expect("a code"), stdout, stderr: String::new() }
    }

    /// What a script prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn sh(&mut self, script: &str) -> String {
        self.run(script).text()
    }

    /// The power goes: what was not on the disk is lost.
    ///
    /// # Panics
    /// When the process cannot be killed.
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn power_cut(mut self) {
        self.child.kill().expect("qemu can be killed");
        self.child.wait().expect("its end");
    }

    #[track_caller]
    fn line(&mut self, clock: &RealClock, deadline: Duration) -> String {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let line = std::mem::replace(&mut self.read, rest);
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            self.fill(clock, deadline);
        }
    }

    #[track_caller]
    #[allow(clippy::panic, clippy::expect_used, reason = "the failure of the calling test")]
    fn fill(&mut self, clock: &RealClock, deadline: Duration) {
        let left = deadline.saturating_sub(clock.monotonic());
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(1), tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&self.stdout.as_fd(), PollFlags::IN)], Some(&timeout));
        let mut chunk = [0; 16 << 10];
        let len = if ready == Ok(0) { 0 } else { self.stdout.read(&mut chunk).expect("the machine's answer") };
        if len == 0 {
            let said = String::from_utf8_lossy(&self.read).into_owned();
            panic!("the machine does not answer; it has said {said:?}; its console:\n{}", tail(&self.console));
        }
        self.read.extend_from_slice(chunk.get(..len).unwrap_or_default());
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
