//! Commands inside containers, and pod-wide inits.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::containers::{Asker, Container, Launch, Launched, done, failed};
use super::launch::{self, Child, PidNamespace};
use super::plan::{ExecPlan, InitPlan, RunRecord};
use super::prepare;
use super::process::{self, Ended};
use super::server::{ExecKey, Server, Source};
use super::wire::{Event, Reply};
use crate::logs::writer::write_record;

/// Most commands that may run inside containers at once.
const EXECS_MAX: usize = 4096;

impl Server {
    /// Runs a command in a container; the answer follows when it has been executed.
    pub(super) fn exec(&mut self, plan: ExecPlan, streams: Vec<OwnedFd>, asker: Asker) -> Result<(), Reply> {
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(streams) else {
            return Err(failed("run a command without its three streams", libc::EINVAL));
        };
        if self.execs.len() >= EXECS_MAX {
            return Err(failed("run one command more", libc::EAGAIN));
        }
        let Some(container) = self.containers.get(&plan.container).and_then(Container::running) else {
            return Err(Reply::NotFound);
        };
        let (error_pipe, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|err| failed("make a pipe", err.raw_os_error()))?;
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let pidfd = container.pidfd.as_fd();
        let prepared = prepare::exec_process(&plan, pidfd, streams, writer.as_fd())?;
        let child = launch::start(&prepared, &plan.cgroup, PidNamespace::Of(pidfd), false)?;
        drop(writer);
        let key = (asker.0, plan.exec);
        self.await_launch(Launch { asker, error_pipe, child, what: Launched::Exec(Box::new(plan), key), go: None })
    }

    /// A command has been executed.
    pub(super) fn on_exec_started(&mut self, key: ExecKey, child: Child) -> Reply {
        let (pid, started_at) = (child.pid, self.clock.now());
        if !self.connections.contains_key(&key.0)
            || self.watch(&child.pidfd, Source::Exec(key), EventFlags::IN).is_err()
        {
            let _ = process::signal(child.pidfd.as_fd(), libc::SIGKILL);
            return failed("watch a command", libc::EAGAIN);
        }
        self.execs.insert(key, child);
        Reply::Started { pid, started_at }
    }

    /// A command has ended.
    pub(super) fn on_exec_end(&mut self, key: ExecKey) {
        let Some(child) = self.execs.get(&key) else { return };
        let code = match process::ended(child.pidfd.as_fd()) {
            Ended::No => return,
            Ended::Code(code) => code,
            // Our own child's code is always known; 255 is what a shell says when it cannot tell.
            Ended::Unknown => 255,
        };
        if let Some(child) = self.execs.remove(&key) {
            self.unwatch(&child.pidfd, &Source::Exec(key));
        }
        self.tell(key.0, &Event::ExecExited { exec: key.1, code });
    }

    pub(super) fn kill_exec(&mut self, key: ExecKey) -> Reply {
        match self.execs.get(&key) {
            Some(child) => done(process::signal(child.pidfd.as_fd(), libc::SIGKILL), "kill a command"),
            None => Reply::NotFound,
        }
    }

    /// Starts a pod-wide init, unless it is there.
    pub(super) fn start_init(&mut self, plan: &InitPlan) -> Reply {
        if self.inits.contains_key(&plan.sandbox) {
            return Reply::Done;
        }
        if let Some(init) = adopt_init(plan) {
            return self.take_in_init(plan.sandbox.clone(), init);
        }
        let init = match launch::start_init(&plan.cgroup, plan.user.as_ref()) {
            Ok(init) => init,
            Err(err) => return err.into(),
        };
        let run = RunRecord {
            pid: init.pid,
            start_ticks: process::start_ticks(init.pid).unwrap_or(0),
            boot_id: self.boot_id.clone(),
            started_at: self.clock.now(),
        };
        if let Err(err) = write_record(&plan.started, &run) {
            let _ = process::signal(init.pidfd.as_fd(), libc::SIGKILL);
            return failed(&format!("write {}", plan.started.display()), err.raw_os_error().unwrap_or(0));
        }
        self.take_in_init(plan.sandbox.clone(), init)
    }

    fn take_in_init(&mut self, sandbox: String, init: Child) -> Reply {
        if self.watch(&init.pidfd, Source::Init(sandbox.clone()), EventFlags::IN).is_err() {
            let _ = process::signal(init.pidfd.as_fd(), libc::SIGKILL);
            return failed("watch an init", libc::EAGAIN);
        }
        self.inits.insert(sandbox, init);
        Reply::Done
    }

    pub(super) fn kill_init(&mut self, sandbox: &str) -> Reply {
        match self.inits.get(sandbox) {
            Some(init) => done(process::signal(init.pidfd.as_fd(), libc::SIGKILL), "kill an init"),
            None => Reply::Done,
        }
    }

    pub(super) fn on_init_end(&mut self, sandbox: &str) {
        let Some(init) = self.inits.get(sandbox) else { return };
        if process::ended(init.pidfd.as_fd()) != Ended::No
            && let Some(init) = self.inits.remove(sandbox)
        {
            self.unwatch(&init.pidfd, &Source::Init(sandbox.to_owned()));
        }
    }
}

/// An init that a dead supervisor left, if it still runs.
fn adopt_init(plan: &InitPlan) -> Option<Child> {
    let record = std::fs::read(&plan.started).ok()?;
    let run: RunRecord = serde_json::from_slice(&record).ok()?;
    let pidfd = process::open_recorded(&run).ok()??;
    Some(Child { pid: run.pid, pidfd })
}
