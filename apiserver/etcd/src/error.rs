//! Errors as etcd says them: the text and code of each, and what of ours it stands for. Source: etcd's documentation of
//! its clients' errors (`go.etcd.io/etcd/api/v3/v3rpc/rpctypes`).

use reeve_store::{KvError, LeaseId, Revision};
use tonic::{Code, Status};

/// An error that etcd has a text for.
pub(crate) type Known = (Code, &'static str);

pub(crate) const EMPTY_KEY: Known = (Code::InvalidArgument, "etcdserver: key is not provided");
pub(crate) const KEY_NOT_FOUND: Known = (Code::InvalidArgument, "etcdserver: key not found");
pub(crate) const VALUE_PROVIDED: Known = (Code::InvalidArgument, "etcdserver: value is provided");
pub(crate) const LEASE_PROVIDED: Known = (Code::InvalidArgument, "etcdserver: lease is provided");
pub(crate) const TOO_MANY_OPS: Known = (Code::InvalidArgument, "etcdserver: too many operations in txn request");
pub(crate) const DUPLICATE_KEY: Known = (Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
pub(crate) const INVALID_SORT: Known = (Code::InvalidArgument, "etcdserver: invalid sort option");
pub(crate) const REQUEST_TOO_LARGE: Known = (Code::InvalidArgument, "etcdserver: request is too large");
pub(crate) const COMPACTED: Known = (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
pub(crate) const FUTURE: Known = (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
pub(crate) const NO_SPACE: Known = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
pub(crate) const LEASE_NOT_FOUND: Known = (Code::NotFound, "etcdserver: requested lease not found");
pub(crate) const LEASE_EXISTS: Known = (Code::FailedPrecondition, "etcdserver: lease already exists");
pub(crate) const LEASE_TTL_TOO_LARGE: Known = (Code::OutOfRange, "etcdserver: too large lease TTL");
pub(crate) const TOO_MANY_REQUESTS: Known = (Code::ResourceExhausted, "etcdserver: too many requests");
pub(crate) const STOPPED: Known = (Code::Unavailable, "etcdserver: server stopped");
pub(crate) const NO_LEADER: Known = (Code::Unavailable, "etcdserver: no leader");
pub(crate) const TIMED_OUT: Known = (Code::Unavailable, "etcdserver: request timed out");
pub(crate) const AUTH_NOT_ENABLED: Known = (Code::FailedPrecondition, "etcdserver: authentication is not enabled");
pub(crate) const MEMBER_NOT_FOUND: Known = (Code::NotFound, "etcdserver: member not found");
pub(crate) const MEMBER_EXISTS: Known = (Code::FailedPrecondition, "etcdserver: member ID already exist");
pub(crate) const MEMBER_NOT_LEARNER: Known =
    (Code::FailedPrecondition, "etcdserver: can only promote a learner member");
pub(crate) const LEARNER_NOT_READY: Known =
    (Code::FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader");
pub(crate) const NOT_ENOUGH_STARTED: Known =
    (Code::FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members");
pub(crate) const BAD_URLS: Known = (Code::InvalidArgument, "etcdserver: given member URLs are invalid");
pub(crate) const BAD_TRANSFEREE: Known = (Code::FailedPrecondition, "etcdserver: bad leader transferee");
pub(crate) const BAD_DOWNGRADE: Known = (Code::InvalidArgument, "etcdserver: invalid downgrade target version");
pub(crate) const NO_DOWNGRADE: Known = (Code::FailedPrecondition, "etcdserver: no inflight downgrade job");

/// An error as it is sent.
pub(crate) fn status((code, text): Known) -> Status {
    Status::new(code, text)
}

/// What a client of etcd is told of an error of the store.
pub(crate) fn of_store(err: &KvError) -> Status {
    match err {
        KvError::Compacted { .. } => status(COMPACTED),
        KvError::Future { .. } => status(FUTURE),
        KvError::KeyNotFound { .. } => status(KEY_NOT_FOUND),
        KvError::LeaseNotFound(_) => status(LEASE_NOT_FOUND),
        KvError::LeaseExists(_) => status(LEASE_EXISTS),
        KvError::LeaseTtlTooLarge(_) => status(LEASE_TTL_TOO_LARGE),
        KvError::Storage { .. } => status(NO_SPACE),
        KvError::Closed => status(STOPPED),
        KvError::SlowWatcher { .. } => status(TOO_MANY_REQUESTS),
        KvError::Invalid { rule } => Status::invalid_argument(format!("etcdserver: {rule}")),
        KvError::Unavailable { reason } => Status::unavailable(format!("{}: {reason}", TIMED_OUT.1)),
    }
}

/// What an error of an etcd means to a caller of the store. `about` is the lease that was asked for, if any.
pub(crate) fn to_store(status: &Status, about: LeaseId) -> KvError {
    let text = status.message();
    let is = |known: Known| text == known.1;
    // Which revision it was is not said; whoever asked knows.
    let unknown = Revision(0);
    if is(COMPACTED) {
        return KvError::Compacted { requested: unknown, compacted: unknown };
    }
    if is(FUTURE) {
        return KvError::Future { requested: unknown, newest: unknown };
    }
    if is(KEY_NOT_FOUND) {
        return KvError::KeyNotFound { key: bytes::Bytes::new() };
    }
    if is(LEASE_NOT_FOUND) {
        return KvError::LeaseNotFound(about);
    }
    if is(LEASE_EXISTS) {
        return KvError::LeaseExists(about);
    }
    if is(LEASE_TTL_TOO_LARGE) {
        return KvError::LeaseTtlTooLarge(i64::MAX);
    }
    if is(NO_SPACE) {
        return KvError::Storage { what: "etcd".to_owned(), reason: text.to_owned() };
    }
    match status.code() {
        Code::InvalidArgument => KvError::Invalid { rule: text.to_owned() },
        // Larger than it takes in at all, in the words of two implementations of gRPC.
        Code::ResourceExhausted | Code::OutOfRange if text.contains("larger than") || text.contains("too large") => {
            KvError::Invalid { rule: text.to_owned() }
        }
        code => KvError::Unavailable { reason: format!("etcd says {code:?}: {text}") },
    }
}
