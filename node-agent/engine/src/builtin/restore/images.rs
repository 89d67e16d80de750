//! Judges CRIU's images before CRIU sees them. Pure.
//!
//! CRIU does with root's rights what its images say: it mounts what they name and makes files in it. So only kinds of
//! images are let through that bear on the container alone, and of mounts only fresh ones of the kinds that every
//! container has, and those that are taken from the new container's own. Who the processes are is seen when they are
//! there ([`super::judge`]).
//!
//! Source: github.com/checkpoint-restore/criu, "images/" and "criu/include/magic.h".

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::protobuf::{Message, Value, fields};
use crate::runtime::root::normalize;
use crate::supervisor::plan::BpfProgram;

/// First word of an image.
const COMMON_MAGIC: u32 = 0x5456_4319;
const MOUNTS_MAGIC: u32 = 0x5556_3928;
const SECCOMP_MAGIC: u32 = 0x6441_3049;
const UTS_MAGIC: u32 = 0x5447_3203;
const IPC_MAGIC: u32 = 0x5311_5007;
const IDS_MAGIC: u32 = 0x5443_2030;
const INVENTORY_MAGIC: u32 = 0x5831_3116;
/// What CRIU calls kinds of file systems that may be mounted anew.
const PROC: u64 = 1;
const SYSFS: u64 = 2;
const TMPFS: u64 = 5;
const DEVPTS: u64 = 6;
const MQUEUE: u64 = 14;
/// A mount's flag (mount(2)).
const MS_RDONLY: u64 = 1;
/// Kinds of images: what is in front of numbers and `.img`.
const KINDS: [&str; 55] = [
    "cgroup",
    "core",
    "creds",
    "eventfd",
    "eventpoll",
    "eventpoll-tfd",
    "fanotify",
    "fanotify-mark",
    "fdinfo",
    "fifo",
    "fifo-data",
    "filelocks",
    "files",
    "fs",
    "ghost-file",
    "ids",
    "inetsk",
    "inotify",
    "inotify-wd",
    "inventory",
    "ipcns-msg",
    "ipcns-sem",
    "ipcns-shm",
    "ipcns-var",
    "itimers",
    "memfd",
    "mm",
    "mountpoints",
    "netlinksk",
    "netns",
    "ns-files",
    "pagemap",
    "pagemap-shmem",
    "pages",
    "pages-shmem",
    "pidns",
    "pipes",
    "pipes-data",
    "posix-timers",
    "pstree",
    "reg-files",
    "remap-fpath",
    "rlimit",
    "seccomp",
    "sigacts",
    "signal-p",
    "signal-s",
    "signalfd",
    "sk-queues",
    "tcp-stream",
    "timens",
    "timerfd",
    "tmpfs-dev",
    "unixsk",
    "utsns",
];

/// Whether an image of that name may be shown to CRIU.
pub(super) fn is_known(name: &str) -> bool {
    let stem = name.strip_suffix(".img").map(|stem| stem.strip_suffix(".tar.gz").unwrap_or(stem));
    let Some(mut stem) = stem else { return false };
    while let Some((front, number)) = stem.rsplit_once('-') {
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            break;
        }
        stem = front;
    }
    KINDS.contains(&stem)
}

/// The messages of an image with this magic number; `None` when it is none.
fn entries(image: &[u8], magic: u32) -> Option<Vec<&[u8]>> {
    let (first, mut rest) = image.split_first_chunk::<4>()?;
    // The inventory has its own number only.
    let mut first = *first;
    if magic != INVENTORY_MAGIC {
        let (second, behind) = rest.split_first_chunk::<4>()?;
        if u32::from_le_bytes(first) != COMMON_MAGIC {
            return None;
        }
        (first, rest) = (*second, behind);
    }
    if u32::from_le_bytes(first) != magic {
        return None;
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (len, behind) = rest.split_first_chunk::<4>()?;
        let (entry, behind) = behind.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        entries.push(entry);
        rest = behind;
    }
    Some(entries)
}

/// A mount of a checkpoint.
#[derive(Debug, Default)]
struct Mount {
    kind: u64,
    id: u64,
    parent: u64,
    root: String,
    target: String,
    flags: u64,
    key: Option<String>,
    is_external: bool,
    has_plugin: bool,
}

impl Mount {
    /// Whether CRIU may mount it anew. What is shown of a file system must not be a way out of it: in proc there are
    /// links to processes' roots.
    fn is_fresh(&self) -> bool {
        let first = self.root.split('/').nth(1).unwrap_or_default();
        let is_process = first.starts_with(|c: char| c.is_ascii_digit()) || first == "self" || first == "thread-self";
        let is_inside = normalize(&self.root) == self.root;
        match self.kind {
            PROC => is_inside && !is_process,
            SYSFS | TMPFS => is_inside,
            DEVPTS | MQUEUE => self.root == "/",
            _ => false,
        }
    }

    /// The last of several fields of one number counts, as for CRIU.
    fn read(entry: &[u8]) -> Option<Self> {
        let mut mount = Self::default();
        for (field, value) in fields(entry)? {
            let text = |value: Value<'_>| Some(std::str::from_utf8(value.bytes()?).ok()?.to_owned());
            match field {
                1 => mount.kind = value.number()?,
                2 => mount.id = value.number()?,
                4 => mount.parent = value.number()?,
                5 => mount.flags = value.number()?,
                6 => mount.root = text(value)?,
                7 => mount.target = text(value)?,
                12 => mount.has_plugin = value.number()? != 0,
                13 => mount.is_external = value.number()? != 0,
                18 => mount.key = Some(text(value)?),
                _ => {}
            }
        }
        Some(mount)
    }
}

/// What mount images are to have mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mounts {
    /// Everywhere in the container.
    pub(super) targets: BTreeSet<String>,
    /// Where it is the new container's own, and whether read-only.
    pub(super) external: BTreeMap<String, bool>,
    /// Paths within fresh file systems that are mounted themselves, or upon: no link may lead away from them.
    pub(super) plain: BTreeSet<PathBuf>,
}

impl Mounts {
    /// Adds those of an image. The error says what is wrong with it.
    pub(super) fn add(&mut self, image: &[u8]) -> Result<(), String> {
        let broken = || "its mounts cannot be read".to_owned();
        let entries = entries(image, MOUNTS_MAGIC).ok_or_else(broken)?;
        let mounts: Vec<Mount> = entries.into_iter().map(Mount::read).collect::<Option<_>>().ok_or_else(broken)?;
        let ids: BTreeSet<u64> = mounts.iter().map(|mount| mount.id).collect();
        if ids.len() != mounts.len() {
            return Err("two of its mounts have one number".to_owned());
        }
        let (roots, mounts): (Vec<Mount>, Vec<Mount>) =
            mounts.into_iter().partition(|mount| !ids.contains(&mount.parent));
        let is_plain = |root: &Mount| root.target == "/" && root.key.is_none() && !root.is_external && !root.has_plugin;
        if roots.len() != 1 || !roots.iter().all(is_plain) {
            return Err("its mounts are not below one root".to_owned());
        }
        for mount in &mounts {
            self.add_mount(mount)?;
        }
        for fresh in mounts.iter().filter(|mount| mount.kind == TMPFS) {
            let inside = mounts.iter().filter_map(|mount| Path::new(&mount.target).strip_prefix(&fresh.target).ok());
            let shown = Path::new(&fresh.root).strip_prefix("/").ok();
            self.plain.extend(inside.chain(shown).filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned));
        }
        Ok(())
    }

    fn add_mount(&mut self, mount: &Mount) -> Result<(), String> {
        let target = &mount.target;
        if normalize(target) != *target || target == "/" {
            return Err(format!("{target:?} is no place for a mount"));
        }
        self.targets.insert(target.clone());
        let key = match (&mount.key, mount.is_external, mount.has_plugin) {
            (Some(key), false, false) => key,
            // As CRIU before 3.17 writes it.
            (None, true, false) => &mount.root,
            (None, false, false) if mount.is_fresh() => return Ok(()),
            _ => return Err(format!("what it has mounted at {target} cannot be mounted again (kind {})", mount.kind)),
        };
        if key != target || is_forbidden(key) {
            return Err(format!("it wants {key} of the node at {target}"));
        }
        let read_only = mount.flags & MS_RDONLY != 0;
        self.external.entry(key.clone()).and_modify(|all| *all &= read_only).or_insert(read_only);
        Ok(())
    }
}

/// The new container's own ones of these are the node's until it is there.
fn is_forbidden(key: &str) -> bool {
    let is_below = |folder: &str| key.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !key.starts_with('/')
        || key.contains(']')
        || key.split('/').any(|part| part == "..")
        || is_below("/proc")
        || key == "/sys"
        || is_below("/sys/firmware")
        || is_below("/dev/pts")
}

/// Numbers of the namespaces that a process was in: mount, PID, user, network.
fn namespaces(message: &[u8]) -> Option<[u64; 4]> {
    let fields = fields(message)?;
    // What is not said is 0, for CRIU too.
    let last = |wanted| fields.iter().rev().find(|(field, _)| *field == wanted).map_or(Some(0), |(_, v)| v.number());
    Some([last(9)?, last(5)?, last(10)?, last(6)?])
}

/// Checks that processes are to be made in mount and PID namespaces of the container's own, all in the same, and in the
/// node's user namespace: what CRIU does in its own mount namespace it does to the node. The same goes for the network,
/// where the container has another than the node.
pub(super) fn check_namespaces(inventory: &[u8], processes: &[Vec<u8>], own_network: bool) -> Result<(), String> {
    let broken = || "its namespaces cannot be read".to_owned();
    let only = |image, magic| match entries(image, magic)?.as_slice() {
        [entry] => Some(*entry),
        _ => None,
    };
    let inventory = only(inventory, INVENTORY_MAGIC).and_then(fields).ok_or_else(broken)?;
    let mut outside = inventory.iter().filter(|(field, _)| *field == 3);
    let (Some((_, outside)), None) = (outside.next(), outside.next()) else { return Err(broken()) };
    let [mounts, pids, users, network] = outside.bytes().and_then(namespaces).ok_or_else(broken)?;
    let inside = processes.iter().map(|image| namespaces(only(image, IDS_MAGIC)?));
    let inside: BTreeSet<[u64; 4]> = inside.collect::<Option<_>>().ok_or_else(broken)?;
    match inside.into_iter().collect::<Vec<_>>().as_slice() {
        [own] if own_network && own[3] == network => Err("its processes were in the node's network".to_owned()),
        [own] if own[0] != mounts && own[1] != pids && own[2] == users => Ok(()),
        [own] if own[2] != users => Err("it has users of its own".to_owned()),
        [_] => Err("its processes were not in mount and PID namespaces of their own".to_owned()),
        _ => Err("its processes were in several mount, PID, user or network namespaces".to_owned()),
    }
}

/// What a pod's IPC namespace allows, as files below /proc/sys; several numbers are several values. In CRIU's order,
/// from its field 1 on.
pub(super) const IPC_LIMITS: [&str; 14] = [
    "kernel/sem",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/auto_msgmni",
    "kernel/shmmax",
    "kernel/shmall",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "fs/mqueue/queues_max",
    "fs/mqueue/msg_max",
    "fs/mqueue/msgsize_max",
    "fs/mqueue/msg_default",
    "fs/mqueue/msgsize_default",
];

/// What CRIU is to make of the pod's IPC namespace: what it is.
pub(super) fn ipc_limits(limits: &[Vec<u64>]) -> Vec<u8> {
    let fields = limits.iter().zip(1..).flat_map(|(values, field)| values.iter().map(move |value| (field, *value)));
    let entry = fields.fold(Message::default(), |entry, (field, value)| entry.number(field, value));
    image(IPC_MAGIC, &entry.into_bytes())
}

/// What CRIU is to call the pod: what it is called.
pub(super) fn host_name(name: &str, domain: &str) -> Vec<u8> {
    image(UTS_MAGIC, &Message::default().text(1, name).text(2, domain).into_bytes())
}

fn image(magic: u32, entry: &[u8]) -> Vec<u8> {
    let len = u32::try_from(entry.len()).unwrap_or_default();
    [&COMMON_MAGIC.to_le_bytes()[..], &magic.to_le_bytes(), &len.to_le_bytes(), entry].concat()
}

/// Whether every process that has a filter at all has this one beneath all others.
pub(super) fn is_filtered_by(image: &[u8], wanted: &BpfProgram) -> bool {
    let Some(entries) = entries(image, SECCOMP_MAGIC) else { return false };
    let filters = entries.iter().map(|entry| fields(entry)).collect::<Option<Vec<_>>>();
    let Some(filters) = filters else { return false };
    filters.into_iter().flatten().filter(|(field, _)| *field == 1).all(|(_, value)| {
        let Some(filter) = value.bytes().and_then(fields) else { return false };
        let last = |wanted: u64| filter.iter().rev().find(|(field, _)| *field == wanted).map(|(_, value)| *value);
        // One with a predecessor stands upon another.
        last(2).is_some() || last(1).and_then(Value::bytes) == Some(wanted.0.as_slice())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn several(magic: u32, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut image = [COMMON_MAGIC.to_le_bytes(), magic.to_le_bytes()].concat();
        for entry in entries {
            image.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
            image.extend(entry);
        }
        image
    }

    fn mount(kind: u64, id: u64, parent: u64, target: &str) -> Message {
        let head = Message::default().number(1, kind).number(2, id).number(3, 1).number(4, parent).number(5, 0);
        head.text(6, "/").text(7, target).text(8, "none").text(9, "")
    }

    fn judged(mounts: Vec<Message>) -> Result<Vec<String>, String> {
        let mounts: Vec<Vec<u8>> = mounts.into_iter().map(Message::into_bytes).collect();
        let mut all = Mounts::default();
        all.add(&several(MOUNTS_MAGIC, &mounts)).map(|()| all.external.into_keys().collect())
    }

    #[test]
    fn only_images_that_bear_on_the_container_are_let_through() {
        for name in [
            "core-1.img",
            "ids-16.img",
            "tmpfs-dev-45.tar.gz.img",
            "pages-1.img",
            "ghost-file-a3.img",
            "inventory.img",
            "fifo-data.img",
            "pagemap-shmem-12.img",
            "signal-s-4.img",
        ] {
            assert!(is_known(name), "{name}");
        }
        for name in [
            "iptables-9.img",
            "netdev-9.img",
            "bpfmap-data.img",
            "binfmt-misc-3.tar.gz.img",
            "apparmor.img",
            "userns-7.img",
            "tty.img",
            "amdgpu-1.img",
            "core-1",
            "../core-1.img",
            "parent",
            ".img",
            "-1.img",
            "",
        ] {
            assert!(!is_known(name), "{name}");
        }
    }

    #[test]
    fn mounts_are_fresh_ones_or_the_new_containers() {
        let root = || mount(17, 1, 99, "/");
        let volume = || mount(0, 2, 1, "/vol").text(18, "/vol");
        let old = Message::default().number(1, 0).number(2, 4).number(4, 1).text(6, "/old").text(7, "/old").flag(13);
        let wanted = Ok(vec!["/old".to_owned(), "/vol".to_owned()]);
        assert_eq!(judged(vec![root(), volume(), mount(1, 3, 1, "/proc"), old]), wanted);
        let refused = |mounts: Vec<Message>| judged(mounts).unwrap_err();
        for kind in [0, 3, 4, 9, 11, 12, 15, 16, 17, 19, 23, 77] {
            let why = refused(vec![root(), mount(kind, 2, 1, "/x")]);
            assert_eq!(why, format!("what it has mounted at /x cannot be mounted again (kind {kind})"));
        }
        assert!(refused(vec![root(), volume().flag(12)]).contains("/vol"));
        assert!(refused(vec![root(), volume().flag(13)]).contains("/vol"), "both ways of saying it");
        for key in ["/proc", "/proc/1", "/sys", "/dev/pts", "etc", "/vol/../proc", "/sys/firmware"] {
            let why = refused(vec![root(), mount(0, 2, 1, "/vol").text(18, key)]);
            assert_eq!(why, format!("it wants {key} of the node at /vol"));
        }
        let why = refused(vec![root(), mount(0, 2, 1, "/vol").text(18, "/other")]);
        assert_eq!(why, "it wants /other of the node at /vol");
        for target in ["/a/../proc", "a", "/a/", "//a"] {
            assert!(refused(vec![root(), mount(5, 2, 1, target)]).ends_with("is no place for a mount"), "{target}");
        }
        for (kind, inner) in [(1, "/1/root"), (1, "/self/root"), (5, "/a/../.."), (6, "/0"), (14, "/x")] {
            assert!(refused(vec![root(), mount(kind, 2, 1, "/x").text(6, inner)]).contains("/x"), "{kind} {inner}");
        }
        let two = "its mounts are not below one root";
        assert_eq!(refused(vec![root(), mount(17, 2, 98, "/")]), two);
        assert_eq!(refused(vec![mount(17, 1, 99, "/x"), mount(17, 2, 1, "/")]), two, "the one at / is no root");
        assert_eq!(refused(vec![]), two);
        assert_eq!(refused(vec![root(), mount(5, 1, 1, "/x")]), "two of its mounts have one number");
        assert_eq!(refused(vec![root().text(18, "/vol")]), two);
    }

    #[test]
    fn processes_are_made_in_namespaces_of_their_own() {
        let ids = |own: [u64; 3]| {
            Message::default().number(9, own[0]).number(5, own[1]).number(10, own[2]).number(6, own[0] + 50)
        };
        let inventory = |outside: &Message| {
            let entry = Message::default().number(1, 2).message(3, outside).into_bytes();
            [&INVENTORY_MAGIC.to_le_bytes()[..], &u32::try_from(entry.len()).unwrap().to_le_bytes(), &entry].concat()
        };
        let node = inventory(&ids([6, 1, 7]));
        let process = |own| several(IDS_MAGIC, &[ids(own).into_bytes()]);
        let judged =
            |all: &[[u64; 3]]| check_namespaces(&node, &all.iter().map(|own| process(*own)).collect::<Vec<_>>(), true);
        assert_eq!(judged(&[[13, 9, 7], [13, 9, 7]]), Ok(()));
        assert_eq!(judged(&[[13, 9, 8]]).unwrap_err(), "it has users of its own");
        assert!(judged(&[[13, 1, 7]]).unwrap_err().contains("not in mount and PID namespaces of their own"));
        assert!(judged(&[[6, 9, 7]]).unwrap_err().contains("were in the node's network"));
        let on_the_nodes = check_namespaces(&node, &[process([6, 9, 7])], false).unwrap_err();
        assert!(on_the_nodes.contains("not in mount and PID namespaces of their own"));
        assert!(judged(&[[13, 9, 7], [14, 9, 7]]).unwrap_err().contains("several"));
        assert!(judged(&[[13, 9, 7], [6, 9, 7]]).is_err());
        assert!(judged(&[]).is_err());
        let twice = several(IDS_MAGIC, &[ids([13, 9, 7]).into_bytes(), ids([6, 1, 7]).into_bytes()]);
        assert!(check_namespaces(&node, &[twice], true).unwrap_err().contains("cannot be read"));
        assert!(check_namespaces(b"", &[process([13, 9, 7])], true).is_err());
    }

    #[test]
    fn the_pods_names_and_limits_are_written_as_criu_reads_them() {
        let named = host_name("count", "(none)");
        assert_eq!(named, b"\x19CVT\x032GT\x0f\0\0\0\x0a\x05count\x12\x06(none)");
        let limits = ipc_limits(&[vec![32000, 5], vec![8192]]);
        assert_eq!(limits, b"\x19CVT\x07P\x11S\x09\0\0\0\x08\x80\xfa\x01\x08\x05\x10\x80\x40");
    }

    #[test]
    fn a_mount_image_that_is_cut_short_is_none() {
        let whole = several(MOUNTS_MAGIC, &[mount(17, 1, 99, "/").into_bytes()]);
        let judged = |image: &[u8]| Mounts::default().add(image);
        assert!(judged(&whole).is_ok());
        for len in [0, 3, 8, 11, whole.len() - 1] {
            assert!(judged(&whole[..len]).is_err(), "{len}");
        }
        assert!(judged(&several(SECCOMP_MAGIC, &[])).is_err());
    }

    #[test]
    fn what_is_mounted_within_a_fresh_file_system_is_told() {
        let dev = mount(5, 2, 1, "/dev");
        let shm = mount(5, 3, 2, "/dev/shm").text(18, "/dev/shm").number(5, 1);
        let twice = mount(5, 4, 2, "/dev/shm").text(18, "/dev/shm").number(5, 0);
        let mask = mount(5, 5, 1, "/proc/keys").text(6, "/null");
        let all = [mount(17, 1, 99, "/"), dev, shm, twice, mask].map(Message::into_bytes);
        let mut mounts = Mounts::default();
        mounts.add(&several(MOUNTS_MAGIC, &all)).unwrap();
        assert_eq!(mounts.plain, ["null", "shm"].map(PathBuf::from).into());
        assert_eq!(mounts.external, BTreeMap::from([("/dev/shm".to_owned(), false)]), "one of them can be written");
        assert_eq!(mounts.targets.len(), 3);
    }

    #[test]
    fn every_process_is_filtered_by_the_containers_filter() {
        let wanted = BpfProgram(vec![1; 16]);
        let filter = |bytes: &[u8]| Message::default().bytes(1, bytes).number(3, 1);
        let seccomp = |filters: Vec<Message>| {
            let all = filters.iter().fold(Message::default(), |all, filter| all.message(1, filter));
            several(SECCOMP_MAGIC, &[all.into_bytes()])
        };
        assert!(is_filtered_by(&seccomp(vec![filter(&[1; 16]), filter(&[2; 8]).number(2, 0)]), &wanted));
        assert!(!is_filtered_by(&seccomp(vec![filter(&[1; 16]), filter(&[2; 8])]), &wanted), "one has another");
        assert!(!is_filtered_by(b"x", &wanted));
    }
}
