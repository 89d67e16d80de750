//! Who the members are by name, in the store beside the objects of the API: the group itself knows numbers only.
//!
//! One key per name, so that two servers that join at once under one name cannot both succeed.

use bytes::Bytes;
use reeve_store::{Compare, KeyRange, KeyValue, Kv, Op, RangeRequest, Revision, Txn};
use serde::{Deserialize, Serialize};

use super::token;
use crate::status::ApiError;

/// What the keys begin with; outside of what the watch cache holds.
const PREFIX: &str = "/reeve/members/";
/// What the keys of alarms begin with.
pub(super) const ALARMS: &str = "/reeve/alarms/";

/// What the keys begin with of all that servers keep for themselves.
const OWN: &[u8] = b"/reeve/";
/// Where the Leases of scheduler and controllers lie, and what the names of those begin with that servers hold.
const LEASES: &[u8] = b"/registry/coordination.k8s.io/leases/kube-system/";
const HELD: [&[u8]; 3] = [b"kube-scheduler", b"kube-controller-manager", b"reeve-"];
/// Where the tokens lie by which servers join.
const TOKENS: &[u8] = b"/registry/core/secrets/kube-system/bootstrap-token-";

/// Whether a key of the store is about the servers that keep it, and not about the cluster: their records, what they
/// hold, and the tokens by which others join them. A control plane that is made of a backup has none of these servers.
#[must_use]
pub fn is_about_servers(key: &[u8], value: &[u8]) -> bool {
    let is_token = || value.windows(token::USAGE.len()).any(|part| part == token::USAGE.as_bytes());
    key.starts_with(OWN)
        || key.strip_prefix(LEASES).is_some_and(|name| HELD.iter().any(|held| name.starts_with(held)))
        || key.starts_with(TOKENS) && is_token()
}

/// One member, as it has introduced itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its name; unique.
    pub name: String,
    /// Its number in the group, never used twice.
    #[serde(with = "hexadecimal")]
    pub id: u64,
    /// Where other members reach it, `IP:PORT`.
    pub peer_address: String,
    /// Where its API server is reached, `IP:PORT`.
    pub api_address: String,
    /// The number, in hexadecimal, of the member in whose place it has come, or is about to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

impl Record {
    /// Where it stands.
    pub(super) fn key(&self) -> Bytes {
        key(&self.name)
    }

    /// What stands there; `None`: a newer Reeve has written it.
    pub(super) fn of(stored: &KeyValue) -> Option<Self> {
        serde_json::from_slice(&stored.value).ok()
    }

    /// Writes the member's own record, with new addresses, say; for the member itself. The name must not be another's.
    pub async fn keep(&self, kv: &dyn Kv) -> Result<(), ApiError> {
        let found = find(kv, &self.name).await?;
        if found.as_ref().is_some_and(|(there, _)| there == self) {
            return Ok(());
        }
        register(kv, self, &|_| true).await
    }

    /// Corrects the member's own record; `false`: there is none, it was removed.
    pub(super) async fn renew(&self, kv: &dyn Kv) -> Result<bool, ApiError> {
        while let Some((there, revision)) = find(kv, &self.name).await?.filter(|(there, _)| there.id == self.id) {
            if there == *self || put(kv, self, revision).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn key(name: &str) -> Bytes {
    format!("{PREFIX}{name}").into()
}

mod hexadecimal {
    //! Numbers of members as texts: as numbers, JavaScript and jq would round them.
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{id:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        u64::from_str_radix(&String::deserialize(from)?, 16).map_err(serde::de::Error::custom)
    }
}

/// All that stand in the store, by name; some may not be members any more.
pub(super) async fn all(kv: &dyn Kv) -> Result<Vec<Record>, ApiError> {
    let found = kv.range(RangeRequest::prefix(PREFIX)).await.map_err(|err| ApiError::store(&err))?;
    Ok(found.kvs.iter().filter_map(Record::of).collect())
}

async fn find(kv: &dyn Kv, name: &str) -> Result<Option<(Record, Revision)>, ApiError> {
    let found = kv.range(RangeRequest::key(key(name))).await.map_err(|err| ApiError::store(&err))?;
    let Some(found) = found.kvs.first() else { return Ok(None) };
    let record = serde_json::from_slice(&found.value).map_err(ApiError::internal)?;
    Ok(Some((record, found.mod_revision)))
}

/// Enters a member under its name, unless another one has it that `is_member`. Can be repeated.
pub(super) async fn register(
    kv: &dyn Kv,
    record: &Record,
    is_member: &(dyn Fn(u64) -> bool + Send + Sync),
) -> Result<(), ApiError> {
    let there = find(kv, &record.name).await?;
    if let Some((other, _)) = there.as_ref().filter(|(other, _)| other.id != record.id && is_member(other.id)) {
        let of_peers = Some(&other.peer_address).filter(|address| !address.is_empty());
        let (name, address) = (&record.name, of_peers.unwrap_or(&other.api_address));
        let why = format!(
            "there is a member {name:?} already, at {address}: give this one another --name, or remove that one first \
             if it is lost (reeve member remove {name})"
        );
        return Err(ApiError::new(409, "AlreadyExists", why));
    }
    if put(kv, record, there.map_or(Revision(0), |(_, revision)| revision)).await? {
        return Ok(());
    }
    let why = format!("another server joins as {:?} just now; try again", record.name);
    Err(ApiError::new(409, "Conflict", why))
}

/// Writes a record over what stands there since `equals`; `false`: something else does.
async fn put(kv: &dyn Kv, record: &Record, equals: Revision) -> Result<bool, ApiError> {
    let value = serde_json::to_vec(record).map_err(ApiError::internal)?;
    let compare = vec![Compare::ModRevision { key: record.key(), equals }];
    let then = vec![Op::Put { key: record.key(), value: value.into() }];
    let written = kv.txn(Txn { compare, then, otherwise: Vec::new() }).await;
    Ok(written.map_err(|err| ApiError::store(&err))?.succeeded)
}

/// Forgets a member that is none any more.
pub(super) async fn forget(kv: &dyn Kv, record: &Record) -> Result<(), ApiError> {
    /// It may itself have written meanwhile.
    const ATTEMPTS_MAX: usize = 4;
    for _ in 0..ATTEMPTS_MAX {
        let Some((there, equals)) = find(kv, &record.name).await? else { return Ok(()) };
        // Overtaken by another of that name: then it is theirs.
        if there.id != record.id {
            return Ok(());
        }
        let key = record.key();
        let compare = vec![Compare::ModRevision { key: key.clone(), equals }];
        let then = vec![Op::Delete(KeyRange::Key(key))];
        let written = kv.txn(Txn { compare, then, otherwise: Vec::new() }).await;
        if written.map_err(|err| ApiError::store(&err))?.succeeded {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_servers_is_told_from_what_is_about_the_cluster() {
        let token = br#"{"data":{"usage-reeve-server-join":"dHJ1ZQ=="}}"#;
        let tokens = "/registry/core/secrets/kube-system/bootstrap-token-";
        let held = "/registry/coordination.k8s.io/leases/kube-system/kube-scheduler";
        for (key, value) in [
            ("/reeve/members/a", &b"{}"[..]),
            (&format!("{tokens}abcdef"), token),
            (held, b""),
            ("/reeve/alarms/x", b""),
        ] {
            assert!(is_about_servers(key.as_bytes(), value), "{key}");
        }
        for (key, value) in [
            (&*format!("{tokens}abcdef"), &b"{}"[..]),
            ("/registry/core/secrets/default/bootstrap-token-abcdef", token),
            ("/registry/coordination.k8s.io/leases/kube-system/mine", b""),
            ("/registry/core/pods/default/kube-scheduler", b""),
        ] {
            assert!(!is_about_servers(key.as_bytes(), value), "{key}");
        }
    }
}
