//! Containers in the supervisor: start, adoption, signals, streams, end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{self, Failure, Step};
use super::failure;
use super::launch::{self, Child, PidNamespace};
use super::plan::{
    AdoptPlan, CgroupPlan, ExecPlan, ExitRecord, LaunchPlan, PausePlan, PidPlan, RecordPlan, RunRecord, StreamPlan,
};
use super::prepare::{self, PrepareError};
use super::process::{self, Ended};
use super::server::{CONTAINERS_MAX, ExecKey, Server, Source};
use super::streams::{Ours, Streams};
use super::wire::{Event, Reply};
use crate::logs::writer::{Command, write_record};

/// Who asked: a connection, and the number of its request.
pub(super) type Asker = (u64, u64);

/// A container that runs, or has ended and is being written down.
#[derive(Debug)]
pub(super) struct Container {
    process: Child,
    started_at: jiff::Timestamp,
    cgroup: CgroupPlan,
    records: RecordPlan,
    stdin_keeper: Option<OwnedFd>,
    master: Option<OwnedFd>,
    ended: bool,
}

impl Container {
    /// Its first process.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Since when.
    pub(super) fn started_at(&self) -> jiff::Timestamp {
        self.started_at
    }

    /// Its first process, as long as it can be joined.
    pub(super) fn running(&self) -> Option<&Child> {
        (!self.ended).then_some(&self.process)
    }
}

/// A process between `clone3` and `execve`.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) asker: Asker,
    pub(super) error_pipe: OwnedFd,
    pub(super) child: Child,
    pub(super) what: Launched,
    /// What lets it go on from where it waits, if it does so anywhere.
    pub(super) go: Option<OwnedFd>,
}

impl Launch {
    /// The process that went ahead has borne this one, and ends.
    fn bear(&mut self, pid: i32) -> Result<(), PrepareError> {
        let ahead = std::mem::replace(&mut self.child, launch::born(pid)?);
        launch::bury(&ahead);
        Ok(())
    }
}

/// What is being launched.
#[derive(Debug)]
pub(super) enum Launched {
    /// A container's first process.
    Container(Box<LaunchPlan>, Ours),
    /// A command in a container.
    Exec(Box<ExecPlan>, ExecKey),
}

impl Server {
    /// Starts a container; the answer follows when its command has been executed.
    pub(super) fn start(&mut self, plan: LaunchPlan, mounts: &[OwnedFd], asker: Asker) -> Result<(), Reply> {
        self.refuse_second_copy(&plan)?;
        let init = match &plan.namespaces.pid {
            PidPlan::Pod(sandbox) => self.inits.get(sandbox).map(|init| init.pidfd.as_fd()),
            PidPlan::Of(other) => self.containers.get(other).map(|container| container.process.pidfd.as_fd()),
            _ => None,
        };
        let born_in = if plan.restore.is_some() { &PidPlan::Node } else { &plan.namespaces.pid };
        let Some(pid) = PidNamespace::for_plan(born_in, init) else {
            return Err(failed("join a PID namespace: its init is gone", libc::ESRCH));
        };
        let (error_pipe, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|err| failed("make a pipe", err.raw_os_error()))?;
        let streams = Streams::open(&plan)?;
        let (wait, go) = match plan.pauses {
            PausePlan { created: false, starting: false } => (None, None),
            _ => pipe_with(PipeFlags::CLOEXEC)
                .map(|(wait, go)| (Some(wait), Some(go)))
                .map_err(|err| failed("make a pipe", err.raw_os_error()))?,
        };
        let wait = wait.as_ref().map(AsFd::as_fd);
        let (theirs, terminal) = (streams.theirs(), streams.terminal());
        let prepared = prepare::first_process(&plan, mounts, theirs, writer.as_fd(), terminal, wait)?;
        let child = launch::start(&prepared, &plan.cgroup, pid, true)?;
        drop(writer);
        let ours = streams.into_ours().map_err(|err| failed("keep a terminal", err.raw_os_error().unwrap_or(0)))?;
        self.await_launch(Launch { asker, error_pipe, child, what: Launched::Container(Box::new(plan), ours), go })
    }

    /// Never two copies: neither one that is known here, nor one that a dead supervisor left.
    fn refuse_second_copy(&self, plan: &LaunchPlan) -> Result<(), Reply> {
        let launching = self
            .launches
            .values()
            .any(|launch| matches!(&launch.what, Launched::Container(other, _) if other.container == plan.container));
        let known = self.containers.contains_key(&plan.container) || self.restores.contains_key(&plan.container);
        if launching || known || process::is_populated(&plan.cgroup) {
            return Err(failed("start a container that runs already", libc::EBUSY));
        }
        if self.containers.len() + self.launches.len() + self.restores.len() >= CONTAINERS_MAX {
            return Err(failed("start one container more", libc::EAGAIN));
        }
        Ok(())
    }

    /// Waits for the error pipe: closed by `execve`, or a report.
    pub(super) fn await_launch(&mut self, launch: Launch) -> Result<(), Reply> {
        let id = launch.asker.1.wrapping_mul(64).wrapping_add(launch.asker.0);
        let id = (id..).find(|id| !self.launches.contains_key(id)).unwrap_or(id);
        if let Err(err) = self.watch(&launch.error_pipe, Source::Launch(id), EventFlags::IN) {
            let _ = process::signal(launch.child.pidfd.as_fd(), libc::SIGKILL);
            return Err(failed("watch a process", err.raw_os_error().unwrap_or(0)));
        }
        self.launches.insert(id, launch);
        Ok(())
    }

    /// A process has executed its command, or gave up.
    pub(super) fn on_launch(&mut self, id: u64) {
        let Some(mut launch) = self.launches.remove(&id) else { return };
        let report = launch::read_report(launch.error_pipe.as_fd());
        if let Some(Failure { step, errno: pid, .. }) = report
            && step == Step::Born as u32
        {
            return match launch.bear(pid) {
                Ok(()) => drop(self.launches.insert(id, launch)),
                Err(err) => {
                    self.unwatch(&launch.error_pipe, &Source::Launch(id));
                    self.reply(launch.asker.0, launch.asker.1, err.into());
                }
            };
        }
        if report.is_some_and(|report| report.step == Step::Paused as u32) {
            let starting = report.is_some_and(|report| report.index > 0);
            return self.on_paused(id, launch, starting);
        }
        self.unwatch(&launch.error_pipe, &Source::Launch(id));
        let (connection, request) = launch.asker;
        let reply = match (report, launch.what) {
            (None, Launched::Container(plan, ours)) if plan.restore.is_some() => {
                self.on_criu_started(*plan, launch.child, ours, launch.asker)
            }
            (None, Launched::Container(plan, ours)) => self.on_started(*plan, launch.child, ours),
            (None, Launched::Exec(_, key)) => self.on_exec_started(key, launch.child),
            (Some(report), what) => {
                launch::bury(&launch.child);
                explain(report, &what)
            }
        };
        self.reply(connection, request, reply);
    }

    /// A process waits for who has started it. Without that one it gives up.
    fn on_paused(&mut self, id: u64, mut launch: Launch, starting: bool) {
        let (connection, pid) = (launch.asker.0, launch.child.pid);
        if !self.connections.contains_key(&connection) {
            launch.go = None;
        }
        if let Launched::Container(plan, _) = &launch.what {
            let event = Event::Paused { container: plan.container.clone(), pid, starting };
            self.launches.insert(id, launch);
            self.tell(connection, &event);
        }
    }

    /// Lets a process go on from where it waits, or has it give up.
    pub(super) fn proceed(&mut self, id: &str, go: bool) -> Reply {
        let own = |launch: &&Launch| matches!(&launch.what, Launched::Container(plan, _) if plan.container == id);
        let waiting = self.launches.values().find(own).and_then(|launch| launch.go.as_ref());
        let Some(pipe) = waiting else { return Reply::NotFound };
        let byte = if go { child::GO } else { 0 };
        done(rustix::io::write(pipe, &[byte]).map(drop).map_err(io::Error::from), "let a container go on")
    }

    pub(super) fn on_started(&mut self, plan: LaunchPlan, process: Child, ours: Ours) -> Reply {
        let started_at = self.clock.now();
        let pid = process.pid;
        let run = RunRecord {
            pid,
            // The process may have ended already, but it is not buried yet: the file is there.
            start_ticks: process::start_ticks(pid).unwrap_or(0),
            boot_id: self.boot_id.clone(),
            started_at,
        };
        // Without a record the next supervisor kills the container instead of adopting it: worse, not wrong.
        let _ = write_record(&plan.records.started, &run);
        let container = Container {
            process,
            started_at,
            cgroup: plan.cgroup,
            records: plan.records,
            stdin_keeper: ours.stdin_keeper,
            master: ours.master,
            ended: false,
        };
        match self.take_in(plan.container, container, (ours.sources, &plan.streams)) {
            Ok(()) => Reply::Started { pid, started_at },
            Err(reply) => reply,
        }
    }

    /// Begins to log and to watch a container's process.
    fn take_in(
        &mut self,
        id: String,
        container: Container,
        (streams, plan): (Vec<OwnedFd>, &StreamPlan),
    ) -> Result<(), Reply> {
        let (path, limits) = (plan.log.clone(), plan.log_limits);
        let added = self.command(Command::Add { container: id.clone(), streams, path, limits });
        let watched = self.watch(&container.process.pidfd, Source::Container(id.clone()), EventFlags::IN);
        if !matches!(added, Reply::Done) || watched.is_err() {
            process::kill_cgroup(&container.cgroup);
            return Err(failed("watch a container", libc::EAGAIN));
        }
        self.containers.insert(id, container);
        Ok(())
    }

    /// Takes over a container whose supervisor died. What is gone already is told as an end.
    pub(super) fn adopt(&mut self, plan: AdoptPlan, master: Option<OwnedFd>) -> Reply {
        if self.containers.contains_key(&plan.container) {
            return Reply::Done;
        }
        let (pid, started_at) = (plan.run.pid, plan.run.started_at);
        if plan.terminal && master.is_none() {
            return failed("adopt a container without its terminal", libc::ENOTTY);
        }
        let pidfd = match process::open_recorded(&plan.run) {
            Ok(Some(pidfd)) => pidfd,
            Ok(None) => return Reply::NotFound,
            Err(err) => return failed("find the container's process", err.raw_os_error().unwrap_or(0)),
        };
        let ours = match Ours::reopen(&plan.streams, master) {
            Ok(ours) => ours,
            Err(err) => return err.into(),
        };
        let container = Container {
            process: Child { pid, pidfd },
            started_at,
            cgroup: plan.cgroup,
            records: plan.records,
            stdin_keeper: ours.stdin_keeper,
            master: ours.master,
            ended: false,
        };
        match self.take_in(plan.container, container, (ours.sources, &plan.streams)) {
            Ok(()) => Reply::Started { pid, started_at },
            Err(reply) => reply,
        }
    }

    /// A container's first process has ended.
    pub(super) fn on_container_end(&mut self, id: &str, flags: EventFlags) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let exit_code = match process::ended(container.process.pidfd.as_fd()) {
            Ended::No => return,
            // Not our child: the kernel tells the code when its new parent has buried it (HUP).
            Ended::Unknown if !flags.contains(EventFlags::HUP) => {
                let source = Source::Container(id.to_owned());
                let Some(container) = self.containers.get(id) else { return };
                self.rewatch(&container.process.pidfd, &source, EventFlags::empty());
                return;
            }
            Ended::Unknown => None,
            Ended::Code(code) => Some(code),
        };
        container.ended = true;
        container.stdin_keeper = None;
        container.master = None;
        let oom = process::oom_kills(&container.cgroup) > 0;
        // With its own PID namespace nothing is left; with a shared one, its other processes are.
        process::kill_cgroup(&container.cgroup);
        let exit = exit_record(container.started_at, self.clock.now(), exit_code, oom);
        let record = container.records.exited.clone();
        let _ = rustix::event::epoll::delete(&self.epoll, &container.process.pidfd);
        self.forget(&Source::Container(id.to_owned()));
        let _ = self.command(Command::Finish { container: id.to_owned(), exit, record });
    }

    pub(super) fn signal(&mut self, id: &str, signal: i32) -> Reply {
        let Some(process) = self.containers.get(id).and_then(Container::running) else { return Reply::NotFound };
        done(process::signal(process.pidfd.as_fd(), signal), "signal a container")
    }

    pub(super) fn kill(&mut self, id: &str) -> Reply {
        let Some(container) = self.containers.get(id) else { return self.kill_launch(id) };
        process::kill_cgroup(&container.cgroup);
        let killed = process::signal(container.process.pidfd.as_fd(), libc::SIGKILL);
        done(killed, "kill a container")
    }

    /// Ends a container's process before it has executed its command. Its launch ends with the error pipe.
    fn kill_launch(&mut self, id: &str) -> Reply {
        let own = |launch: &&Launch| matches!(&launch.what, Launched::Container(plan, _) if plan.container == id);
        let Some(launch) = self.launches.values().find(own) else { return self.kill_restore(id) };
        // The one that goes ahead may have borne another of which it could not tell yet.
        if let Launched::Container(plan, _) = &launch.what {
            process::kill_cgroup(&plan.cgroup);
        }
        done(process::signal(launch.child.pidfd.as_fd(), libc::SIGKILL), "kill a container")
    }

    pub(super) fn attach(&mut self, container: String, taps: Vec<OwnedFd>) -> Reply {
        if self.containers.get(&container).and_then(Container::running).is_none() {
            return Reply::NotFound;
        }
        for tap in &taps {
            if let Err(errno) = rustix::io::ioctl_fionbio(tap, true) {
                return failed("attach a pipe", errno.raw_os_error());
            }
        }
        self.command(Command::Attach { container, taps })
    }

    pub(super) fn reopen_log(&mut self, container: String) -> Reply {
        if self.containers.get(&container).and_then(Container::running).is_none() {
            return Reply::NotFound;
        }
        self.command(Command::Reopen { container })
    }

    pub(super) fn close_stdin(&mut self, id: &str) -> Reply {
        let Some(container) = self.containers.get_mut(id) else { return Reply::NotFound };
        container.stdin_keeper = None;
        Reply::Done
    }

    pub(super) fn send_terminal(&mut self, connection: u64, request: u64, id: &str) {
        let master = self.containers.get(id).and_then(|container| container.master.as_ref());
        match master.map(OwnedFd::try_clone) {
            Some(Ok(master)) => self.reply_with(connection, request, Reply::Terminal, Some(master)),
            Some(Err(err)) => {
                let reply = failed("duplicate a terminal", err.raw_os_error().unwrap_or(0));
                self.reply(connection, request, reply);
            }
            None => self.reply(connection, request, Reply::NotFound),
        }
    }
}

impl From<PrepareError> for Reply {
    fn from(err: PrepareError) -> Self {
        Self::Failed { step: err.step, errno: err.source.raw_os_error().unwrap_or(libc::EINVAL) }
    }
}

/// A failed step as an answer.
pub(super) fn failed(step: &str, errno: i32) -> Reply {
    Reply::Failed { step: step.to_owned(), errno }
}

/// An effect's outcome as an answer.
pub(super) fn done(outcome: io::Result<()>, step: &str) -> Reply {
    match outcome {
        Ok(()) => Reply::Done,
        Err(err) => failed(step, err.raw_os_error().unwrap_or(libc::EINVAL)),
    }
}

fn explain(report: Failure, what: &Launched) -> Reply {
    match what {
        Launched::Container(plan, _) => Reply::CannotStart(failure::describe(report, plan)),
        Launched::Exec(plan, _) if report.step == Step::Namespace as u32 => {
            failed(&format!("join container {}", plan.container), report.errno)
        }
        Launched::Exec(plan, _) => Reply::CannotStart(failure::describe_process(report, &plan.process)),
    }
}

/// In the kubelet's and containerd's words.
fn exit_record(
    started_at: jiff::Timestamp,
    finished_at: jiff::Timestamp,
    exit_code: Option<i32>,
    oom: bool,
) -> ExitRecord {
    let (reason, message) = match exit_code {
        None => ("ContainerStatusUnknown", "the exit code is unknown: nobody was there to see it"),
        Some(0) => ("Completed", ""),
        Some(137) if oom => ("OOMKilled", ""),
        Some(_) => ("Error", ""),
    };
    ExitRecord {
        started_at: Some(started_at),
        finished_at,
        exit_code,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
