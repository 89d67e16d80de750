//! What etcd refuses before it looks at a single key, in its order and with its words. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use reeve_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use reeve_proto::etcd::etcdserverpb::request_op::Request;
use reeve_proto::etcd::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use reeve_store::{KeyRange, TXN_OPS_MAX};

use crate::convert::key_range;
use crate::error::{
    DUPLICATE_KEY, EMPTY_KEY, INVALID_SORT, KEY_NOT_FOUND, Known, LEASE_PROVIDED, TOO_MANY_OPS, VALUE_PROVIDED,
};

pub(crate) fn range(request: &RangeRequest) -> Result<(), Known> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(INVALID_SORT) }
}

pub(crate) fn put(request: &PutRequest) -> Result<(), Known> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(LEASE_PROVIDED);
    }
    Ok(())
}

pub(crate) fn delete(request: &DeleteRangeRequest) -> Result<(), Known> {
    if request.key.is_empty() { Err(EMPTY_KEY) } else { Ok(()) }
}

pub(crate) fn txn(request: &TxnRequest) -> Result<(), Known> {
    shape(request, TXN_OPS_MAX)?;
    written(&request.success)?;
    written(&request.failure).map(|_| ())
}

fn shape(request: &TxnRequest, ops_max: usize) -> Result<(), Known> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > ops_max {
        return Err(TOO_MANY_OPS);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EMPTY_KEY);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete(request),
        Some(Request::RequestTxn(request)) => shape(request, ops_max - most),
        None => Err(KEY_NOT_FOUND),
    })
}

/// What a branch writes.
#[derive(Default)]
struct Written<'r> {
    puts: BTreeSet<&'r Bytes>,
    deletions: Vec<KeyRange>,
}

impl Written<'_> {
    fn has(&self, key: &Bytes) -> bool {
        self.puts.contains(key) || self.deletions.iter().any(|range| range.contains(key))
    }
}

/// No key twice: deletions of the branch itself first, then what inner transactions write, then its own puts.
fn written(ops: &[RequestOp]) -> Result<Written<'_>, Known> {
    let mut written = Written::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            written.deletions.push(key_range(&request.key, &request.range_end));
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(request)) = &op.request else { continue };
        let (then, otherwise) = (self::written(&request.success)?, self::written(&request.failure)?);
        let either: BTreeSet<&Bytes> = then.puts.into_iter().chain(otherwise.puts).collect();
        if either.iter().any(|key| written.has(key)) {
            return Err(DUPLICATE_KEY);
        }
        written.puts.extend(either);
        written.deletions.extend(then.deletions.into_iter().chain(otherwise.deletions));
    }
    for op in ops {
        let Some(Request::RequestPut(request)) = &op.request else { continue };
        if written.has(&request.key) {
            return Err(DUPLICATE_KEY);
        }
        written.puts.insert(&request.key);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_op(key: &'static str) -> RequestOp {
        let put = PutRequest { key: key.into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    }

    fn delete_op(key: &'static str, end: &'static str) -> RequestOp {
        let delete = DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
        RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
    }

    fn inner(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp { request: Some(Request::RequestTxn(TxnRequest { success, failure, ..TxnRequest::default() })) }
    }

    #[test]
    fn a_key_is_written_once_in_a_branch_with_all_that_lies_in_it() {
        for (ops, expected) in [
            (vec![put_op("a"), put_op("b")], Ok(())),
            (vec![put_op("a"), put_op("a")], Err(DUPLICATE_KEY)),
            (vec![put_op("b"), delete_op("a", "c")], Err(DUPLICATE_KEY)),
            (vec![put_op("c"), delete_op("a", "c")], Ok(())),
            (vec![delete_op("a", "c"), delete_op("a", "c")], Ok(())),
            (vec![inner(vec![put_op("a")], vec![put_op("a")])], Ok(())),
            (vec![inner(vec![put_op("a")], vec![]), put_op("a")], Err(DUPLICATE_KEY)),
            (vec![inner(vec![put_op("a")], vec![]), inner(vec![], vec![put_op("a")])], Err(DUPLICATE_KEY)),
            (vec![inner(vec![delete_op("a", "c")], vec![]), put_op("b")], Err(DUPLICATE_KEY)),
        ] {
            let request = TxnRequest { success: ops, ..TxnRequest::default() };
            assert_eq!(txn(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn inner_transactions_share_the_number_of_steps() {
        let many = |n: usize| -> Vec<RequestOp> { (0..n).map(|_| delete_op("a", "")).collect() };
        let nested = |outer: usize, deep: usize| {
            let mut success = many(outer - 1);
            success.push(inner(many(deep), vec![]));
            txn(&TxnRequest { success, ..TxnRequest::default() })
        };
        assert_eq!((nested(28, 100), nested(29, 100)), (Ok(()), Err(TOO_MANY_OPS)));
        let empty = TxnRequest { success: vec![RequestOp { request: None }], ..TxnRequest::default() };
        assert_eq!(txn(&empty), Err(KEY_NOT_FOUND));
    }
}
