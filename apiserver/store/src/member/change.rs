//! Changes of the members and of who leads. Any member may be asked; the leader decides ([`crate::members`]), and
//! answers when the change holds.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry};
use reeve_proto::member::{Change as WireChange, Changed, message::Kind};
use reeve_proto::store::{MemberAddress, MemberChange};
use tokio::sync::oneshot;

use super::{Member, PATIENCE};
use crate::kv::KvError;
use crate::members::Step;
use crate::status::{Change, Leadership, MemberError};
use crate::transport::Peer;
use crate::wire;

/// Changes that may wait here for the leader's answer; asked for by hand, so few.
const ASKED_MAX: usize = 64;
/// A member whose address is not the one that the group knows says so, and again after this.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(3);

type ChangeReply = oneshot::Sender<Result<(), MemberError>>;

/// Who wants to know what becomes of a change.
enum Asker {
    /// A caller here.
    Here(ChangeReply),
    /// Another member.
    There { member: u64, number: u64 },
    /// This member itself.
    Nobody,
}

impl Asker {
    /// Whether another question is this one, once more.
    fn is_repeated_by(&self, other: &Self) -> bool {
        let name = |asker: &Self| match asker {
            Self::There { member, number } => Some((*member, *number)),
            Self::Here(_) | Self::Nobody => None,
        };
        name(self).is_some() && name(self) == name(other)
    }
}

#[derive(Default)]
pub(super) struct Changes {
    /// Counts what was asked of leaders.
    number: u64,
    /// What was asked of the leader.
    asked: BTreeMap<u64, (Change, Asker)>,
    /// This leader's own change that is on its way through the log.
    under_way: Option<(u64, Asker)>,
    /// Who waits for the joint configuration to be left that their change has brought: until then both majorities are
    /// needed.
    leaving: Option<Asker>,
    /// Who waits for somebody to lead, and since when.
    transfers: Vec<(u64, Asker, Duration)>,
    /// What the next leader is to do, or this one when it knows what it has taken over; and since when that waits.
    later: Vec<(Change, Asker, Duration)>,
    announced: Option<Duration>,
}

impl Changes {
    pub(super) fn fail(&mut self, err: &KvError) {
        let asked = std::mem::take(&mut self.asked).into_values().map(|(_, asker)| asker);
        let transfers = self.transfers.drain(..).map(|(_, asker, _)| asker);
        let later = self.later.drain(..).map(|(_, asker, _)| asker);
        let under_way = self.under_way.take().map(|(_, asker)| asker).into_iter().chain(self.leaving.take());
        for asker in asked.chain(transfers).chain(later).chain(under_way) {
            if let Asker::Here(reply) = asker {
                let _ = reply.send(Err(err.clone().into()));
            }
        }
    }
}

impl Member {
    /// A caller here wants a change.
    pub(super) fn change(&mut self, change: Change, reply: ChangeReply) {
        self.decide(change, Asker::Here(reply));
    }

    /// Another member's caller wants one.
    pub(super) fn take_change(&mut self, from: u64, change: WireChange) {
        let asker = Asker::There { member: from, number: change.number };
        match wire::from_change(change) {
            Some(change) if self.leads() => self.decide(change, asker),
            Some(_) => self.tell(asker, Err(unavailable("the leader has just changed"))),
            None => self.tell(asker, Err(unavailable("the leader does not know such a change"))),
        }
    }

    /// The leader has answered.
    pub(super) fn on_changed(&mut self, changed: Changed) {
        let Some((change, asker)) = self.changes.asked.remove(&changed.number) else { return };
        if changed.error == wire::HANDED_OVER {
            self.changes.later.push((change, asker, self.now()));
        } else {
            self.tell(asker, wire::from_changed(changed));
        }
    }

    /// This member is removed: whoever asked for that here hears of it before it stops.
    pub(super) fn on_removed(&mut self) {
        let own = self.identity.id;
        for (change, asker) in std::mem::take(&mut self.changes.asked).into_values() {
            match change {
                Change::Remove { id } | Change::Replace { id, .. } if id == own => self.tell(asker, Ok(())),
                _ => self.tell(asker, Err(unavailable("the member that was asked has been removed meanwhile"))),
            }
        }
    }

    fn tell(&self, asker: Asker, outcome: Result<(), MemberError>) {
        match asker {
            Asker::Here(reply) => drop(reply.send(outcome)), // a caller that has gone away does not need it
            Asker::There { member, number } => {
                self.say(member, Kind::Changed(wire::to_changed(number, &outcome)), true);
            }
            Asker::Nobody => {}
        }
    }

    fn decide(&mut self, change: Change, asker: Asker) {
        let own = self.identity.id;
        if self.parts.transport.is_none() && !matches!(change, Change::Transfer { .. }) {
            return self.tell(asker, Err(MemberError::Alone));
        }
        if !self.leads() {
            return self.pass_on(change, asker);
        }
        if self.is_settling() && self.changes.later.len() < ASKED_MAX {
            let now = self.now();
            return self.changes.later.push((change, asker, now));
        }
        let step = self.members.plan(&change, own, self.node.raft.raft_log.last_index(), &self.reach());
        match step {
            Ok(Step::Done) => self.tell(asker, Ok(())),
            Ok(Step::Propose(conf, addresses)) => self.propose_change(&conf, addresses, asker),
            Ok(Step::Transfer(id)) => {
                self.node.transfer_leader(id);
                self.changes.transfers.push((id, asker, self.now()));
            }
            Ok(Step::TransferFirst(id)) => {
                self.node.transfer_leader(id);
                if let Asker::There { member, number } = asker {
                    // It asks the next leader itself: this member may be gone by then.
                    self.say(member, Kind::Changed(wire::handed_over(number)), true);
                } else {
                    self.changes.later.push((change, asker, self.now()));
                }
            }
            Err(err) => self.tell(asker, Err(err)),
        }
    }

    /// Whether there may be a change in the log that another leader has put there, or half of one, or it is not known
    /// yet who can be reached: soon over.
    fn is_settling(&self) -> bool {
        let own = self.changes.under_way.is_some() || self.changes.leaving.is_some();
        !own && (self.node.raft.has_pending_conf() || self.members.is_joint() || self.is_getting_to_know())
    }

    fn pass_on(&mut self, change: Change, asker: Asker) {
        self.changes.asked.retain(|_, (_, asker)| !matches!(asker, Asker::Here(reply) if reply.is_closed()));
        match self.leader() {
            Some(leader) if self.changes.asked.len() < ASKED_MAX => {
                self.changes.number += 1;
                let number = self.changes.number;
                self.say(leader, Kind::Change(wire::to_change(number, &change)), true);
                self.changes.asked.insert(number, (change, asker));
            }
            Some(_) => self.tell(asker, Err(unavailable("too many changes wait for the leader"))),
            None => self.tell(asker, Err(unavailable("there is no leader"))),
        }
    }

    fn propose_change(&mut self, conf: &ConfChangeV2, addresses: Vec<Peer>, asker: Asker) {
        let under_way = self.changes.under_way.as_ref().map(|(_, first)| first).or(self.changes.leaving.as_ref());
        if under_way.is_some_and(|first| first.is_repeated_by(&asker)) {
            return; // the network has brought the question twice
        }
        if self.node.raft.has_pending_conf() || under_way.is_some() {
            return self.tell(asker, Err(MemberError::Busy));
        }
        let sequence = self.proposals.next_sequence();
        let address = |peer: Peer| MemberAddress { id: peer.id, address: peer.address };
        let addresses = addresses.into_iter().map(address).collect();
        let context = MemberChange { proposer: self.proposals.proposer(), sequence, addresses }.encode_to_vec();
        match self.node.propose_conf_change(context, conf.clone()) {
            Ok(()) => self.changes.under_way = Some((sequence, asker)),
            Err(err) => self.tell(asker, Err(unavailable(&err.to_string()))),
        }
    }

    /// A change of the members holds here.
    pub(super) fn on_change_applied(&mut self, entry: &Entry) {
        let Ok(change) = MemberChange::decode(&entry.context[..]) else { return };
        let own = change.proposer == self.proposals.proposer();
        let asked = self.changes.under_way.take_if(|(sequence, _)| own && *sequence == change.sequence);
        let waits = asked.map(|(_, asker)| asker).or_else(|| self.changes.leaving.take());
        if self.members.is_joint() {
            self.changes.leaving = waits;
        } else if let Some(asker) = waits {
            self.tell(asker, Ok(()));
        }
    }

    /// Somebody leads, or nobody.
    pub(super) fn on_new_leader(&mut self, leadership: Leadership) {
        if !leadership.is_leader() {
            let under_way = self.changes.under_way.take().map(|(_, asker)| asker);
            for asker in under_way.into_iter().chain(self.changes.leaving.take()).collect::<Vec<_>>() {
                self.tell(asker, Err(unavailable("the leader has changed meanwhile: the change may still happen")));
            }
        }
        let Some(leader) = leadership.leader else { return };
        let (reached, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changes.transfers).into_iter().partition(|(id, ..)| *id == leader);
        self.changes.transfers = others;
        reached.into_iter().for_each(|(_, asker, _)| self.tell(asker, Ok(())));
        for (change, asker, _) in std::mem::take(&mut self.changes.later) {
            self.decide(change, asker);
        }
        self.announce();
    }

    /// Gives up on what does not happen. Called with every tick.
    pub(super) fn watch_changes(&mut self) {
        let now = self.now();
        let is_late = |since: &Duration| now.saturating_sub(*since) > 2 * PATIENCE;
        let (late, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changes.transfers).into_iter().partition(|(.., since)| is_late(since));
        self.changes.transfers = others;
        for (id, asker, _) in late {
            self.tell(asker, Err(unavailable(&format!("member {id} did not take over"))));
        }
        let (late, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changes.later).into_iter().partition(|(.., since)| is_late(since));
        self.changes.later = others;
        for (_, asker, _) in late {
            let leads = self.leads();
            let why = || unavailable("no other member took over leadership");
            self.tell(asker, Err(if leads { MemberError::Busy } else { why() }));
        }
        if self.leads() && !self.is_settling() {
            for (change, asker, _) in std::mem::take(&mut self.changes.later) {
                self.decide(change, asker);
            }
        }
        self.announce();
    }

    /// Says where this member is, if the group believes otherwise.
    fn announce(&mut self) {
        let now = self.now();
        let (id, Some(address)) = (self.identity.id, &self.parts.address) else { return };
        let recently = self.changes.announced.is_some_and(|at| now.saturating_sub(at) < ANNOUNCE_PERIOD);
        let known = !self.members.contains(id) || self.members.address(id) == Some(address);
        if known || recently || self.leader().is_none() {
            return;
        }
        self.changes.announced = Some(now);
        let change = Change::Move { id, address: address.clone() };
        self.decide(change, Asker::Nobody);
    }
}

fn unavailable(reason: &str) -> MemberError {
    MemberError::Unavailable { reason: reason.to_owned() }
}
