//! Containers that come back from a checkpoint.
//!
//! CRIU is a child of ours, in the container's groups, and bears the container's first process as its sister: ours,
//! too. Who it is whoever launches says, when it has looked at what CRIU has made. Until then nothing is written down,
//! and all goes with the connection. Nothing here waits: what ends is buried when epoll tells of it.

use std::os::fd::AsFd as _;

use rustix::event::epoll::EventFlags;

use super::containers::{Asker, done, failed};
use super::launch::{self, Child};
use super::plan::LaunchPlan;
use super::process::{self, Ended};
use super::server::{Server, Source};
use super::streams::Ours;
use super::wire::Reply;

/// A container that CRIU is bringing back.
#[derive(Debug)]
pub(super) struct Restoring {
    /// The connection that it belongs to.
    connection: u64,
    plan: LaunchPlan,
    ours: Ours,
}

impl Server {
    /// CRIU has been executed, and hears from the launcher what to do.
    pub(super) fn on_criu_started(&mut self, plan: LaunchPlan, criu: Child, ours: Ours, asker: Asker) -> Reply {
        let (pid, started_at) = (criu.pid, self.clock.now());
        let is_wanted = self.connections.contains_key(&asker.0);
        let id = plan.container.clone();
        self.restores.insert(id.clone(), Restoring { connection: asker.0, plan, ours });
        if !self.bury_later(criu) || !is_wanted {
            self.abort_restore(&id);
            return failed("watch CRIU", libc::EAGAIN);
        }
        Reply::Started { pid, started_at }
    }

    /// The container is back: it is one like all others from now on.
    pub(super) fn restored(&mut self, connection: u64, id: &str, pid: i32) -> Reply {
        if self.restores.get(id).is_none_or(|restoring| restoring.connection != connection) {
            return Reply::NotFound;
        }
        let child = match launch::born(pid) {
            Ok(child) if process::is_child(child.pidfd.as_fd()) => child,
            Ok(_) => return failed("keep a process that is not ours", libc::ECHILD),
            Err(err) => return err.into(),
        };
        match self.restores.remove(id) {
            Some(Restoring { plan, ours, .. }) => self.on_started(plan, child, ours),
            None => Reply::NotFound,
        }
    }

    /// Kills what CRIU has made so far, and CRIU. `false` when there is nothing.
    pub(super) fn abort_restore(&mut self, id: &str) -> bool {
        let Some(restoring) = self.restores.remove(id) else { return false };
        process::kill_cgroup(&restoring.plan.cgroup);
        // CRIU may have borne some that nobody has told of.
        let born: Vec<i32> = process::children().into_iter().filter(|pid| !self.knows(*pid)).collect();
        for pid in born {
            if let Ok(child) = launch::born(pid) {
                self.bury_later(child);
            }
        }
        true
    }

    /// Aborts what a connection that is gone was bringing back.
    pub(super) fn abort_restores_of(&mut self, connection: u64) {
        let own = self.restores.iter().filter(|(_, restoring)| restoring.connection == connection);
        let own: Vec<String> = own.map(|(id, _)| id.clone()).collect();
        for id in own {
            self.abort_restore(&id);
        }
    }

    /// Ends one, for who asks for that by the container's id.
    pub(super) fn kill_restore(&mut self, id: &str) -> Reply {
        if self.abort_restore(id) { done(Ok(()), "kill a container") } else { Reply::NotFound }
    }

    /// A child that is no container has ended, or was told so.
    pub(super) fn on_stray_end(&mut self, pid: i32) {
        let Some(child) = self.strays.get(&pid) else { return };
        if process::ended(child.pidfd.as_fd()) != Ended::No
            && let Some(child) = self.strays.remove(&pid)
        {
            self.unwatch(&child.pidfd, &Source::Stray(pid));
        }
    }

    fn bury_later(&mut self, child: Child) -> bool {
        let watched = self.watch(&child.pidfd, Source::Stray(child.pid), EventFlags::IN).is_ok();
        self.strays.insert(child.pid, child);
        watched
    }

    /// Whether a child of ours is one that somebody looks after.
    fn knows(&self, pid: i32) -> bool {
        let launched = self.launches.values().map(|launch| launch.child.pid);
        let containers = self.containers.values().map(super::containers::Container::pid);
        let others = self.execs.values().chain(self.inits.values()).map(|child| child.pid);
        launched.chain(containers).chain(others).any(|known| known == pid) || self.strays.contains_key(&pid)
    }
}
