//! The agent's end of the connection to the supervisor.
//!
//! Two tasks share the socket: one writes requests in order, one reads answers and events. When the connection
//! ends, every waiting request fails with [`LinkError`] and the engine is told, which then finds or starts a
//! supervisor and takes up what runs ([`super::recover`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::engine::EngineError;
use crate::supervisor::plan::ExitRecord;
use crate::supervisor::wire::{Event, Inbox, Reply, Request, ToAgent, ToSupervisor, encode, send};

/// Requests that may wait to be written; who asks more waits.
const REQUESTS_MAX: usize = 256;

/// The supervisor is gone, or was never reached. The engine is already finding another one.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the supervisor ended")]
pub(super) struct LinkError;

impl From<LinkError> for EngineError {
    fn from(error: LinkError) -> Self {
        Self::Io { step: "reach the supervisor".to_owned(), source: io::Error::new(io::ErrorKind::BrokenPipe, error) }
    }
}

/// News for the engine's own task.
#[derive(Debug)]
pub(super) enum News {
    /// A container has ended.
    Exited(String, ExitRecord),
    /// A connection has ended.
    Closed,
}

type Answer = (Reply, Vec<OwnedFd>);

/// A connection to a supervisor; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    requests: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next_id: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    execs: HashMap<u64, oneshot::Sender<i32>>,
    pauses: HashMap<String, mpsc::Sender<(i32, bool)>>,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Link {
    /// Starts the two tasks on a connected socket. `news` is bounded: when the engine lags, reading pauses, and
    /// the supervisor keeps what it has to say.
    pub(super) fn new(socket: std::os::unix::net::UnixStream, news: mpsc::Sender<News>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(socket)?);
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let shared = Arc::new(Shared::default());
        tokio::spawn(write_requests(Arc::clone(&socket), queue));
        tokio::spawn(read_answers(socket, Arc::clone(&shared), news));
        Ok(Self { requests, shared })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, request: Request) -> Result<Reply, LinkError> {
        Ok(self.ask_with(request, Vec::new()).await?.0)
    }

    /// Asks with descriptors; the answer may bring some.
    pub(super) async fn ask_with(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Answer, LinkError> {
        let id = self.fresh_id();
        let frame = ToSupervisor { id, fds: fds.len(), request };
        let bytes = encode(&frame).map_err(|_| LinkError)?;
        let (answer, waiter) = oneshot::channel();
        self.lock(|waiting| {
            if waiting.closed {
                return Err(LinkError);
            }
            waiting.answers.insert(id, answer);
            Ok(())
        })?;
        self.requests.send(Outgoing { bytes, fds }).await.map_err(|_| LinkError)?;
        waiter.await.map_err(|_| LinkError)
    }

    /// Sends without waiting for the answer: from `drop`. A full queue drops it; what is asked so (ending a
    /// command whose caller is gone) happens anyway when the connection ends.
    pub(super) fn notify(&self, request: Request) {
        let frame = ToSupervisor { id: self.fresh_id(), fds: 0, request };
        if let Ok(bytes) = encode(&frame) {
            let _ = self.requests.try_send(Outgoing { bytes, fds: Vec::new() });
        }
    }

    /// A number for a command, and the wait for its end. To be called before the command is started.
    pub(super) fn expect_exec(&self) -> (u64, oneshot::Receiver<i32>) {
        let exec = self.fresh_id();
        let (ended, waiter) = oneshot::channel();
        let _ = self.lock(|waiting| {
            if !waiting.closed {
                waiting.execs.insert(exec, ended);
            }
            Ok(())
        });
        (exec, waiter)
    }

    /// Where the first process of a container tells that it waits: its id, and whether it is about to execute. To be
    /// called before it is started, by who lets it go on; there are two places at most. Forgotten when dropped.
    pub(super) fn expect_pauses(&self, container: &str) -> mpsc::Receiver<(i32, bool)> {
        let (paused, waiter) = mpsc::channel(2);
        let _ = self.lock(|waiting| {
            waiting.pauses.retain(|_, sender| !sender.is_closed());
            if !waiting.closed {
                waiting.pauses.insert(container.to_owned(), paused);
            }
            Ok(())
        });
        waiter
    }

    /// Forgets a command that was not started.
    pub(super) fn forget_exec(&self, exec: u64) {
        let _ = self.lock(|waiting| {
            waiting.execs.remove(&exec);
            Ok(())
        });
    }

    /// Whether the connection stands.
    pub(super) fn is_open(&self) -> bool {
        self.lock(|waiting| if waiting.closed { Err(LinkError) } else { Ok(()) }).is_ok()
    }

    fn fresh_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn lock<T>(&self, f: impl FnOnce(&mut Waiting) -> Result<T, LinkError>) -> Result<T, LinkError> {
        f(&mut self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn write_requests(socket: Arc<UnixStream>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { bytes, mut fds }) = queue.recv().await {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let written = socket
                .async_io(Interest::WRITABLE, || {
                    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                    send(socket.as_fd(), rest, &fds)
                })
                .await;
            let Ok(n) = written else { return };
            // They went with the first byte; ours can be closed.
            fds.clear();
            sent += n;
        }
    }
}

async fn read_answers(socket: Arc<UnixStream>, shared: Arc<Shared>, news: mpsc::Sender<News>) {
    let mut inbox = Inbox::default();
    loop {
        match socket.async_io(Interest::READABLE, || inbox.fill(socket.as_fd())).await {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
        if !dispatch(&mut inbox, &shared, &news).await {
            break;
        }
    }
    {
        let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping the senders fails whoever waits.
        *waiting = Waiting { closed: true, ..Waiting::default() };
    }
    let _ = news.send(News::Closed).await;
}

/// Hands out every whole frame. `false` when the peer speaks nonsense.
async fn dispatch(inbox: &mut Inbox, shared: &Shared, news: &mpsc::Sender<News>) -> bool {
    loop {
        let frame = match inbox.take_frame::<ToAgent>() {
            Ok(Some(frame)) => frame,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let take =
            |f: &mut dyn FnMut(&mut Waiting)| f(&mut shared.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        match frame {
            ToAgent::Reply { id, fds, reply } => {
                let Ok(fds) = inbox.take_fds(fds) else { return false };
                let mut answer = None;
                take(&mut |waiting| answer = waiting.answers.remove(&id));
                if let Some(answer) = answer {
                    let _ = answer.send((reply, fds));
                }
            }
            ToAgent::Event(Event::ExecExited { exec, code }) => {
                let mut ended = None;
                take(&mut |waiting| ended = waiting.execs.remove(&exec));
                if let Some(ended) = ended {
                    let _ = ended.send(code);
                }
            }
            ToAgent::Event(Event::Paused { container, pid, starting }) => {
                take(&mut |waiting| {
                    if let Some(paused) = waiting.pauses.get(&container) {
                        // Room for both places; without a receiver nobody launches any more.
                        let _ = paused.try_send((pid, starting));
                    }
                });
            }
            ToAgent::Event(Event::Exited { container, exit }) => {
                let _ = news.send(News::Exited(container, exit)).await;
            }
        }
    }
}
