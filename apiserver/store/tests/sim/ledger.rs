//! What the outside has seen, and whether it fits together.
//!
//! The store numbers its changes: that is the order in which everything is claimed to have happened, and a witness that
//! makes linearizability easy to check. Every answer must lie in that order behind all that was answered before it was
//! asked, every read must show what that order says, and nothing may stand in it that nobody had asked for by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use reeve_store::{EventKind, KeyRange, Kv as _, KvError, Leadership, Revision, Store, WatchBatch, WatchRequest};
use tokio::sync::watch;

/// A key and what became of it; `None`: it was deleted.
pub(crate) type Change = (String, Option<String>);

#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    /// What each revision changed, as the first member that told of it said.
    history: BTreeMap<u64, Vec<Change>>,
    /// Up to where each member has told of its changes.
    told: BTreeMap<u64, u64>,
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    /// The highest revision that anybody was answered with.
    floor: u64,
    /// When each value was handed in.
    asked: BTreeMap<String, Duration>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    complaints: Vec<String>,
    /// What was before this revision may be gone: somebody has asked for that.
    forgettable: u64,
    /// Nobody follows what members tell.
    looks_away: bool,
}

/// A write that was acknowledged.
struct Write {
    revision: u64,
    key: String,
    value: String,
    /// For a write on a condition: the mod revision that the key had to have.
    expected: Option<u64>,
}

/// A read that was answered.
struct Read {
    revision: u64,
    /// Every key that was asked for, with what it had: value and mod revision.
    state: BTreeMap<String, Option<(String, u64)>>,
    answered: Duration,
    by: u64,
}

/// What nobody can say: history was removed before any member had told of it.
struct Forgotten;

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn complain(&self, what: String) {
        self.lock().complaints.push(what);
    }

    /// Follows no changes from now on.
    pub(crate) fn look_away(&self) {
        self.lock().looks_away = true;
    }

    /// The first thing that was found wrong.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.lock().complaints.first().cloned()
    }

    /// Somebody is about to ask that history before this revision be removed.
    pub(crate) fn may_forget(&self, before: Revision) {
        let mut book = self.lock();
        book.forgettable = book.forgettable.max(before.0);
    }

    /// A member says that it has nothing from before this revision any more.
    pub(crate) fn forgot(&self, id: u64, before: Revision) {
        let forgettable = self.lock().forgettable;
        if before.0 > forgettable {
            self.complain(format!("member {id} has no history before {before}; {forgettable} was asked for"));
        }
    }

    /// Up to where a member has told of its changes.
    pub(crate) fn seen_by(&self, member: u64) -> Revision {
        Revision(self.lock().told.get(&member).copied().unwrap_or(1))
    }

    /// Somebody asks now: the answer must be at this revision or a later one.
    pub(crate) fn floor(&self) -> u64 {
        self.lock().floor
    }

    /// A value is handed in now. Every value is handed in once.
    pub(crate) fn hand_in(&self, value: &str, now: Duration) {
        self.lock().asked.insert(value.to_owned(), now);
    }

    pub(crate) fn acknowledged(&self, floor: u64, revision: Revision, change: (&str, &str), expected: Option<u64>) {
        let mut book = self.lock();
        if revision.0 <= floor {
            book.complaints.push(format!("a write got revision {revision}, but {floor} was known before it was asked"));
        }
        book.floor = book.floor.max(revision.0);
        let (key, value) = (change.0.to_owned(), change.1.to_owned());
        book.writes.push(Write { revision: revision.0, key, value, expected });
    }

    pub(crate) fn read(
        &self,
        (floor, by): (u64, u64),
        revision: Revision,
        state: BTreeMap<String, Option<(String, u64)>>,
        answered: Duration,
    ) {
        let mut book = self.lock();
        if revision.0 < floor {
            book.complaints.push(format!("member {by} read stale: revision {revision}, but {floor} was known before"));
        }
        book.floor = book.floor.max(revision.0);
        book.reads.push(Read { revision: revision.0, state, answered, by });
    }

    /// A read of the past was answered.
    pub(crate) fn read_past(
        &self,
        by: u64,
        revision: Revision,
        state: BTreeMap<String, Option<(String, u64)>>,
        answered: Duration,
    ) {
        self.lock().reads.push(Read { revision: revision.0, state, answered, by });
    }

    /// Follows all changes that a member tells of, for as long as it runs, from where it was left.
    pub(crate) async fn follow(self: Arc<Self>, id: u64, store: Arc<Store>) {
        while !self.lock().looks_away {
            let next = self.seen_by(id).0 + 1;
            let range = KeyRange::Prefix(Vec::new().into());
            let request = WatchRequest { range, start: Some(Revision(next)), previous: false };
            let Ok(mut stream) = store.watch(request).await else { return };
            loop {
                match stream.next().await {
                    Some(Ok(batch)) => self.take(id, batch),
                    Some(Err(KvError::SlowWatcher { .. } | KvError::Unavailable { .. })) => break,
                    Some(Err(KvError::Compacted { compacted, .. })) => {
                        self.forgot(id, compacted);
                        let mut book = self.lock();
                        let told = book.told.entry(id).or_insert(1);
                        *told = (compacted.0 - 1).max(*told);
                        break;
                    }
                    Some(Err(_)) | None => return,
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn take(&self, id: u64, batch: WatchBatch) {
        let mut book = self.lock();
        let told = book.told.get(&id).copied().unwrap_or(1);
        let mut changes: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
        let mut last = told;
        for event in batch.events {
            let at = event.kv.mod_revision.0;
            if at < last || at <= told {
                book.complaints.push(format!("member {id} tells of revision {at} after {last}"));
            }
            last = at;
            let value = (event.kind == EventKind::Put).then(|| event.kv.value.escape_ascii().to_string());
            changes.entry(at).or_default().push((event.kv.key.escape_ascii().to_string(), value));
        }
        if last > batch.revision.0 {
            book.complaints.push(format!("member {id}: progress {} is behind its events", batch.revision));
        }
        for revision in told + 1..=batch.revision.0 {
            let change = changes.remove(&revision).unwrap_or_default();
            if change.is_empty() {
                book.complaints.push(format!("member {id} leaves out revision {revision}"));
            }
            match book.history.get(&revision) {
                Some(known) if *known != change => {
                    let what = format!("member {id} says {change:?} at {revision}, another one {known:?}");
                    book.complaints.push(what);
                }
                Some(_) => {}
                None => drop(book.history.insert(revision, change)),
            }
        }
        book.told.insert(id, told.max(batch.revision.0));
    }

    /// Follows whom a member believes to lead.
    pub(crate) async fn follow_leadership(self: Arc<Self>, id: u64, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let known = *leadership.borrow_and_update();
            {
                let mut book = self.lock();
                if let Some(leader) = known.leader {
                    let first = *book.leaders.entry(known.term).or_insert(leader);
                    if first != leader {
                        let what = format!("term {} is led by {first}, member {id} says by {leader}", known.term);
                        book.complaints.push(what);
                    }
                }
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    /// What can only be told when all is known.
    pub(crate) fn check_everything(&self) {
        let book = self.lock();
        let mut complaints = book.complaints.clone();
        let mut handed_in: BTreeSet<&str> = BTreeSet::new();
        let mut made_at: BTreeMap<u64, Duration> = BTreeMap::new();
        for (revision, changes) in &book.history {
            for (key, value) in changes {
                let Some(value) = value else { continue };
                let Some(asked) = book.asked.get(value) else { continue };
                if !handed_in.insert(value) {
                    complaints.push(format!("{key}={value} was made twice, again at {revision}"));
                }
                made_at.insert(*revision, *asked);
            }
        }
        complaints.extend(book.writes.iter().filter_map(|write| book.wrong_with_write(write)));
        for read in &book.reads {
            complaints.extend(book.wrong_with_read(read));
            let newest = made_at.range(..=read.revision).next_back().filter(|(_, asked)| **asked > read.answered);
            if let Some((revision, _)) = newest {
                complaints.push(format!("a read saw revision {revision} before anybody had asked for it"));
            }
        }
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        let (writes, reads) = (book.writes.len(), book.reads.len());
        assert!(writes > 10 && reads > 10, "{writes} writes and {reads} reads prove little");
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        let book = self.lock();
        let all = format!("{:?} {:?} {} {}", book.history, book.leaders, book.writes.len(), book.reads.len());
        u64::from(crc32fast::hash(all.as_bytes())) << 32
    }
}

impl Book {
    /// Whether no member has told of a revision in this span, and none may have been able to.
    fn has_forgotten_in(&self, span: std::ops::RangeInclusive<u64>) -> bool {
        let (from, to) = (*span.start(), (*span.end()).min(self.forgettable));
        from <= to && self.history.range(from..=to).count() as u64 != to + 1 - from
    }

    fn wrong_with_write(&self, write: &Write) -> Option<String> {
        let Write { revision, key, value, expected } = write;
        let there = self.history.get(revision);
        if there.is_none() && self.has_forgotten_in(*revision..=*revision) {
            return None;
        }
        let change = (key.clone(), Some(value.clone()));
        if !there.is_some_and(|changes| changes.contains(&change)) {
            return Some(format!("{key}={value} was acknowledged at {revision}, where there is {there:?}"));
        }
        let (expected, before) = ((*expected)?, self.state_at(key, revision - 1).ok()?);
        let before = before.map_or(0, |(_, at)| at);
        (before != expected).then(|| format!("a write on condition {expected} was made upon {before}"))
    }

    fn wrong_with_read(&self, read: &Read) -> Vec<String> {
        let Read { revision, by, state, .. } = read;
        let differs = |(key, seen): (&String, &Option<(String, u64)>)| {
            let is = self.state_at(key, *revision).ok()?;
            (is != *seen).then(|| format!("member {by} read {key}={seen:?} at {revision}, but it was {is:?}"))
        };
        state.iter().filter_map(differs).collect()
    }

    /// What a key had at a revision: value and mod revision.
    fn state_at(&self, key: &str, revision: u64) -> Result<Option<(String, u64)>, Forgotten> {
        let mut changes = self.history.range(..=revision).rev();
        let found = changes.find_map(|(at, changes)| {
            changes.iter().rev().find(|(changed, _)| changed == key).map(|(_, value)| (value.clone(), *at))
        });
        let since = found.as_ref().map_or(1, |(_, at)| *at);
        if self.has_forgotten_in(since + 1..=revision) {
            return Err(Forgotten);
        }
        Ok(found.and_then(|(value, at)| Some((value?, at))))
    }
}
