//! Accepting connections until SIGTERM, then finishing those that are open.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::os::fd::AsFd as _;

use crate::http::{Request, Response};

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to send its request or to take the answer.
const CLIENT_WAIT: Duration = Duration::from_secs(10);

/// What answers requests.
pub(crate) trait App: Send + Sync + 'static {
    /// One request, one answer.
    fn answer(&self, request: &Request) -> Response;
}

#[derive(Default)]
struct Open {
    count: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
}

impl Open {
    fn wait_below(&self, limit: usize) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        while self.count.load(Ordering::SeqCst) >= limit {
            gate = self.changed.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close_one(&self) {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify_all();
    }
}

/// Serves on `port` until SIGTERM or SIGINT. Everything that was connected by then is answered.
pub(crate) fn serve(port: u16, app: impl App) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let stop = SignalFd::new(&signals)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    println!("listening on port {port}");
    let (app, open) = (Arc::new(app), Arc::new(Open::default()));
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
        let stopping = fds[1].any().unwrap_or(false);
        accept_all(&listener, &app, &open)?;
        if stopping {
            break;
        }
    }
    drop(listener);
    println!("stopping: finishing open requests");
    open.wait_below(1);
    Ok(())
}

fn accept_all<A: App>(listener: &TcpListener, app: &Arc<A>, open: &Arc<Open>) -> io::Result<()> {
    loop {
        open.wait_below(CONNECTIONS_MAX);
        match listener.accept() {
            Ok((stream, _)) => {
                let (app, open) = (Arc::clone(app), Arc::clone(open));
                open.count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    if let Err(err) = converse(&stream, &*app) {
                        eprintln!("request failed: {err}");
                    }
                    open.close_one();
                });
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(err) if matches!(err.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(err) => return Err(err),
        }
    }
}

fn converse(stream: &TcpStream, app: &impl App) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CLIENT_WAIT))?;
    stream.set_write_timeout(Some(CLIENT_WAIT))?;
    let answer = match Request::read(stream)? {
        Some(request) => app.answer(&request),
        None => return Ok(()),
    };
    answer.write(stream)
}
