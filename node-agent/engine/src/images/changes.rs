//! Tells when images come or go, by inotify(7) on the index: `reeve image` is another process.

use std::io;
use std::path::Path;

use futures::StreamExt as _;
use futures::stream::BoxStream;
pub(crate) use rustix::fs::inotify::WatchFlags;
use rustix::fs::inotify::{self, CreateFlags};
use tokio::net::unix::pipe::Receiver;

/// Yields after each change of the index in `root`; several may become one. Call it inside a runtime.
pub(super) fn changes(root: &Path) -> io::Result<BoxStream<'static, ()>> {
    // The index is replaced by a rename, and is all that is renamed in its folder.
    follow(root, WatchFlags::MOVED_TO)
}

/// Yields after something of that kind has happened in a folder; several happenings may become one. Call it inside a
/// runtime.
pub(crate) fn follow(dir: &Path, what: WatchFlags) -> io::Result<BoxStream<'static, ()>> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, dir, what | WatchFlags::ONLYDIR)?;
    // An inotify descriptor is read like a pipe; the receiver only polls and reads it.
    let receiver = Receiver::from_owned_fd_unchecked(fd)?;
    let next = |receiver: Receiver| async move { read(&receiver).await.ok().map(|()| ((), receiver)) };
    Ok(futures::stream::unfold(receiver, next).boxed())
}

async fn read(receiver: &Receiver) -> io::Result<()> {
    let mut buffer = [0_u8; 4096];
    loop {
        receiver.readable().await?;
        match receiver.try_read(&mut buffer) {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}
