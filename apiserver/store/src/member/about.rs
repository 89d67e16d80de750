//! What the member says of itself and its group.

use raft::StateRole;

use super::Member;
use crate::log::Log;
use crate::status::{Change, Leadership, MemberError, MemberInfo, MemberStatus, Role};

impl Member {
    pub(super) fn leadership(&self) -> Leadership {
        let raft = &self.node.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        Leadership { role, leader: (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id), term: raft.term }
    }

    pub(super) fn status(&self) -> MemberStatus {
        let raft = &self.node.raft;
        let sole = MemberInfo { id: raft.id, address: String::new(), voter: true, progress: None };
        MemberStatus {
            id: raft.id,
            leadership: self.leadership(),
            commit: raft.raft_log.committed,
            applied: self.parts.mvcc.position().index,
            last: raft.raft_log.last_index(),
            log_bytes: self.log.as_ref().map_or(0, Log::bytes),
            snapshot_bytes: self.snapshot.1,
            disk_full: self.space.is_full(),
            unsynced: usize::from(self.disk_job.is_some()),
            proposals_pending: self.waiting.len(),
            members: vec![sole],
            ..MemberStatus::default()
        }
    }

    /// A sole member leads and stays what it is.
    pub(super) fn on_change(&self, change: &Change) -> Result<(), MemberError> {
        match change {
            Change::Transfer { id } if id.is_none_or(|id| id == self.node.raft.id) => Ok(()),
            _ => Err(MemberError::Alone),
        }
    }
}
