//! Between etcd's messages and the store's types. Pure.

use bytes::Bytes;
use reeve_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use reeve_proto::etcd::etcdserverpb::range_request::{SortOrder as PbOrder, SortTarget as PbTarget};
use reeve_proto::etcd::etcdserverpb::request_op::Request;
use reeve_proto::etcd::etcdserverpb::response_op::Response;
use reeve_proto::etcd::etcdserverpb::{self as pb, ResponseHeader};
use reeve_proto::etcd::mvccpb;
use reeve_store::kv::prefix_end;
use reeve_store::{
    Check, Compare, KeyRange, KeyValue, LeaseId, Op, OpResponse, Put, RangeRequest, RangeResponse, Relation, Revision,
    RevisionFilter, Sort, SortOrder, SortTarget, Target, Txn, TxnResponse,
};

/// How etcd names everything from a key on.
const NO_END: &[u8] = &[0];

/// A revision as etcd writes it.
pub(crate) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A revision as a client sends it: 0 and less mean the newest.
pub(crate) fn revision(signed: i64) -> Option<Revision> {
    u64::try_from(signed).ok().filter(|revision| *revision > 0).map(Revision)
}

pub(crate) fn key_range(key: &Bytes, end: &Bytes) -> KeyRange {
    if end.is_empty() {
        return KeyRange::Key(key.clone());
    }
    if end == NO_END {
        return KeyRange::From(key.clone());
    }
    match prefix_end(key) {
        Some(prefix_end) if prefix_end == end => KeyRange::Prefix(key.clone()),
        _ => KeyRange::Span { start: key.clone(), end: end.clone() },
    }
}

/// The other way round; no key is empty.
pub(crate) fn key_and_end(range: &KeyRange) -> (Bytes, Bytes) {
    let first = |key: &Bytes| if key.is_empty() { Bytes::from_static(NO_END) } else { key.clone() };
    match range {
        KeyRange::Key(key) => (key.clone(), Bytes::new()),
        KeyRange::From(key) => (first(key), Bytes::from_static(NO_END)),
        KeyRange::Prefix(key) => (first(key), prefix_end(key).unwrap_or(Bytes::from_static(NO_END))),
        // An empty end, or etcd's sign for none, would mean something else: such a span is empty.
        KeyRange::Span { start, end } if end.is_empty() || end == NO_END => (first(start), first(start)),
        KeyRange::Span { start, end } => (first(start), end.clone()),
    }
}

// ## As a server

pub(crate) fn range_request(request: &pb::RangeRequest) -> RangeRequest {
    let target = match PbTarget::try_from(request.sort_target).unwrap_or_default() {
        PbTarget::Key => SortTarget::Key,
        PbTarget::Version => SortTarget::Version,
        PbTarget::Create => SortTarget::CreateRevision,
        PbTarget::Mod => SortTarget::ModRevision,
        PbTarget::Value => SortTarget::Value,
    };
    let order = match PbOrder::try_from(request.sort_order).unwrap_or_default() {
        PbOrder::None => SortOrder::Unsaid,
        PbOrder::Ascend => SortOrder::Ascending,
        PbOrder::Descend => SortOrder::Descending,
    };
    RangeRequest {
        range: key_range(&request.key, &request.range_end),
        revision: revision(request.revision),
        limit: usize::try_from(request.limit).unwrap_or(0),
        keys_only: request.keys_only,
        count_only: request.count_only,
        uncounted: false,
        sort: Sort { target, order },
        filter: RevisionFilter {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        },
    }
}

pub(crate) fn put_op(request: pb::PutRequest) -> Op {
    let pb::PutRequest { key, value, lease, ignore_value, ignore_lease, .. } = request;
    // The key stays longer than the value, and must not keep its memory alive.
    let key = Bytes::copy_from_slice(&key);
    if lease == 0 && !ignore_value && !ignore_lease {
        return Op::Put { key, value };
    }
    Op::PutWith(Put { key, value: (!ignore_value).then_some(value), lease: (!ignore_lease).then_some(LeaseId(lease)) })
}

pub(crate) fn delete_op(request: &pb::DeleteRangeRequest) -> Op {
    Op::Delete(key_range(&request.key, &request.range_end))
}

pub(crate) fn txn(request: pb::TxnRequest) -> Txn {
    Txn {
        compare: request.compare.into_iter().map(compare).collect(),
        then: request.success.into_iter().filter_map(op).collect(),
        otherwise: request.failure.into_iter().filter_map(op).collect(),
    }
}

fn op(op: pb::RequestOp) -> Option<Op> {
    Some(match op.request? {
        Request::RequestRange(request) => Op::Range(range_request(&request)),
        Request::RequestPut(request) => put_op(request),
        Request::RequestDeleteRange(request) => delete_op(&request),
        Request::RequestTxn(request) => Op::Txn(Box::new(txn(request))),
    })
}

fn compare(compare: pb::Compare) -> Compare {
    let range = key_range(&compare.key, &compare.range_end);
    let union = compare.target_union;
    // A target that does not fit its union is compared with nothing.
    let number = |fits: fn(&TargetUnion) -> Option<i64>| union.as_ref().and_then(fits).unwrap_or(0);
    let target = match CompareTarget::try_from(compare.target).unwrap_or_default() {
        CompareTarget::Version => Target::Version(number(|union| match union {
            TargetUnion::Version(number) => Some(*number),
            _ => None,
        })),
        CompareTarget::Create => Target::CreateRevision(number(|union| match union {
            TargetUnion::CreateRevision(number) => Some(*number),
            _ => None,
        })),
        CompareTarget::Mod => Target::ModRevision(number(|union| match union {
            TargetUnion::ModRevision(number) => Some(*number),
            _ => None,
        })),
        CompareTarget::Lease => Target::Lease(number(|union| match union {
            TargetUnion::Lease(number) => Some(*number),
            _ => None,
        })),
        CompareTarget::Value => Target::Value(match union {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
    };
    let relation = match CompareResult::try_from(compare.result).unwrap_or_default() {
        CompareResult::Equal => Relation::Equal,
        CompareResult::NotEqual => Relation::NotEqual,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
    };
    match (range, relation, target) {
        // What an API server asks for, in the form that costs least.
        (KeyRange::Key(key), Relation::Equal, Target::ModRevision(equals)) if equals >= 0 => {
            Compare::ModRevision { key, equals: Revision(equals.unsigned_abs()) }
        }
        (range, relation, target) => Compare::Check(Check { range, relation, target }),
    }
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: i64::try_from(kv.version).unwrap_or(i64::MAX),
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// The header of a step: etcd says only the revision there.
fn step_header(at: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: signed(at), ..ResponseHeader::default() })
}

pub(crate) fn range_response(response: RangeResponse, header: Option<ResponseHeader>) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: i64::try_from(response.count).unwrap_or(i64::MAX),
    }
}

pub(crate) fn put_response(
    previous: Option<KeyValue>,
    header: Option<ResponseHeader>,
    wants_previous: bool,
) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: previous.filter(|_| wants_previous).map(key_value) }
}

pub(crate) fn delete_response(
    previous: Vec<KeyValue>,
    header: Option<ResponseHeader>,
    wants_previous: bool,
) -> pb::DeleteRangeResponse {
    let deleted = i64::try_from(previous.len()).unwrap_or(i64::MAX);
    let prev_kvs = if wants_previous { previous.into_iter().map(key_value).collect() } else { Vec::new() };
    pb::DeleteRangeResponse { header, deleted, prev_kvs }
}

/// Which former states a client wants, step by step: the store always tells them.
pub(crate) enum Wanted {
    Nothing,
    Previous,
    Inner(Box<(Vec<Wanted>, Vec<Wanted>)>),
}

pub(crate) fn wanted(request: &pb::TxnRequest) -> (Vec<Wanted>, Vec<Wanted>) {
    let of = |ops: &[pb::RequestOp]| {
        let wanted = ops.iter().filter_map(|op| op.request.as_ref()).map(|request| match request {
            Request::RequestPut(put) if put.prev_kv => Wanted::Previous,
            Request::RequestDeleteRange(delete) if delete.prev_kv => Wanted::Previous,
            Request::RequestTxn(inner) => Wanted::Inner(Box::new(wanted(inner))),
            _ => Wanted::Nothing,
        });
        wanted.collect()
    };
    (of(&request.success), of(&request.failure))
}

/// The steps of an answer, with the revision that each of them saw.
pub(crate) fn steps(response: TxnResponse, wanted: &(Vec<Wanted>, Vec<Wanted>)) -> Vec<pb::ResponseOp> {
    let write = response.revision;
    let before = if changes(&response) { Revision(write.0 - 1) } else { write };
    let mut now = before;
    steps_from(response, wanted, (&mut now, write))
}

fn steps_from(
    response: TxnResponse,
    wanted: &(Vec<Wanted>, Vec<Wanted>),
    (now, write): (&mut Revision, Revision),
) -> Vec<pb::ResponseOp> {
    let wanted = if response.succeeded { &wanted.0 } else { &wanted.1 };
    let mut steps = Vec::with_capacity(response.responses.len());
    for (step, wanted) in response.responses.into_iter().zip(wanted) {
        let wants_previous = matches!(wanted, Wanted::Previous);
        steps.push(match step {
            OpResponse::Put { previous } => {
                *now = write;
                Response::ResponsePut(put_response(previous, step_header(write), wants_previous))
            }
            OpResponse::Delete { previous } => {
                if !previous.is_empty() {
                    *now = write;
                }
                Response::ResponseDeleteRange(delete_response(previous, step_header(*now), wants_previous))
            }
            OpResponse::Range(range) => {
                let header = step_header(range.revision);
                Response::ResponseRange(range_response(range, header))
            }
            OpResponse::Txn(inner) => {
                let nothing = (Vec::new(), Vec::new());
                let wanted = if let Wanted::Inner(inner) = wanted { inner } else { &nothing };
                let succeeded = inner.succeeded;
                let responses = steps_from(*inner, wanted, (&mut *now, write));
                Response::ResponseTxn(pb::TxnResponse { header: step_header(Revision(0)), succeeded, responses })
            }
        });
    }
    steps.into_iter().map(|response| pb::ResponseOp { response: Some(response) }).collect()
}

/// Whether a transaction has changed anything.
fn changes(response: &TxnResponse) -> bool {
    response.responses.iter().any(|step| match step {
        OpResponse::Put { .. } => true,
        OpResponse::Delete { previous } => !previous.is_empty(),
        OpResponse::Range(_) => false,
        OpResponse::Txn(inner) => changes(inner),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_the_same_both_ways() {
        for range in [
            KeyRange::Key("a".into()),
            KeyRange::Prefix("a".into()),
            KeyRange::From("a".into()),
            KeyRange::Span { start: "a".into(), end: "c".into() },
        ] {
            let (key, end) = key_and_end(&range);
            assert_eq!(key_range(&key, &end), range);
        }
        assert_eq!(key_and_end(&KeyRange::Prefix("".into())), ("\0".into(), "\0".into()));
        assert_eq!(key_and_end(&KeyRange::Prefix(Bytes::from_static(b"\xff"))).1, "\0");
        let empty = KeyRange::Span { start: "a".into(), end: "".into() };
        assert_eq!(key_and_end(&empty), ("a".into(), "a".into()), "an empty end would mean the key itself");
    }

    #[test]
    fn a_step_says_the_revision_that_it_saw() {
        let delete = |deleted: usize| OpResponse::Delete {
            previous: vec![
                KeyValue {
                    key: "k".into(),
                    value: "".into(),
                    create_revision: Revision(2),
                    mod_revision: Revision(2),
                    version: 1,
                    lease: LeaseId::NONE
                };
                deleted
            ],
        };
        let inner = TxnResponse { revision: Revision(6), succeeded: true, responses: vec![delete(1)] };
        let responses = vec![delete(0), OpResponse::Txn(Box::new(inner)), delete(0)];
        let response = TxnResponse { revision: Revision(6), succeeded: true, responses };
        let inner = Wanted::Inner(Box::new((vec![Wanted::Nothing], vec![])));
        let steps = steps(response, &(vec![Wanted::Nothing, inner, Wanted::Nothing], vec![]));
        let revisions: Vec<i64> = steps
            .iter()
            .map(|step| match step.response.as_ref().unwrap() {
                Response::ResponseDeleteRange(delete) => delete.header.as_ref().unwrap().revision,
                Response::ResponseTxn(inner) => inner.header.as_ref().unwrap().revision,
                _ => unreachable!(),
            })
            .collect();
        assert_eq!(revisions, [5, 0, 6]);
    }
}
