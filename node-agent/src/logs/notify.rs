//! Tells when a log file grew or was exchanged, by inotify(7): nobody polls.

use std::io;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// A watch of one folder.
#[derive(Debug)]
pub(crate) struct Changes(Receiver);

impl Changes {
    /// Watches `dir`: writes to its files, and files that come and go.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        inotify::add_watch(&fd, dir, what | WatchFlags::ONLYDIR)?;
        // An inotify descriptor is read like a pipe; the receiver only polls and reads it.
        Ok(Self(Receiver::from_owned_fd_unchecked(fd)?))
    }

    /// Returns after at least one change since the last call (or since the watch began). Which one does not matter:
    /// the reader looks at the files. Safe to drop.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut buffer) {
                Ok(_) => return Ok(()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
