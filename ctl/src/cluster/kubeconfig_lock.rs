//! client-go's lock of a kubeconfig: a file beside it that exists while somebody writes.
//!
//! One that was left behind by a death would stop everybody for ever. Ours says who holds it, so that the next of us
//! can tell; and nobody holds one that is older than the machine's last start.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::error::{ClusterError, at};
use super::state::Process;

/// How often and how long the lock of another program is waited for: 5 s in all. client-go holds it for milliseconds.
const TRIES: u32 = 250;
const WAIT: Duration = Duration::from_millis(20);
/// Longest text of ours in a lock.
const TEXT_LEN_MAX: u64 = 512;

/// Held while a kubeconfig is changed.
pub(crate) struct Lock(PathBuf);

impl Lock {
    /// Waits until nobody else changes the file.
    pub(crate) fn take(path: &Path) -> Result<Self, ClusterError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        for _ in 0..TRIES {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock) {
                Ok(mut file) => {
                    // Without it, it is a lock like any other program's.
                    let _ = file.write_all(own_name().as_bytes());
                    return Ok(Self(lock));
                }
                Err(err) if err.kind() == ErrorKind::AlreadyExists => {
                    if !remove_if_dead(&lock) {
                        std::thread::sleep(WAIT);
                    }
                }
                Err(err) => return Err(ClusterError::io(at("create", &lock), err)),
            }
        }
        let reason = format!(
            "{} exists: another program is writing it, or died doing so; if none is, remove that file",
            lock.display()
        );
        Err(ClusterError::Kubeconfig { path: path.to_path_buf(), reason })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Process, start time, boot and process namespace: a home folder may be shared by machines and containers.
fn own_name() -> String {
    let (pid, ticks) = Process::own().map_or((0, 0), |own| (own.pid, own.start_ticks));
    format!("reeve {pid} {ticks} {}\n", own_world())
}

fn own_world() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let pids = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), pids.display())
}

/// Removes a lock that nobody can hold any more. Returns whether it did.
fn remove_if_dead(lock: &Path) -> bool {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(lock) else { return false };
    // Two that find it dead at the same time take turns, and the second sees that it is another one by now.
    let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return false };
    let same = |meta: std::fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == meta.ino());
    is_dead(&file) && std::fs::symlink_metadata(lock).is_ok_and(same) && std::fs::remove_file(lock).is_ok()
}

fn is_dead(file: &File) -> bool {
    let older_than_boot = || Some(file.metadata().ok()?.ctime() < boot_time()?);
    let mut text = String::new();
    let read = file.take(TEXT_LEN_MAX).read_to_string(&mut text);
    read.is_ok() && holder_is_dead(&text) || older_than_boot().unwrap_or(false)
}

fn holder_is_dead(text: &str) -> bool {
    let mut words = text.trim_end().splitn(4, ' ');
    let (Some("reeve"), Some(pid), Some(ticks), Some(world)) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let (Ok(pid), Ok(start_ticks)) = (pid.parse(), ticks.parse()) else { return false };
    world == own_world() && !Process { pid, start_ticks }.is_alive()
}

/// When the machine was started, in seconds since 1970 (`/proc/stat`).
fn boot_time() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(folder.path().join("config.lock"), text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_lock_of_a_dead_process_of_ours_is_taken_over() {
        let own = Process::own().unwrap();
        let (folder, path) = locked(&format!("reeve {} {} {}\n", own.pid, own.start_ticks + 1, own_world()));
        drop(Lock::take(&path).unwrap());
        assert!(!folder.path().join("config.lock").exists());
    }

    #[test]
    fn the_lock_of_a_living_process_of_another_machine_and_of_another_program_is_not() {
        let own = Process::own().unwrap();
        let (pid, ticks) = (own.pid, own.start_ticks);
        assert!(!holder_is_dead(&own_name()));
        assert!(!holder_is_dead(&format!("reeve {pid} {} another-boot pid:[1]\n", ticks + 1)));
        assert!(!holder_is_dead(""));
        assert!(!holder_is_dead("reeve 1"));
    }

    #[test]
    fn a_lock_from_before_the_machine_was_started_is_dead_and_a_fresh_one_of_another_program_is_not() {
        let (_folder, path) = locked("");
        let lock = path.with_file_name("config.lock");
        assert!(!is_dead(&File::open(&lock).unwrap()));
        assert!(boot_time().unwrap() > 1_000_000_000);
        // The change time cannot be set: a file of the kernel's, made at its start, stands for an old lock.
        let old = File::open("/").unwrap();
        assert_eq!(is_dead(&old), old.metadata().unwrap().ctime() < boot_time().unwrap());
    }
}
