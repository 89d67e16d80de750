//! Decides what committed commands do to the applied state: etcd's rules for transactions and compaction
//! (`etcd.io/docs/v3.6/learning/api`). Pure but for reads of the view: every member comes to the same result.

use bytes::Bytes;

use crate::encoding::{self, POSITION_KEY, Position};
use crate::head::{Changed, Head};
use crate::kv::{
    Compare, Event, EventKind, KeyRange, KeyValue, KvError, Op, OpResponse, RangeRequest, RangeResponse, Revision, Txn,
    TxnResponse,
};
use crate::lease::{LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX, Lease, LeaseGrant, LeaseId};
use crate::read::{self, Overlay};
use crate::txn::{Check, Put};
use crate::view::{View, ViewBatch, ViewError};

/// What a Raft entry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run a transaction.
    Txn(Txn),
    /// Move the compaction point.
    Compact(Revision),
    /// Grant a lease for so many seconds; its renewals are counted from a number that no other grant begins with.
    LeaseGrant(LeaseId, i64, u64),
    /// End a lease.
    LeaseRevoke(LeaseId),
    /// Give a lease its whole time again.
    LeaseRenew(LeaseId),
    /// End a lease whose time is up, unless it was renewed since: it had so many renewals then.
    LeaseExpire(LeaseId, u64),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The transaction ran.
    Txn(TxnResponse),
    /// The compaction point moved.
    Compacted,
    /// The lease is there.
    Granted(LeaseGrant),
    /// The lease is gone, or was renewed before its time was up; the store's revision then.
    Revoked(Revision),
    /// The lease has its whole time again, in seconds; `None` when it is gone.
    Renewed(Option<i64>),
}

impl Answer {
    /// What somebody is told who asked for something else. A bug.
    pub(crate) fn unexpected(self) -> KvError {
        KvError::Unavailable { reason: format!("answered with {self:?}") }
    }
}

/// What commands do, all together: nothing of it has happened yet.
#[derive(Debug)]
pub(crate) struct Evaluated {
    /// What the view must take over, its new position included.
    pub(crate) batch: ViewBatch,
    /// Where the view stands then.
    pub(crate) position: Position,
    /// Every change, in order; former states included.
    pub(crate) events: Vec<Event>,
    /// The newest state of every key and lease that has changed.
    pub(crate) newest: Changed,
    /// One answer per command.
    pub(crate) answers: Vec<Result<Answer, KvError>>,
}

/// Evaluates commands in order on top of head and view that stand at `position`.
#[derive(Debug)]
pub(crate) struct Evaluator<'v> {
    head: &'v Head,
    view: &'v dyn View,
    /// Revision of head and view: what is newer lies in `overlay` and `events`.
    base: Revision,
    position: Position,
    changed: Changed,
    batch: ViewBatch,
    /// Changes since the last [`Evaluator::end_entry`].
    history: Vec<u8>,
    events: Vec<Event>,
    answers: Vec<Result<Answer, KvError>>,
}

impl<'v> Evaluator<'v> {
    pub(crate) fn new(head: &'v Head, view: &'v dyn View, position: Position) -> Self {
        Self {
            head,
            view,
            base: position.revision,
            position,
            changed: Changed::default(),
            batch: ViewBatch::default(),
            history: Vec::new(),
            events: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Evaluates one command. After an error the evaluator is of no use any more.
    pub(crate) fn execute(&mut self, command: &Command) -> Result<(), ViewError> {
        let answer = match command {
            Command::Txn(txn) => self.txn(txn)?.map(Answer::Txn),
            Command::Compact(revision) => self.compact(*revision).map(|()| Answer::Compacted),
            Command::LeaseGrant(id, ttl, from) => self.grant(*id, *ttl, *from).map(Answer::Granted),
            Command::LeaseRevoke(id) => match self.lease(*id) {
                Some(_) => Ok(Answer::Revoked(self.revoke(*id))),
                None => Err(KvError::LeaseNotFound(*id)),
            },
            Command::LeaseRenew(id) => Ok(Answer::Renewed(self.renew(*id))),
            Command::LeaseExpire(id, renewals) => match self.lease(*id) {
                Some(lease) if lease.renewals == *renewals => Ok(Answer::Revoked(self.revoke(*id))),
                Some(_) | None => Ok(Answer::Revoked(self.position.revision)),
            },
        };
        self.answers.push(answer);
        Ok(())
    }

    /// The answer to a transaction that only reads.
    pub(crate) fn query(mut self, txn: &Txn) -> Result<Result<TxnResponse, KvError>, ViewError> {
        self.txn(txn)
    }

    /// Writes down what changed, at the end of a Raft entry: whenever the log is replayed, and in whatever steps, a
    /// revision's changes lie in the same record.
    pub(crate) fn end_entry(&mut self) {
        if !self.history.is_empty() {
            self.batch.put(encoding::history_key(self.position.revision), std::mem::take(&mut self.history));
        }
    }

    /// Everything evaluated so far, as of the Raft entry (`index`, `term`).
    pub(crate) fn finish(mut self, (index, term): (u64, u64)) -> Evaluated {
        self.end_entry();
        let position = Position { index, term, ..self.position };
        for (id, lease) in &self.changed.leases {
            self.batch.put(encoding::lease_key(*id, index), encoding::encode_lease(lease.as_ref()));
        }
        self.batch.put(POSITION_KEY.to_vec(), position.encode());
        Evaluated { batch: self.batch, position, events: self.events, newest: self.changed, answers: self.answers }
    }

    fn compact(&mut self, revision: Revision) -> Result<(), KvError> {
        check_compaction(revision, &self.position)?;
        self.position.compacted = revision;
        Ok(())
    }

    fn txn(&mut self, txn: &Txn) -> Result<Result<TxnResponse, KvError>, ViewError> {
        let path = self.path(txn)?;
        if let Err(err) = self.check(&path) {
            return Ok(Err(err));
        }
        let write = Revision(self.position.revision.0 + 1);
        self.take(&path, write).map(Ok)
    }

    /// Which branches are taken: all comparisons see the state before the transaction.
    fn path<'t>(&self, txn: &'t Txn) -> Result<Path<'t>, ViewError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && self.holds(compare)?;
        }
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        let mut inner = Vec::new();
        for op in ops {
            if let Op::Txn(txn) = op {
                inner.push(self.path(txn)?);
            }
        }
        Ok(Path { succeeded, ops, inner })
    }

    /// A step that cannot be done fails the transaction before it has written anything.
    fn check(&self, path: &Path<'_>) -> Result<(), KvError> {
        let mut inner = path.inner.iter();
        path.ops.iter().try_for_each(|op| match op {
            Op::Range(request) => check_revision(request.revision, &self.position).map(|_| ()),
            Op::PutWith(put) => self.check_put(put),
            Op::Txn(_) => inner.next().map_or(Ok(()), |path| self.check(path)),
            Op::Put { .. } | Op::Delete(_) => Ok(()),
        })
    }

    fn check_put(&self, put: &Put) -> Result<(), KvError> {
        if (put.value.is_none() || put.lease.is_none()) && self.current(&put.key).is_none() {
            return Err(KvError::KeyNotFound { key: put.key.clone() });
        }
        match put.lease {
            Some(id) if id.is_some() && self.lease(id).is_none() => Err(KvError::LeaseNotFound(id)),
            _ => Ok(()),
        }
    }

    fn holds(&self, compare: &Compare) -> Result<bool, ViewError> {
        Ok(match compare {
            Compare::ModRevision { key, equals } => {
                self.current(key).map_or(Revision(0), |kv| kv.mod_revision) == *equals
            }
            Compare::Value { key, equals } => self.current(key).is_some_and(|kv| kv.value == *equals),
            Compare::Check(check) => self.check_holds(check)?,
        })
    }

    fn check_holds(&self, check: &Check) -> Result<bool, ViewError> {
        if let KeyRange::Key(key) = &check.range {
            return Ok(check.holds(self.current(key).as_ref()));
        }
        let kvs = self.range(&RangeRequest::new(check.range.clone()))?.kvs;
        Ok(if kvs.is_empty() { check.holds(None) } else { kvs.iter().all(|kv| check.holds(Some(kv))) })
    }

    fn take(&mut self, path: &Path<'_>, write: Revision) -> Result<TxnResponse, ViewError> {
        let mut responses = Vec::with_capacity(path.ops.len());
        let mut inner = path.inner.iter();
        for op in path.ops {
            responses.push(match op {
                Op::Put { key, value } => {
                    let previous = self.current(key);
                    OpResponse::Put { previous: self.put(key, value, LeaseId::NONE, (previous, write)) }
                }
                Op::PutWith(put) => OpResponse::Put { previous: self.put_with(put, write) },
                Op::Delete(range) => OpResponse::Delete { previous: self.delete(range, write)? },
                Op::Range(request) => OpResponse::Range(self.range(request)?),
                Op::Txn(_) => match inner.next() {
                    Some(path) => OpResponse::Txn(Box::new(self.take(path, write)?)),
                    None => continue, // there is one path for each
                },
            });
        }
        Ok(TxnResponse { revision: self.position.revision, succeeded: path.succeeded, responses })
    }

    fn put_with(&mut self, put: &Put, write: Revision) -> Option<KeyValue> {
        let previous = self.current(&put.key);
        let kept = previous.as_ref().map(|kv| (kv.value.clone(), kv.lease)).unwrap_or_default();
        let value = put.value.clone().unwrap_or(kept.0);
        self.put(&put.key, &value, put.lease.unwrap_or(kept.1), (previous, write))
    }

    fn put(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        lease: LeaseId,
        (previous, write): (Option<KeyValue>, Revision),
    ) -> Option<KeyValue> {
        let kv = KeyValue {
            key: previous.as_ref().map_or(key, |kv| &kv.key).clone(),
            value: value.clone(),
            create_revision: previous.as_ref().map_or(write, |kv| kv.create_revision),
            mod_revision: write,
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            lease,
        };
        self.record(&kv, encoding::encode_put(&kv), write);
        self.changed.keys.insert(key.clone(), Some(kv.clone()));
        self.events.push(Event { kind: EventKind::Put, kv, previous: previous.clone() });
        previous
    }

    fn delete(&mut self, range: &KeyRange, write: Revision) -> Result<Vec<KeyValue>, ViewError> {
        let previous = match range {
            KeyRange::Key(key) => self.current(key).into_iter().collect(),
            KeyRange::Prefix(_) | KeyRange::Span { .. } | KeyRange::From(_) => {
                self.range(&RangeRequest::new(range.clone()))?.kvs
            }
        };
        previous.iter().for_each(|former| self.remove(former, write));
        Ok(previous)
    }

    fn remove(&mut self, former: &KeyValue, write: Revision) {
        let kv = read::deleted(former.key.clone(), write);
        self.record(&kv, encoding::encode_deleted(), write);
        self.changed.keys.insert(kv.key.clone(), None);
        self.events.push(Event { kind: EventKind::Delete, kv, previous: Some(former.clone()) });
    }

    fn grant(&mut self, id: LeaseId, ttl: i64, from: u64) -> Result<LeaseGrant, KvError> {
        if ttl > LEASE_TTL_MAX {
            return Err(KvError::LeaseTtlTooLarge(ttl));
        }
        if self.lease(id).is_some() {
            return Err(KvError::LeaseExists(id));
        }
        if self.head.leases().len() + self.changed.leases.len() >= LEASES_MAX && self.count_leases() >= LEASES_MAX {
            return Err(KvError::Unavailable { reason: format!("there are {LEASES_MAX} leases already") });
        }
        let ttl = ttl.max(LEASE_TTL_MIN);
        self.changed.leases.insert(id, Some(Lease { ttl, renewals: from }));
        Ok(LeaseGrant { id, ttl, revision: self.position.revision })
    }

    /// However entries are cut into batches, the answer is the same.
    fn count_leases(&self) -> usize {
        let base = self.head.leases();
        let (mut come, mut gone) = (0, 0);
        for (id, lease) in &self.changed.leases {
            match (lease, base.get(*id)) {
                (Some(_), None) => come += 1,
                (None, Some(_)) => gone += 1,
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        base.len() + come - gone
    }

    fn renew(&mut self, id: LeaseId) -> Option<i64> {
        let lease = self.lease(id)?;
        self.changed.leases.insert(id, Some(Lease { renewals: lease.renewals.wrapping_add(1), ..lease }));
        Some(lease.ttl)
    }

    fn revoke(&mut self, id: LeaseId) -> Revision {
        let changed = self.changed.keys.iter().filter_map(|(key, state)| state.is_some().then_some(key));
        let mut keys: Vec<Bytes> = self.head.leases().keys(id).chain(changed).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        let write = Revision(self.position.revision.0 + 1);
        for former in keys.iter().filter_map(|key| self.current(key)).filter(|kv| kv.lease == id).collect::<Vec<_>>() {
            self.remove(&former, write);
        }
        self.changed.leases.insert(id, None);
        self.position.revision
    }

    fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.changed.leases.get(&id).copied().unwrap_or_else(|| self.head.leases().get(id))
    }

    /// Writes one change down: the state of the key and its place in history.
    fn record(&mut self, kv: &KeyValue, state: Vec<u8>, write: Revision) {
        self.position.revision = write;
        self.batch.put(encoding::version_key(&kv.key, write), state);
        encoding::add_change(&mut self.history, write, &kv.key);
    }

    /// The newest state of a key.
    fn current(&self, key: &Bytes) -> Option<KeyValue> {
        self.changed.keys.get(key).cloned().unwrap_or_else(|| self.head.get(key))
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ViewError> {
        let at = request.revision.unwrap_or(self.position.revision);
        let mut response = if at == self.position.revision {
            self.head.range(request, &self.changed.keys)
        } else if at < self.base {
            read::range_at(self.view, request, at)?
        } else {
            self.head.range(request, &self.overlay_at(at))
        };
        response.revision = self.position.revision;
        Ok(response)
    }

    /// The overlay as it was at a revision that is not in the view yet.
    fn overlay_at(&self, at: Revision) -> Overlay {
        self.events
            .iter()
            .filter(|event| event.kv.mod_revision <= at)
            .map(|event| (event.kv.key.clone(), (event.kind == EventKind::Put).then(|| event.kv.clone())))
            .collect()
    }
}

/// The branches that a transaction takes.
struct Path<'t> {
    succeeded: bool,
    ops: &'t [Op],
    /// Of each transaction among the steps.
    inner: Vec<Path<'t>>,
}

/// The revision a read is about, if it can be served.
pub(crate) fn check_revision(requested: Option<Revision>, position: &Position) -> Result<Revision, KvError> {
    let Some(requested) = requested else { return Ok(position.revision) };
    if requested < position.compacted {
        return Err(KvError::Compacted { requested, compacted: position.compacted });
    }
    if requested > position.revision {
        return Err(KvError::Future { requested, newest: position.revision });
    }
    Ok(requested)
}

/// Whether the compaction point may move to `requested`.
pub(crate) fn check_compaction(requested: Revision, position: &Position) -> Result<(), KvError> {
    if requested <= position.compacted {
        return Err(KvError::Compacted { requested, compacted: position.compacted });
    }
    check_revision(Some(requested), position).map(|_| ())
}
