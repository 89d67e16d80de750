//! The supervisor's loop: one thread, one epoll, which launches, signals and reaps.
//!
//! It never waits for anything but epoll and never touches a disk: cgroups, namespaces, FIFOs and run records
//! are in memory; logs and exit records are the writer thread's ([`crate::logs::writer`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use reeve_api::clock::SharedClock;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{SocketFlags, accept_with};

use super::connection::Connection;
use super::containers::{Container, Launch};
use super::launch::Child;
use super::restores::Restoring;
use super::wire::{Event, Hello, Listed, Reply, Request, ToSupervisor};
use crate::logs::queue::Queue;
use crate::logs::writer::{Command, Finished};

/// Most containers, and so most exits that can wait to be told.
pub(super) const CONTAINERS_MAX: usize = 16 << 10;
/// Most connections: an agent, a few short-lived callers, and some that are about to end.
const CONNECTIONS_MAX: usize = 64;

/// What a token in epoll stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The listening socket.
    Listener,
    /// The writer thread has finished containers.
    Finished,
    /// A connection.
    Connection(u64),
    /// The error pipe of a process that is about to execute.
    Launch(u64),
    /// A container's first process.
    Container(String),
    /// An exec'd command.
    Exec(ExecKey),
    /// A pod-wide init.
    Init(String),
    /// A child that is only to be buried.
    Stray(i32),
}

/// An exec'd command: its connection, and its number there.
pub(super) type ExecKey = (u64, u64);

/// The supervisor.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) clock: SharedClock,
    pub(super) boot_id: String,
    pub(super) commands: Arc<Queue<Command>>,
    pub(super) containers: HashMap<String, Container>,
    pub(super) launches: HashMap<u64, Launch>,
    pub(super) execs: HashMap<ExecKey, Child>,
    pub(super) inits: HashMap<String, Child>,
    pub(super) restores: HashMap<String, Restoring>,
    pub(super) strays: HashMap<i32, Child>,
    pub(super) connections: HashMap<u64, Connection>,
    pub(super) epoll: OwnedFd,
    finished: Arc<Queue<Finished>>,
    listener: OwnedFd,
    socket_path: PathBuf,
    lowers_oom_score: bool,
    ends_alone: bool,
    was_connected: bool,
    sources: HashMap<u64, Source>,
    tokens: HashMap<Source, u64>,
    next_token: u64,
}

/// What a server is made from.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) clock: SharedClock,
    pub(super) boot_id: String,
    pub(super) commands: Arc<Queue<Command>>,
    pub(super) finished: Arc<Queue<Finished>>,
    pub(super) listener: OwnedFd,
    pub(super) socket_path: PathBuf,
    pub(super) lowers_oom_score: bool,
    /// Ends with its last connection.
    pub(super) ends_alone: bool,
}

impl Server {
    /// A server that serves nobody yet.
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let mut server = Self {
            clock: parts.clock,
            boot_id: parts.boot_id,
            commands: parts.commands,
            containers: HashMap::new(),
            launches: HashMap::new(),
            execs: HashMap::new(),
            inits: HashMap::new(),
            restores: HashMap::new(),
            strays: HashMap::new(),
            connections: HashMap::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            finished: parts.finished,
            listener: parts.listener,
            socket_path: parts.socket_path,
            lowers_oom_score: parts.lowers_oom_score,
            ends_alone: parts.ends_alone,
            was_connected: false,
            sources: HashMap::new(),
            tokens: HashMap::new(),
            next_token: 0,
        };
        let token = server.token(Source::Listener);
        epoll::add(&server.epoll, &server.listener, EventData::new_u64(token), EventFlags::IN)?;
        let token = server.token(Source::Finished);
        epoll::add(&server.epoll, server.finished.wake(), EventData::new_u64(token), EventFlags::IN)?;
        Ok(server)
    }

    /// Serves until it is told to end.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                // A source that an earlier event of this round removed is passed over.
                let Some(source) = self.sources.get(&event.data.u64()).cloned() else { continue };
                if self.on_event(source, event.flags) {
                    return Ok(());
                }
            }
            if self.is_deserted() {
                self.leave();
                return Ok(());
            }
        }
    }

    /// Reacts to one event. `true` ends the supervisor.
    fn on_event(&mut self, source: Source, flags: EventFlags) -> bool {
        match source {
            Source::Listener => self.on_connect(),
            Source::Finished => self.on_finished(),
            Source::Connection(id) => return self.on_connection(id, flags),
            Source::Launch(id) => self.on_launch(id),
            Source::Container(id) => self.on_container_end(&id, flags),
            Source::Exec(key) => self.on_exec_end(key),
            Source::Init(sandbox) => self.on_init_end(&sandbox),
            Source::Stray(pid) => self.on_stray_end(pid),
        }
        false
    }

    /// Watches a descriptor on behalf of `source`.
    pub(super) fn watch(&mut self, fd: impl AsFd, source: Source, flags: EventFlags) -> io::Result<()> {
        let token = self.token(source);
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Changes what is watched for.
    pub(super) fn rewatch(&self, fd: impl AsFd, source: &Source, flags: EventFlags) {
        if let Some(token) = self.tokens.get(source) {
            // Fails only for a descriptor that is not watched, and then there is nothing to change.
            let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(*token), flags);
        }
    }

    /// Forgets a source. To close its descriptor is not enough: a process that was born meanwhile and has not
    /// executed yet holds a copy, and epoll(7) would tell of it, over and over, until that one is gone, too.
    pub(super) fn unwatch(&mut self, fd: impl AsFd, source: &Source) {
        // Fails only for a descriptor that is not watched.
        let _ = epoll::delete(&self.epoll, fd);
        self.forget(source);
    }

    /// Forgets a source whose descriptor is not watched any more.
    pub(super) fn forget(&mut self, source: &Source) {
        if let Some(token) = self.tokens.remove(source) {
            self.sources.remove(&token);
        }
    }

    fn token(&mut self, source: Source) -> u64 {
        self.next_token += 1;
        self.sources.insert(self.next_token, source.clone());
        self.tokens.insert(source, self.next_token);
        self.next_token
    }

    fn on_connect(&mut self) {
        let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        if self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let id = self.next_token + 1;
        if self.watch(&socket, Source::Connection(id), EventFlags::IN).is_ok() {
            self.connections.insert(id, Connection::new(socket));
            self.was_connected = true;
        }
    }

    /// Reads and writes one connection. `true` ends the supervisor.
    fn on_connection(&mut self, id: u64, flags: EventFlags) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let mut alive = connection.flush().is_ok();
        if alive && flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            alive = connection.fill();
            while let Some(connection) = self.connections.get_mut(&id) {
                match connection.next() {
                    Ok(Some((frame, fds))) => {
                        if self.on_request(id, frame, fds) {
                            return true;
                        }
                    }
                    Ok(None) => break,
                    Err(_) => {
                        alive = false;
                        break;
                    }
                }
            }
        }
        if alive {
            self.watch_output(id)
        } else {
            self.drop_connection(id)
        }
        false
    }

    /// Whether whoever it was there for is gone; noticed when reading, or when answering.
    fn is_deserted(&self) -> bool {
        self.ends_alone && self.was_connected && self.connections.is_empty()
    }

    /// Kills everything before the end; who was connected is gone, so nobody waits for how it goes.
    fn leave(&mut self) {
        let ids: Vec<String> = self.containers.keys().chain(self.restores.keys()).cloned().collect();
        for id in ids {
            let _ = self.kill(&id);
        }
        let launched = self.launches.values().map(|launch| &launch.child);
        for child in self.inits.values().chain(self.execs.values()).chain(launched) {
            let _ = super::process::signal(child.pidfd.as_fd(), libc::SIGKILL);
        }
        let _ = std::fs::remove_file(&self.socket_path);
    }

    /// Waits for room in the socket exactly when something is left to send.
    fn watch_output(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let flags = if connection.is_flushed() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        self.rewatch(connection.socket(), &Source::Connection(id), flags);
    }

    /// Forgets a connection and kills what it had running.
    fn drop_connection(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            self.unwatch(connection.socket(), &Source::Connection(id));
        }
        self.abort_restores_of(id);
        // What waits for it waits in vain.
        for launch in self.launches.values_mut().filter(|launch| launch.asker.0 == id) {
            launch.go = None;
        }
        for (_, exec) in self.execs.iter().filter(|((connection, _), _)| *connection == id) {
            let _ = super::process::signal(exec.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Answers a request, now or when its process has executed. `true` ends the supervisor.
    fn on_request(&mut self, connection: u64, frame: ToSupervisor, fds: Vec<OwnedFd>) -> bool {
        let id = frame.id;
        let reply = match frame.request {
            Request::Hello => Reply::Hello(Hello {
                pid: rustix::process::getpid().as_raw_nonzero().get(),
                lowers_oom_score: self.lowers_oom_score,
            }),
            Request::List => self.list(),
            Request::Start(plan) => match self.start(*plan, &fds, (connection, id)) {
                Ok(()) => return false,
                Err(reply) => reply,
            },
            Request::StartInit(plan) => self.start_init(&plan),
            Request::Adopt(plan) => self.adopt(*plan, fds.into_iter().next()),
            Request::Exec(plan) => match self.exec(*plan, fds, (connection, id)) {
                Ok(()) => return false,
                Err(reply) => reply,
            },
            Request::KillExec(exec) => self.kill_exec((connection, exec)),
            Request::Proceed { container, go } => self.proceed(&container, go),
            Request::Restored { container, pid } => self.restored(connection, &container, pid),
            Request::Signal { container, signal } => self.signal(&container, signal),
            Request::Kill(container) => self.kill(&container),
            Request::KillInit(sandbox) => self.kill_init(&sandbox),
            Request::Attach(container) => self.attach(container, fds),
            Request::ReopenLog(container) => self.reopen_log(container),
            Request::CloseStdin(container) => self.close_stdin(&container),
            Request::Terminal(container) => {
                self.send_terminal(connection, id, &container);
                return false;
            }
            Request::Shutdown => {
                if self.containers.is_empty() && self.launches.is_empty() && self.restores.is_empty() {
                    return self.shut_down(connection, id);
                }
                Reply::Failed { step: "shut down while containers run".to_owned(), errno: libc::EBUSY }
            }
        };
        self.reply(connection, id, reply);
        false
    }

    fn shut_down(&mut self, connection: u64, id: u64) -> bool {
        for init in self.inits.values() {
            let _ = super::process::signal(init.pidfd.as_fd(), libc::SIGKILL);
        }
        // Removed before the answer: who hears it may start another supervisor at once.
        let _ = std::fs::remove_file(&self.socket_path);
        self.reply(connection, id, Reply::Done);
        true
    }

    fn list(&self) -> Reply {
        let listed = self.containers.iter().map(|(id, container)| Listed {
            container: id.clone(),
            pid: container.pid(),
            started_at: container.started_at(),
        });
        Reply::List(listed.collect())
    }

    fn on_finished(&mut self) {
        for Finished { container, exit } in self.finished.take() {
            self.containers.remove(&container);
            let event = Event::Exited { container, exit };
            let ids: Vec<u64> = self.connections.keys().copied().collect();
            for id in ids {
                self.tell(id, &event);
            }
        }
    }

    /// Hands a command to the writer thread.
    pub(super) fn command(&self, command: Command) -> Reply {
        match self.commands.push(command) {
            Ok(()) => Reply::Done,
            Err(_) => Reply::Failed { step: "hand a command to the log writer".to_owned(), errno: libc::EAGAIN },
        }
    }

    /// Answers a request; a connection that is gone hears nothing.
    pub(super) fn reply(&mut self, connection: u64, id: u64, reply: Reply) {
        self.reply_with(connection, id, reply, None);
    }

    /// Answers a request with a descriptor.
    pub(super) fn reply_with(&mut self, connection: u64, id: u64, reply: Reply, fd: Option<OwnedFd>) {
        let Some(to) = self.connections.get_mut(&connection) else { return };
        let alive = to.reply(id, reply, fd).is_ok();
        if alive { self.watch_output(connection) } else { self.drop_connection(connection) }
    }

    /// Tells one connection an event.
    pub(super) fn tell(&mut self, connection: u64, event: &Event) {
        let Some(to) = self.connections.get_mut(&connection) else { return };
        let alive = to.tell(event.clone()).is_ok();
        if alive { self.watch_output(connection) } else { self.drop_connection(connection) }
    }
}
