//! Decides what committed commands do to the applied state: etcd's rules for transactions and compaction
//! (`etcd.io/docs/v3.6/learning/api`). Pure but for reads of the view: every member comes to the same result.

use bytes::Bytes;

use crate::encoding::{self, POSITION_KEY, Position};
use crate::head::Head;
use crate::kv::{
    Compare, Event, EventKind, KeyRange, KeyValue, KvError, Op, OpResponse, RangeRequest, RangeResponse, Revision, Txn,
    TxnResponse,
};
use crate::read::{self, Overlay};
use crate::view::{View, ViewBatch, ViewError};

/// What a Raft entry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run a transaction.
    Txn(Txn),
    /// Move the compaction point.
    Compact(Revision),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The transaction ran.
    Txn(TxnResponse),
    /// The compaction point moved.
    Compacted,
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
    /// The newest state of every key that has changed.
    pub(crate) newest: Overlay,
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
    overlay: Overlay,
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
            overlay: Overlay::new(),
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
        self.batch.put(POSITION_KEY.to_vec(), position.encode());
        Evaluated { batch: self.batch, position, events: self.events, newest: self.overlay, answers: self.answers }
    }

    fn compact(&mut self, revision: Revision) -> Result<(), KvError> {
        check_compaction(revision, &self.position)?;
        self.position.compacted = revision;
        Ok(())
    }

    fn txn(&mut self, txn: &Txn) -> Result<Result<TxnResponse, KvError>, ViewError> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        if let Err(err) = self.check_reads(ops) {
            return Ok(Err(err));
        }
        let write = Revision(self.position.revision.0 + 1);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(self.op(op, write)?);
        }
        Ok(Ok(TxnResponse { revision: self.position.revision, succeeded, responses }))
    }

    /// A read that cannot be served fails the transaction before it has written anything.
    fn check_reads(&self, ops: &[Op]) -> Result<(), KvError> {
        ops.iter().try_for_each(|op| match op {
            Op::Range(request) => check_revision(request.revision, &self.position).map(|_| ()),
            Op::Put { .. } | Op::Delete(_) => Ok(()),
        })
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision { key, equals } => {
                self.current(key).map_or(Revision(0), |kv| kv.mod_revision) == *equals
            }
            Compare::Value { key, equals } => self.current(key).is_some_and(|kv| kv.value == *equals),
        }
    }

    fn op(&mut self, op: &Op, write: Revision) -> Result<OpResponse, ViewError> {
        Ok(match op {
            Op::Put { key, value } => OpResponse::Put { previous: self.put(key, value, write) },
            Op::Delete(range) => OpResponse::Delete { previous: self.delete(range, write)? },
            Op::Range(request) => OpResponse::Range(self.range(request)?),
        })
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, write: Revision) -> Option<KeyValue> {
        let previous = self.current(key);
        let kv = KeyValue {
            key: previous.as_ref().map_or(key, |kv| &kv.key).clone(),
            value: value.clone(),
            create_revision: previous.as_ref().map_or(write, |kv| kv.create_revision),
            mod_revision: write,
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
        };
        self.record(&kv, encoding::encode_put(&kv), write);
        self.overlay.insert(key.clone(), Some(kv.clone()));
        self.events.push(Event { kind: EventKind::Put, kv, previous: previous.clone() });
        previous
    }

    fn delete(&mut self, range: &KeyRange, write: Revision) -> Result<Vec<KeyValue>, ViewError> {
        let previous = match range {
            KeyRange::Key(key) => self.current(key).into_iter().collect(),
            KeyRange::Prefix(_) | KeyRange::Span { .. } => self.range(&RangeRequest::new(range.clone()))?.kvs,
        };
        for former in &previous {
            let kv = read::deleted(former.key.clone(), write);
            self.record(&kv, encoding::encode_deleted(), write);
            self.overlay.insert(kv.key.clone(), None);
            self.events.push(Event { kind: EventKind::Delete, kv, previous: Some(former.clone()) });
        }
        Ok(previous)
    }

    /// Writes one change down: the state of the key and its place in history.
    fn record(&mut self, kv: &KeyValue, state: Vec<u8>, write: Revision) {
        self.position.revision = write;
        self.batch.put(encoding::version_key(&kv.key, write), state);
        encoding::add_change(&mut self.history, write, &kv.key);
    }

    /// The newest state of a key.
    fn current(&self, key: &Bytes) -> Option<KeyValue> {
        self.overlay.get(key).cloned().unwrap_or_else(|| self.head.get(key))
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ViewError> {
        let at = request.revision.unwrap_or(self.position.revision);
        let mut response = if at == self.position.revision {
            self.head.range(request, &self.overlay)
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
