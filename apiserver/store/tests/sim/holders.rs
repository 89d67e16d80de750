//! Clients that hold leases: what is attached to one is there as long as it is kept alive, whoever leads, and goes when
//! it is not.

use std::time::Duration;

use reeve_store::{Kv as _, LeaseId, Op, Put, RangeRequest, Txn};
use tokio::sync::watch;

use crate::world::World;

/// Takes one lease after the other until it is told to stop; the keys that were attached to them.
pub(crate) async fn run(world: World, holder: u64, stop: watch::Receiver<bool>) -> Vec<String> {
    let (mut keys, mut generation) = (Vec::new(), 0);
    for n in 0.. {
        if *stop.borrow() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1 + world.below(500))).await;
        let key = format!("l/{holder}/{n}");
        // Most numbers are used again: what ends one lease must not end the next of that number.
        let lease = LeaseId(1 + holder.cast_signed() * 1_000_000 + generation * 10 + n % 3);
        if !hold(&world, &key, lease, &stop).await {
            generation += 1;
        }
        keys.push(key);
    }
    keys
}

/// Holds one lease for a while. In the end it is given back, or left to itself. Whether its number can be used again:
/// not while it may still be given back without this client's knowing.
async fn hold(world: &World, key: &str, lease: LeaseId, stop: &watch::Receiver<bool>) -> bool {
    let Some((_, store)) = world.any_store() else { return true };
    let ttl = Duration::from_secs(2 + world.below(6));
    let asked = world.clock.monotonic();
    let Ok(granted) = store.lease_grant(lease, ttl.as_secs().cast_signed()).await else { return true };
    // It counts from when it is granted, which is later than this.
    let mut lives_until = asked + Duration::from_secs(granted.ttl.unsigned_abs());
    let put = Put { key: key.to_owned().into(), value: Some("held".into()), lease: Some(lease) };
    if store.txn(Txn { then: vec![Op::PutWith(put)], ..Txn::default() }).await.is_err() {
        return true;
    }
    drop(store);
    while !*stop.borrow() && world.below(12) > 0 {
        tokio::time::sleep(ttl * u32::try_from(world.below(70)).unwrap_or(0) / 100).await;
        let Some((id, store)) = world.any_store() else { continue };
        let asked = world.clock.monotonic();
        match store.lease_keep_alive(lease).await {
            Ok(Some(_)) => lives_until = asked + ttl,
            Ok(None) if world.clock.monotonic() < lives_until => {
                world.ledger.complain(format!("lease {lease} of {key} has ended early, says member {id}"));
            }
            Ok(None) => return true,
            Err(_) => {}
        }
        if let Ok(read) = store.range(RangeRequest::key(key.to_owned())).await
            && read.kvs.is_empty()
        {
            if world.clock.monotonic() < lives_until {
                let revision = read.revision;
                world.ledger.complain(format!("{key} has gone early with lease {lease}: member {id} at {revision}"));
            }
            return true;
        }
    }
    if world.below(2) == 0
        && let Some((_, store)) = world.any_store()
    {
        return store.lease_revoke(lease).await.is_ok();
    }
    true // its time ends it
}
