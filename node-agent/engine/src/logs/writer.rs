//! The supervisor's second thread: reads containers' output, writes logs and exit records.
//!
//! The FIFOs themselves are the queues: 64 KiB in the kernel per stream. A log that cannot be written (disk full)
//! stops the reading of that container only, which then waits in `write`; it is tried again every second, and
//! nothing is lost. An exit is told only when the log is complete and the record written.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reeve_api::clock::SharedClock;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::cri::{LineCutter, format_stamp};
use super::queue::Queue;
use super::rotate::exchange;
use crate::engine::LogLimits;
use crate::supervisor::plan::ExitRecord;

/// How long after a container's end its log may still be read: processes that left its cgroup may hold it open.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How soon a log that could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How much is read at once: what a FIFO holds.
const CHUNK_LEN: usize = 64 << 10;
/// Most attached clients of one container.
const TAPS_MAX: usize = 64;
/// Token of the command queue; streams have higher ones.
const QUEUE_TOKEN: u64 = 0;

/// What the launching thread asks.
#[derive(Debug)]
pub(crate) enum Command {
    /// Log these streams of a container from now on.
    Add {
        /// The container.
        container: String,
        /// Non-blocking reading ends; the first is standard output.
        streams: Vec<OwnedFd>,
        /// The log file.
        path: PathBuf,
        /// How large it may become.
        limits: LogLimits,
    },
    /// Copy what comes from now on to these pipes too.
    Attach {
        /// The container.
        container: String,
        /// Non-blocking writing ends, one per stream.
        taps: Vec<OwnedFd>,
    },
    /// Let go of the log file, and make another one of the same name.
    Reopen {
        /// The container.
        container: String,
    },
    /// The container has ended: complete its log, write its record, tell it.
    Finish {
        /// The container.
        container: String,
        /// How it ended.
        exit: ExitRecord,
        /// Where that is written.
        record: PathBuf,
    },
}

/// A container's end, completely written down.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The container.
    pub(crate) container: String,
    /// How it ended.
    pub(crate) exit: ExitRecord,
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Writer {
    clock: SharedClock,
    epoll: OwnedFd,
    commands: Arc<Queue<Command>>,
    finished: Arc<Queue<Finished>>,
    logs: HashMap<String, Log>,
    tokens: HashMap<u64, String>,
    next_token: u64,
    /// Commands taken from the queue too early to be obeyed; the next thing the loop does.
    deferred: VecDeque<Command>,
    buffer: Vec<u8>,
    entries: Vec<u8>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    limits: LogLimits,
    file: Option<File>,
    /// Bytes in the file, as long as it is open.
    len: u64,
    streams: Vec<Stream>,
    /// Entries that could not be written yet.
    backlog: Vec<u8>,
    /// When the backlog is tried again.
    retry_at: Duration,
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Stream {
    token: u64,
    /// `None` after its end.
    source: Option<OwnedFd>,
    lines: LineCutter,
    taps: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Ending {
    exit: ExitRecord,
    record: PathBuf,
    deadline: Duration,
}

impl Writer {
    /// A writer that obeys `commands` and tells `finished`.
    pub(crate) fn new(
        clock: SharedClock,
        commands: Arc<Queue<Command>>,
        finished: Arc<Queue<Finished>>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, commands.wake(), epoll::EventData::new_u64(QUEUE_TOKEN), epoll::EventFlags::IN)?;
        Ok(Self {
            clock,
            epoll,
            commands,
            finished,
            logs: HashMap::new(),
            tokens: HashMap::new(),
            next_token: QUEUE_TOKEN + 1,
            deferred: VecDeque::new(),
            buffer: vec![0; CHUNK_LEN],
            entries: Vec::new(),
        })
    }

    /// Runs for the life of the supervisor.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            // Streams first: what a container wrote before its end stands in its FIFO when `Finish` is taken.
            for event in &events {
                let token = event.data.u64();
                if token != QUEUE_TOKEN {
                    self.on_readable(token);
                }
            }
            self.deferred.extend(self.commands.take());
            while let Some(command) = self.deferred.pop_front() {
                self.on_command(command);
            }
            self.on_time();
        }
    }

    /// Until the next retry or deadline; forever when there is none.
    fn timeout(&self) -> Option<Timespec> {
        let now = self.clock.monotonic();
        let next = self.logs.values().filter_map(Log::wakes_at).min()?;
        let left = next.saturating_sub(now);
        Some(Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(1), tv_nsec: left.subsec_nanos().into() })
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Add { container, streams, path, limits } => self.add(container, streams, (path, limits)),
            Command::Attach { container, taps } => {
                let Some(log) = self.logs.get_mut(&container) else { return };
                for (stream, tap) in log.streams.iter_mut().zip(taps) {
                    if stream.source.is_some() && stream.taps.len() < TAPS_MAX {
                        stream.taps.push(tap);
                    }
                }
            }
            Command::Reopen { container } => {
                if let Some(log) = self.logs.get_mut(&container) {
                    log.open();
                }
            }
            Command::Finish { container, exit, record } => {
                let deadline = self.clock.monotonic() + DRAIN_MAX;
                let Some(log) = self.logs.get_mut(&container) else {
                    self.conclude(container, Ending { exit, record, deadline });
                    return;
                };
                log.ending = Some(Ending { exit, record, deadline });
                self.drain(&container);
            }
        }
    }

    fn add(&mut self, container: String, sources: Vec<OwnedFd>, (path, limits): (PathBuf, LogLimits)) {
        let mut streams = Vec::new();
        for (source, name) in sources.into_iter().zip(["stdout", "stderr"]) {
            let token = self.next_token;
            self.next_token += 1;
            let data = epoll::EventData::new_u64(token);
            // A stream that cannot be watched is still read when the container ends.
            let _ = epoll::add(&self.epoll, &source, data, epoll::EventFlags::IN);
            self.tokens.insert(token, container.clone());
            streams.push(Stream { token, source: Some(source), lines: LineCutter::new(name), taps: Vec::new() });
        }
        let (backlog, retry_at) = (Vec::new(), Duration::ZERO);
        let log = Log { path, limits, file: None, len: 0, streams, backlog, retry_at, ending: None };
        self.logs.insert(container, log);
    }

    fn on_readable(&mut self, token: u64) {
        let Some(container) = self.tokens.get(&token).cloned() else { return };
        self.read(&container, token);
    }

    /// Reads a stream once and writes what came. Returns whether there may be more at once.
    fn read(&mut self, container: &str, token: u64) -> bool {
        let Some(log) = self.logs.get_mut(container) else { return false };
        let read = log.read(token, &mut self.buffer);
        // Who attached before this was written must see it: its command is in the queue by now.
        self.obey_attach();
        let stamp = format_stamp(self.clock.now());
        self.entries.clear();
        if let (ReadOutcome::Some(len), Some(log)) = (&read, self.logs.get_mut(container)) {
            log.take_chunk(token, self.buffer.get(..*len).unwrap_or_default(), &stamp, &mut self.entries);
        }
        self.after_read(container, token, &read)
    }

    /// Obeys the waiting commands that only add taps; the others keep their order.
    fn obey_attach(&mut self) {
        for command in self.commands.take() {
            match command {
                Command::Attach { ref container, .. } if self.logs.contains_key(container) => self.on_command(command),
                other => self.deferred.push_back(other),
            }
        }
    }

    /// Writes what a read gave; forgets a stream that has ended. Returns whether there may be more at once.
    fn after_read(&mut self, container: &str, token: u64, read: &ReadOutcome) -> bool {
        let Some(log) = self.logs.get_mut(container) else { return false };
        if let ReadOutcome::End(source) = read {
            let _ = epoll::delete(&self.epoll, source);
            self.tokens.remove(&token);
        }
        // Before there is something for the new file: the current one is never empty.
        if !self.entries.is_empty() {
            log.rotate(self.clock.now());
        }
        if !log.write(&self.entries) {
            log.retry_at = self.clock.monotonic() + RETRY_AFTER;
            log.set_watched(&self.epoll, false);
            return false;
        }
        if log.ending.is_some() && log.is_drained() {
            self.end(container);
            return false;
        }
        matches!(read, ReadOutcome::Some(_))
    }

    /// Reads a container that has ended until its streams are empty.
    fn drain(&mut self, container: &str) {
        let tokens: Vec<u64> =
            self.logs.get(container).map(|log| log.streams.iter().map(|s| s.token).collect()).unwrap_or_default();
        for token in tokens {
            loop {
                let Some(log) = self.logs.get(container) else { return };
                if !log.backlog.is_empty() {
                    return;
                }
                if !self.read(container, token) {
                    break;
                }
            }
        }
        if self.logs.get(container).is_some_and(Log::is_drained) {
            self.end(container);
        }
    }

    /// Retries and deadlines that are due.
    fn on_time(&mut self) {
        let now = self.clock.monotonic();
        let due: Vec<String> = self
            .logs
            .iter()
            .filter(|(_, log)| log.wakes_at().is_some_and(|at| at <= now))
            .map(|(container, _)| container.clone())
            .collect();
        for container in due {
            let Some(log) = self.logs.get_mut(&container) else { continue };
            if !log.backlog.is_empty() {
                if log.write(&[]) {
                    log.set_watched(&self.epoll, true);
                } else {
                    log.retry_at = now + RETRY_AFTER;
                }
            }
            if log.ending.as_ref().is_some_and(|ending| ending.deadline <= now) {
                self.end(&container);
            }
        }
    }

    /// Completes the log of a container that has ended.
    fn end(&mut self, container: &str) {
        let Some(mut log) = self.logs.remove(container) else { return };
        let stamp = format_stamp(self.clock.now());
        self.entries.clear();
        for stream in &mut log.streams {
            stream.lines.finish(&stamp, &mut self.entries);
            if let Some(source) = &stream.source {
                let _ = epoll::delete(&self.epoll, source);
            }
            self.tokens.remove(&stream.token);
        }
        let complete = log.write(&self.entries);
        if let Some(mut ending) = log.ending.take() {
            if !complete {
                "the log is incomplete: it could not be written".clone_into(&mut ending.exit.message);
            }
            self.conclude(container.to_owned(), ending);
        }
    }

    fn conclude(&self, container: String, ending: Ending) {
        // A record that cannot be written (disk full) is still told; the agent then writes its own.
        let _ = write_record(&ending.record, &ending.exit);
        // The queue is as long as there can be containers; a full one only means that nobody listens any more.
        let _ = self.finished.push(Finished { container, exit: ending.exit });
    }
}

/// What one read of a stream gave.
#[derive(Debug)]
enum ReadOutcome {
    /// So many bytes; perhaps there are more.
    Some(usize),
    /// Nothing for now.
    Nothing,
    /// The stream has ended.
    End(OwnedFd),
}

impl Log {
    fn wakes_at(&self) -> Option<Duration> {
        let deadline = self.ending.as_ref().map(|ending| ending.deadline);
        let retry = (!self.backlog.is_empty()).then_some(self.retry_at);
        deadline.into_iter().chain(retry).min()
    }

    fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.streams.iter().all(|stream| stream.source.is_none())
    }

    fn read(&mut self, token: u64, buffer: &mut [u8]) -> ReadOutcome {
        let Some(stream) = self.streams.iter_mut().find(|s| s.token == token) else { return ReadOutcome::Nothing };
        let Some(source) = &stream.source else { return ReadOutcome::Nothing };
        match rustix::io::read(source, &mut *buffer) {
            Ok(n) if n > 0 => ReadOutcome::Some(n),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => ReadOutcome::Nothing,
            // 0 bytes: all writers are gone. EIO: a terminal's other end is closed.
            Ok(_) | Err(_) => {
                stream.taps.clear();
                stream.source.take().map_or(ReadOutcome::Nothing, ReadOutcome::End)
            }
        }
    }

    /// Gives what was read to the attached clients and cuts it into entries.
    fn take_chunk(&mut self, token: u64, chunk: &[u8], stamp: &str, entries: &mut Vec<u8>) {
        let Some(stream) = self.streams.iter_mut().find(|s| s.token == token) else { return };
        stream.taps.retain(|tap| copy_to(tap, chunk));
        stream.lines.push(chunk, stamp, entries);
    }

    /// Opens the file of that name, which may be another one than before, or makes it.
    fn open(&mut self) {
        self.file = open(&self.path).ok();
        self.len = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
    }

    /// Appends entries to the file; keeps what could not be written. Returns whether all is written.
    fn write(&mut self, entries: &[u8]) -> bool {
        self.backlog.extend_from_slice(entries);
        if self.backlog.is_empty() {
            return true;
        }
        if self.file.is_none() {
            self.open();
        }
        let Some(file) = &mut self.file else { return false };
        let mut written = 0;
        while let Some(rest) = self.backlog.get(written..).filter(|rest| !rest.is_empty()) {
            match file.write(rest) {
                Ok(n) if n > 0 => written += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        self.backlog.drain(..written);
        self.len = self.len.saturating_add(written as u64);
        if self.backlog.is_empty() {
            self.backlog = Vec::new();
        }
        self.backlog.is_empty()
    }

    /// Exchanges a file that has grown to its limit; what is written next makes a new one. Between two entries only.
    fn rotate(&mut self, now: Timestamp) {
        if !self.backlog.is_empty() || self.limits.size_max_bytes.is_none_or(|max| self.len < max) {
            return;
        }
        match exchange(&self.path, self.limits.files_max, now) {
            Ok(()) => self.file = None,
            // A log that is too large is better than none: it is tried again when as much has come again.
            Err(_) => self.len = 0,
        }
    }

    fn set_watched(&self, epoll: &OwnedFd, watched: bool) {
        for stream in &self.streams {
            if let Some(source) = &stream.source {
                let data = epoll::EventData::new_u64(stream.token);
                // Deleting, not masking: a masked descriptor still wakes with HUP.
                let _ = if watched {
                    epoll::add(epoll, source, data, epoll::EventFlags::IN)
                } else {
                    epoll::delete(epoll, source)
                };
            }
        }
    }
}

/// Opens a log, or makes it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Gives a chunk to an attached client. One that is gone or cannot keep up is dropped: it sees the end of the
/// stream, and the container does not wait for it.
fn copy_to(tap: &OwnedFd, chunk: &[u8]) -> bool {
    rustix::io::write(tap.as_fd(), chunk).is_ok_and(|n| n == chunk.len())
}

/// Writes a record so that a reader sees it whole or not at all.
pub(crate) fn write_record<T: serde::Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::rename(&temporary, path)
}
