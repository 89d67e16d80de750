//! A leader whose disk is full hands over to somebody who has room: the group writes on. Who has none says so to the
//! leader again and again, so where nobody has room nobody hands over.

use std::collections::BTreeMap;
use std::time::Duration;

use reeve_proto::member::message::Kind;

use super::Member;

/// How often a member without room says so.
const TELL_PERIOD: Duration = Duration::from_secs(1);
/// Who has not said so for as long has room.
const TOLD_FOR: Duration = Duration::from_secs(3);
/// How long a leader waits before it hands over, and before it tries again: others have told it by then.
const HAND_OVER_AFTER: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Room {
    /// When each other member has said that it has none.
    none: BTreeMap<u64, Duration>,
    /// When this member has said so.
    told: Option<Duration>,
    /// Since when this leader has none, or has last tried to hand over.
    since: Option<Duration>,
}

impl Member {
    /// Another member has no room on its disk.
    pub(super) fn on_full(&mut self, from: u64) {
        let now = self.now();
        self.room.none.insert(from, now);
    }

    /// Called with every tick.
    pub(super) fn watch_room(&mut self) {
        let now = self.now();
        if !self.leads() {
            self.room.since = None;
            self.room.none.clear();
            let is_due = self.room.told.is_none_or(|told| now.saturating_sub(told) >= TELL_PERIOD);
            if let Some(leader) = self.leader().filter(|_| is_due && self.space.is_full()) {
                self.room.told = Some(now);
                self.say(leader, Kind::Full(true), true);
            }
            return;
        }
        if self.is_alone() || !self.space.is_full() {
            self.room.since = None;
            return;
        }
        let since = *self.room.since.get_or_insert(now);
        if now.saturating_sub(since) < HAND_OVER_AFTER || self.node.raft.lead_transferee.is_some() {
            return;
        }
        self.room.none.retain(|_, told| now.saturating_sub(*told) < TOLD_FOR);
        let mut reach = self.reach();
        reach.retain(|id, _| !self.room.none.contains_key(id));
        if let Some(best) = self.members.best(self.identity.id, &reach) {
            self.room.since = Some(now);
            tracing::warn!(to = best, "The disk is full: this member hands leadership over to one that has room.");
            self.node.transfer_leader(best);
        }
    }
}
