//! The language between agent and supervisor: length-prefixed JSON over a Unix stream socket, descriptors
//! beside it.
//!
//! A frame is four bytes of length (little endian) and that many bytes of JSON. Descriptors travel with the
//! first byte of the frame they belong to; a frame says how many are its own. Both ends are one program at one
//! user id, so the content is trusted, but its size is not.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::plan::{AdoptPlan, ExecPlan, ExitRecord, InitPlan, LaunchPlan};

/// Longest frame: a plan with the kernel's largest environment (`ARG_MAX`, 2 MiB) and room for escapes.
pub const FRAME_MAX: usize = 16 << 20;
/// Most images that one container may show.
pub const IMAGES_MAX: usize = 32;
/// Most descriptors in one frame: a container's root, the images that it shows, and CRIU's socket.
pub const FRAME_FDS_MAX: usize = 1 + IMAGES_MAX + 1;
/// Most descriptors that may wait for their frame: more is a broken peer.
const FDS_WAITING_MAX: usize = 4 * FRAME_FDS_MAX;

/// What the agent asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Who are you?
    Hello,
    /// Which containers do you have?
    List,
    /// Start a container; the mounts of its root and of the images that it shows come along. Answered when its command
    /// has been executed or could not be; of one that comes back from a checkpoint, when CRIU has been.
    Start(Box<LaunchPlan>),
    /// CRIU has brought a container back, and this is its first process. Until this is said it belongs to the
    /// connection that started it, and is killed with that; as is one that [`Request::Kill`] names.
    Restored {
        /// The container.
        container: String,
        /// The process.
        pid: i32,
    },
    /// Start a pod-wide init.
    StartInit(InitPlan),
    /// Take over a container; its terminal may come along.
    Adopt(Box<AdoptPlan>),
    /// Run a command in a container; standard input, output and error come along.
    Exec(Box<ExecPlan>),
    /// Kill an exec'd command.
    KillExec(u64),
    /// Let a container's first process go on from where it waits, or give up.
    Proceed {
        /// The container.
        container: String,
        /// Whether to go on.
        go: bool,
    },
    /// Send a signal to a container's first process.
    Signal {
        /// The container.
        container: String,
        /// The signal's number.
        signal: i32,
    },
    /// Kill everything in a container's cgroup.
    Kill(String),
    /// Kill a pod-wide init.
    KillInit(String),
    /// Copy what the container writes from now on into the pipes that come along (one with a terminal).
    Attach(String),
    /// Let the container's standard input end when nobody else holds it open.
    CloseStdin(String),
    /// Hand out a duplicate of the container's terminal.
    Terminal(String),
    /// Let go of the container's log file, and go on in one of the same name.
    ReopenLog(String),
    /// End; refused while containers run.
    Shutdown,
}

/// What the supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// Done; the process is this one.
    Started {
        /// Its pid as the node sees it.
        pid: i32,
        /// When.
        started_at: jiff::Timestamp,
    },
    /// Who it is.
    Hello(Hello),
    /// What it has.
    List(Vec<Listed>),
    /// The container's terminal comes along.
    Terminal,
    /// The command could not be executed: the container's own fault, in containerd's words.
    CannotStart(String),
    /// There is no such container here.
    NotFound,
    /// A step failed: which, and the error number.
    Failed {
        /// What was tried.
        step: String,
        /// `errno`
        errno: i32,
    },
}

/// Who a supervisor is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Its process.
    pub pid: i32,
    /// Whether it may lower OOM scores.
    pub lowers_oom_score: bool,
}

/// A container that a supervisor has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub container: String,
    /// Its first process.
    pub pid: i32,
    /// Since when.
    pub started_at: jiff::Timestamp,
}

/// What the supervisor says unasked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A container has ended, its log is complete and its record is written.
    Exited {
        /// The container.
        container: String,
        /// How.
        exit: ExitRecord,
    },
    /// The first process of a container that this connection starts waits for [`Request::Proceed`].
    Paused {
        /// The container.
        container: String,
        /// The process.
        pid: i32,
        /// Where, see [`super::plan::PausePlan`].
        starting: bool,
    },
    /// An exec'd command of this connection has ended.
    ExecExited {
        /// Which.
        exec: u64,
        /// Exit code, or 128 + signal.
        code: i32,
    },
}

/// A frame from the agent.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToSupervisor {
    /// Repeated in the answer.
    pub id: u64,
    /// How many descriptors come along.
    pub fds: usize,
    /// What is asked.
    pub request: Request,
}

/// A frame from the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// The answer to a request.
    Reply {
        /// Whose.
        id: u64,
        /// How many descriptors come along.
        fds: usize,
        /// The answer.
        reply: Reply,
    },
    /// News.
    Event(Event),
}

/// Writes one frame's bytes.
///
/// # Errors
/// When the content is longer than [`FRAME_MAX`].
pub fn encode<T: Serialize>(content: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, content)?;
    let len = frame.len() - 4;
    if len > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a frame of {len} bytes is too long")));
    }
    let len = u32::try_from(len).map_err(io::Error::other)?;
    if let Some(head) = frame.first_chunk_mut() {
        *head = len.to_le_bytes();
    }
    Ok(frame)
}

/// Sends as much as the socket takes, the descriptors with the first byte. Returns how many bytes went.
///
/// # Errors
/// The socket's; `WouldBlock` when it is full.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one frame"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// What has arrived on one connection and is not a whole frame yet.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    fds: std::collections::VecDeque<OwnedFd>,
}

impl Inbox {
    /// Reads once. `Ok(false)` is the end of the stream.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` when there is nothing.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_WAITING_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut chunk)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > FDS_WAITING_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors without a frame"));
        }
        self.bytes.extend_from_slice(chunk.get(..received.bytes).unwrap_or_default());
        Ok(received.bytes > 0)
    }

    /// Takes the next whole frame, if there is one.
    ///
    /// # Errors
    /// When the frame is too long or not what was expected: the connection is of no more use.
    pub fn take_frame<T: for<'de> Deserialize<'de>>(&mut self) -> io::Result<Option<T>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        if len > FRAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes is too long")));
        }
        let Some(content) = self.bytes.get(4..4 + len) else { return Ok(None) };
        let value = serde_json::from_slice(content)?;
        self.bytes.drain(..4 + len);
        if self.bytes.is_empty() && self.bytes.capacity() > 64 << 10 {
            self.bytes = Vec::new();
        }
        Ok(Some(value))
    }

    /// Takes the descriptors that belong to the frame taken last.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn take_fds(&mut self, n: usize) -> io::Result<Vec<OwnedFd>> {
        if n > self.fds.len() || n > FRAME_FDS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame without its descriptors"));
        }
        Ok(self.fds.drain(..n).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_frame_and_its_descriptors_arrive_together_however_the_stream_is_cut() {
        let (a, b) = UnixStream::pair().unwrap();
        let frame = encode(&ToSupervisor { id: 7, fds: 1, request: Request::Terminal("x".to_owned()) }).unwrap();
        let sent = send(a.as_fd(), &frame[..3], &[a.as_fd()]).unwrap();
        assert_eq!(sent, 3);
        let mut inbox = Inbox::default();
        assert!(inbox.fill(b.as_fd()).unwrap());
        assert!(inbox.take_frame::<ToSupervisor>().unwrap().is_none());
        send(a.as_fd(), &frame[3..], &[]).unwrap();
        assert!(inbox.fill(b.as_fd()).unwrap());
        let frame = inbox.take_frame::<ToSupervisor>().unwrap().unwrap();
        assert_eq!(frame.id, 7);
        assert_eq!(inbox.take_fds(frame.fds).unwrap().len(), 1);
        assert!(inbox.take_fds(1).is_err());
    }

    #[test]
    fn a_frame_that_claims_to_be_endless_is_refused() {
        let mut inbox = Inbox { bytes: u32::MAX.to_le_bytes().to_vec(), ..Inbox::default() };
        assert!(inbox.take_frame::<ToSupervisor>().is_err());
    }
}
