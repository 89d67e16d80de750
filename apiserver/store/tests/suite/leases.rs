//! Leases.

use reeve_store::Put;

use super::*;

async fn grant(kv: &SharedKv, id: i64, ttl: i64) -> LeaseId {
    kv.lease_grant(LeaseId(id), ttl).await.unwrap().id
}

async fn put_to(kv: &SharedKv, name: &str, lease: LeaseId) -> Revision {
    let put = Put { key: name.to_owned().into(), value: Some("v".into()), lease: Some(lease) };
    commit(kv, vec![Op::PutWith(put)]).await.revision
}

async fn attached(kv: &SharedKv, lease: LeaseId) -> Vec<String> {
    let mut keys = kv.lease_status(lease, true).await.unwrap().expect("the lease is there").keys;
    keys.sort_unstable(); // etcd gives them in no order
    keys.iter().map(|key| key.escape_ascii().to_string()).collect()
}

pub(crate) async fn a_lease_is_granted_once_and_listed(kv: &SharedKv) {
    let granted = kv.lease_grant(LeaseId(7), 60).await.unwrap();
    assert_eq!((granted.id, granted.ttl, granted.revision), (LeaseId(7), 60, Revision(1)));
    let again = kv.lease_grant(LeaseId(7), 60).await;
    assert!(matches!(again, Err(KvError::LeaseExists(LeaseId(7)))), "{again:?}");
    let chosen = grant(kv, 0, 120).await;
    assert!(chosen.is_some() && chosen != LeaseId(7));
    assert_eq!(kv.leases().await.unwrap(), [LeaseId(7), chosen], "what ends first comes first");
    let status = kv.lease_status(LeaseId(7), true).await.unwrap().unwrap();
    assert_eq!((status.granted_ttl, status.keys), (60, vec![]));
    assert!((50..=60).contains(&status.ttl), "{}", status.ttl);
    assert_eq!(kv.lease_status(LeaseId(99), false).await.unwrap(), None);
    assert_eq!(kv.range(RangeRequest::key("a")).await.unwrap().revision, Revision(1), "leases take no revision");
}

pub(crate) async fn a_lease_takes_its_keys_along_in_one_revision(kv: &SharedKv) {
    let lease = grant(kv, 0, 60).await;
    put_to(kv, "b", lease).await;
    put_to(kv, "a", lease).await;
    put(kv, "stays", "v").await;
    assert_eq!(get(kv, "a").await.unwrap().lease, lease);
    assert_eq!(attached(kv, lease).await, ["a", "b"]);
    let mut stream = watch(kv, prefix(""), None).await;
    let revision = kv.lease_revoke(lease).await.unwrap();
    assert_eq!(revision, Revision(5));
    let events: Vec<_> = until(&mut stream, revision).await.iter().map(shown_event).collect();
    assert_eq!(events, ["delete a@5", "delete b@5"]);
    assert_eq!(at(kv, prefix(""), revision).await.unwrap(), ["stays=v@4"]);
    assert!(matches!(kv.lease_revoke(lease).await, Err(KvError::LeaseNotFound(_))));
    let empty = grant(kv, 0, 60).await;
    assert_eq!(kv.lease_revoke(empty).await.unwrap(), Revision(5), "nothing is deleted");
}

pub(crate) async fn a_key_belongs_to_the_lease_of_its_last_put(kv: &SharedKv) {
    let (one, other) = (grant(kv, 0, 60).await, grant(kv, 0, 60).await);
    put_to(kv, "a", one).await;
    put_to(kv, "b", one).await;
    put_to(kv, "c", one).await;
    put_to(kv, "a", other).await;
    put(kv, "b", "none").await;
    delete(kv, key("c")).await;
    assert_eq!((attached(kv, one).await, attached(kv, other).await), (vec![], vec!["a".to_owned()]));
    kv.lease_revoke(one).await.unwrap();
    assert_eq!(kv.range(RangeRequest::prefix("")).await.unwrap().count, 2);
    kv.lease_revoke(other).await.unwrap();
    assert_eq!(get(kv, "a").await, None);
    assert_eq!(get(kv, "b").await.unwrap().lease, LeaseId::NONE);
}

pub(crate) async fn a_put_to_a_lease_that_is_not_there_is_refused(kv: &SharedKv) {
    let put = Op::PutWith(Put { key: "a".into(), value: Some("v".into()), lease: Some(LeaseId(42)) });
    let refused = kv.txn(Txn { then: vec![put_op("b", "1"), put], ..Txn::default() }).await;
    assert!(matches!(refused, Err(KvError::LeaseNotFound(_))), "{refused:?}");
    assert_eq!(get(kv, "b").await, None);
}

pub(crate) async fn a_lease_ends_when_nobody_keeps_it_alive(kv: &SharedKv) {
    let lease = kv.lease_grant(LeaseId::NONE, 1).await.unwrap();
    assert_eq!(lease.ttl, reeve_store::LEASE_TTL_MIN, "shorter ones cannot be kept");
    put_to(kv, "a", lease.id).await;
    put_to(kv, "b", lease.id).await;
    let mut stream = watch(kv, prefix(""), None).await;
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(next(&mut stream).await.unwrap().unwrap().events.iter().map(shown_event));
    }
    assert_eq!(events, ["delete a@4", "delete b@4"]);
    assert_eq!(kv.lease_keep_alive(lease.id).await.unwrap(), None);
}

pub(crate) async fn a_lease_that_is_kept_alive_stays(kv: &SharedKv) {
    let lease = kv.lease_grant(LeaseId::NONE, 2).await.unwrap();
    put_to(kv, "a", lease.id).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(kv.lease_keep_alive(lease.id).await.unwrap(), Some(2));
    }
    assert!(get(kv, "a").await.is_some());
}

pub(crate) async fn a_lease_of_nonsense_is_refused(kv: &SharedKv) {
    let endless = kv.lease_grant(LeaseId::NONE, reeve_store::LEASE_TTL_MAX + 1).await;
    assert!(matches!(endless, Err(KvError::LeaseTtlTooLarge(_))), "{endless:?}");
    assert_eq!(kv.lease_grant(LeaseId(-3), -5).await.unwrap().ttl, reeve_store::LEASE_TTL_MIN);
    assert_eq!(kv.lease_keep_alive(LeaseId(5)).await.unwrap(), None);
    assert_eq!(kv.leases().await.unwrap(), [LeaseId(-3)]);
}
