//! What the member says of itself and its group.

use raft::{ProgressState, StateRole};

use super::Member;
use crate::log::Log;
use crate::status::{Leadership, MemberInfo, MemberProgress, MemberStatus, Role};

impl Member {
    pub(super) fn leadership(&self) -> Leadership {
        let raft = &self.node.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower if self.members.votes(raft.id) => Role::Follower,
            StateRole::Follower => Role::Learner,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        Leadership { role, leader: self.leader(), term: raft.term }
    }

    pub(super) fn status(&self) -> MemberStatus {
        let raft = &self.node.raft;
        MemberStatus {
            id: raft.id,
            cluster: self.identity.cluster,
            leadership: self.leadership(),
            commit: raft.raft_log.committed,
            applied: self.parts.mvcc.position().index,
            last: raft.raft_log.last_index(),
            log_bytes: self.log.as_ref().map_or(0, Log::bytes),
            snapshot_bytes: self.snapshot.1,
            disk_full: self.space.is_full(),
            unsynced: self.writes.waiting(),
            slow_disk_appends: self.writes.slow,
            leader_changes: self.group.leader_changes,
            proposals_pending: self.proposals.pending(),
            reads_pending: self.reads.pending(),
            members: self.members.ids().into_iter().map(|id| self.info(id)).collect(),
        }
    }

    fn info(&self, id: u64) -> MemberInfo {
        let active = self.reach().get(&id).is_some_and(|reach| reach.active);
        let progress = self.node.raft.prs().get(id).filter(|_| self.leads()).map(|pr| MemberProgress {
            matched: pr.matched,
            active,
            snapshot: pr.state == ProgressState::Snapshot || self.outgoing.is_fetching(id),
        });
        let address = self.members.address(id).unwrap_or_default().to_owned();
        MemberInfo { id, address, voter: self.members.votes(id), progress }
    }
}
