//! A container's standard streams: FIFOs in the run folder, or a terminal.
//!
//! A FIFO is opened for reading *and* writing on the container's side: a supervisor that dies is then neither an
//! end of file nor a SIGPIPE, but a full pipe, until the next one reads on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::plan::{LaunchPlan, RootOp, StreamPlan};
use super::prepare::{PrepareError, open};
use super::terminal::Terminal;

/// Both ends of a container's streams, before it is started.
#[derive(Debug)]
pub(super) struct Streams {
    stdin: OwnedFd,
    outputs: Vec<OwnedFd>,
    terminal: Option<Terminal>,
    ours: Ours,
}

/// The supervisor's ends.
#[derive(Debug)]
pub(super) struct Ours {
    /// Keeps standard input from ending before anybody attached.
    pub(super) stdin_keeper: Option<OwnedFd>,
    /// What the log is read from.
    pub(super) sources: Vec<OwnedFd>,
    /// The terminal.
    pub(super) master: Option<OwnedFd>,
}

impl Streams {
    /// Opens both ends of everything a plan names.
    pub(super) fn open(plan: &LaunchPlan) -> Result<Self, PrepareError> {
        if plan.process.terminal {
            return Self::open_terminal(plan);
        }
        let (stdin, stdin_keeper) = open_stdin(&plan.streams)?;
        let mut outputs = Vec::new();
        let mut sources = Vec::new();
        for path in [&plan.streams.stdout, &plan.streams.stderr] {
            outputs.push(open(path, OFlags::RDWR, "open")?);
            sources.push(open_source(path)?);
        }
        let ours = Ours { stdin_keeper, sources, master: None };
        Ok(Self { stdin, outputs, terminal: None, ours })
    }

    fn open_terminal(plan: &LaunchPlan) -> Result<Self, PrepareError> {
        let fail = |step: &str, source| PrepareError { step: step.to_owned(), source };
        let options = plan.root_ops.iter().find_map(|op| match op {
            RootOp::Mount { fs, options, .. } if fs == "devpts" => Some(options.as_slice()),
            _ => None,
        });
        let mut options = options.unwrap_or_default().to_vec();
        // Mounted by us, it takes the node's ids.
        if let Some(user) = &plan.namespaces.user
            && let Some((_, gid)) = options.iter_mut().find(|(key, _)| key == "gid")
        {
            let on_node = gid.parse().ok().and_then(|gid| user.ids.on_node(gid));
            *gid = on_node.unwrap_or(user.ids.first).to_string();
        }
        let terminal = Terminal::new(&options).map_err(|err| fail("make a terminal", err))?;
        let stdin = terminal.slave().try_clone_to_owned().map_err(|err| fail("duplicate a terminal", err))?;
        let ours = Ours { stdin_keeper: None, sources: Vec::new(), master: None };
        Ok(Self { stdin, outputs: Vec::new(), terminal: Some(terminal), ours })
    }

    /// The container's ends: 0, 1, 2.
    pub(super) fn theirs(&self) -> [BorrowedFd<'_>; 3] {
        let stdin = self.stdin.as_fd();
        match self.outputs.as_slice() {
            [stdout, stderr] => [stdin, stdout.as_fd(), stderr.as_fd()],
            _ => [stdin, stdin, stdin],
        }
    }

    /// The terminal, if there is one.
    pub(super) fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    /// Closes the container's ends (it has its own by now) and keeps ours.
    pub(super) fn into_ours(self) -> std::io::Result<Ours> {
        let mut ours = self.ours;
        if let Some(terminal) = self.terminal {
            let master = terminal.into_master();
            ours.sources.push(master_source(master.as_fd())?);
            ours.master = Some(master);
        }
        Ok(ours)
    }
}

impl Ours {
    /// Opens the supervisor's ends of a container that runs already.
    pub(super) fn reopen(streams: &StreamPlan, master: Option<OwnedFd>) -> Result<Self, PrepareError> {
        let fail = |source| PrepareError { step: "duplicate a terminal".to_owned(), source };
        if let Some(master) = master {
            let source = master_source(master.as_fd()).map_err(fail)?;
            return Ok(Self { stdin_keeper: None, sources: vec![source], master: Some(master) });
        }
        let stdin_keeper = match &streams.stdin {
            Some(path) => Some(open(path, OFlags::RDWR | OFlags::NONBLOCK, "open")?),
            None => None,
        };
        let sources = vec![open_source(&streams.stdout)?, open_source(&streams.stderr)?];
        Ok(Self { stdin_keeper, sources, master: None })
    }
}

/// The reading end of standard input, and a writing end that keeps it open until somebody attaches.
fn open_stdin(streams: &StreamPlan) -> Result<(OwnedFd, Option<OwnedFd>), PrepareError> {
    let Some(path) = &streams.stdin else {
        return Ok((open(Path::new("/dev/null"), OFlags::RDONLY, "open")?, None));
    };
    let keeper = open(path, OFlags::RDWR | OFlags::NONBLOCK, "open")?;
    Ok((open(path, OFlags::RDONLY, "open")?, Some(keeper)))
}

fn open_source(path: &Path) -> Result<OwnedFd, PrepareError> {
    open(path, OFlags::RDONLY | OFlags::NONBLOCK, "open")
}

/// A duplicate of the master for the log. Non-blocking is a property of the open terminal, so the agent's
/// duplicates are non-blocking too, which is what it wants.
fn master_source(master: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(master, true)?;
    master.try_clone_to_owned()
}
