//! Between the store's types and etcd's messages, as a client: every key gets the prefix on its way out and loses it
//! on its way back. Pure.

use bytes::Bytes;
use reeve_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use reeve_proto::etcd::etcdserverpb::range_request::{SortOrder as PbOrder, SortTarget as PbTarget};
use reeve_proto::etcd::etcdserverpb::request_op::Request;
use reeve_proto::etcd::etcdserverpb::response_op::Response;
use reeve_proto::etcd::etcdserverpb::{self as pb};
use reeve_proto::etcd::mvccpb;
use reeve_proto::etcd::mvccpb::event::EventType;
use reeve_store::kv::{EventKind, prefix_end};
use reeve_store::{
    Compare, Event, KeyRange, KeyValue, KvError, LeaseId, Op, OpResponse, RangeRequest, RangeResponse, Relation,
    Revision, SortOrder, SortTarget, Target, Txn, TxnResponse,
};

use crate::convert::{key_and_end, signed};

/// What all our keys begin with in etcd.
#[derive(Debug)]
pub(crate) struct Prefixed {
    prefix: Bytes,
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: Revision(unsigned(kv.create_revision)),
        mod_revision: Revision(unsigned(kv.mod_revision)),
        version: unsigned(kv.version),
        lease: LeaseId(kv.lease),
    }
}

impl Prefixed {
    pub(crate) fn new(prefix: String) -> Self {
        Self { prefix: prefix.into() }
    }

    fn with(&self, key: &Bytes) -> Bytes {
        if self.prefix.is_empty() { key.clone() } else { [&self.prefix[..], &key[..]].concat().into() }
    }

    /// `None` for a key of somebody else.
    pub(crate) fn without(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.prefix).then(|| key.slice(self.prefix.len()..))
    }

    /// The same keys, as etcd has them: nothing outside the prefix is among them.
    pub(crate) fn key_range(&self, range: &KeyRange) -> KeyRange {
        if self.prefix.is_empty() {
            return range.clone();
        }
        match range {
            KeyRange::Key(key) => KeyRange::Key(self.with(key)),
            KeyRange::Prefix(key) => KeyRange::Prefix(self.with(key)),
            KeyRange::Span { start, end } => KeyRange::Span { start: self.with(start), end: self.with(end) },
            KeyRange::From(start) => match prefix_end(&self.prefix) {
                Some(end) => KeyRange::Span { start: self.with(start), end },
                None => KeyRange::From(self.with(start)),
            },
        }
    }

    fn ends(&self, range: &KeyRange) -> (Bytes, Bytes) {
        key_and_end(&self.key_range(range))
    }

    pub(crate) fn range_request(&self, request: &RangeRequest) -> pb::RangeRequest {
        let (key, range_end) = self.ends(&request.range);
        let sort_target = match request.sort.target {
            SortTarget::Key => PbTarget::Key,
            SortTarget::Version => PbTarget::Version,
            SortTarget::CreateRevision => PbTarget::Create,
            SortTarget::ModRevision => PbTarget::Mod,
            SortTarget::Value => PbTarget::Value,
        };
        let sort_order = match request.sort.order {
            SortOrder::Unsaid => PbOrder::None,
            SortOrder::Ascending => PbOrder::Ascend,
            SortOrder::Descending => PbOrder::Descend,
        };
        pb::RangeRequest {
            key,
            range_end,
            limit: i64::try_from(request.limit).unwrap_or(i64::MAX),
            revision: request.revision.map_or(0, signed),
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable: false,
            keys_only: request.keys_only,
            count_only: request.count_only,
            min_mod_revision: request.filter.min_mod,
            max_mod_revision: request.filter.max_mod,
            min_create_revision: request.filter.min_create,
            max_create_revision: request.filter.max_create,
        }
    }

    pub(crate) fn range_response(&self, answer: pb::RangeResponse) -> RangeResponse {
        let revision = Revision(answer.header.map_or(0, |header| unsigned(header.revision)));
        let without = |kv| {
            let kv = key_value(kv);
            Some(KeyValue { key: self.without(&kv.key)?, ..kv })
        };
        RangeResponse {
            revision,
            kvs: answer.kvs.into_iter().filter_map(without).collect(),
            count: usize::try_from(answer.count).unwrap_or(0),
            more: answer.more,
        }
    }

    pub(crate) fn txn_request(&self, txn: &Txn) -> Result<pb::TxnRequest, KvError> {
        let ops = |ops: &[Op]| ops.iter().map(|op| self.op(op)).collect::<Result<Vec<_>, _>>();
        Ok(pb::TxnRequest {
            compare: txn.compare.iter().map(|compare| self.compare(compare)).collect::<Result<_, _>>()?,
            success: ops(&txn.then)?,
            failure: ops(&txn.otherwise)?,
        })
    }

    /// A key that is empty would be the prefix itself.
    fn checked(&self, key: &Bytes) -> Result<Bytes, KvError> {
        if key.is_empty() {
            return Err(KvError::Invalid { rule: "a key is empty".to_owned() });
        }
        Ok(self.with(key))
    }

    fn op(&self, op: &Op) -> Result<pb::RequestOp, KvError> {
        let put = |key: &Bytes| {
            Ok::<_, KvError>(pb::PutRequest { key: self.checked(key)?, prev_kv: true, ..Default::default() })
        };
        let request = match op {
            Op::Put { key, value } => Request::RequestPut(pb::PutRequest { value: value.clone(), ..put(key)? }),
            Op::PutWith(own) => Request::RequestPut(pb::PutRequest {
                value: own.value.clone().unwrap_or_default(),
                ignore_value: own.value.is_none(),
                lease: own.lease.unwrap_or_default().0,
                ignore_lease: own.lease.is_none(),
                ..put(&own.key)?
            }),
            Op::Delete(range) => {
                if let KeyRange::Key(key) = range {
                    self.checked(key)?;
                }
                let (key, range_end) = self.ends(range);
                Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: true })
            }
            Op::Range(request) => Request::RequestRange(self.range_request(request)),
            Op::Txn(inner) => Request::RequestTxn(self.txn_request(inner)?),
        };
        Ok(pb::RequestOp { request: Some(request) })
    }

    fn compare(&self, compare: &Compare) -> Result<pb::Compare, KvError> {
        let equal = |key: &Bytes, target: CompareTarget, union| {
            Ok(pb::Compare {
                result: CompareResult::Equal.into(),
                target: target.into(),
                key: self.checked(key)?,
                range_end: Bytes::new(),
                target_union: Some(union),
            })
        };
        let check = match compare {
            Compare::ModRevision { key, equals } => {
                return equal(key, CompareTarget::Mod, TargetUnion::ModRevision(signed(*equals)));
            }
            Compare::Value { key, equals } => {
                return equal(key, CompareTarget::Value, TargetUnion::Value(equals.clone()));
            }
            Compare::Check(check) => check,
        };
        let (target, union) = match &check.target {
            Target::Version(number) => (CompareTarget::Version, TargetUnion::Version(*number)),
            Target::CreateRevision(number) => (CompareTarget::Create, TargetUnion::CreateRevision(*number)),
            Target::ModRevision(number) => (CompareTarget::Mod, TargetUnion::ModRevision(*number)),
            Target::Lease(number) => (CompareTarget::Lease, TargetUnion::Lease(*number)),
            Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
        };
        let result = match check.relation {
            Relation::Equal => CompareResult::Equal,
            Relation::NotEqual => CompareResult::NotEqual,
            Relation::Greater => CompareResult::Greater,
            Relation::Less => CompareResult::Less,
        };
        let (key, range_end) = self.ends(&check.range);
        Ok(pb::Compare { result: result.into(), target: target.into(), key, range_end, target_union: Some(union) })
    }

    /// `revision` is that of the outermost answer: inner ones say none.
    pub(crate) fn txn_response(&self, answer: pb::TxnResponse, revision: Revision) -> Result<TxnResponse, KvError> {
        let unknown = || KvError::Unavailable { reason: "etcd has not answered a step".to_owned() };
        let step = |step: pb::ResponseOp| {
            Ok(match step.response.ok_or_else(unknown)? {
                Response::ResponseRange(range) => OpResponse::Range(self.range_response(range)),
                Response::ResponsePut(put) => OpResponse::Put { previous: put.prev_kv.and_then(|kv| self.former(kv)) },
                Response::ResponseDeleteRange(delete) => {
                    let previous = delete.prev_kvs.into_iter().filter_map(|kv| self.former(kv)).collect();
                    OpResponse::Delete { previous }
                }
                Response::ResponseTxn(inner) => OpResponse::Txn(Box::new(self.txn_response(inner, revision)?)),
            })
        };
        let responses = answer.responses.into_iter().map(step).collect::<Result<_, KvError>>()?;
        Ok(TxnResponse { revision, succeeded: answer.succeeded, responses })
    }

    fn former(&self, kv: mvccpb::KeyValue) -> Option<KeyValue> {
        let kv = key_value(kv);
        Some(KeyValue { key: self.without(&kv.key)?, ..kv })
    }

    /// An event with the keys as etcd has them.
    pub(crate) fn event(event: mvccpb::Event, previous: bool) -> Option<Event> {
        let kind = match EventType::try_from(event.r#type).ok()? {
            EventType::Put => EventKind::Put,
            EventType::Delete => EventKind::Delete,
        };
        let previous = event.prev_kv.filter(|_| previous).map(key_value);
        Some(Event { kind, kv: key_value(event.kv?), previous })
    }

    /// An event with the keys as we have them.
    pub(crate) fn event_without(&self, event: Event) -> Option<Event> {
        let without = |kv: KeyValue| Some(KeyValue { key: self.without(&kv.key)?, ..kv });
        Some(Event { kind: event.kind, kv: without(event.kv)?, previous: event.previous.and_then(without) })
    }
}

/// Whether a transaction can change nothing.
pub(crate) fn only_reads(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).all(|op| match op {
        Op::Range(_) => true,
        Op::Txn(inner) => only_reads(inner),
        Op::Put { .. } | Op::PutWith(_) | Op::Delete(_) => false,
    })
}

/// Whether a transaction has changed something.
pub(crate) fn changed(response: &TxnResponse) -> bool {
    response.responses.iter().any(|step| match step {
        OpResponse::Put { .. } => true,
        OpResponse::Delete { previous } => !previous.is_empty(),
        OpResponse::Range(_) => false,
        OpResponse::Txn(inner) => changed(inner),
    })
}

/// A lease that a transaction is about, for errors.
pub(crate) fn lease_of(txn: &Txn) -> LeaseId {
    let leases = txn.then.iter().chain(&txn.otherwise).filter_map(|op| match op {
        Op::PutWith(put) => put.lease,
        _ => None,
    });
    leases.max().unwrap_or(LeaseId::NONE)
}

/// The oldest revision that a transaction reads, for errors.
pub(crate) fn oldest_read(txn: &Txn) -> Option<Revision> {
    let reads = txn.then.iter().chain(&txn.otherwise).filter_map(|op| match op {
        Op::Range(request) => request.revision,
        Op::Txn(inner) => oldest_read(inner),
        _ => None,
    });
    reads.min()
}
