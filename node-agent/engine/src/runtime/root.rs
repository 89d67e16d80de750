//! Compiles what is done to a container's root file system, in order.
//!
//! Source: OCI runtime specification, "Default filesystems" and "Default devices"; the masked and read-only paths
//! are containerd's. A privileged container sees the node's devices and nothing is masked.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::cgroup::Hierarchies;
use crate::engine::{ContainerConfig, Device, Mount, Propagation};
use crate::supervisor::plan::{CgroupPlan, RootOp};

/// `MOUNT_ATTR_*` (mount_setattr(2)).
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;

/// containerd's masked paths.
pub const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// containerd's read-only paths.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Nodes that every container has: name, major, minor (OCI, "Default devices").
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Links that every container has.
const LINKS: [(&str, &str); 6] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Most volumes that an image may have.
const VOLUMES_MAX: usize = 256;
/// Most devices of the node shown to a privileged container.
const NODE_DEVICES_MAX: usize = 4096;

/// A mount or device that cannot be made: the pod's fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RootError {
    /// The path leads nowhere sensible.
    #[error("mount path {0:?} must be absolute")]
    Relative(PathBuf),
    /// The image wants more than anybody needs.
    #[error("the image has {0} volumes: there may be at most {VOLUMES_MAX}")]
    Volumes(usize),
    /// There is no such device.
    #[error("error gathering device information while adding custom device {path:?}: {reason}")]
    Device {
        /// The device.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// What of the node a root is built with.
#[derive(Debug, Clone, Copy)]
pub struct RootInputs<'a> {
    /// The pod's shared `/dev/shm`; `None` takes the node's.
    pub shm: Option<&'a Path>,
    /// The node's cgroup mounts.
    pub hierarchies: &'a Hierarchies,
    /// The container's groups.
    pub cgroup: &'a CgroupPlan,
    /// Where the process starts; made when missing.
    pub cwd: &'a str,
    /// The image's own volumes (`VOLUME`): what they hold may be written in a read-only root, too, as containerd has
    /// it. In any other root they are folders like all.
    pub volumes: &'a [String],
    /// Whether the pod has a user namespace of its own, in which nobody may make device nodes.
    pub own_users: bool,
}

/// A device that a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path on the node.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// File type and permissions.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// `rwm`
    pub permissions: String,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// Looks a device of the node up; a folder yields every device in it, as containerd does.
///
/// # Errors
/// When there is no device at that path.
pub fn find_devices(device: &Device) -> Result<Vec<DeviceNode>, RootError> {
    let fail = |reason: String| RootError::Device { path: device.source.clone(), reason };
    let metadata = std::fs::metadata(&device.source).map_err(|err| fail(err.to_string()))?;
    if metadata.is_dir() {
        let entries = std::fs::read_dir(&device.source).map_err(|err| fail(err.to_string()))?;
        let nodes = entries.flatten().filter_map(|entry| {
            let target = device.target.join(entry.file_name());
            node(&entry.path(), &target, &device.permissions).map(|node| as_asked(node, device))
        });
        return Ok(nodes.collect());
    }
    node(&device.source, &device.target, &device.permissions)
        .map(|node| vec![as_asked(node, device)])
        .ok_or_else(|| fail("not a device node".to_owned()))
}

fn as_asked(node: DeviceNode, device: &Device) -> DeviceNode {
    let permissions = device.mode.unwrap_or(node.mode) & !libc::S_IFMT;
    DeviceNode {
        mode: node.mode & libc::S_IFMT | permissions,
        owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
        ..node
    }
}

/// What of a node's `/dev` no container is shown: it has its own.
const OWN_NAMES: [&str; 8] = ["pts", "ptmx", "shm", "fd", "mqueue", ".lxc", ".udev", "console"];

/// Every device of the node, for privileged containers; without terminals and shared memory, which are the
/// container's own.
#[must_use]
pub fn node_devices() -> Vec<DeviceNode> {
    fn walk(dir: &Path, depth: u8, found: &mut Vec<DeviceNode>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if OWN_NAMES.iter().any(|own| entry.file_name() == *own) {
                continue;
            }
            if is_folder && depth > 0 {
                walk(&path, depth - 1, found);
            } else if !is_folder && found.len() < NODE_DEVICES_MAX && !path.is_symlink() {
                found.extend(node(&path, &path, "rwm"));
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/dev"), 3, &mut found);
    found
}

fn node(source: &Path, target: &Path, permissions: &str) -> Option<DeviceNode> {
    let metadata = std::fs::metadata(source).ok()?;
    let kind = metadata.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return None;
    }
    Some(DeviceNode {
        source: source.to_string_lossy().into_owned(),
        target: normalize(&target.to_string_lossy()),
        mode: metadata.mode(),
        major: libc::major(metadata.rdev()),
        minor: libc::minor(metadata.rdev()),
        permissions: permissions.to_owned(),
        owner: (0, 0),
    })
}

/// Compiles the operations on a container's root.
///
/// # Errors
/// See [`RootError`].
pub fn compile_root(
    config: &ContainerConfig,
    devices: &[DeviceNode],
    inputs: &RootInputs<'_>,
) -> Result<Vec<RootOp>, RootError> {
    let privileged = config.security.privileged;
    let mut ops = image_volumes(config, inputs.volumes)?;
    ops.push(mount("proc", "/proc", &[], NOSUID | NODEV | NOEXEC));
    ops.extend(dev(inputs));
    let sys = NOSUID | NODEV | NOEXEC | if privileged { 0 } else { RDONLY };
    ops.push(mount("sysfs", "/sys", &[], sys));
    ops.extend(cgroup_mounts(inputs, privileged));
    ops.extend(devices.iter().map(|device| device_op(device.clone(), inputs.own_users)));
    for wanted in &config.mounts {
        if !wanted.target.is_absolute() {
            return Err(RootError::Relative(wanted.target.clone()));
        }
        let target = normalize(&wanted.target.to_string_lossy());
        if let Some(source) = &wanted.image {
            ops.push(RootOp::Image { image: source.image.clone(), target });
            continue;
        }
        ops.push(RootOp::Bind {
            source: wanted.source.to_string_lossy().into_owned(),
            target,
            recursive: true,
            id_mapped: inputs.own_users,
            attributes: attributes(wanted),
            deep: wanted.read_only && wanted.recursive_read_only,
            propagation: wanted.propagation,
        });
    }
    ops.push(RootOp::Folder { target: inputs.cwd.to_owned() });
    if !privileged && !config.security.unmasked_proc {
        ops.extend(chosen(config.security.masked_paths.as_deref(), &MASKED).map(|target| RootOp::Mask { target }));
        let read_only = chosen(config.security.read_only_paths.as_deref(), &READ_ONLY);
        ops.extend(read_only.map(|target| RootOp::ReadOnly { target }));
    }
    Ok(ops)
}

/// Before all mounts, which may cover them.
fn image_volumes(config: &ContainerConfig, volumes: &[String]) -> Result<Vec<RootOp>, RootError> {
    if !config.security.read_only_rootfs {
        return Ok(Vec::new());
    }
    if volumes.len() > VOLUMES_MAX {
        return Err(RootError::Volumes(volumes.len()));
    }
    let mounted = |target: &String| config.mounts.iter().any(|m| normalize(&m.target.to_string_lossy()) == *target);
    let targets = volumes.iter().map(|volume| normalize(volume)).filter(|target| target != "/" && !mounted(target));
    Ok(targets.map(|target| RootOp::Writable { target }).collect())
}

/// What the caller wants, else our own list.
fn chosen<'l>(wanted: Option<&'l [String]>, own: &'l [&str]) -> Box<dyn Iterator<Item = String> + 'l> {
    match wanted {
        Some(wanted) => Box::new(wanted.iter().map(|path| normalize(path))),
        None => Box::new(own.iter().map(|path| (*path).to_owned())),
    }
}

/// An absolute path without `.`, `..` and double slashes. `..` above the root is the root.
#[must_use]
pub fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `/dev`: a tmpfs with the usual nodes, terminals of its own, the pod's shared memory.
fn dev(inputs: &RootInputs<'_>) -> Vec<RootOp> {
    let mut ops = vec![
        mount("tmpfs", "/dev", &[("mode", "755"), ("size", "65536k")], NOSUID),
        mount("devpts", "/dev/pts", &[("mode", "0620"), ("ptmxmode", "0666"), ("gid", "5")], NOSUID | NOEXEC),
        mount("mqueue", "/dev/mqueue", &[], NOSUID | NODEV | NOEXEC),
        bind(inputs.shm.unwrap_or(Path::new("/dev/shm")), "/dev/shm", NOSUID | NODEV | NOEXEC),
    ];
    let nodes = DEVICES.iter().map(|(name, major, minor)| DeviceNode {
        source: format!("/dev/{name}"),
        target: format!("/dev/{name}"),
        mode: libc::S_IFCHR | 0o666,
        major: *major,
        minor: *minor,
        permissions: String::new(),
        owner: (0, 0),
    });
    ops.extend(nodes.map(|node| device_op(node, inputs.own_users)));
    ops.extend(LINKS.iter().map(|(target, to)| RootOp::Symlink { to: (*to).to_owned(), target: (*target).to_owned() }));
    ops
}

fn attributes(mount: &Mount) -> u64 {
    let all = [(mount.read_only, RDONLY), (mount.no_suid, NOSUID), (mount.no_dev, NODEV), (mount.no_exec, NOEXEC)];
    all.into_iter().filter(|(is_set, _)| *is_set).fold(0, |bits, (_, bit)| bits | bit)
}

/// Makes a device node; where nobody may, shows the node's own.
fn device_op(node: DeviceNode, own_users: bool) -> RootOp {
    if own_users {
        return bind(Path::new(&node.source), &node.target, NOSUID | NOEXEC);
    }
    let (uid, gid) = node.owner;
    RootOp::Device { target: node.target, mode: node.mode, major: node.major, minor: node.minor, uid, gid }
}

/// Something of the node that is no volume, by itself and under the node's ids.
fn bind(source: &Path, target: &str, attributes: u64) -> RootOp {
    RootOp::Bind {
        source: source.to_string_lossy().into_owned(),
        target: target.to_owned(),
        recursive: false,
        id_mapped: false,
        attributes,
        deep: false,
        propagation: Propagation::Private,
    }
}

/// `/sys/fs/cgroup`: the container's own groups, as its cgroup namespace shows them.
fn cgroup_mounts(inputs: &RootInputs<'_>, privileged: bool) -> Vec<RootOp> {
    let attributes = NOSUID | NODEV | NOEXEC | if privileged { 0 } else { RDONLY };
    let target = "/sys/fs/cgroup";
    if inputs.hierarchies.is_unified() {
        return vec![mount("cgroup2", target, &[], attributes)];
    }
    let mut ops = vec![mount("tmpfs", target, &[("mode", "755")], NOSUID | NODEV | NOEXEC)];
    for (name, group) in inputs.hierarchies.legacy_names().zip(&inputs.cgroup.legacy) {
        ops.push(bind(group, &format!("{target}/{name}"), attributes));
    }
    if !privileged {
        ops.push(RootOp::ReadOnly { target: target.to_owned() });
    }
    ops
}

fn mount(fs: &str, target: &str, options: &[(&str, &str)], attributes: u64) -> RootOp {
    RootOp::Mount {
        fs: fs.to_owned(),
        target: target.to_owned(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        attributes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Mount;

    fn compiled(config: &ContainerConfig) -> Vec<RootOp> {
        compiled_for(config, false)
    }

    fn compiled_for(config: &ContainerConfig, own_users: bool) -> Vec<RootOp> {
        let hierarchies = Hierarchies::default();
        let cgroup = CgroupPlan::default();
        let inputs =
            RootInputs { shm: None, hierarchies: &hierarchies, cgroup: &cgroup, cwd: "/srv", volumes: &[], own_users };
        compile_root(config, &[], &inputs).unwrap()
    }

    #[test]
    fn with_users_of_its_own_a_container_has_the_nodes_device_nodes_and_its_volumes_ids_are_mapped() {
        let volume = Mount { source: "/v".into(), target: "/data".into(), ..Mount::default() };
        let ops = compiled_for(&ContainerConfig { mounts: vec![volume], ..ContainerConfig::default() }, true);
        assert!(!ops.iter().any(|op| matches!(op, RootOp::Device { .. })));
        let mapped = ops.iter().filter_map(|op| match op {
            RootOp::Bind { target, id_mapped, .. } => Some((target.as_str(), *id_mapped)),
            _ => None,
        });
        let mapped: Vec<_> = mapped.collect();
        assert!(mapped.contains(&("/dev/null", false)) && mapped.contains(&("/dev/shm", false)), "{mapped:?}");
        assert!(mapped.contains(&("/data", true)), "{mapped:?}");
    }

    #[test]
    fn the_volumes_of_an_image_stay_writable_unless_the_pod_mounts_something_there() {
        let volume = Mount { source: "/v".into(), target: "/data/".into(), ..Mount::default() };
        let mut config = ContainerConfig { mounts: vec![volume], ..ContainerConfig::default() };
        let writable = |config: &ContainerConfig, volumes: &[String]| {
            let ops = image_volumes(config, volumes)?;
            let targets =
                ops.into_iter().map(|op| if let RootOp::Writable { target } = op { target } else { panic!() });
            Ok::<Vec<String>, RootError>(targets.collect())
        };
        let volumes = ["/data", "/var/../cache/", "/", "tmp"].map(str::to_owned);
        assert_eq!(writable(&config, &volumes), Ok(Vec::new()), "the whole root is");
        config.security.read_only_rootfs = true;
        assert_eq!(writable(&config, &volumes), Ok(vec!["/cache".to_owned(), "/tmp".to_owned()]));
        assert_eq!(
            writable(&config, &vec!["/x".to_owned(); VOLUMES_MAX + 1]),
            Err(RootError::Volumes(VOLUMES_MAX + 1))
        );
    }

    #[test]
    fn paths_become_absolute_and_cannot_climb() {
        for (path, normal) in [("/a/../../b//c/.", "/b/c"), ("a", "/a"), ("/", "/"), ("/..", "/")] {
            assert_eq!(normalize(path), normal);
        }
    }

    #[test]
    fn volumes_come_after_the_file_systems_and_before_the_masks() {
        let volume =
            Mount { source: "/v".into(), target: "/proc/../data/".into(), read_only: true, ..Mount::default() };
        let ops = compiled(&ContainerConfig { mounts: vec![volume], ..ContainerConfig::default() });
        let at = |wanted: &str| ops.iter().position(|op| op.to_string() == wanted);
        let order = [at("mount proc at /proc"), at("mount /v at /data"), at("mask /proc/kcore")];
        assert!(order.is_sorted() && order.iter().all(Option::is_some), "{order:?}");
    }

    #[test]
    fn a_privileged_container_has_nothing_masked() {
        let mut config = ContainerConfig::default();
        assert!(compiled(&config).iter().any(|op| matches!(op, RootOp::Mask { .. })));
        config.security.privileged = true;
        assert!(!compiled(&config).iter().any(|op| matches!(op, RootOp::Mask { .. } | RootOp::ReadOnly { .. })));
    }
}
