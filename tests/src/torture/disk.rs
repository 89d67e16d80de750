//! A disk of its own for a server, that can be filled and stopped: ext4 in a file. The program that uses it has a mount
//! namespace of its own, so nothing stays mounted when it ends; a frozen disk thaws even if it is killed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::command::run;
use crate::servers::Servers;

/// How large it is: room for a young cluster and what a store keeps free.
const SIZE: &str = "400M";
/// Thaws what is frozen (`$0`), should the program be killed.
const GUARD: &str = "read -r done && exit; fsfreeze -u \"$0\"";

/// Gives this process mounts of its own. To be called before there is a second thread.
///
/// # Errors
/// What the kernel says.
pub fn own_mounts() -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// See the module.
#[derive(Debug)]
pub struct OwnDisk {
    home: TempDir,
    guard: Child,
}

impl OwnDisk {
    /// A disk for the data folder of a server, which has none yet.
    ///
    /// # Panics
    /// When the machine refuses.
    #[must_use]
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn of(servers: &Servers, name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("reeve-disk-").tempdir().expect("a temporary folder");
        let (image, place) = (home.path().join("image"), home.path().join("place"));
        std::fs::create_dir(&place).expect("a folder");
        run(Command::new("truncate").args(["-s", SIZE]).arg(&image), "").done();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image), "").done();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place), "").done();
        let data = place.join("data");
        std::fs::create_dir(&data).expect("a folder");
        std::os::unix::fs::symlink(data, servers.data_dir(name)).expect("a link");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD]).arg(&place).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        Self { home, guard: guard.spawn().expect("sh starts") }
    }

    fn place(&self) -> PathBuf {
        self.home.path().join("place")
    }

    fn ballast(&self) -> PathBuf {
        self.place().join("ballast")
    }

    /// Leaves so many mebibytes free; with 0 not a block.
    ///
    /// # Panics
    /// When it cannot be filled.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn fill(&self, left: u64) {
        let free = |path: &Path| {
            let about = nix::sys::statvfs::statvfs(path).expect("the disk's room");
            about.blocks_available() * about.fragment_size()
        };
        let reserve = (left * 1024 * 1024).max(1024 * 1024); // somebody may be writing meanwhile
        let bytes = free(&self.place()).saturating_sub(reserve);
        run(Command::new("fallocate").args(["-l", &bytes.to_string()]).arg(self.ballast()), "").done();
        if left == 0 {
            let mut rest = std::fs::File::options().append(true).open(self.ballast()).expect("the ballast");
            while rest.write_all(&[0; 4096]).is_ok() {}
        }
    }

    /// Makes room again.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast");
    }

    /// Nothing that writes comes back from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn freeze(&self) {
        run(Command::new("fsfreeze").arg("-f").arg(self.place()), "").done();
    }

    /// It answers again.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn thaw(&self) {
        run(Command::new("fsfreeze").arg("-u").arg(self.place()), "").done();
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(self.place()), "");
        let _ = self.guard.stdin.take().map(|mut stdin| stdin.write_all(b"done\n"));
        let _ = self.guard.wait();
    }
}

/// Thaws what may be frozen, so that processes that wait for it can end.
pub fn thaw_all<'d>(disks: impl IntoIterator<Item = &'d OwnDisk>) {
    for disk in disks {
        let _ = run(Command::new("fsfreeze").arg("-u").arg(disk.place()), "");
    }
}
