//! What disks are called, and what file systems have.

use std::path::Path;

use crate::engine::FileSystem;

/// What a block device is called: `/dev/sda`.
#[must_use]
pub fn name(major: u32, minor: u32) -> Option<String> {
    let told = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    told.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(|name| format!("/dev/{name}"))
}

/// The file system at a path, as a whole; nothing where the path is not there.
#[must_use]
pub fn file_system(path: &Path) -> FileSystem {
    let device = rustix::fs::stat(path).ok();
    let device = device.and_then(|stat| name(rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)));
    let all = rustix::fs::statvfs(path).ok();
    FileSystem {
        device: device.unwrap_or_default(),
        used_bytes: all.as_ref().map(|all| all.f_blocks.saturating_sub(all.f_bfree).saturating_mul(all.f_frsize)),
        limit_bytes: all.as_ref().map(|all| all.f_blocks.saturating_mul(all.f_frsize)),
        inodes: all.as_ref().map(|all| all.f_files),
        inodes_free: all.as_ref().map(|all| all.f_ffree),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_tells_what_it_has_and_one_that_is_not_there_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let of_dir = file_system(dir.path());
        assert!(of_dir.used_bytes.unwrap() <= of_dir.limit_bytes.unwrap() && of_dir.limit_bytes.unwrap() > 0);
        assert!(of_dir.device.is_empty() || Path::new(&of_dir.device).exists(), "{}", of_dir.device);
        assert_eq!(file_system(&dir.path().join("none")), FileSystem::default());
        assert_eq!(name(0, 0), None);
    }
}
