//! Knows when leases end. Every member follows what is applied and counts for itself; only the leader acts on it, by
//! proposing the end of a lease like any other change. A new leader begins by giving every lease its whole time again:
//! it cannot know how long the change took, and a key that lives too long does less harm than one that dies too early.
//!
//! A lease that is renewed, or ended and granted again, while its end is already on its way stays: the proposal says
//! how often it had been renewed ([`Command::LeaseExpire`]), and no two grants begin to count at the same number. The
//! end may be long on its way: a leader that was cut off hands what it could not bring in to the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_api::clock::SharedClock;
use tokio::sync::watch;

use crate::evaluate::Command;
use crate::kv::KvError;
use crate::lease::{Lease, LeaseId, LeaseStatus};
use crate::mvcc::Mvcc;
use crate::status::Leadership;

/// Leases whose end is proposed at once: they share a batch of the log.
const EXPIRED_AT_ONCE: usize = 256;
/// How long the leader waits after the store has refused the end of a lease.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Lessor {
    mvcc: Arc<Mvcc>,
    clock: SharedClock,
    deadlines: Mutex<Deadlines>,
}

/// When each lease ends, in the clock's monotonic time.
#[derive(Debug, Default)]
struct Deadlines {
    of: BTreeMap<LeaseId, (Duration, Lease)>,
    order: BTreeSet<(Duration, LeaseId)>,
}

impl Deadlines {
    /// Gives a lease its whole time from `now` on; `None` forgets it.
    fn set(&mut self, id: LeaseId, lease: Option<Lease>, now: Duration) {
        if let Some((deadline, _)) = self.of.remove(&id) {
            self.order.remove(&(deadline, id));
        }
        if let Some(lease) = lease {
            let deadline = now + Duration::from_secs(lease.ttl.unsigned_abs());
            self.of.insert(id, (deadline, lease));
            self.order.insert((deadline, id));
        }
    }
}

impl Lessor {
    pub(crate) fn new(mvcc: Arc<Mvcc>, clock: SharedClock) -> Self {
        Self { mvcc, clock, deadlines: Mutex::default() }
    }

    /// Takes in what has been applied; what time it is.
    fn catch_up(&self) -> (MutexGuard<'_, Deadlines>, Duration) {
        let mut deadlines = self.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        for (id, lease) in self.mvcc.touched_leases() {
            deadlines.set(id, lease, now);
        }
        (deadlines, now)
    }

    /// Gives every lease its whole time again.
    fn renew_all(&self) {
        let (mut deadlines, now) = self.catch_up();
        let all: Vec<_> = deadlines.of.iter().map(|(id, (_, lease))| (*id, *lease)).collect();
        all.into_iter().for_each(|(id, lease)| deadlines.set(id, Some(lease), now));
    }

    /// What is left of a lease as this member counts; `None` when there is none.
    pub(crate) fn left(&self, id: LeaseId) -> Option<Duration> {
        let (deadlines, now) = self.catch_up();
        deadlines.of.get(&id).map(|(deadline, _)| deadline.saturating_sub(now))
    }

    /// How a lease stands of which so much is left; `None` when there is none.
    pub(crate) fn status(&self, id: LeaseId, left: Duration, keys: bool) -> Option<LeaseStatus> {
        let (lease, keys) = self.mvcc.lease(id, keys)?;
        let ttl = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        Some(LeaseStatus { id, granted_ttl: lease.ttl, ttl, keys })
    }

    /// All leases; those that end first come first.
    pub(crate) fn ids(&self) -> Vec<LeaseId> {
        self.catch_up().0.order.iter().map(|(_, id)| *id).collect()
    }

    /// What ends leases whose time is up, and how long until the next one's is.
    pub(crate) fn due(&self) -> (Vec<Command>, Option<Duration>) {
        let (deadlines, now) = self.catch_up();
        let expired = deadlines.order.iter().take_while(|(deadline, _)| *deadline <= now).take(EXPIRED_AT_ONCE);
        let commands = expired.filter_map(|(_, id)| {
            let (_, lease) = deadlines.of.get(id)?;
            Some(Command::LeaseExpire(*id, lease.renewals))
        });
        let commands: Vec<_> = commands.collect();
        let next = deadlines.order.first().map(|(deadline, _)| deadline.saturating_sub(now));
        (commands, next)
    }

    /// Ends leases for as long as this member leads, and again whenever it does; ends when nobody tells any more.
    pub(crate) async fn run<F: Future<Output = Result<(), KvError>>>(
        &self,
        mut leadership: watch::Receiver<Leadership>,
        propose: impl Fn(Command) -> F,
    ) {
        while let Ok(term) = leadership.wait_for(Leadership::is_leader).await.map(|now| now.term) {
            self.renew_all();
            while is_still_leader(&mut leadership, term) {
                let (expired, next) = self.due();
                let pause = if expired.is_empty() {
                    next
                } else {
                    let ends = futures::future::join_all(expired.into_iter().map(&propose)).await;
                    let refused = ends.into_iter().any(|end| end.is_err());
                    Some(if refused { REFUSED_PAUSE } else { Duration::ZERO })
                };
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = self.mvcc.lease_touched() => {}
                    () = wait(pause) => {}
                }
            }
        }
    }
}

/// Whether nobody else has led since.
fn is_still_leader(leadership: &mut watch::Receiver<Leadership>, term: u64) -> bool {
    let now = leadership.borrow_and_update();
    now.is_leader() && now.term == term
}

/// For ever, if there is nothing to wait for.
async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reeve_api::clock::ManualClock;

    use super::*;
    use crate::limits::Limits;
    use crate::view::MemoryView;

    fn lessor() -> (Lessor, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let mvcc = Mvcc::new(Arc::new(MemoryView::default()), Limits::default()).unwrap();
        (Lessor::new(Arc::new(mvcc), clock.clone()), clock)
    }

    fn apply(lessor: &Lessor, command: Command) {
        lessor.mvcc.apply(&[vec![command]], (1, 1)).unwrap().pop().unwrap().unwrap();
    }

    #[test]
    fn a_lease_is_due_when_its_time_is_up_and_not_if_it_was_renewed() {
        let (lessor, clock) = lessor();
        apply(&lessor, Command::LeaseGrant(LeaseId(7), 10, 0));
        assert_eq!(lessor.due(), (vec![], Some(Duration::from_secs(10))));
        clock.advance(Duration::from_secs(6));
        apply(&lessor, Command::LeaseRenew(LeaseId(7)));
        assert_eq!(lessor.due().1, Some(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(10));
        let (due, _) = lessor.due();
        assert_eq!(due, [Command::LeaseExpire(LeaseId(7), 1)]);
        // Somebody renews it while that is on its way.
        apply(&lessor, Command::LeaseRenew(LeaseId(7)));
        apply(&lessor, due[0].clone());
        assert_eq!(lessor.left(LeaseId(7)), Some(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(10));
        apply(&lessor, lessor.due().0.pop().unwrap());
        assert_eq!((lessor.left(LeaseId(7)), lessor.ids(), lessor.due()), (None, vec![], (vec![], None)));
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_whole_time_again() {
        let (lessor, clock) = lessor();
        apply(&lessor, Command::LeaseGrant(LeaseId(1), 10, 0));
        clock.advance(Duration::from_secs(60));
        apply(&lessor, Command::LeaseGrant(LeaseId(2), 5, 0));
        lessor.renew_all();
        assert_eq!(lessor.due(), (vec![], Some(Duration::from_secs(5))));
        assert_eq!(lessor.ids(), [LeaseId(2), LeaseId(1)]);
    }
}
