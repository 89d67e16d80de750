//! What Raft sees of the log: its state, the entries that are not applied yet, and as many of those before them as
//! slow members may still need. Everything older is in the view; nothing is read from disk while the member runs: who
//! needs what is not here any more gets a snapshot.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Entries that go with one call of [`Tail::trim`]: many more than come.
const TRIMMED_MAX: usize = 128;

/// Owned by Raft. Indices are without gaps: `start`, then the entries.
#[derive(Debug)]
pub(crate) struct Tail {
    hard_state: HardState,
    conf: ConfState,
    /// Index and term of the last entry that was trimmed.
    start: (u64, u64),
    entries: VecDeque<Entry>,
    /// Of all entries.
    bytes: usize,
    /// What can be sent instead of entries that are not here: an offer, the file is fetched by itself.
    offer: Option<Snapshot>,
    /// Members that came later are not in older snapshots, and could not use them.
    offer_from: u64,
    /// Raft has asked for a snapshot that is not there.
    wanted: AtomicBool,
}

impl Tail {
    /// The log behind the entry `start` (index, term). All up to `applied` is applied and therefore committed.
    pub(crate) fn new(
        mut hard_state: HardState,
        conf: ConfState,
        start: (u64, u64),
        entries: VecDeque<Entry>,
        applied: (u64, u64),
    ) -> Self {
        hard_state.commit = hard_state.commit.max(applied.0);
        hard_state.term = hard_state.term.max(applied.1);
        let bytes = entries.iter().map(size).sum();
        let wanted = AtomicBool::new(false);
        Self { hard_state, conf, start, entries, bytes, offer: None, offer_from: 0, wanted }
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Takes new entries over; they replace what stands at their indices and behind.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            while let Some(last) = self.entries.back().filter(|last| last.index >= first.index) {
                self.bytes -= size(last);
                self.entries.pop_back();
            }
        }
        self.bytes += entries.iter().map(size).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets applied entries, up to and including `applied`, but for the last `keep` bytes. The first entry of the
    /// log always goes: who has nothing at all needs a snapshot, for the log does not say who founded the group. What
    /// was kept for somebody who has just caught up goes little by little, with every call.
    pub(crate) fn trim(&mut self, applied: u64, keep: usize) {
        for _ in 0..TRIMMED_MAX {
            let Some(entry) = self.entries.front().filter(|entry| entry.index <= applied) else { return };
            if self.bytes <= keep && entry.index > 1 {
                return;
            }
            self.start = (entry.index, entry.term);
            self.bytes -= size(entry);
            self.entries.pop_front();
        }
    }

    /// Begins anew behind a snapshot.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        self.entries.clear();
        self.bytes = 0;
        self.start = (metadata.index, metadata.term);
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.offer = None;
    }

    /// What is sent to members that need older entries than are here; it must hold all that changed the members up to
    /// the entry `from`.
    pub(crate) fn offer(&mut self, snapshot: Snapshot) {
        self.offer = Some(snapshot);
    }

    /// The snapshot of this index is of no use to anybody; whether it was the one that is offered.
    pub(crate) fn withdraw(&mut self, index: u64) -> bool {
        self.offer.take_if(|offer| offer.get_metadata().index == index).is_some()
    }

    /// Snapshots from before the entry `from` are of no use to new members.
    pub(crate) fn offer_from(&mut self, from: u64) {
        self.offer_from = from;
    }

    /// Whether Raft has asked for a snapshot that is not there, since this was asked last.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    fn offset(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.start.0 + 1)?).ok()
    }
}

/// What an entry takes in memory, more or less.
fn size(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + size_of::<Entry>()
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let (Some(low), Some(high)) = (self.offset(low), self.offset(high)) else {
            return Err(StorageError::Compacted.into());
        };
        if high > self.entries.len() || low > high {
            return Err(StorageError::Unavailable.into());
        }
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let fits = |entry: &&Entry| {
            let size = (entry.data.len() + entry.context.len()) as u64;
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        let mut entries: Vec<Entry> = self.entries.range(low..high).take_while(fits).cloned().collect();
        if entries.is_empty() {
            entries.extend(self.entries.range(low..high).next().cloned()); // Raft wants at least one
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.start.0 {
            return Ok(self.start.1);
        }
        let offset = self.offset(index).ok_or(StorageError::Compacted)?;
        Ok(self.entries.get(offset).ok_or(StorageError::Unavailable)?.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.entries.back().map_or(self.start.0, |entry| entry.index))
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let least = request_index.max(self.start.0).max(self.offer_from);
        let fits = self.offer.as_ref().filter(|offer| offer.get_metadata().index >= least);
        fits.cloned().ok_or_else(|| {
            self.wanted.store(true, Ordering::Relaxed);
            StorageError::SnapshotTemporarilyUnavailable.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail() -> Tail {
        let entry = |index| Entry { index, term: 1, data: vec![0; 1000], ..Entry::default() };
        let entries = (1..=10).map(entry).collect();
        Tail::new(HardState::default(), ConfState::default(), (0, 0), entries, (0, 0))
    }

    #[test]
    fn what_is_applied_is_kept_for_slow_members_within_a_bound() {
        let mut tail = tail();
        tail.trim(8, 5 * (1000 + size_of::<Entry>()));
        assert_eq!((tail.first_index(), tail.last_index()), (Ok(6), Ok(10)));
        tail.trim(8, 0);
        assert_eq!((tail.first_index(), tail.last_index()), (Ok(9), Ok(10)));
        assert_eq!((tail.term(8), tail.term(7).is_err()), (Ok(1), true));
    }

    #[test]
    fn the_first_entry_of_a_log_is_never_sent_again() {
        let mut tail = tail();
        tail.trim(3, usize::MAX);
        assert_eq!(tail.first_index(), Ok(2));
    }

    #[test]
    fn a_snapshot_that_does_not_know_the_newest_members_is_not_offered() {
        let mut tail = tail();
        tail.trim(4, 0);
        let mut offer = Snapshot::default();
        offer.mut_metadata().index = 6;
        tail.offer(offer);
        assert_eq!(tail.snapshot(0, 2).unwrap().get_metadata().index, 6);
        tail.offer_from(7);
        assert!(tail.snapshot(0, 2).is_err() && tail.take_wanted() && !tail.take_wanted());
    }
}
