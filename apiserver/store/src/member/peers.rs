//! Other members: what they send, what they are sent, whether they are there. And time, which only matters when there
//! are others: a sole member has no timer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};
use reeve_api::rng::RngExt as _;
use reeve_proto::member::message::Kind;

use super::{ELECTION_TICKS, Member, TICK};
use crate::kv::KvError;
use crate::members::Reach;
use crate::status::Leadership;
use crate::transport::Parcel;
use crate::wire;

/// Messages that are taken in before Raft is asked what it wants done: what comes together is synced together.
const MAIL_MAX: usize = 64;
/// With so many entries to apply, nothing is taken in that would add to them: the sender's stream slows down.
const TO_APPLY_MAX: usize = 256;
/// After a pause no more ticks than this are made up for at once, so that messages that came meanwhile are heard before
/// anybody is missed.
const TICKS_AT_ONCE_MAX: u32 = 2;
/// With more elections than so within [`UNREST_PERIOD`] members are more patient with each other: on machines that are
/// so busy, another election would only make it worse.
const CALM_ELECTIONS_MAX: usize = 2;
/// With more than so, more patient still.
const UNREST_ELECTIONS_MAX: usize = 5;
/// So many times more patient at most.
pub(super) const UNREST_MAX: usize = 4;
const UNREST_PERIOD: Duration = Duration::from_secs(10);
/// A member that has not been heard of for so long counts as unreachable.
const SILENT_AFTER: Duration = Duration::from_millis(1500);

pub(super) struct Group {
    /// Since when this member leads.
    leads_since: Option<Duration>,
    /// When each member was last heard of.
    heard: BTreeMap<u64, Duration>,
    /// Whom the leader has warned of.
    silent: BTreeSet<u64>,
    ticked: Duration,
    /// The election timeout, and for which term and role it was drawn.
    drawn: usize,
    drawn_for: Option<(u64, StateRole)>,
    /// The newest term, and when the terms of the last time began.
    term: u64,
    terms: VecDeque<Duration>,
    /// Counts a leader's ticks.
    ticks: usize,
    pub(super) leader_changes: u64,
    last_leader: Option<u64>,
    /// Whether the log says by now that this member is not in the group any more.
    removed: bool,
}

impl Group {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            leads_since: None,
            heard: BTreeMap::new(),
            silent: BTreeSet::new(),
            ticked: now,
            drawn: ELECTION_TICKS,
            drawn_for: None,
            term: 0,
            terms: VecDeque::new(),
            ticks: 0,
            leader_changes: 0,
            last_leader: None,
            removed: false,
        }
    }
}

impl Member {
    /// Whether nothing depends on time.
    fn is_quiet(&self) -> bool {
        self.is_alone() && self.members.is_alone(self.identity.id)
    }

    /// How long until the next tick; `None` when time does not matter.
    pub(super) fn next_tick(&self) -> Option<Duration> {
        let due = self.group.ticked + TICK;
        (!self.is_quiet()).then(|| due.saturating_sub(self.now()))
    }

    /// Tells Raft how much time has passed, and looks after what depends on it.
    pub(super) fn tick(&mut self) {
        let now = self.now();
        if self.is_quiet() {
            self.group.ticked = now;
            return;
        }
        let passed = now.saturating_sub(self.group.ticked).as_millis() / TICK.as_millis();
        let ticks = u32::try_from(passed).unwrap_or(u32::MAX);
        if ticks == 0 {
            return;
        }
        self.group.ticked = if ticks > TICKS_AT_ONCE_MAX { now } else { self.group.ticked + TICK * ticks };
        for _ in 0..ticks.min(TICKS_AT_ONCE_MAX) {
            self.tick_raft();
        }
        self.begin_group();
        self.watch_disk();
        self.watch_room();
        self.watch_peers();
        self.ask_again(false);
        self.resend();
        self.ask_time_left_again();
        self.watch_changes();
        self.watch_arrival();
        self.watch_outgoing();
    }

    fn tick_raft(&mut self) {
        let leads = self.leads();
        if !leads && (self.disk_is_stuck() || self.members.only_voter_is(self.identity.id) && self.writes.waiting() > 0)
        {
            return; // it could not vote for itself, nor lead
        }
        let unrest = self.unrest();
        self.group.ticks = self.group.ticks.wrapping_add(1);
        if leads && !self.group.ticks.is_multiple_of(unrest) {
            return self.node.ping(); // others hear of it as often as ever
        }
        let raft = &mut self.node.raft;
        if self.group.drawn_for != Some((raft.term, raft.state)) {
            // Raft draws it from a source of its own; ours replays.
            let extra = usize::try_from(self.parts.rng.below(ELECTION_TICKS as u64)).unwrap_or(0);
            self.group.drawn = ELECTION_TICKS + extra;
            self.group.drawn_for = Some((raft.term, raft.state));
        }
        raft.set_randomized_election_timeout(self.group.drawn * unrest);
        self.node.tick();
    }

    /// How many times longer than usual members wait for each other: as there were elections lately.
    fn unrest(&mut self) -> usize {
        let (now, term) = (self.now(), self.node.raft.term);
        let terms = &mut self.group.terms;
        if self.group.term != term {
            self.group.term = term;
            terms.push_back(now);
        }
        while terms.front().is_some_and(|began| now.saturating_sub(*began) > UNREST_PERIOD) {
            terms.pop_front();
        }
        match terms.len() {
            n if n > UNREST_ELECTIONS_MAX => UNREST_MAX,
            n if n > CALM_ELECTIONS_MAX => 2,
            _ => 1,
        }
    }

    /// Sends what Raft has to say.
    pub(super) fn send(&mut self, messages: Vec<Message>) {
        // Raft passes on what somebody has asked of a leader that is none: who asks had better ask again.
        let own = messages.into_iter().filter(|message| message.from == self.identity.id).collect();
        for message in wire::together(own) {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.outgoing.note(message.to, self.parts.clock.monotonic());
            }
            if let (Some(transport), Some(parcel)) = (&self.parts.transport, wire::raft_parcel(&message)) {
                transport.send(parcel);
            }
        }
    }

    /// Whether messages are taken in that lead to more work.
    pub(super) fn hears(&self) -> bool {
        self.to_apply.len() < TO_APPLY_MAX
    }

    /// Takes in a message, and those behind it.
    pub(super) fn take_mail(&mut self, first: &Parcel) {
        self.open_parcel(first);
        for _ in 0..MAIL_MAX {
            let urgent = self.parts.mail.urgent.try_recv().ok();
            let other = || self.hears().then(|| self.parts.mail.others.try_recv().ok()).flatten();
            let Some(next) = urgent.or_else(other) else { return };
            self.open_parcel(&next);
        }
    }

    fn open_parcel(&mut self, parcel: &Parcel) {
        let from = parcel.from;
        self.group.heard.insert(from, self.now());
        match wire::open(parcel) {
            Some(Kind::Raft(bytes)) => match wire::raft_message(&bytes, parcel) {
                Some(message) => self.step(message),
                None => tracing::debug!(from, "Dropped a message of Raft's that is none."),
            },
            Some(Kind::Forward(forward)) => self.take_forwarded(from, forward),
            Some(Kind::Refused(refused)) => self.on_refused(&refused),
            Some(Kind::Ask(ask)) => self.on_ask(from, ask),
            Some(Kind::Piece(piece)) => self.on_piece(from, piece),
            Some(Kind::Change(change)) => self.take_change(from, change),
            Some(Kind::Changed(changed)) => self.on_changed(changed),
            Some(Kind::LeaseAsked(asked)) => self.on_lease_asked(from, asked),
            Some(Kind::LeaseTold(told)) => self.on_lease_told(told),
            Some(Kind::Spoilt(index)) => self.on_spoilt(from, index),
            Some(Kind::Full(_)) => self.on_full(from),
            Some(Kind::Installing(goes_on)) => self.on_installing(from, goes_on),
            None => tracing::debug!(from, "Dropped a message of a kind that is not known here."),
        }
    }

    fn step(&mut self, message: Message) {
        let kind = message.get_msg_type();
        let adds_to_log = kind == MessageType::MsgAppend && !message.entries.is_empty();
        let needs_disk = adds_to_log || matches!(kind, MessageType::MsgSnapshot | MessageType::MsgRequestVote);
        match kind {
            // They are sent by nobody of ours.
            MessageType::MsgPropose | MessageType::MsgTransferLeader => {}
            _ if needs_disk && self.writes.stalled() => {}
            MessageType::MsgSnapshot => self.on_offer(message),
            _ => self.step_raft(message),
        }
    }

    pub(super) fn step_raft(&mut self, message: Message) {
        if let Err(err) = self.node.step(message) {
            tracing::debug!(%err, "Raft does not take a message.");
        }
    }

    /// Something about who leads has changed.
    pub(super) fn on_leadership(&mut self, leadership: Leadership) {
        self.group.leads_since = self.leads().then(|| self.group.leads_since.unwrap_or_else(|| self.now()));
        if leadership.leader.is_some() && leadership.leader != self.group.last_leader {
            self.group.last_leader = leadership.leader;
            self.group.leader_changes += 1;
            if !self.members.is_alone(self.identity.id) {
                tracing::info!(leader = leadership.leader, term = leadership.term, "There is a leader.");
            }
        }
        self.on_new_leader(leadership);
        if leadership.leader.is_some() {
            self.propose_again();
            self.ask_again(true);
        }
    }

    /// The members are others than before.
    pub(super) fn on_members(&mut self) {
        self.tell_peers();
        let index = self.members.index;
        self.node.mut_store().offer_from(index);
        self.group.heard.retain(|id, _| self.members.contains(*id));
        self.group.removed = self.members.removed().any(|id| id == self.identity.id);
        if self.group.removed {
            self.on_removed();
        }
        self.note_leadership();
    }

    /// Fails when this member does not belong to the group any more.
    pub(super) fn check_membership(&self) -> Result<(), KvError> {
        if self.group.removed && self.changing.is_none() {
            self.parts.shared.was_removed.store(true, Ordering::SeqCst);
            return Err(KvError::Unavailable { reason: "this member was removed from the group".to_owned() });
        }
        Ok(())
    }

    /// Tells the transport who there is.
    pub(super) fn tell_peers(&self) {
        self.parts.shared.removed.set(self.members.removed());
        let Some(transport) = &self.parts.transport else { return };
        let joins = self.members.ids().is_empty();
        transport.set_peers(if joins { self.parts.peers.clone() } else { self.members.peers(self.identity.id) });
    }

    fn is_heard(&self, id: u64) -> bool {
        let now = self.now();
        let heard = self.group.heard.get(&id);
        id == self.identity.id || heard.is_some_and(|at| now.saturating_sub(*at) < SILENT_AFTER)
    }

    /// Whether this member leads for so short a time that not every voter has been heard of yet: who follows does not
    /// hear of other followers. One that learns in the same breath that it leads, and what it is to change, leads since
    /// now.
    pub(super) fn is_getting_to_know(&self) -> bool {
        let is_new = self.group.leads_since.is_none_or(|since| self.now().saturating_sub(since) < SILENT_AFTER);
        let mut voters = self.members.conf.voters.iter();
        is_new && voters.any(|id| !self.is_heard(*id))
    }

    /// What this leader knows of everybody. Whoever still makes its state of a snapshot has nothing, whatever lies in
    /// its log: it cannot take in much more before it is done.
    pub(super) fn reach(&self) -> BTreeMap<u64, Reach> {
        let matched = |id: u64, matched: u64| if self.outgoing.is_fetching(id) { 0 } else { matched };
        let progress = self.node.raft.prs().iter();
        progress
            .map(|(id, pr)| (*id, Reach { matched: matched(*id, pr.matched), active: self.is_heard(*id) }))
            .collect()
    }

    /// Makes the voter that is furthest leader, if one can be reached.
    pub(super) fn hand_over(&mut self) {
        if let Some(best) = self.members.best(self.identity.id, &self.reach()) {
            self.node.transfer_leader(best);
        }
    }

    /// Says when a member is not heard of any more, and when it is again.
    fn watch_peers(&mut self) {
        if !self.leads() {
            self.group.silent.clear();
            return;
        }
        for id in self.members.ids() {
            let heard = self.is_heard(id);
            if heard && self.group.silent.remove(&id) {
                tracing::info!(member = id, "A member is heard of again.");
            } else if !heard && self.group.heard.contains_key(&id) && self.group.silent.insert(id) {
                tracing::warn!(member = id, since = ?SILENT_AFTER, "A member is not heard of.");
            }
        }
    }
}
