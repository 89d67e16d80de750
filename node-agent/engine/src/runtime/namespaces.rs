//! A sandbox's namespaces: made by a thread that joins them and dies, kept by bind mounts of their files.
//!
//! The mounts live in a private mount of the run folder, in the node's mount namespace: they outlive every
//! process of ours, and no pause process is needed.

#![allow(unsafe_code, reason = "ioctl for the loopback link has no safe wrapper")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::engine::{SandboxConfig, UserNamespace};

mod users;

/// Size of a pod's `/dev/shm`: containerd's and Docker's.
const SHM_SIZE: &str = "mode=1777,size=67108864";

/// What everybody may do in a pod's network, unless the pod says otherwise: listen on ports below 1024, and (but with
/// users of its own, where such groups do not exist) send echo requests. containerd's defaults since 2.0.
const UNPRIVILEGED: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// A namespace that could not be made or kept.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}")]
pub struct NamespaceError {
    /// What was tried.
    pub(crate) step: String,
    /// Why not.
    #[source]
    pub(crate) source: io::Error,
}

impl NamespaceError {
    /// As the engine's error.
    pub(crate) fn into_engine(self) -> crate::engine::EngineError {
        crate::engine::EngineError::Io { step: self.step, source: self.source }
    }
}

trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, NamespaceError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, NamespaceError> {
        self.map_err(|err| NamespaceError { step: step(), source: err.into() })
    }
}

/// Where a sandbox's namespaces are kept. `None` means the node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Users and groups, and who owns the others.
    pub user: Option<PathBuf>,
    /// Network.
    pub net: Option<PathBuf>,
    /// IPC.
    pub ipc: Option<PathBuf>,
    /// Host name.
    pub uts: Option<PathBuf>,
    /// The pod's shared memory.
    pub shm: Option<PathBuf>,
}

impl Pinned {
    /// The paths below a sandbox's run folder, for what its configuration asks.
    #[must_use]
    pub fn paths(dir: &Path, config: &SandboxConfig) -> Self {
        Self {
            user: config.user_namespace.map(|_| dir.join("user")),
            net: (!config.host_network).then(|| dir.join("net")),
            ipc: (!config.host_ipc).then(|| dir.join("ipc")),
            uts: (!config.host_network).then(|| dir.join("uts")),
            shm: (!config.host_ipc).then(|| dir.join("shm")),
        }
    }

    fn namespaces(&self) -> impl Iterator<Item = (&'static str, CloneFlags, &PathBuf)> {
        let net = self.net.as_ref().map(|path| ("net", CloneFlags::CLONE_NEWNET, path));
        let ipc = self.ipc.as_ref().map(|path| ("ipc", CloneFlags::CLONE_NEWIPC, path));
        let uts = self.uts.as_ref().map(|path| ("uts", CloneFlags::CLONE_NEWUTS, path));
        [net, ipc, uts].into_iter().flatten()
    }

    /// Whether everything is still mounted: not after a reboot.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.namespaces().all(|(_, _, path)| is_namespace(path)) && self.user.as_deref().is_none_or(is_namespace)
    }

    /// Makes the namespaces, names the host, brings `lo` up, sets the kernel parameters, and keeps everything.
    /// Blocks for about a millisecond.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is left then.
    pub fn create(&self, config: &SandboxConfig) -> Result<(), NamespaceError> {
        let made = self.make_namespaces(config).and_then(|()| self.make_shm(config.user_namespace));
        if made.is_err() {
            let _ = self.remove();
        }
        made
    }

    /// Lets go of everything; the kernel ends what no process uses. Idempotent.
    ///
    /// # Errors
    /// When a mount cannot be taken away.
    pub fn remove(&self) -> Result<(), NamespaceError> {
        for path in [&self.net, &self.ipc, &self.uts, &self.shm, &self.user].into_iter().flatten() {
            unmount(path)?;
            let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
            match removed {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(err).step(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn make_namespaces(&self, config: &SandboxConfig) -> Result<(), NamespaceError> {
        let pins = self.clone();
        let config = config.clone();
        let thread = std::thread::Builder::new().name("sandbox".to_owned());
        let thread = thread.spawn(move || pins.on_own_thread(&config)).step(|| "start a thread".to_owned())?;
        thread.join().unwrap_or_else(|_| {
            Err(NamespaceError { step: "make namespaces".to_owned(), source: io::ErrorKind::Interrupted.into() })
        })
    }

    /// Runs on a thread that ends afterwards: it leaves the node's namespaces for good.
    fn on_own_thread(&self, config: &SandboxConfig) -> Result<(), NamespaceError> {
        let flags = self.namespaces().fold(CloneFlags::empty(), |flags, (_, flag, _)| flags | flag);
        match (&self.user, config.user_namespace) {
            (Some(path), Some(ids)) => users::enter_others_of(ids, flags, path)?,
            _ => unshare(flags).step(|| "make the pod's namespaces".to_owned())?,
        }
        if self.uts.is_some() {
            nix::unistd::sethostname(&config.hostname).step(|| format!("set the host name {:?}", config.hostname))?;
        }
        if self.net.is_some() {
            bring_loopback_up().step(|| "bring up lo in the pod's network namespace".to_owned())?;
            let defaults = if config.user_namespace.is_some() { &UNPRIVILEGED[..1] } else { &UNPRIVILEGED };
            defaults.iter().try_for_each(|(name, value)| self.set(name, value))?;
        }
        config.sysctls.iter().try_for_each(|(name, value)| self.set(name, value))?;
        for (name, _, path) in self.namespaces() {
            keep(Path::new(&format!("/proc/thread-self/ns/{name}")), path)?;
        }
        Ok(())
    }

    fn set(&self, name: &str, value: &str) -> Result<(), NamespaceError> {
        let path = sysctl_path(name, self.net.is_some(), self.ipc.is_some())?;
        fs::write(&path, value).step(|| format!("set sysctl {name} to {value:?}"))
    }

    fn make_shm(&self, user: Option<UserNamespace>) -> Result<(), NamespaceError> {
        let Some(shm) = &self.shm else { return Ok(()) };
        fs::create_dir_all(shm).step(|| format!("make {}", shm.display()))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let owner = user.map_or(0, |ids| ids.first);
        let options = format!("{SHM_SIZE},uid={owner},gid={owner}");
        mount(Some("shm"), shm, Some("tmpfs"), flags, Some(options.as_str()))
            .step(|| format!("mount {}", shm.display()))
    }
}

/// Keeps a namespace at a path.
fn keep(namespace: &Path, path: &Path) -> Result<(), NamespaceError> {
    fs::File::create(path).step(|| format!("make {}", path.display()))?;
    mount(Some(namespace), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .step(|| format!("keep a namespace at {}", path.display()))
}

/// Whether this kernel has user namespaces and its owner allows any (user_namespaces(7)).
#[must_use]
pub fn are_user_namespaces_allowed() -> bool {
    fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|max| max.trim() != "0")
}

/// Makes a folder a private mount, so that what is mounted below it travels nowhere. Idempotent.
///
/// # Errors
/// When the kernel refuses.
pub fn make_private_mount(dir: &Path) -> Result<(), NamespaceError> {
    fs::create_dir_all(dir).step(|| format!("make {}", dir.display()))?;
    if !is_mount_point(dir) {
        mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .step(|| format!("mount {}", dir.display()))?;
    }
    mount(None::<&str>, dir, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .step(|| format!("make {} a private mount", dir.display()))
}

/// Unmounts everything at or below a folder, newest first.
///
/// # Errors
/// When the kernel refuses.
pub fn unmount_below(dir: &Path) -> Result<(), NamespaceError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").step(|| "read /proc/self/mountinfo".to_owned())?;
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    for point in points.filter(|point| point.starts_with(dir)).collect::<Vec<_>>().into_iter().rev() {
        unmount(&point)?;
    }
    Ok(())
}

/// Kubernetes' namespaced parameters only: others would change the node.
fn sysctl_path(name: &str, own_net: bool, own_ipc: bool) -> Result<PathBuf, NamespaceError> {
    let ipc_names = ["kernel.sem", "fs.mqueue."];
    let is_ipc = name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || ipc_names.iter().any(|p| name.starts_with(p));
    let allowed = (own_net && name.starts_with("net.")) || (own_ipc && is_ipc);
    // A slash may stand for a dot inside a name (`net.ipv4.conf.eth0/1.x`), but never climb.
    let plain = !name.contains("..") && !name.contains("//") && !name.starts_with('/');
    if !allowed || !plain {
        return Err(NamespaceError {
            step: format!("set sysctl {name:?}: it is not of a namespace of the pod"),
            source: io::ErrorKind::PermissionDenied.into(),
        });
    }
    Ok(Path::new("/proc/sys").join(name.replace('.', "/")))
}

fn is_namespace(path: &Path) -> bool {
    /// Magic number of nsfs (`statfs(2)`).
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    #[allow(clippy::unnecessary_cast, reason = "the width of f_type differs between architectures")]
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as i64 == NSFS_MAGIC)
}

fn is_mount_point(dir: &Path) -> bool {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| unescape(point) == dir)
}

fn unmount(path: &Path) -> Result<(), NamespaceError> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(err) => Err(err).step(|| format!("unmount {}", path.display())),
    }
}

/// Octal escapes of mountinfo: space, tab, line end, backslash.
pub(crate) fn unescape(text: &str) -> PathBuf {
    let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(text)
}

/// netdevice(7): the address 127.0.0.1/8 comes with it.
pub(crate) fn bring_loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: `zeroed` is a valid `ifreq`; the name is shorter than its field; the kernel reads what the request
    // names.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = (*from).cast_signed();
        }
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_the_pods_own_namespaces_may_be_set() {
        let path = |name, net, ipc| sysctl_path(name, net, ipc).ok();
        assert_eq!(
            path("net.ipv4.ip_unprivileged_port_start", true, true),
            Some(PathBuf::from("/proc/sys/net/ipv4/ip_unprivileged_port_start"))
        );
        assert_eq!(path("net.core.somaxconn", false, true), None, "host network");
        assert_eq!(path("kernel.shmmax", true, true), Some(PathBuf::from("/proc/sys/kernel/shmmax")));
        assert_eq!(path("kernel.panic", true, true), None);
        assert_eq!(path("net/../kernel.panic", true, true), None);
        assert_eq!(path("net...kernel.panic", true, true), None);
    }

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("/a\\040b"), PathBuf::from("/a b"));
    }
}
