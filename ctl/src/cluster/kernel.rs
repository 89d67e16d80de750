//! Whether this kernel can run containers: asked before anything is made, answered with the missing thing's name.

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};

use super::error::ClusterError;

/// Namespaces a container needs; files in `/proc/self/ns`.
const NAMESPACES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

/// Refuses a kernel without namespaces, overlayfs or cgroups.
pub(crate) fn check() -> Result<(), ClusterError> {
    let missing = NAMESPACES.iter().find(|name| !std::path::Path::new("/proc/self/ns").join(name).exists());
    if let Some(name) = missing {
        return Err(ClusterError::Kernel(format!("it has no {name} namespaces (/proc/self/ns/{name} is missing)")));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mounts.lines().any(|line| line.contains(" - cgroup2 ") || line.contains(" - cgroup ")) {
        return Err(ClusterError::Kernel("no cgroup file system is mounted (/sys/fs/cgroup)".to_owned()));
    }
    // Opening loads the module: now, before many containers ask for it at once.
    match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(()),
        Err(Errno::NODEV) => {
            Err(ClusterError::Kernel("it has no overlayfs (the module `overlay` cannot be loaded)".to_owned()))
        }
        Err(Errno::PERM) => Err(ClusterError::Kernel(
            "this root may not mount file systems (CAP_SYS_ADMIN is missing: a container without privileges?)"
                .to_owned(),
        )),
        Err(err) => Err(ClusterError::Kernel(format!("overlayfs cannot be used: {err}"))),
    }
}
