//! Alarms about members, in the store beside their records: every server sees them, and a new leader finds them.
//!
//! etcd's alarm `CORRUPT`: the data of a member differs from that of the others.

use bytes::Bytes;
use reeve_store::{KeyRange, Kv, Op, RangeRequest, Txn};
use serde::{Deserialize, Serialize};

use super::records::ALARMS;
use crate::status::ApiError;

/// One alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alarm {
    /// The member's number in hexadecimal.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// At which revision its data was found to differ.
    pub(super) revision: u64,
    /// Whether most members agree against it. Where no most do, it is one of those that disagree.
    pub(super) certain: bool,
}

impl Alarm {
    fn key(id: &str) -> Bytes {
        format!("{ALARMS}corrupt/{id}").into()
    }
}

/// All that are raised.
pub(super) async fn all(kv: &dyn Kv) -> Result<Vec<Alarm>, ApiError> {
    let found = kv.range(RangeRequest::prefix(ALARMS)).await.map_err(|err| ApiError::store(&err))?;
    Ok(found.kvs.iter().filter_map(|kv| serde_json::from_slice(&kv.value).ok()).collect())
}

/// Makes `raised` the alarms that there are; `before` are those that there were.
pub(super) async fn set(kv: &dyn Kv, before: &[Alarm], raised: &[Alarm]) -> Result<(), ApiError> {
    let over = before.iter().filter(|old| !raised.iter().any(|new| new.id == old.id));
    let mut then: Vec<Op> = over.map(|old| Op::Delete(KeyRange::Key(Alarm::key(&old.id)))).collect();
    for alarm in raised.iter().filter(|alarm| !before.contains(alarm)) {
        let value = serde_json::to_vec(alarm).map_err(ApiError::internal)?;
        then.push(Op::Put { key: Alarm::key(&alarm.id), value: value.into() });
    }
    if then.is_empty() {
        return Ok(());
    }
    kv.txn(Txn { then, ..Txn::default() }).await.map(drop).map_err(|err| ApiError::store(&err))
}
