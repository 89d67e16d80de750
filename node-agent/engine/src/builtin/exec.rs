//! Commands in containers, and joining a container's own streams.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::sync::oneshot;

use super::link::Link;
use super::sandboxes::unexpected;
use super::state::word;
use super::streams::{Master, OnDrop, input, output, pipe_pair};
use super::{BuiltinEngine, blocking};
use crate::engine::{
    AttachConfig, Container, ContainerState, EngineError, ExecConfig, ExecSession, ExitFuture, InputStream,
    OutputStream,
};
use crate::logs::writer;
use crate::runtime::cgroup::freezer;
use crate::runtime::process::exec_process;
use crate::supervisor::plan::{ExecPlan, ProcessPlan};
use crate::supervisor::terminal::open_in_container;
use crate::supervisor::wire::{Reply, Request};

/// What an attached client may be behind before it is cut off. The kernel's limit for a pipe without privilege.
const ATTACH_BUFFER_LEN: usize = 1 << 20;

/// Both ends of a command's streams.
struct Streams {
    /// The command's: 0, 1, 2.
    theirs: Vec<OwnedFd>,
    stdin: Option<InputStream>,
    stdout: Option<OutputStream>,
    stderr: Option<OutputStream>,
    master: Option<Master>,
}

impl BuiltinEngine {
    pub(super) async fn run_exec(&self, id: &str, config: ExecConfig) -> Result<ExecSession, EngineError> {
        if config.command.first().is_none_or(String::is_empty) {
            return Err(EngineError::Invalid("no command specified".to_owned()));
        }
        let (container, pid) = self.running(id)?;
        let process = self.process_of(&container, pid).await?;
        let sandbox = self.inner.sandbox(&container.sandbox)?;
        let cgroup = self.inner.container_cgroup(&container, &sandbox);
        // Born into the frozen group the command would never begin.
        if freezer::is_frozen(&cgroup) {
            return Err(EngineError::WrongState { id: id.to_owned(), state: "paused" });
        }
        let streams = open_streams(pid, &config)
            .map_err(|source| EngineError::Io { step: format!("open streams into container {id}"), source })?;
        let link = self.inner.link().await?;
        let (exec, ended) = link.expect_exec();
        let plan = ExecPlan {
            container: id.to_owned(),
            exec,
            process: exec_process(&process, config.command.clone(), config.tty),
            cgroup,
            user: sandbox.config.user_namespace,
        };
        let answer = link.ask_with(Request::Exec(Box::new(plan)), streams.theirs).await;
        match answer.map(|(reply, _)| reply) {
            Ok(Reply::Started { .. }) => {}
            other => {
                link.forget_exec(exec);
                return Err(match other? {
                    Reply::NotFound => EngineError::WrongState { id: id.to_owned(), state: "exited" },
                    other => unexpected("run a command", other),
                });
            }
        }
        Ok(ExecSession {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            resize: streams.master.as_ref().map(Master::sizes),
            ends_with_input: false,
            exit: watch_exec(link, (exec, ended), &config),
        })
    }

    pub(super) async fn join_streams(&self, id: &str, config: AttachConfig) -> Result<ExecSession, EngineError> {
        let (container, _) = self.running(id)?;
        let fail = |source| EngineError::Io { step: format!("attach to container {id}"), source };
        let tty = container.config.tty;
        let master = if tty {
            let held = self.inner.state(|state| {
                state.containers.get(id).and_then(|entry| entry.held.terminal.as_ref()?.try_clone().ok())
            });
            held.map(Master::new).transpose().map_err(fail)?
        } else {
            None
        };
        let (mut stdout, mut stderr, mut taps) = (None, None, Vec::new());
        for (slot, wanted) in [(&mut stdout, config.stdout), (&mut stderr, config.stderr && !tty)] {
            let (reader, writer) = pipe_pair().map_err(fail)?;
            // An unwanted stream's reader is dropped here, and its tap with the first byte.
            if wanted {
                let _ = rustix::pipe::fcntl_setpipe_size(&writer, ATTACH_BUFFER_LEN);
                *slot = Some(output(reader).map_err(fail)?);
            }
            taps.push(writer);
        }
        taps.truncate(if tty { 1 } else { 2 });
        let stdin = if config.stdin { self.open_stdin(&container, master.as_ref()).map_err(fail)? } else { None };
        match self.inner.link().await?.ask_with(Request::Attach(id.to_owned()), taps).await?.0 {
            Reply::Done => {}
            Reply::NotFound => return Err(EngineError::WrongState { id: id.to_owned(), state: "exited" }),
            other => return Err(unexpected("attach to the container", other)),
        }
        let resize = master.as_ref().map(Master::sizes);
        // Whoever ends a container's input by leaving stays to see what it makes of it.
        let ends_with_input = stdin.is_some() && (tty || !container.config.stdin_once);
        Ok(ExecSession { stdin, stdout, stderr, resize, ends_with_input, exit: self.watch_end(id)? })
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<(), EngineError> {
        let (container, _) = self.running(id)?;
        // Made here: the writer opens it a moment later, and whoever asked looks for it at once.
        blocking(move || {
            let path = &container.config.log_path;
            let failed = |source| EngineError::Io { step: format!("open {}", path.display()), source };
            writer::open(path).map(drop).map_err(failed)
        })
        .await?;
        match self.inner.link().await?.ask(Request::ReopenLog(id.to_owned())).await? {
            Reply::Done => Ok(()),
            Reply::NotFound => Err(EngineError::WrongState { id: id.to_owned(), state: "exited" }),
            other => Err(unexpected("reopen the container's log", other)),
        }
    }

    /// The way into a container's standard input, if it has one.
    fn open_stdin(&self, container: &Container, master: Option<&Master>) -> io::Result<Option<InputStream>> {
        if !container.config.stdin {
            return Ok(None);
        }
        if let Some(master) = master {
            return Ok(Some(Box::pin(master.clone())));
        }
        let Some(path) = self.inner.streams(container).stdin else { return Ok(None) };
        let fd = rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let stream = tokio::net::unix::pipe::Sender::from_owned_fd(fd)?;
        if !container.config.stdin_once {
            return Ok(Some(Box::pin(stream)));
        }
        // The first client to leave ends the container's input: nobody may hold it open any more.
        let (engine, id) = (self.clone(), container.id.clone());
        let on_drop = move || {
            engine.inner.state(|state| {
                if let Some(entry) = state.containers.get_mut(&id) {
                    entry.held.stdin = None;
                }
            });
            if let Some(link) = &*engine.inner.link.borrow() {
                link.notify(Request::CloseStdin(id.clone()));
            }
        };
        Ok(Some(Box::pin(OnDrop { stream, on_drop })))
    }

    /// Resolves with the container's exit code.
    fn watch_end(&self, id: &str) -> Result<ExitFuture, EngineError> {
        let mut ended = self.inner.state(|state| state.container(id).map(|entry| entry.ended.subscribe()))?;
        let (engine, id) = (self.clone(), id.to_owned());
        Ok(Box::pin(async move {
            let _ = ended.wait_for(|ended| *ended).await;
            match engine.inner.state(|state| state.container(&id).map(|entry| entry.container.state.clone()))? {
                ContainerState::Exited { exit_code: Some(code), .. } => Ok(code),
                state => Err(EngineError::WrongState { id, state: word(&state) }),
            }
        }))
    }

    pub(super) fn running(&self, id: &str) -> Result<(Container, i32), EngineError> {
        let container = self.inner.state(|state| state.container(id).map(|entry| entry.container.clone()))?;
        match container.state {
            ContainerState::Running { pid, .. } => Ok((container, pid)),
            ref other => Err(EngineError::WrongState { id: id.to_owned(), state: word(other) }),
        }
    }

    /// What the container's first process was compiled to; compiled anew in a later life of the agent.
    async fn process_of(&self, container: &Container, pid: i32) -> Result<Arc<ProcessPlan>, EngineError> {
        let id = container.id.clone();
        if let Some(process) = self.inner.state(|state| state.container(&id).map(|entry| entry.process.clone()))? {
            return Ok(process);
        }
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        let process = blocking(move || {
            let sandbox = inner.sandbox(&container.sandbox)?;
            let root = format!("/proc/{pid}/root");
            let opened = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            let fail =
                |errno: rustix::io::Errno| EngineError::Io { step: format!("open {root}"), source: errno.into() };
            inner.compile(&container, &sandbox, opened.map_err(fail)?.as_fd())
        })
        .await?;
        let process = Arc::new(process);
        self.inner.state(|state| state.container_mut(&id).map(|entry| entry.process = Some(Arc::clone(&process))))?;
        Ok(process)
    }
}

/// Opens both ends: pipes, or a terminal of the container's own devpts; `/dev/null` for what is not wanted.
fn open_streams(pid: i32, config: &ExecConfig) -> io::Result<Streams> {
    if config.tty {
        return open_terminal(pid, config);
    }
    let null = |flags| rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty());
    let (mut stdin, mut stdout, mut stderr, mut theirs) = (None, None, None, Vec::new());
    if config.stdin {
        let (reader, writer) = pipe_pair()?;
        stdin = Some(input(writer)?);
        theirs.push(reader);
    } else {
        theirs.push(null(OFlags::RDONLY)?);
    }
    for (slot, wanted) in [(&mut stdout, config.stdout), (&mut stderr, config.stderr)] {
        if wanted {
            let (reader, writer) = pipe_pair()?;
            *slot = Some(output(reader)?);
            theirs.push(writer);
        } else {
            theirs.push(null(OFlags::WRONLY)?);
        }
    }
    Ok(Streams { theirs, stdin, stdout, stderr, master: None })
}

fn open_terminal(pid: i32, config: &ExecConfig) -> io::Result<Streams> {
    let root = format!("/proc/{pid}/root");
    let root = rustix::fs::open(Path::new(&root), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let (master, slave) = open_in_container(root.as_fd())?;
    let master = Master::new(master)?;
    Ok(Streams {
        theirs: vec![slave.try_clone()?, slave.try_clone()?, slave],
        stdin: config.stdin.then(|| Box::pin(master.clone()) as InputStream),
        stdout: config.stdout.then(|| Box::pin(master.clone()) as OutputStream),
        stderr: None,
        master: Some(master),
    })
}

/// Kills a command when its session is dropped, or its time is over.
fn watch_exec(link: Link, (exec, ended): (u64, oneshot::Receiver<i32>), config: &ExecConfig) -> ExitFuture {
    let (command, timeout) = (config.command.join(" "), config.timeout);
    let (session, dropped) = oneshot::channel::<()>();
    let (result, waiter) = oneshot::channel();
    tokio::spawn(async move {
        let outcome = tokio::select! {
            code = ended => code.map_err(|_| super::LinkError.into()),
            () = sleep(timeout) => {
                link.notify(Request::KillExec(exec));
                Err(EngineError::ExecTimeout { command, seconds: timeout.map_or(0, |timeout| timeout.as_secs()) })
            }
            _ = dropped => {
                link.notify(Request::KillExec(exec));
                return;
            }
        };
        let _ = result.send(outcome);
    });
    Box::pin(async move {
        let outcome = waiter.await.unwrap_or_else(|_| Err(super::LinkError.into()));
        drop(session);
        outcome
    })
}

/// Forever, without a limit.
async fn sleep(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
