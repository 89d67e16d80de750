//! One connection of the supervisor: frames in, frames out, never blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::wire::{Event, Inbox, Reply, ToAgent, ToSupervisor, encode, send};

/// Most bytes that may wait for a peer that does not read; then it is cut off, and lists anew when it is back.
const OUTBOX_MAX: usize = 4 << 20;

/// A connected agent.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    inbox: Inbox,
    outbox: VecDeque<Outgoing>,
    outbox_len: usize,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fd: Option<OwnedFd>,
}

impl Connection {
    /// Takes over a connected, non-blocking socket.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, inbox: Inbox::default(), outbox: VecDeque::new(), outbox_len: 0 }
    }

    /// For epoll.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what is there. `false` when the peer is gone.
    pub(super) fn fill(&mut self) -> bool {
        match self.inbox.fill(self.socket.as_fd()) {
            Ok(open) => open,
            Err(err) => matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// The next request, with its descriptors.
    pub(super) fn next(&mut self) -> io::Result<Option<(ToSupervisor, Vec<OwnedFd>)>> {
        let Some(frame) = self.inbox.take_frame::<ToSupervisor>()? else { return Ok(None) };
        let fds = self.inbox.take_fds(frame.fds)?;
        Ok(Some((frame, fds)))
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, id: u64, reply: Reply, fd: Option<OwnedFd>) -> io::Result<()> {
        let fds = usize::from(fd.is_some());
        self.push(&ToAgent::Reply { id, fds, reply }, fd)
    }

    /// Tells an event.
    pub(super) fn tell(&mut self, event: Event) -> io::Result<()> {
        self.push(&ToAgent::Event(event), None)
    }

    fn push(&mut self, frame: &ToAgent, fd: Option<OwnedFd>) -> io::Result<()> {
        let bytes = encode(frame)?;
        self.outbox_len += bytes.len();
        if self.outbox_len > OUTBOX_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.outbox.push_back(Outgoing { bytes, sent: 0, fd });
        self.flush()
    }

    /// Sends as much as the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(frame) = self.outbox.front_mut() {
            let rest = frame.bytes.get(frame.sent..).unwrap_or_default();
            let fds: Vec<BorrowedFd<'_>> = frame.fd.iter().map(AsFd::as_fd).collect();
            match send(self.socket.as_fd(), rest, &fds) {
                Ok(n) => {
                    // The descriptor went with the first byte.
                    frame.fd = None;
                    frame.sent += n;
                    if frame.sent == frame.bytes.len() {
                        self.outbox_len -= frame.bytes.len();
                        self.outbox.pop_front();
                    }
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Whether nothing is left to send.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }
}
