//! The applied state as its readers, watchers and the one who applies share it: the view, where it stands, and
//! the hub. Applying is for one at a time; reading is for everybody at any time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Notify, watch};

use crate::encoding::{self, POSITION_KEY, Position, State};
use crate::evaluate::{Answer, Command, Evaluator, check_revision};
use crate::hash::{self, HashKv};
use crate::head::Head;
use crate::hold::{Hold, Holds};
use crate::hub::{Hub, Join, Next, Queue};
use crate::kv::{
    KvError, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchBatch, WatchRequest, WatchStream,
};
use crate::lease::{Lease, LeaseId};
use crate::limits::Limits;
use crate::read::{self, Overlay};
use crate::view::{View, ViewBatch, ViewError, Visit};

/// How often a read starts again because a compaction has overtaken it.
const READ_ATTEMPTS_MAX: usize = 8;
/// Revisions of history that a watcher gets in one batch while it catches up.
const CATCH_UP_REVISIONS: u64 = 256;
/// Keys whose history one step of [`Mvcc::scrub`] removes, or as many as lie in one record.
const SCRUB_STEP: usize = 256;
/// A scrub may be behind by so many revisions, or by a part of what is kept, before writes wait for it.
const SCRUB_BEHIND: u64 = 4096;
/// So many states of leases may lie in the view that nobody needs any more, besides as many again as there are leases.
const LEASE_RECORDS_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Mvcc {
    view: RwLock<Arc<dyn View>>,
    /// Changed after a batch is in the view and before its events are published.
    applied: RwLock<Applied>,
    hub: Hub,
    /// Leases that were granted, renewed or ended since somebody last asked.
    touched: Mutex<BTreeSet<LeaseId>>,
    touches: Notify,
    /// States of leases that were written since the last scrub.
    lease_records: AtomicUsize,
    /// Below this revision there is no history any more, not even hidden.
    scrubbed: watch::Sender<Revision>,
    /// How far the scrub that goes on has got.
    scrub_at: AtomicU64,
    /// What it may be behind besides what it always may.
    excused: AtomicU64,
    broken: Mutex<Option<ViewError>>,
    breaks: Notify,
    holds: Arc<Holds>,
}

/// What readers see: where the store stands, and the newest states.
#[derive(Debug)]
struct Applied {
    position: Position,
    head: Head,
}

impl Mvcc {
    /// Takes over a view with what is in it.
    pub(crate) fn new(view: Arc<dyn View>, limits: Limits) -> Result<Self, ViewError> {
        let position = position_of(&*view)?;
        let head = Head::load(&*view, position.revision)?;
        let touched = head.leases().ids().collect();
        Ok(Self {
            view: RwLock::new(view),
            applied: RwLock::new(Applied { position, head }),
            hub: Hub::new(limits, position.revision),
            touched: Mutex::new(touched),
            touches: Notify::new(),
            lease_records: AtomicUsize::new(1), // some may have been left
            scrubbed: watch::Sender::new(Revision(0)),
            scrub_at: AtomicU64::new(position.compacted.0),
            excused: AtomicU64::new(0),
            broken: Mutex::new(None),
            breaks: Notify::new(),
            holds: Arc::default(),
        })
    }

    pub(crate) fn view(&self) -> Arc<dyn View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn position(&self) -> Position {
        self.applied().position
    }

    /// Held for as long as it takes to read in memory.
    fn applied(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads as of the newest applied revision or an older one.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let (position, at) = {
                let applied = self.applied();
                let at = match check_revision(request.revision, &applied.position) {
                    Err(KvError::Compacted { requested, .. }) if self.holds.has(requested) => requested,
                    checked => checked?,
                };
                if at == applied.position.revision {
                    return Ok(RangeResponse { revision: at, ..applied.head.range(request, &Overlay::new()) });
                }
                (applied.position, at)
            };
            let mut response = read::range_at(&*self.view(), request, at).map_err(|err| self.report_broken(err))?;
            if self.position().compacted <= at || self.holds.has(at) {
                response.revision = position.revision;
                return Ok(response);
            }
        }
        Err(overtaken())
    }

    /// Runs a transaction that only reads. What it reads of the past stays as long as it runs: the compaction point
    /// moves only by what is applied.
    pub(crate) fn query(&self, txn: &Txn) -> Result<TxnResponse, KvError> {
        let applied = self.applied(); // first: a view is replaced under this lock
        let view = self.view();
        let answer = Evaluator::new(&applied.head, &*view, applied.position).query(txn);
        drop(applied);
        answer.map_err(|err| self.report_broken(err))?
    }

    /// Applies the commands of Raft entries, the last of which is (`index`, `term`): into the view, then visible to
    /// readers, then to watchers. After an error nothing of it has happened.
    pub(crate) fn apply(
        &self,
        entries: &[Vec<Command>],
        stamp: (u64, u64),
    ) -> Result<Vec<Result<Answer, KvError>>, ViewError> {
        let view = self.view();
        let evaluated = {
            let applied = self.applied();
            let mut evaluator = Evaluator::new(&applied.head, &*view, applied.position);
            for commands in entries {
                commands.iter().try_for_each(|command| evaluator.execute(command))?;
                evaluator.end_entry();
            }
            evaluator.finish(stamp)
        };
        view.apply(evaluated.batch)?;
        let touched: Vec<LeaseId> = evaluated.newest.leases.keys().copied().collect();
        let compacted = evaluated.position.compacted.0;
        let jump = {
            let mut applied = self.applied.write().unwrap_or_else(PoisonError::into_inner);
            applied.head.take(evaluated.newest);
            let former = std::mem::replace(&mut applied.position, evaluated.position);
            compacted - former.compacted.0.min(compacted)
        };
        if jump > SCRUB_BEHIND {
            self.excuse_scrub();
        }
        self.hub.publish(evaluated.position.revision, &evaluated.events);
        if !touched.is_empty() {
            self.lease_records.fetch_add(touched.len(), Ordering::Relaxed);
            self.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(touched);
            self.touches.notify_one();
        }
        Ok(evaluated.answers)
    }

    /// The leases that have changed since the last call, with what they are now; all of them at first.
    pub(crate) fn touched_leases(&self) -> Vec<(LeaseId, Option<Lease>)> {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        let applied = self.applied();
        touched.into_iter().map(|id| (id, applied.head.leases().get(id))).collect()
    }

    /// Waits until a lease changes; at once, if one has since the last call.
    pub(crate) async fn lease_touched(&self) {
        self.touches.notified().await;
    }

    /// A lease, and the keys attached to it if they are asked for.
    pub(crate) fn lease(&self, id: LeaseId, keys: bool) -> Option<(Lease, Vec<Bytes>)> {
        let applied = self.applied();
        let leases = applied.head.leases();
        let attached = if keys { leases.keys(id).cloned().collect() } else { Vec::new() };
        leases.get(id).map(|lease| (lease, attached))
    }

    /// Waits until nothing is left of what a compaction up to `revision` has hidden.
    pub(crate) async fn scrubbed(&self, revision: Revision) {
        let wanted = self.holds.removable(self.position().compacted).min(revision);
        let _ = self.scrubbed.subscribe().wait_for(|done| *done >= wanted).await; // the sender lives as long as this
    }

    /// Whether leases alone are worth a scrub: what keeps them alive moves no revision, so nothing is compacted.
    pub(crate) fn wants_scrub(&self) -> bool {
        let records = self.lease_records.load(Ordering::Relaxed);
        records > LEASE_RECORDS_MAX && records > 2 * self.applied().head.leases().len()
    }

    /// Whether so much waits to be scrubbed that more should not come: what is hidden takes room on the disk and makes
    /// snapshots large.
    /// More is taken while the scrub `waits` for a snapshot, which is written slowly.
    pub(crate) fn scrub_is_behind(&self, waits: bool) -> bool {
        let kept = {
            let applied = self.applied();
            let Position { revision, compacted, .. } = applied.position;
            applied.head.len() as u64 + (revision.0 - compacted.0.min(revision.0))
        };
        let allowed = SCRUB_BEHIND.max(if waits { kept } else { kept / 4 });
        self.scrub_backlog() > allowed + self.excused.load(Ordering::Relaxed)
    }

    /// Revisions that are compacted and not scrubbed.
    fn scrub_backlog(&self) -> u64 {
        let removable = self.holds.removable(self.position().compacted);
        removable.0.saturating_sub(self.scrub_at.load(Ordering::Relaxed))
    }

    /// Nobody waits for what is to be scrubbed now: so much came at once, by a far compaction or during a snapshot.
    pub(crate) fn excuse_scrub(&self) {
        self.excused.fetch_max(self.scrub_backlog(), Ordering::Relaxed);
    }

    /// Removes a bit of what lies below the compaction point; whether there is more. Nobody can tell: reads
    /// below that point are refused from the moment it moves.
    pub(crate) fn scrub(&self) -> Result<bool, ViewError> {
        let view = self.view();
        let lease_records = self.lease_records.swap(0, Ordering::Relaxed); // first: those are there at the position
        let Position { compacted, index, .. } = self.position();
        let compacted = self.holds.removable(compacted);
        let mut batch = ViewBatch::default();
        let mut keys = BTreeSet::new();
        let (mut malformed, mut reached) = (None, compacted);
        let (from, to) = (encoding::history_key(Revision(0)), encoding::history_key(compacted));
        view.visit(&from, &to, &mut |view_key, record| {
            reached = encoding::history_revision(view_key).unwrap_or(reached);
            let mut rest = record;
            while let Some((_, key, behind)) = encoding::split_change(rest) {
                keys.insert(Bytes::copy_from_slice(key));
                rest = behind;
            }
            if !rest.is_empty() {
                malformed = Some(ViewError::malformed("cannot scrub", view_key));
                return Visit::Stop;
            }
            batch.remove(view_key.to_vec());
            if keys.len() < SCRUB_STEP { Visit::Next } else { Visit::Stop }
        })?;
        malformed.map_or(Ok(()), Err)?;
        let more = keys.len() >= SCRUB_STEP;
        for key in &keys {
            superseded(&*view, key, compacted, &mut batch)?;
        }
        if lease_records > 0 {
            superseded_leases(&*view, index, &mut batch)?;
        }
        if !batch.changes.is_empty() {
            view.apply(batch)?;
        }
        self.scrub_at.store(if more { reached.0 } else { compacted.0 }, Ordering::Relaxed);
        self.excused.fetch_min(self.scrub_backlog(), Ordering::Relaxed);
        if !more {
            self.scrubbed.send_if_modified(|done| std::mem::replace(done, compacted) < compacted);
        }
        Ok(more)
    }

    /// How many bytes all keys and values have that live.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.applied().head.bytes()
    }

    /// Keeps the newest revision readable; see [`crate::Kv::hold`].
    pub(crate) fn hold(&self) -> Hold {
        let applied = self.applied(); // nothing is compacted while it is held
        self.holds.hold(applied.position.revision)
    }

    /// See [`crate::Kv::hash_kv`].
    pub(crate) fn hash(&self, revision: Option<Revision>) -> Result<HashKv, KvError> {
        let (at, held) = {
            let applied = self.applied();
            let at = check_revision(revision, &applied.position)?;
            (at, self.holds.hold(applied.position.compacted))
        };
        hash::of_view(&*self.view(), at, held.revision()).map_err(|err| self.report_broken(err))
    }

    /// Follows changes; see [`crate::Kv::watch`].
    pub(crate) fn watch(self: &Arc<Self>, request: WatchRequest) -> WatchStream {
        let next = request.start.unwrap_or_else(|| Revision(self.hub.revision().0 + 1));
        // Revision 1 is the empty store: nothing has ever changed at it or before.
        let phase = Phase::CatchingUp { next: next.max(Revision(1)) };
        let mut watch = Watch { mvcc: self.clone(), request, phase };
        watch.join_if_caught_up();
        futures::stream::unfold(watch, |mut watch| async {
            let item = watch.next().await?;
            Some((item, watch))
        })
        .boxed()
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        self.hub.close();
    }

    /// Notes that the view failed, so that its owner rebuilds it; what to tell the reader.
    pub(crate) fn report_broken(&self, err: ViewError) -> KvError {
        let reason = format!("its view is rebuilt ({err})");
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(err);
        self.breaks.notify_one();
        KvError::Unavailable { reason }
    }

    /// Waits until the view has failed.
    pub(crate) async fn breaks(&self) -> ViewError {
        loop {
            if let Some(err) = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return err;
            }
            self.breaks.notified().await;
        }
    }

    /// Goes on with a view that stands further ahead than this one: a snapshot of another member. Readers see the old
    /// state or the new one, whole; watchers read what they have missed from its history.
    /// What went on until now comes back: a large state goes slowly, and nobody should have to wait for that.
    pub(crate) fn install(&self, view: Arc<dyn View>, position: Position, head: Head) -> impl Send + use<> {
        let former = {
            let mut applied = self.applied.write().unwrap_or_else(PoisonError::into_inner);
            self.holds.forget(); // nobody can hold a revision before the new state is there
            let leases: Vec<LeaseId> = applied.head.leases().ids().chain(head.leases().ids()).collect();
            let view = std::mem::replace(&mut *self.view.write().unwrap_or_else(PoisonError::into_inner), view);
            self.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(leases);
            (view, std::mem::replace(&mut *applied, Applied { position, head }))
        };
        self.touches.notify_one();
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.hub.overtake(position.revision);
        former
    }

    /// Goes on with another view, which must stand where this one stood.
    pub(crate) fn replace_view(&self, view: Arc<dyn View>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        self.holds.forget();
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn overtaken() -> KvError {
    KvError::Unavailable { reason: "compaction overtakes every attempt to read".to_owned() }
}

/// Where a view stands; the beginning, when it is empty.
pub(crate) fn position_of(view: &dyn View) -> Result<Position, ViewError> {
    match view.get(POSITION_KEY)? {
        None => Ok(Position::EMPTY),
        Some(bytes) => Position::decode(&bytes).ok_or_else(|| ViewError::malformed("has no position", POSITION_KEY)),
    }
}

/// The compaction point that keeps `history_max` revisions, when it is time to move there.
pub(crate) fn due_compaction(position: &Position, history_max: u64) -> Option<Revision> {
    let kept = position.revision.0 - position.compacted.0.min(position.revision.0);
    (kept > history_max + history_max / 8).then(|| Revision(position.revision.0 - history_max))
}

/// Adds the removal of all states of a key that a reader at `compacted` or later cannot see.
fn superseded(view: &dyn View, key: &Bytes, compacted: Revision, batch: &mut ViewBatch) -> Result<(), ViewError> {
    let (from, to) = encoding::versions_up_to(key, compacted);
    let mut newest = true;
    let mut malformed = None;
    view.scan(&from, &to, &mut |view_key, record| {
        // A deletion is small: a record that is not shown is a state of the key.
        let deletes = record.map_or(Some(false), |record| State::decode(record).map(|state| state == State::Deleted));
        let Some(((_, revision), deletes)) = encoding::split_version_key(view_key).zip(deletes) else {
            malformed = Some(ViewError::malformed("cannot scrub", view_key));
            return Visit::Stop;
        };
        if !newest || (deletes && revision < compacted) {
            batch.remove(view_key.to_vec());
        }
        newest = false;
        Visit::Next
    })?;
    malformed.map_or(Ok(()), Err)
}

/// Adds the removal of states of leases that were followed by others up to the Raft entry `index`, and of leases that
/// have ended.
fn superseded_leases(view: &dyn View, index: u64, batch: &mut ViewBatch) -> Result<(), ViewError> {
    let (from, to) = encoding::all_leases();
    let (mut newest, mut malformed) = (None, None);
    view.visit(&from, &to, &mut |view_key, record| {
        let Some((id, at)) = encoding::split_lease_key(view_key) else {
            malformed = Some(ViewError::malformed("cannot scrub", view_key));
            return Visit::Stop;
        };
        if at <= index && (newest == Some(id) || record.is_empty()) {
            batch.remove(view_key.to_vec());
        }
        if at <= index {
            newest = Some(id);
        }
        Visit::Next
    })?;
    malformed.map_or(Ok(()), Err)
}

/// One watcher's way through history into the present.
struct Watch {
    mvcc: Arc<Mvcc>,
    request: WatchRequest,
    phase: Phase,
}

enum Phase {
    /// Reads history from `next` on; leads to `Live` as soon as nothing published is left to read.
    CatchingUp { next: Revision },
    /// Gets every change as it is published; leads to `CatchingUp` when the store jumps ahead, to `Ended` on the first
    /// error.
    Live(Arc<Queue>),
    /// Nothing more comes, but why, if that has not been said yet.
    Ended(Option<KvError>),
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchBatch, KvError>> {
        let item = loop {
            break match &mut self.phase {
                // ## CatchingUp => (CatchingUp | Live | Ended)
                Phase::CatchingUp { next } => {
                    let next = *next;
                    self.catch_up(next)
                }
                // ## Live => (Live | CatchingUp | Ended)
                Phase::Live(queue) => match queue.next().await {
                    Ok(Next::Batch(batch)) => Ok(batch),
                    Ok(Next::Behind(next)) => {
                        self.phase = Phase::CatchingUp { next };
                        self.join_if_caught_up(); // a watch of the future may still be ahead
                        continue;
                    }
                    Err(err) => Err(err),
                },
                Phase::Ended(err) => Err(err.take()?),
            };
        };
        match item {
            Err(_) => self.phase = Phase::Ended(None),
            Ok(_) => self.join_if_caught_up(),
        }
        Some(item)
    }

    /// Joins the hub before the watcher polls again, so that from here on nothing depends on its pace.
    fn join_if_caught_up(&mut self) {
        let Phase::CatchingUp { next } = self.phase else { return };
        match self.mvcc.hub.join(&self.request.range, self.request.previous, next) {
            Ok(Join::Joined(queue)) => self.phase = Phase::Live(queue),
            Ok(Join::Behind) => {}
            Err(err) => self.phase = Phase::Ended(Some(err)),
        }
    }

    fn catch_up(&mut self, next: Revision) -> Result<WatchBatch, KvError> {
        let last = Revision(self.mvcc.hub.revision().0.min(next.0 + CATCH_UP_REVISIONS - 1));
        let compacted = |mvcc: &Mvcc| check_revision(Some(next), &mvcc.position()).map(|_| ());
        compacted(&self.mvcc)?;
        let read = read::history(&*self.mvcc.view(), &self.request.range, (next, last), self.request.previous);
        let (events, complete) = read.map_err(|err| self.mvcc.report_broken(err))?;
        compacted(&self.mvcc)?; // what is scrubbed while it is read would leave a gap
        self.phase = Phase::CatchingUp { next: Revision(complete.0 + 1) };
        Ok(WatchBatch { revision: complete, events })
    }
}
