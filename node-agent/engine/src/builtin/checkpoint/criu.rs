//! What CRIU is asked to do. Composing its arguments is pure; whether it works on this kernel it says itself.
//!
//! Source: criu(8); which mounts and files are external is as runc and crun tell it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::runtime::namespaces::unescape;

/// Where Debian has it, whatever `PATH` says.
const SBIN: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// How long CRIU may look at the kernel.
const CHECK_MAX: Duration = Duration::from_secs(10);
/// How much of what it says is told.
const LINES_MAX: usize = 4;
/// What is said where there is none.
pub(in crate::builtin) const MISSING: &str = "checkpoints need CRIU, and there is no criu in PATH";
/// What stands for the pod's network, which is not part of the checkpoint.
pub(in crate::builtin) const NETWORK: &str = "extRootNetNS";
/// Kinds of file systems that are a container's own, if nothing else shares them.
const OWN: [&str; 4] = ["proc", "sysfs", "devpts", "tmpfs"];

/// CRIU, if it is there and works on this kernel; else what a checkpoint needs that is not here.
pub(in crate::builtin) async fn find() -> Result<PathBuf, String> {
    let Some(criu) = look() else { return Err(MISSING.to_owned()) };
    let mut command = Command::new(&criu);
    command.arg("check").stdin(Stdio::null()).kill_on_drop(true);
    let why = match tokio::time::timeout(CHECK_MAX, command.output()).await {
        Err(_) => "it does not answer".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(output)) if output.status.success() => return Ok(criu),
        Ok(Ok(output)) => last_lines(&[output.stdout, output.stderr].concat(), |_| true),
    };
    Err(format!("checkpoints need CRIU, and {} check says: {why}", criu.display()))
}

/// CRIU, if it is there.
pub(in crate::builtin) fn look() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from));
    dirs.map(|dir| dir.join("criu")).find(|program| program.is_file())
}

/// The errors in its log, or else the end of what it printed.
pub(in crate::builtin) fn why_not(log: &[u8], printed: &[u8]) -> String {
    let errors = last_lines(log, |line| line.contains("Error"));
    if errors.is_empty() { last_lines(printed, |_| true) } else { errors }
}

fn last_lines(output: &[u8], is_wanted: impl Fn(&str) -> bool) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && is_wanted(line)).collect();
    lines.get(lines.len().saturating_sub(LINES_MAX)..).unwrap_or_default().join("; ")
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::builtin) struct MountLine {
    pub(in crate::builtin) id: u64,
    pub(in crate::builtin) parent: u64,
    pub(in crate::builtin) device: String,
    /// What of its file system is shown.
    pub(in crate::builtin) root: String,
    pub(in crate::builtin) target: String,
    pub(in crate::builtin) kind: String,
    pub(in crate::builtin) options: String,
}

impl MountLine {
    /// Whether it has an attribute (`ro`).
    pub(in crate::builtin) fn has(&self, attribute: &str) -> bool {
        self.options.split(',').any(|own| own == attribute)
    }
}

/// All lines that can be read.
pub(in crate::builtin) fn mount_lines(text: &str) -> Vec<MountLine> {
    let line = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let fields: Vec<&str> = head.split(' ').collect();
        Some(MountLine {
            id: fields.first()?.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            device: (*fields.get(2)?).to_owned(),
            root: unescape(fields.get(3)?).display().to_string(),
            target: unescape(fields.get(4)?).display().to_string(),
            options: (*fields.get(5)?).to_owned(),
            kind: tail.split(' ').next()?.to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// A file that a process of the container has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpenFile {
    /// The mount that it was opened through.
    pub(super) mount: u64,
    pub(super) inode: u64,
}

/// What is to be dumped.
#[derive(Debug)]
pub(super) struct Dump<'a> {
    /// The container's first process.
    pub(super) pid: i32,
    /// Where the images go.
    pub(super) images: &'a Path,
    /// The v2 group, which stands still already.
    pub(super) group: &'a Path,
    /// `/proc/PID/ns/net`, as a link: `net:[4026531840]`.
    pub(super) network: &'a str,
    /// What the container sees mounted.
    pub(super) mounts: &'a [MountLine],
    /// What the node sees mounted.
    pub(super) node: &'a [MountLine],
    /// Where things of the node or the pod are mounted in it, by what it was made from.
    pub(super) given: &'a BTreeSet<String>,
    /// What its processes have open by a path.
    pub(super) files: &'a BTreeSet<OpenFile>,
    /// Whether it has a terminal.
    pub(super) terminal: bool,
}

/// The arguments of `criu dump`.
pub(super) fn dump_arguments(dump: &Dump<'_>) -> Vec<String> {
    let mut arguments: Vec<String> = ["dump", "--leave-running", "--manage-cgroups=ignore", "--tcp-established"]
        .into_iter()
        .chain(["--network-lock", "nftables", "--file-locks", "--ext-unix-sk", "-v2", "--log-file", "dump.log"])
        .map(str::to_owned)
        .collect();
    if dump.terminal {
        arguments.push("--shell-job".to_owned());
    }
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    option("--tree", dump.pid.to_string());
    option("--images-dir", dump.images.display().to_string());
    option("--freeze-cgroup", dump.group.display().to_string());
    let network = dump.network.strip_prefix("net:").unwrap_or(dump.network);
    option("--external", format!("net{network}:{NETWORK}"));
    let external: BTreeSet<&str> =
        dump.mounts.iter().filter(|mount| is_external(mount, dump)).map(|mount| mount.target.as_str()).collect();
    for target in external {
        option("--external", format!("mnt[{target}]:{target}"));
    }
    // The container's own streams are such files: opened on the node, before it had mounts.
    for file in dump.files.iter().filter(|file| !dump.mounts.iter().any(|mount| mount.id == file.mount)) {
        option("--external", file_key(*file));
    }
    arguments
}

/// What CRIU calls a file that is not the container's, as restoring it needs to know.
pub(super) fn file_key(file: OpenFile) -> String {
    format!("file[{:x}:{:x}]", file.mount, file.inode)
}

/// Whether something is mounted in the container that it shares with its pod or its node.
fn is_external(mount: &MountLine, dump: &Dump<'_>) -> bool {
    let is_own = OWN.contains(&mount.kind.as_str())
        && !dump.given.contains(&mount.target)
        && !dump.node.iter().any(|shared| shared.device == mount.device);
    mount.target != "/" && !is_own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_criu_says_is_told_by_its_errors_or_by_its_last_lines() {
        assert_eq!(why_not(b"", b"a\n\n b\nc\nd\ne\n"), "b; c; d; e");
        assert_eq!(why_not(b"(0.1) x\n(0.2) Error (y)\n(0.3) z\n", b"a"), "(0.2) Error (y)");
        assert_eq!(why_not(b"", b""), "");
    }

    #[test]
    fn what_is_shared_with_pod_or_node_is_external_and_the_rest_is_not() {
        let container = mount_lines(
            "10 1 0:50 / / rw - overlay none rw\n\
             11 10 0:51 / /proc rw - proc none rw\n\
             12 10 0:52 / /dev rw - tmpfs none rw\n\
             13 12 0:53 / /dev/shm rw - tmpfs shm rw\n\
             14 12 0:54 / /dev/mqueue rw - mqueue none rw\n\
             15 10 254:0 /x /a\\040b rw shared:1 - ext4 /dev/vda rw\n\
             16 10 0:60 / /secret ro - tmpfs tmpfs rw\n\
             17 11 0:52 /null /proc/keys rw - tmpfs none rw\n",
        );
        let node = mount_lines("1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:60 / /pods/secret rw - tmpfs tmpfs rw\n");
        let own = OpenFile { mount: 10, inode: 3 };
        let stream = OpenFile { mount: 61, inode: 255 };
        let dump = Dump {
            pid: 7,
            images: Path::new("/images"),
            group: Path::new("/group"),
            network: "net:[99]",
            mounts: &container,
            node: &node,
            given: &["/dev/shm".to_owned()].into(),
            files: &[own, stream].into(),
            terminal: false,
        };
        let arguments = dump_arguments(&dump);
        let external: Vec<&str> =
            arguments.windows(2).filter(|two| two[0] == "--external").map(|two| two[1].as_str()).collect();
        let wanted = [
            "net[99]:extRootNetNS",
            "mnt[/a b]:/a b",
            "mnt[/dev/mqueue]:/dev/mqueue",
            "mnt[/dev/shm]:/dev/shm",
            "mnt[/secret]:/secret",
            "file[3d:ff]",
        ];
        assert_eq!(external, wanted);
        assert!(!arguments.contains(&"--shell-job".to_owned()));
        assert!(dump_arguments(&Dump { terminal: true, ..dump }).contains(&"--shell-job".to_owned()));
    }
}
