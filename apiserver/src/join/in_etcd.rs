//! Servers whose state lies in an etcd. They are no group with votes: each has a record, as every server has, and a key
//! beside it that it keeps alive by a lease of etcd's, as kube-apiservers do (`masterleases`). Whose key is the oldest
//! does what one of them does for all of them here (`tend.rs`); scheduler, controllers and backups have Leases.
//!
//! Joining gives the keys of the control plane and a record, nothing else. A server whose record is gone was removed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reeve_store::{
    Compare, KeyRange, KeyValue, KvError, Leadership, LeaseId, MemberError, MemberInfo, MemberProgress, MemberStatus,
    Op, PeerFigures, Put, RangeRequest, Revision, Role, SharedKv, Txn,
};
use serde::Serialize;
use tokio::sync::watch;

use super::{Group, Network, Record, Settings, records};
use crate::status::ApiError;

/// What the keys begin with of those that are there.
const PRESENT: &str = "/reeve/present/";
/// Where it stands which control plane the state belongs to.
const OWNER: &str = "/reeve/control-plane";
/// What the keys of the API's objects begin with: where there are some and no owner, the state is somebody else's.
const OBJECTS: &str = "/registry/";
/// How long a server that says nothing counts as there, in seconds.
const TTL: i64 = 10;
/// How often a server says that it is there, and looks who else is. That could be watched; but a watch of an etcd
/// follows all of its keys, and the lease wants to be renewed anyway.
const PERIOD: Duration = Duration::from_secs(3);

/// Which etcd it is, as servers that join must be told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdPlace {
    /// Its members' URLs.
    pub servers: Vec<String>,
    /// What all keys begin with there.
    pub prefix: String,
    /// The flags of `reeve server` that say all this, and with which certificates.
    pub flags: String,
}

/// The number of the control plane whose state it is, if it is one's.
pub async fn owner(kv: &SharedKv) -> Result<Option<String>, KvError> {
    let found = kv.range(RangeRequest::key(OWNER)).await?;
    Ok(found.kvs.first().map(|owner| String::from_utf8_lossy(&owner.value).into_owned()))
}

/// Makes the state that of the control plane with these settings, whose first server is `own`. What belongs to anybody
/// else is refused with 409 and left as it is. Can be repeated.
pub async fn claim(kv: &SharedKv, settings: &Settings, own: &Record) -> Result<(), ApiError> {
    let refused = |why: &str| Err(ApiError::new(409, "Conflict", why));
    if owner(kv).await.map_err(|err| ApiError::store(&err))?.is_none() {
        let objects = RangeRequest { limit: 1, keys_only: true, uncounted: true, ..RangeRequest::prefix(OBJECTS) };
        if !kv.range(objects).await.map_err(|err| ApiError::store(&err))?.kvs.is_empty() {
            return refused("it holds a cluster already, which is none of servers; choose another --etcd-prefix");
        }
        let record = serde_json::to_vec(own).map_err(ApiError::internal)?;
        let put = |key: Bytes, value: Bytes| Op::Put { key, value };
        let then = vec![put(OWNER.into(), settings.cluster_id.clone().into()), put(own.key(), record.into())];
        let compare = vec![Compare::ModRevision { key: OWNER.into(), equals: Revision(0) }];
        kv.txn(Txn { compare, then, ..Txn::default() }).await.map_err(|err| ApiError::store(&err))?;
    }
    match owner(kv).await.map_err(|err| ApiError::store(&err))? {
        Some(owner) if owner == settings.cluster_id => Ok(()),
        _ => refused("it holds another control plane; join that one (--join), or choose another --etcd-prefix"),
    }
}

/// See the module; as one of them sees it.
pub struct InEtcd {
    kv: SharedKv,
    own: Record,
    leadership: watch::Sender<Leadership>,
    removed: watch::Sender<bool>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// Whose keys are there, the oldest first.
    present: Vec<u64>,
    lease: LeaseId,
}

impl InEtcd {
    /// The server of that record, at a start: the state must still be that of its control plane. If it was removed,
    /// [`InEtcd::removed`] says so, and nothing has been written; else it is there from now on.
    pub async fn enter(kv: SharedKv, settings: &Settings, own: Record) -> Result<Self, ApiError> {
        match owner(&kv).await.map_err(|err| ApiError::store(&err))? {
            Some(owner) if owner == settings.cluster_id => {}
            Some(_) => return Err(ApiError::new(409, "Conflict", "it holds another control plane than this server's")),
            None => return Err(ApiError::new(409, "Conflict", "it holds nothing of this server's control plane")),
        }
        let is_recorded = own.renew(&*kv).await?;
        let (leadership, removed) = (watch::Sender::default(), watch::Sender::new(!is_recorded));
        let entered = Self { kv, own, leadership, removed, now: Mutex::default() };
        if is_recorded {
            entered.look().await?;
        }
        Ok(entered)
    }

    /// Who does what one does for all, as this server sees it: nobody while etcd says nothing.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Told `true` when this server has been removed.
    #[must_use]
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    /// Is there as long as it is polled.
    pub async fn stay(&self) {
        let mut is_away = false;
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.look().await {
                Ok(()) if std::mem::take(&mut is_away) => tracing::info!("The etcd that holds the state is back."),
                Ok(()) => {}
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(%error, "The etcd that holds the state does not answer; trying again.");
                    }
                    self.see(Vec::new());
                }
            }
        }
    }

    /// Is there no more; the others need not wait until that is noticed.
    pub async fn leave(&self) {
        let lease = std::mem::take(&mut self.now().lease);
        if lease.is_some() {
            let _ = self.kv.lease_revoke(lease).await; // else it ends by itself soon
        }
    }

    /// Says that this server is there, and sees who is.
    async fn look(&self) -> Result<(), ApiError> {
        self.keep_key().await?;
        let own = self.kv.range(RangeRequest::key(self.own.key())).await.map_err(|err| ApiError::store(&err))?;
        let is_own = |kv: &KeyValue| Record::of(kv).is_some_and(|record| record.id == self.own.id);
        if !own.kvs.iter().any(is_own) {
            self.removed.send_replace(true);
        }
        self.look_around().await
    }

    /// Sees who is there.
    async fn look_around(&self) -> Result<(), ApiError> {
        let all = RangeRequest { keys_only: true, ..RangeRequest::prefix(PRESENT) };
        let found = self.kv.range(all).await.map_err(|err| ApiError::store(&err))?;
        let of = |kv: &KeyValue| Some((kv.create_revision, number(&kv.key)?));
        let mut present: Vec<(Revision, u64)> = found.kvs.iter().filter_map(of).collect();
        present.sort_unstable();
        self.see(present.into_iter().map(|(_, id)| id).collect());
        Ok(())
    }

    async fn keep_key(&self) -> Result<(), ApiError> {
        let lease = self.now().lease;
        if lease.is_some() && self.kv.lease_keep_alive(lease).await.map_err(|err| ApiError::store(&err))?.is_some() {
            return Ok(());
        }
        let granted = self.kv.lease_grant(LeaseId::NONE, TTL).await.map_err(|err| ApiError::store(&err))?;
        let put = Put { key: present(self.own.id), value: Some(Bytes::new()), lease: Some(granted.id) };
        self.kv
            .txn(Txn { then: vec![Op::PutWith(put)], ..Txn::default() })
            .await
            .map_err(|err| ApiError::store(&err))?;
        self.now().lease = granted.id;
        Ok(())
    }

    /// These are there, in this order.
    fn see(&self, present: Vec<u64>) {
        let leader = present.first().copied();
        let role = if leader == Some(self.own.id) { Role::Leader } else { Role::Follower };
        self.leadership.send_if_modified(|before| {
            let changed = before.leader != leader;
            if changed {
                *before = Leadership { role, leader, term: before.term + 1 };
            }
            changed
        });
        self.now().present = present;
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn present(id: u64) -> Bytes {
    format!("{PRESENT}{id:x}").into()
}

/// Whose key that is.
fn number(key: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(key).ok()?.strip_prefix(PRESENT)?, 16).ok()
}

#[async_trait::async_trait]
impl Group for InEtcd {
    /// All that have a record. Nobody leads; `tend.rs` is told by [`InEtcd::leadership`] whose turn it is.
    async fn status(&self) -> Result<MemberStatus, MemberError> {
        let failed = |error: ApiError| MemberError::Unavailable { reason: error.message };
        let records = records::all(&*self.kv).await.map_err(failed)?;
        self.look_around().await.map_err(failed)?;
        let present = self.now().present.clone();
        let info = |record: Record| {
            let progress = Some(MemberProgress { matched: 0, active: present.contains(&record.id), snapshot: false });
            MemberInfo { id: record.id, address: String::new(), voter: false, progress }
        };
        let mut members: Vec<_> = records.into_iter().map(info).collect();
        members.sort_by_key(|member| member.id);
        Ok(MemberStatus { id: self.own.id, members, ..MemberStatus::default() })
    }

    async fn add_learner(&self, _: u64, _: &str) -> Result<(), MemberError> {
        Ok(()) // its record is all there is
    }

    async fn promote(&self, id: u64) -> Result<(), MemberError> {
        Err(MemberError::Learner { id }) // nobody votes
    }

    async fn remove(&self, id: u64) -> Result<(), MemberError> {
        let then = vec![Op::Delete(KeyRange::Key(present(id)))];
        let gone = self.kv.txn(Txn { then, ..Txn::default() }).await;
        gone.map(drop).map_err(|err| MemberError::Unavailable { reason: err.to_string() })
    }

    async fn lead(&self, id: u64) -> Result<(), MemberError> {
        Err(MemberError::Learner { id })
    }
}

impl Network for InEtcd {
    /// Those that are there have been heard of through etcd.
    fn figures(&self) -> Vec<PeerFigures> {
        let figure = |id: &u64| PeerFigures { id: *id, connected: true, ..PeerFigures::default() };
        self.now().present.iter().map(figure).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use reeve_store::MemoryKv;

    fn record(name: &str, id: u64) -> Record {
        let api_address = format!("192.0.2.{id}:6443");
        Record { name: name.to_owned(), id, peer_address: String::new(), api_address, replaces: None }
    }

    fn settings(cluster_id: &str) -> Settings {
        let range = |text: &str| text.parse().unwrap();
        let (cluster_cidr, service_cidr) = (range("10.64.0.0/16"), range("10.128.0.0/20"));
        Settings { cluster_id: cluster_id.to_owned(), cluster_cidr, service_cidr }
    }

    async fn enter(kv: &SharedKv, own: &Record) -> InEtcd {
        InEtcd::enter(Arc::clone(kv), &settings("1"), own.clone()).await.unwrap()
    }

    /// A control plane of two, `z` first.
    async fn two() -> (SharedKv, InEtcd, InEtcd) {
        let kv: SharedKv = Arc::new(MemoryKv::default());
        let (first, second) = (record("z", 9), record("a", 2));
        claim(&kv, &settings("1"), &first).await.unwrap();
        let entered = enter(&kv, &first).await;
        records::register(&*kv, &second, &|_| false).await.unwrap();
        let joined = enter(&kv, &second).await;
        (kv, entered, joined)
    }

    #[tokio::test]
    async fn who_has_been_there_longest_does_what_one_does_for_all_and_the_next_one_when_it_leaves() {
        let (_kv, first, second) = two().await;
        first.look().await.unwrap();
        assert!(first.leadership().borrow().is_leader() && !second.leadership().borrow().is_leader());
        let status = first.status().await.unwrap();
        let active: Vec<_> = status.members.iter().map(|own| (own.id, own.progress.unwrap().active)).collect();
        assert_eq!(active, [(2, true), (9, true)]);
        first.leave().await;
        second.look().await.unwrap();
        assert!(second.leadership().borrow().is_leader());
        assert_eq!(second.figures().iter().map(|figure| figure.id).collect::<Vec<_>>(), [2]);
    }

    #[tokio::test]
    async fn who_is_removed_sees_it_then_and_at_its_next_start_and_writes_nothing() {
        let (kv, first, second) = two().await;
        first.remove(2).await.unwrap();
        records::forget(&*kv, &record("a", 2)).await.unwrap();
        second.look().await.unwrap();
        first.look().await.unwrap();
        assert!(*second.removed().borrow() && !*first.removed().borrow());
        assert_eq!(first.status().await.unwrap().members.len(), 1);
        let before = kv.revision();
        assert!(*enter(&kv, &record("a", 2)).await.removed().borrow());
        // Another one may have its name meanwhile.
        records::register(&*kv, &record("a", 3), &|_| false).await.unwrap();
        assert!(*enter(&kv, &record("a", 2)).await.removed().borrow());
        assert_eq!(kv.revision().0, before.0 + 1);
    }

    #[tokio::test]
    async fn who_comes_back_with_another_address_is_known_by_it() {
        let (kv, first, _) = two().await;
        let moved = Record { api_address: "192.0.2.77:6443".to_owned(), ..record("a", 2) };
        assert!(!*enter(&kv, &moved).await.removed().borrow());
        assert!(records::all(&*kv).await.unwrap().contains(&moved));
        assert_eq!(first.status().await.unwrap().members.len(), 2);
    }

    #[tokio::test]
    async fn an_etcd_belongs_to_one_control_plane_and_what_is_not_its_own_stays_as_it_is() {
        let kv: SharedKv = Arc::new(MemoryKv::default());
        claim(&kv, &settings("1"), &record("a", 1)).await.unwrap();
        let before = kv.revision();
        claim(&kv, &settings("1"), &record("a", 1)).await.unwrap();
        let refused = claim(&kv, &settings("2"), &record("b", 1)).await.unwrap_err();
        assert!(refused.code == 409 && refused.message.contains("another control plane"));
        let refused = InEtcd::enter(Arc::clone(&kv), &settings("2"), record("a", 1)).await.err().unwrap();
        assert!(refused.message.contains("another control plane"));
        assert_eq!(kv.revision(), before);
        let of_others: SharedKv = Arc::new(MemoryKv::default());
        let refused = InEtcd::enter(Arc::clone(&of_others), &settings("1"), record("a", 1)).await.err().unwrap();
        assert!(refused.message.contains("nothing of this server's"));
        let put = Op::Put { key: "/registry/core/pods/x".into(), value: "{}".into() };
        of_others.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
        let refused = claim(&of_others, &settings("1"), &record("a", 1)).await.unwrap_err();
        assert!(refused.message.contains("another --etcd-prefix"));
        assert_eq!(owner(&of_others).await.unwrap(), None);
    }
}
