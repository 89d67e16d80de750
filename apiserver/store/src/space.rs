//! Whether the disk has room for what is still to be written. Pure: somebody else looks at the disk.
//!
//! A store that runs into the end of a disk has lost the choice of what to do with the last of it: so it stops taking
//! writes before, as etcd does with its quota (`etcd.io/docs/v3.6/op-guide/maintenance`, "Space quota"). Reads go on,
//! and so do deletions, which are how an operator makes room.

use crate::evaluate::Command;
use crate::kv::{KvError, Op, Txn};

/// With less than this nothing is written any more but deletions: what is under way (log, view, a snapshot of an idle
/// cluster) still fits.
const FULL_BELOW: u64 = 64 * 1024 * 1024;
/// With this much again everything is: more than [`FULL_BELOW`], so that it does not change with every write.
const ROOM_FROM: u64 = FULL_BELOW + FULL_BELOW / 4;
/// With less than this not even deletions are taken.
const DELETIONS_BELOW: u64 = FULL_BELOW / 4;

/// What is known of the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    free: u64,
    is_full: bool,
}

impl Space {
    /// Nobody has looked yet.
    pub(crate) fn unknown() -> Self {
        Self { free: u64::MAX, is_full: false }
    }

    /// Takes in how many bytes are free; whether the disk has become full, or is no longer.
    pub(crate) fn note(&mut self, free: u64) -> bool {
        let was_full = self.is_full;
        self.free = free;
        self.is_full = free < if was_full { ROOM_FROM } else { FULL_BELOW };
        self.is_full != was_full
    }

    /// Whether nothing may be written that can wait.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether a command may go into the log.
    pub(crate) fn admits(&self, command: &Command) -> bool {
        !self.is_full || (self.free >= DELETIONS_BELOW && only_deletes(command))
    }

    /// What somebody is told whose command is not admitted; `folder` lies on the disk.
    pub(crate) fn refusal(&self, folder: &str) -> KvError {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let reason = format!("the disk is full: {} MiB are free, writes need {}", mib(self.free), mib(ROOM_FROM));
        KvError::Storage { what: folder.to_owned(), reason }
    }
}

/// Whether a command can only take something away.
fn only_deletes(command: &Command) -> bool {
    match command {
        Command::Txn(txn) => only_takes_away(txn),
        // What keeps a lease alive is as small as a deletion, and without it keys would go that nobody wanted gone.
        Command::Compact(_) | Command::LeaseRevoke(_) | Command::LeaseRenew(_) | Command::LeaseExpire(..) => true,
        Command::LeaseGrant(..) => false,
    }
}

/// Whether a transaction writes nothing, whatever it finds.
pub(crate) fn only_takes_away(txn: &Txn) -> bool {
    !puts(txn)
}

fn puts(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).any(|op| match op {
        Op::Put { .. } | Op::PutWith(_) => true,
        Op::Delete(_) | Op::Range(_) => false,
        Op::Txn(inner) => puts(inner),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{KeyRange, Revision};
    use crate::lease::LeaseId;

    fn txn(then: Vec<Op>, otherwise: Vec<Op>) -> Command {
        Command::Txn(Txn { then, otherwise, ..Txn::default() })
    }

    #[test]
    fn a_full_disk_takes_deletions_until_there_is_room_for_more_or_for_nothing() {
        let put = || Op::Put { key: "k".into(), value: "v".into() };
        let delete = || Op::Delete(KeyRange::Key("k".into()));
        let inner = |then: Vec<Op>| Op::Txn(Box::new(Txn { then, ..Txn::default() }));
        let deletes = [
            txn(vec![delete(), inner(vec![delete()])], vec![]),
            Command::Compact(Revision(1)),
            Command::LeaseRevoke(LeaseId(1)),
            Command::LeaseRenew(LeaseId(1)),
        ];
        let writes = [
            txn(vec![put()], vec![]),
            txn(vec![delete()], vec![put()]),
            txn(vec![inner(vec![put()])], vec![]),
            Command::LeaseGrant(LeaseId(1), 60, 0),
        ];
        let mut space = Space::unknown();
        let mut all = |free: u64, turns: bool, wanted: (bool, bool)| {
            assert_eq!(space.note(free), turns, "{free}");
            let admits = |commands: &[Command]| commands.iter().all(|command| space.admits(command));
            let refuses = |commands: &[Command]| commands.iter().all(|command| !space.admits(command));
            assert_eq!((admits(&deletes), admits(&writes)), wanted, "{free}");
            assert_eq!((refuses(&deletes), refuses(&writes)), (!wanted.0, !wanted.1), "{free}");
        };
        all(FULL_BELOW, false, (true, true));
        all(FULL_BELOW - 1, true, (true, false));
        all(ROOM_FROM - 1, false, (true, false));
        all(DELETIONS_BELOW - 1, false, (false, false));
        all(ROOM_FROM, true, (true, true));
    }
}
