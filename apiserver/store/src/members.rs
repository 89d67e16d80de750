//! Who belongs to the group, and which changes of it are let through. Pure.
//!
//! A change is an entry of the log ([`Step::Propose`]): it holds from the moment it is applied, on every member at the
//! same place. One voter more or less is a change of its own; a replacement of one by another goes through a joint
//! configuration, in which both majorities count, and which the leader leaves by itself.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use reeve_proto::store::{MemberAddress, Members as Stored};

use crate::status::{Change, MemberError};
use crate::transport::Peer;

/// A learner may become a voter when it has all but so many entries: what a busy leader has under way.
const BEHIND_MAX: u64 = 64;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Members {
    /// The entry that changed it last; 0 when none has.
    pub(crate) index: u64,
    pub(crate) conf: ConfState,
    addresses: BTreeMap<u64, String>,
    removed: BTreeSet<u64>,
}

/// What the leader knows of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) matched: u64,
    /// Whether it has been heard of lately; true for the leader itself.
    pub(crate) active: bool,
}

/// What the leader does for a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Nothing: it is so already.
    Done,
    /// Put this into the log, with addresses.
    Propose(ConfChangeV2, Vec<Peer>),
    /// Make somebody else leader.
    Transfer(u64),
    /// Make somebody else leader, who then makes the change.
    TransferFirst(u64),
}

impl Members {
    /// Those who begin a group.
    pub(crate) fn founders(voters: &[Peer]) -> Self {
        let conf = ConfState { voters: voters.iter().map(|peer| peer.id).collect(), ..ConfState::default() };
        let addresses = voters.iter().map(|peer| (peer.id, peer.address.clone())).collect();
        Self { conf, addresses, ..Self::default() }
    }

    pub(crate) fn from_stored(stored: Stored) -> Self {
        let conf = ConfState {
            voters: stored.voters,
            learners: stored.learners,
            voters_outgoing: stored.voters_outgoing,
            learners_next: stored.learners_next,
            auto_leave: stored.auto_leave,
        };
        let addresses = stored.addresses.into_iter().map(|address| (address.id, address.address)).collect();
        Self { index: stored.index, conf, addresses, removed: stored.removed.into_iter().collect() }
    }

    pub(crate) fn to_stored(&self) -> Stored {
        let address = |(id, address): (&u64, &String)| MemberAddress { id: *id, address: address.clone() };
        Stored {
            index: self.index,
            voters: self.conf.voters.clone(),
            learners: self.conf.learners.clone(),
            voters_outgoing: self.conf.voters_outgoing.clone(),
            learners_next: self.conf.learners_next.clone(),
            auto_leave: self.conf.auto_leave,
            addresses: self.addresses.iter().map(address).collect(),
            removed: self.removed.iter().copied().collect(),
        }
    }

    /// Everybody, voters of before a change under way included.
    pub(crate) fn ids(&self) -> BTreeSet<u64> {
        let ConfState { voters, learners, voters_outgoing, learners_next, .. } = &self.conf;
        voters.iter().chain(learners).chain(voters_outgoing).chain(learners_next).copied().collect()
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.ids().contains(&id)
    }

    pub(crate) fn votes(&self, id: u64) -> bool {
        self.conf.voters.contains(&id)
    }

    /// Whether `id` decides alone.
    pub(crate) fn only_voter_is(&self, id: u64) -> bool {
        self.conf.voters == [id] && self.conf.voters_outgoing.is_empty()
    }

    /// Whether a change is half made: the voters of before and those of after both count.
    pub(crate) fn is_joint(&self) -> bool {
        !self.conf.voters_outgoing.is_empty()
    }

    /// Whether there is nobody but `id`.
    pub(crate) fn is_alone(&self, id: u64) -> bool {
        self.only_voter_is(id) && self.conf.learners.is_empty()
    }

    pub(crate) fn address(&self, id: u64) -> Option<&str> {
        self.addresses.get(&id).map(String::as_str)
    }

    pub(crate) fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// Everybody but `own`, as far as there is an address.
    pub(crate) fn peers(&self, own: u64) -> Vec<Peer> {
        let others = self.ids().into_iter().filter(|id| *id != own);
        others.filter_map(|id| Some(Peer { id, address: self.addresses.get(&id)?.clone() })).collect()
    }

    /// The members after the entry `index` has led to `conf`.
    pub(crate) fn changed(&self, conf: ConfState, addresses: Vec<MemberAddress>, index: u64) -> Self {
        let mut next = Self { index, conf, ..self.clone() };
        next.addresses.extend(addresses.into_iter().map(|address| (address.id, address.address)));
        let (before, after) = (self.ids(), next.ids());
        next.removed.extend(before.difference(&after));
        next.addresses.retain(|id, _| after.contains(id));
        next
    }

    /// What the leader `own` does for a change, whose log ends at `last`; `reach` tells of everybody.
    pub(crate) fn plan(
        &self,
        change: &Change,
        own: u64,
        last: u64,
        reach: &BTreeMap<u64, Reach>,
    ) -> Result<Step, MemberError> {
        if !self.conf.voters_outgoing.is_empty() && !matches!(change, Change::Transfer { .. }) {
            return Err(MemberError::Busy);
        }
        match change {
            Change::AddLearner { id, address } => self.add(*id, address),
            Change::Promote { id } => {
                self.check_learner(*id, last, reach)?;
                let voters = self.conf.voters.iter().copied().chain([*id]).collect::<Vec<_>>();
                check_quorum(&voters, reach)?;
                Ok(Step::Propose(changes(&[(ConfChangeType::AddNode, *id)]), Vec::new()))
            }
            Change::Remove { id } => self.remove(*id, own, reach),
            Change::Replace { id, by } => self.replace(*id, *by, (own, last), reach),
            Change::Move { id, address } => self.relocate(*id, address),
            Change::Transfer { id } => self.transfer(*id, own, reach),
        }
    }

    fn add(&self, id: u64, address: &str) -> Result<Step, MemberError> {
        if id == 0 || self.removed.contains(&id) {
            return Err(MemberError::Removed { id });
        }
        if self.contains(id) {
            return if self.address(id) == Some(address) { Ok(Step::Done) } else { Err(MemberError::Exists { id }) };
        }
        let address = vec![Peer { id, address: address.to_owned() }];
        Ok(Step::Propose(changes(&[(ConfChangeType::AddLearnerNode, id)]), address))
    }

    fn check_learner(&self, id: u64, last: u64, reach: &BTreeMap<u64, Reach>) -> Result<(), MemberError> {
        if self.votes(id) {
            return Err(MemberError::Voter { id });
        }
        if !self.conf.learners.contains(&id) {
            return Err(MemberError::Unknown { id });
        }
        let behind = last.saturating_sub(reach.get(&id).map_or(0, |reach| reach.matched));
        if behind > BEHIND_MAX { Err(MemberError::Behind { id, entries: behind }) } else { Ok(()) }
    }

    fn remove(&self, id: u64, own: u64, reach: &BTreeMap<u64, Reach>) -> Result<Step, MemberError> {
        if !self.contains(id) {
            return if self.removed.contains(&id) { Ok(Step::Done) } else { Err(MemberError::Unknown { id }) };
        }
        if self.votes(id) {
            let voters = self.conf.voters.iter().copied().filter(|voter| *voter != id).collect::<Vec<_>>();
            check_quorum(&voters, reach)?;
        }
        if id == own {
            return self.best(own, reach).map(Step::TransferFirst).ok_or_else(nobody_else);
        }
        Ok(Step::Propose(changes(&[(ConfChangeType::RemoveNode, id)]), Vec::new()))
    }

    fn replace(
        &self,
        id: u64,
        by: u64,
        (own, last): (u64, u64),
        reach: &BTreeMap<u64, Reach>,
    ) -> Result<Step, MemberError> {
        if !self.votes(id) {
            return Err(MemberError::Unknown { id });
        }
        self.check_learner(by, last, reach)?;
        let voters = self.conf.voters.iter().copied().filter(|voter| *voter != id).chain([by]).collect::<Vec<_>>();
        check_quorum(&voters, reach)?;
        if id == own {
            return self.best(own, reach).map(Step::TransferFirst).ok_or_else(nobody_else);
        }
        let both = changes(&[(ConfChangeType::AddNode, by), (ConfChangeType::RemoveNode, id)]);
        Ok(Step::Propose(both, Vec::new()))
    }

    fn relocate(&self, id: u64, address: &str) -> Result<Step, MemberError> {
        if !self.contains(id) {
            return Err(MemberError::Unknown { id });
        }
        if self.address(id) == Some(address) {
            return Ok(Step::Done);
        }
        // Adding somebody again as what it is changes nothing but what comes along.
        let kind = if self.votes(id) { ConfChangeType::AddNode } else { ConfChangeType::AddLearnerNode };
        Ok(Step::Propose(changes(&[(kind, id)]), vec![Peer { id, address: address.to_owned() }]))
    }

    fn transfer(&self, id: Option<u64>, own: u64, reach: &BTreeMap<u64, Reach>) -> Result<Step, MemberError> {
        match id {
            Some(id) if id == own => Ok(Step::Done),
            Some(id) if self.votes(id) => Ok(Step::Transfer(id)),
            Some(id) if self.contains(id) => Err(MemberError::Learner { id }),
            Some(id) => Err(MemberError::Unknown { id }),
            None => self.best(own, reach).map(Step::Transfer).ok_or_else(nobody_else),
        }
    }

    /// The voter besides `own` that can be reached and is furthest.
    pub(crate) fn best(&self, own: u64, reach: &BTreeMap<u64, Reach>) -> Option<u64> {
        let others = self.conf.voters.iter().filter(|id| **id != own);
        let active = others.filter_map(|id| Some((reach.get(id).filter(|reach| reach.active)?.matched, *id)));
        active.max().map(|(_, id)| id)
    }
}

fn nobody_else() -> MemberError {
    MemberError::Unavailable { reason: "no other voter can be reached".to_owned() }
}

fn changes(changes: &[(ConfChangeType, u64)]) -> ConfChangeV2 {
    let single = |(kind, id): &(ConfChangeType, u64)| {
        let mut single = ConfChangeSingle { node_id: *id, ..ConfChangeSingle::default() };
        single.set_change_type(*kind);
        single
    };
    let mut change = ConfChangeV2 { changes: changes.iter().map(single).collect(), ..ConfChangeV2::default() };
    change.set_transition(ConfChangeTransition::Auto);
    change
}

/// Refuses voters of whom too few can be reached: nothing could be written any more, not even the way back.
fn check_quorum(voters: &[u64], reach: &BTreeMap<u64, Reach>) -> Result<(), MemberError> {
    let reachable = voters.iter().filter(|id| reach.get(id).is_some_and(|reach| reach.active)).count() as u64;
    let voters = voters.len() as u64;
    let needed = voters / 2 + 1;
    if reachable < needed { Err(MemberError::LosesQuorum { voters, reachable, needed }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        let founders: Vec<Peer> = voters.iter().map(|id| Peer { id: *id, address: format!("host{id}:1") }).collect();
        let mut members = Members::founders(&founders);
        members.conf.learners = learners.to_vec();
        members
    }

    fn reach(of: &[(u64, u64, bool)]) -> BTreeMap<u64, Reach> {
        of.iter().map(|(id, matched, active)| (*id, Reach { matched: *matched, active: *active })).collect()
    }

    fn told(outcome: Result<Step, MemberError>) -> String {
        match outcome {
            Ok(Step::Propose(change, _)) => {
                change.changes.iter().map(|c| format!("{:?} {} ", c.change_type(), c.node_id)).collect()
            }
            Ok(step) => format!("{step:?}"),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn a_change_that_would_lose_the_quorum_is_refused() {
        let group = members(&[1, 2, 3], &[4]);
        let three_is_dead = reach(&[(1, 100, true), (2, 100, true), (3, 50, false), (4, 99, true)]);
        let plan = |change: Change| told(group.plan(&change, 1, 100, &three_is_dead));
        assert_eq!(
            plan(Change::Remove { id: 2 }),
            "refused: of 2 voters only 1 could be reached then, and 2 are needed"
        );
        assert_eq!(plan(Change::Remove { id: 3 }), "RemoveNode 3 ");
        assert_eq!(
            plan(Change::Remove { id: 1 }),
            "refused: of 2 voters only 1 could be reached then, and 2 are needed"
        );
        assert_eq!(plan(Change::Replace { id: 3, by: 4 }), "AddNode 4 RemoveNode 3 ");
        assert_eq!(plan(Change::Promote { id: 4 }), "AddNode 4 ");
        let alone = members(&[1], &[]);
        let last = told(alone.plan(&Change::Remove { id: 1 }, 1, 5, &reach(&[(1, 5, true)])));
        assert_eq!(last, "refused: of 0 voters only 0 could be reached then, and 1 are needed");
    }

    #[test]
    fn a_learner_votes_only_after_it_has_caught_up() {
        let group = members(&[1], &[2]);
        let promote = Change::Promote { id: 2 };
        let behind = told(group.plan(&promote, 1, 1000, &reach(&[(1, 1000, true), (2, 10, true)])));
        assert_eq!(behind, "learner 2 is behind by 990 entries: wait until it has caught up");
        let silent = told(group.plan(&promote, 1, 1000, &reach(&[(1, 1000, true), (2, 1000, false)])));
        assert_eq!(silent, "refused: of 2 voters only 1 could be reached then, and 2 are needed");
        assert_eq!(told(group.plan(&promote, 1, 1000, &reach(&[(1, 1000, true), (2, 990, true)]))), "AddNode 2 ");
    }

    #[test]
    fn a_number_is_used_once() {
        let group = members(&[1, 2], &[]);
        let gone = group.changed(ConfState { voters: vec![1], ..ConfState::default() }, Vec::new(), 9);
        assert_eq!((gone.removed().collect::<Vec<_>>(), gone.peers(1)), (vec![2], vec![]));
        let again = gone.plan(&Change::AddLearner { id: 2, address: "x:1".to_owned() }, 1, 9, &BTreeMap::new());
        assert_eq!(told(again), "member 2 was removed before: a new member needs a number of its own");
        assert_eq!(Members::from_stored(gone.to_stored()), gone);
    }

    #[test]
    fn who_moves_keeps_what_it_is() {
        let group = members(&[1, 2], &[3]);
        let plan = |id, address: &str| {
            told(group.plan(&Change::Move { id, address: address.to_owned() }, 1, 9, &BTreeMap::new()))
        };
        assert_eq!((plan(2, "new:1"), plan(3, "new:1")), ("AddNode 2 ".into(), "AddLearnerNode 3 ".into()));
        assert_eq!((plan(2, "host2:1"), plan(9, "new:1")), ("Done".into(), "there is no member 9".into()));
    }

    #[test]
    fn leadership_goes_to_the_furthest_that_can_be_reached() {
        let group = members(&[1, 2, 3], &[4]);
        let known = reach(&[(1, 9, true), (2, 9, false), (3, 7, true), (4, 9, true)]);
        let plan = |change| told(group.plan(&change, 1, 9, &known));
        assert_eq!(plan(Change::Transfer { id: None }), "Transfer(3)");
        assert_eq!(plan(Change::Transfer { id: Some(4) }), "member 4 is a learner");
        let both = reach(&[(1, 9, true), (2, 9, true), (3, 7, true), (4, 9, true)]);
        assert_eq!(told(group.plan(&Change::Remove { id: 1 }, 1, 9, &both)), "TransferFirst(2)");
    }
}
