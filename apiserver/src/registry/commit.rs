//! One write as a store transaction: the object's key, what must still hold, and what goes with it.

use bytes::Bytes;
use reeve_store::{Compare, KeyRange, KeyValue, Kv, Op, OpResponse, RangeRequest, Revision, Txn};
use tokio::time::Instant;

use crate::admission::resource_quota::Taken;
use crate::cache::{StoreCall, StoreCalls};
use crate::status::ApiError;

/// Largest object that is stored: what the store takes in one transaction, less room for keys.
const OBJECT_BYTES_MAX: usize = reeve_store::TXN_BYTES_MAX - 64 * 1024;

/// What is written together, or not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// The object's key.
    pub(crate) key: Bytes,
    /// Its new text; `None` deletes it.
    pub(crate) value: Option<Bytes>,
    /// Its revision must still be this; 0: it must not exist.
    pub(crate) expect: Revision,
    /// Other keys whose revisions must still be these.
    pub(crate) guards: Vec<(Bytes, Revision)>,
    /// Allocations made with it: keys that must not exist yet.
    pub(crate) claims: Vec<(Bytes, Bytes)>,
    /// Allocations given back with it.
    pub(crate) releases: Vec<Bytes>,
    /// What is taken from the quotas of the namespace with it.
    pub(crate) taken: Vec<Taken>,
}

/// How a write ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is durable, at this revision.
    Done(Revision),
    /// The object is not as expected; this is what it is (`None`: it does not exist).
    Changed(Option<KeyValue>),
    /// The object is as expected, but a guard or a claim did not hold: decide again on newer facts.
    Overtaken,
}

impl Plan {
    fn txn(self) -> Txn {
        let mut compare = vec![Compare::ModRevision { key: self.key.clone(), equals: self.expect }];
        compare.extend(self.guards.into_iter().map(|(key, equals)| Compare::ModRevision { key, equals }));
        let write = match self.value {
            Some(value) => Op::Put { key: self.key.clone(), value },
            None => Op::Delete(KeyRange::Key(self.key.clone())),
        };
        let mut then = vec![write];
        for (key, value) in self.claims {
            compare.push(Compare::ModRevision { key: key.clone(), equals: Revision(0) });
            then.push(Op::Put { key, value });
        }
        for taken in self.taken {
            compare.push(Compare::ModRevision { key: taken.key.clone(), equals: taken.expect });
            then.push(Op::Put { key: taken.key, value: taken.value });
        }
        then.extend(self.releases.into_iter().map(|key| Op::Delete(KeyRange::Key(key))));
        Txn { compare, then, otherwise: vec![Op::Range(RangeRequest::key(self.key))] }
    }

    fn call(&self) -> StoreCall {
        match (&self.value, self.expect) {
            (None, _) => StoreCall::Delete,
            (Some(_), Revision(0)) => StoreCall::Create,
            (Some(_), _) => StoreCall::Update,
        }
    }

    /// Writes, and counts it in `calls`, which are those of the object's resource.
    pub(crate) async fn commit(self, kv: &dyn Kv, calls: &StoreCalls) -> Result<Outcome, ApiError> {
        if self.value.as_ref().is_some_and(|text| text.len() > OBJECT_BYTES_MAX) {
            // What Kubernetes passes on from its store.
            return Err(ApiError::unknown("etcdserver: request is too large"));
        }
        let (expect, call, began) = (self.expect, self.call(), Instant::now());
        let answer = kv.txn(self.txn()).await;
        calls.answered(call, began.elapsed(), answer.is_err());
        let response = answer.map_err(|error| ApiError::store(&error))?;
        if response.succeeded {
            return Ok(Outcome::Done(response.revision));
        }
        let Some(OpResponse::Range(found)) = response.responses.into_iter().next() else {
            return Err(ApiError::internal("the store's answer lacks the object's state"));
        };
        let current = found.kvs.into_iter().next();
        let revision = current.as_ref().map_or(Revision(0), |kv| kv.mod_revision);
        Ok(if revision == expect { Outcome::Overtaken } else { Outcome::Changed(current) })
    }
}
