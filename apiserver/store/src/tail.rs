//! What Raft sees of the log: its state and the entries that are not applied yet. Everything older is in the view;
//! nothing is read from disk while the member runs.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Owned by Raft. Indices are without gaps: `start`, then the entries.
#[derive(Debug)]
pub(crate) struct Tail {
    hard_state: HardState,
    voters: Vec<u64>,
    /// Index and term of the last applied entry that was trimmed.
    start: (u64, u64),
    entries: VecDeque<Entry>,
}

impl Tail {
    /// The log behind the entry (`index`, `term`), which is applied and therefore committed.
    pub(crate) fn new(
        mut hard_state: HardState,
        voters: Vec<u64>,
        start: (u64, u64),
        entries: VecDeque<Entry>,
    ) -> Self {
        hard_state.commit = hard_state.commit.max(start.0);
        hard_state.term = hard_state.term.max(start.1);
        Self { hard_state, voters, start, entries }
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn voters(&self) -> &[u64] {
        &self.voters
    }

    /// Takes new entries over; they replace what stands at their indices and behind.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            while self.entries.back().is_some_and(|last| last.index >= first.index) {
                self.entries.pop_back();
            }
        }
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to and including `index`: they are applied.
    pub(crate) fn trim(&mut self, index: u64) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.index <= index) {
            self.start = (entry.index, entry.term);
            self.entries.pop_front();
        }
    }

    fn offset(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.start.0 + 1)?).ok()
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = ConfState { voters: self.voters.clone(), ..ConfState::default() };
        Ok(RaftState::new(self.hard_state.clone(), conf_state))
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

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Asked for only on behalf of other members, of which there are none.
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
