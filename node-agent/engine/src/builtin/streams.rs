//! Streams between a caller and a container: pipes and terminals as tokio sees them.

#![allow(unsafe_code, reason = "registering a descriptor with tokio asks the caller to own it")]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::engine::{InputStream, OutputStream, TerminalSize};

/// Sizes that may wait; older ones do not matter.
const SIZES_MAX: usize = 4;

/// The master of a terminal.
#[derive(Debug, Clone)]
pub(super) struct Master(Arc<AsyncFd<OwnedFd>>);

impl Master {
    /// Takes over a terminal's master.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays open and the same until that is dropped.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Applies sizes until the sender is dropped.
    pub(super) fn sizes(&self) -> mpsc::Sender<TerminalSize> {
        let (sender, mut sizes) = mpsc::channel::<TerminalSize>(SIZES_MAX);
        let master = self.clone();
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
                // Refused only by a terminal that is gone.
                let _ = tcsetwinsize(master.0.as_fd(), size);
            }
        });
        sender
    }
}

impl AsyncRead for Master {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), buf.initialize_unfilled())?));
            match read {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // The other end is closed: the end of the stream (pty(7)).
                Ok(Err(err)) if err.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(err)) => return Poll::Ready(Err(err)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Master {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs something when a stream is dropped.
pub(super) struct OnDrop<S, F: FnMut()> {
    pub(super) stream: S,
    pub(super) on_drop: F,
}

impl<S, F: FnMut()> Drop for OnDrop<S, F> {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

impl<S: AsyncWrite + Unpin, F: FnMut() + Unpin> AsyncWrite for OnDrop<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A pipe: its reading end and its writing end.
pub(super) fn pipe_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// What comes out of a pipe.
pub(super) fn output(fd: OwnedFd) -> io::Result<OutputStream> {
    Ok(Box::pin(pipe::Receiver::from_owned_fd(fd)?))
}

/// What goes into a pipe.
pub(super) fn input(fd: OwnedFd) -> io::Result<InputStream> {
    Ok(Box::pin(pipe::Sender::from_owned_fd(fd)?))
}
