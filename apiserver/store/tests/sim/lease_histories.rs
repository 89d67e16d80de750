//! Single histories about leases and who counts their time.

use std::time::Duration;

use reeve_store::{Kv as _, LeaseId, Op, Put, RangeRequest, Role, Store, Txn};

use crate::histories::{history, other, seconds};
use crate::world::World;

async fn attach(store: &Store, key: &str, lease: LeaseId) {
    let put = Put { key: key.to_owned().into(), value: Some("held".into()), lease: Some(lease) };
    store.txn(Txn { then: vec![Op::PutWith(put)], ..Txn::default() }).await.unwrap();
}

async fn left(store: &Store, lease: LeaseId) -> Option<i64> {
    store.lease_status(lease, false).await.unwrap().map(|status| status.ttl)
}

/// Who leads now, besides the one that has.
fn successor(world: &World, of: u64) -> u64 {
    let leads = |id: &u64| world.store(*id).unwrap().leadership().borrow().role == Role::Leader;
    world.running().into_iter().filter(|id| *id != of).find(leads).expect("the others have elected one")
}

#[test]
fn what_a_leader_that_was_cut_off_wanted_to_end_is_not_the_lease_that_has_its_number_now() {
    history(40, 3, async |world| {
        let leader = world.leader().unwrap();
        let lease = LeaseId(7);
        world.store(leader).unwrap().lease_grant(lease, 2).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1900)).await;
        world.network.isolate(leader, world.ids());
        // Its time is up on the one that is alone, which cannot bring that into the log.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let next = world.store(successor(world, leader)).unwrap();
        next.lease_revoke(lease).await.unwrap();
        next.lease_grant(lease, 600).await.unwrap();
        attach(&next, "k", lease).await;
        world.network.mend();
        seconds(5).await;
        let held = next.range(RangeRequest::key("k")).await.unwrap();
        assert_eq!(held.kvs.len(), 1, "the new lease has minutes to live");
    });
}

#[test]
fn whoever_is_asked_what_a_lease_has_left_says_what_the_leader_counts() {
    history(41, 3, async |world| {
        let leader = world.leader().unwrap();
        let lease = LeaseId(7);
        world.store(leader).unwrap().lease_grant(lease, 60).await.unwrap();
        seconds(20).await;
        for id in world.ids() {
            let told = left(&world.store(id).unwrap(), lease).await.unwrap();
            assert!((39..=40).contains(&told), "member {id} says {told}");
        }
        // A new leader gives it its whole time again, and so say all.
        world.crash(leader, false);
        let next = world.wait_for_leader().await;
        seconds(10).await;
        for id in world.running() {
            let told = left(&world.store(id).unwrap(), lease).await.unwrap();
            assert!((45..=51).contains(&told), "member {id} says {told}, whatever {next} counts");
        }
        // Nor does who comes back begin to count for itself.
        world.start(leader).await;
        seconds(10).await;
        let told = left(&world.store(leader).unwrap(), lease).await.unwrap();
        assert!((35..=41).contains(&told), "member {leader} says {told}");
        assert_eq!(left(&world.store(other(world, leader)).unwrap(), LeaseId(8)).await, None);
    });
}

#[test]
fn what_was_granted_by_one_member_is_known_to_any_other_at_once() {
    history(42, 3, async |world| {
        for round in 1..20 {
            let (_, granting) = world.any_store().unwrap();
            let (_, asked) = world.any_store().unwrap();
            let lease = LeaseId(round);
            granting.lease_grant(lease, 600).await.unwrap();
            assert!(left(&asked, lease).await.is_some());
            assert!(asked.leases().await.unwrap().contains(&lease));
        }
    });
}

#[test]
fn a_lease_that_is_kept_alive_outlives_every_leader() {
    history(43, 3, async |world| {
        let lease = LeaseId(7);
        let first = world.store(world.leader().unwrap()).unwrap();
        first.lease_grant(lease, 3).await.unwrap();
        attach(&first, "k", lease).await;
        drop(first);
        for round in 0..8 {
            let leader = world.wait_for_leader().await;
            match round % 3 {
                0 => world.crash(leader, true),
                1 => world.network.isolate(leader, world.ids()),
                _ => world.stall(leader, Duration::from_secs(2)),
            }
            let asked = world.store(other(world, leader)).unwrap();
            for _ in 0..3 {
                assert_eq!(asked.lease_keep_alive(lease).await.unwrap(), Some(3));
                seconds(1).await;
            }
            world.network.mend();
            world.start(leader).await;
            seconds(1).await;
            assert_eq!(asked.lease_keep_alive(lease).await.unwrap(), Some(3));
        }
        let store = world.store(world.wait_for_leader().await).unwrap();
        assert_eq!(store.range(RangeRequest::key("k")).await.unwrap().kvs.len(), 1);
        seconds(5).await;
        assert_eq!(store.range(RangeRequest::key("k")).await.unwrap().kvs.len(), 0, "nobody keeps it alive any more");
    });
}
