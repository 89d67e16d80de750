//! Single histories: what once went wrong in etcd (by the numbers of its issues) or would be easy to get wrong, each
//! in virtual time.

use std::sync::Arc;
use std::time::Duration;

use reeve_api::rng::SeededRng;
use reeve_store::view::MemoryView;
use reeve_store::{
    Jobs, Kv as _, KvError, MemberConfig, MemberError, Op, OpenError, Parcel, Peer, RangeRequest, ReceiveError,
    Revision, Role, SimDisk, Store, StoreConfig, Txn,
};

use crate::cluster::{Network, RuntimeClock, Weather, address};
use crate::in_virtual_time;
use crate::world::{World, get, put};

pub(crate) fn history(seed: u64, members: u64, run: impl AsyncFnOnce(&World)) {
    let outcome = in_virtual_time(async {
        let world = World::found(seed, members).await;
        world.wait_for_leader().await;
        run(&world).await;
        if let Some(complaint) = world.ledger.complaint() {
            panic!("{complaint}");
        }
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

pub(crate) async fn write(world: &World, through: u64, key: &str, value: &str) {
    put(&world.store(through).unwrap(), key, value).await.unwrap();
}

/// Somebody who is not this one.
pub(crate) fn other(world: &World, than: u64) -> u64 {
    world.running().into_iter().find(|id| *id != than).unwrap()
}

pub(crate) async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

#[test]
fn a_leader_that_is_cut_off_answers_no_reads_from_before_etcd_20418() {
    history(1, 3, async |world| {
        let leader = world.leader().unwrap();
        write(world, leader, "k", "old").await;
        world.network.isolate(leader, world.ids());
        let asked = tokio::spawn({
            let store = world.store(leader).unwrap();
            async move { get(&store, "k").await }
        });
        seconds(4).await;
        let new = world
            .running()
            .into_iter()
            .find(|id| *id != leader && world.store(*id).unwrap().leadership().borrow().role == Role::Leader);
        write(world, new.expect("the others have elected one"), "k", "new").await;
        let answer = asked.await.unwrap();
        assert!(matches!(&answer, Err(KvError::Unavailable { .. })), "{answer:?}");
        world.network.mend();
        seconds(3).await;
        assert_eq!(get(&world.store(leader).unwrap(), "k").await.unwrap(), Some("new".to_owned()));
    });
}

#[test]
fn a_write_that_was_acknowledged_survives_the_death_of_the_one_that_did_etcd_14370() {
    history(2, 3, async |world| {
        for round in 0..5 {
            let leader = world.wait_for_leader().await;
            write(world, leader, "k", &round.to_string()).await;
            world.crash(leader, true);
            let next = other(world, leader);
            let read = get(&world.store(next).unwrap(), "k").await.unwrap();
            assert_eq!(read, Some(round.to_string()));
            world.start(leader).await;
            seconds(2).await;
        }
    });
}

#[test]
fn a_sole_member_keeps_what_it_has_acknowledged_when_its_machine_dies_etcd_14370() {
    history(3, 1, async |world| {
        for round in 0..5 {
            write(world, 1, "k", &round.to_string()).await;
            world.crash(1, true);
            world.start(1).await;
            assert_eq!(get(&world.store(1).unwrap(), "k").await.unwrap(), Some(round.to_string()));
        }
    });
}

#[test]
fn members_that_die_under_load_come_back_with_the_same_revisions_etcd_13766() {
    history(4, 3, async |world| {
        for round in 0..6_u64 {
            let victim = round % 3 + 1;
            let writers: Vec<_> = (0..40)
                .map(|n| {
                    let store = world.any_store().unwrap().1;
                    tokio::spawn(async move { put(&store, &format!("k{}", n % 7), &format!("{round}/{n}")).await })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(3)).await;
            world.crash(victim, round % 2 == 0);
            for writer in writers {
                let _ = writer.await; // some were told of it, some were not
            }
            world.start(victim).await;
            seconds(3).await;
        }
        world.check_that_it_goes_on().await; // all have told the same history by now
    });
}

#[test]
fn a_member_that_is_too_far_behind_gets_a_snapshot_and_its_watchers_miss_nothing() {
    history(5, 3, async |world| {
        let leader = world.leader().unwrap();
        let behind = other(world, leader);
        world.network.isolate(behind, world.ids());
        for n in 0..300 {
            write(world, leader, &format!("k{}", n % 50), &"x".repeat(60_000)).await;
        }
        world.network.mend();
        seconds(20).await;
        let store = world.store(behind).unwrap();
        assert_eq!(store.revision(), world.store(leader).unwrap().revision());
        assert_eq!(world.ledger.seen_by(behind), store.revision(), "its watcher has seen every revision");
        write(world, behind, "k", "through it").await;
    });
}

#[test]
fn snapshots_shortly_after_one_another_do_no_harm_etcd_18055() {
    history(6, 3, async |world| {
        let leader = world.leader().unwrap();
        let behind = other(world, leader);
        for round in 0..4 {
            world.network.isolate(behind, world.ids());
            for n in 0..170 {
                write(world, leader, &format!("{round}/{}", n % 20), &"x".repeat(60_000)).await;
            }
            world.network.set_weather(Weather { lost: 200, repeated: 200, delay: Duration::from_millis(30) });
            world.network.mend();
            // Not long enough for all of it: the next one comes while this one is fetched, or has just been.
            tokio::time::sleep(Duration::from_millis(400 + 300 * round)).await;
            world.network.set_weather(Weather::default());
            if round == 2 {
                world.crash(behind, true);
                world.start(behind).await;
            }
        }
        seconds(30).await;
        world.check_that_it_goes_on().await;
    });
}

#[test]
fn a_leader_whose_disk_does_not_answer_steps_down_and_comes_back_without_a_storm() {
    history(7, 3, async |world| {
        let leader = world.leader().unwrap();
        write(world, leader, "k", "before").await;
        world.stall(leader, Duration::from_secs(40));
        let store = world.store(leader).unwrap();
        let stuck = tokio::spawn(async move { put(&store, "k", "stuck").await });
        seconds(6).await;
        let next = world.leader().unwrap();
        assert_ne!(next, leader);
        let term = world.store(next).unwrap().leadership().borrow().term;
        for n in 0..30 {
            write(world, next, "k", &n.to_string()).await;
            seconds(1).await;
        }
        let _ = stuck.await;
        seconds(10).await;
        let known = *world.store(leader).unwrap().leadership().borrow();
        assert_eq!((known.leader, known.term), (Some(next), term), "one election was enough");
        assert_eq!(get(&world.store(leader).unwrap(), "k").await.unwrap(), Some("29".to_owned()));
    });
}

#[test]
fn a_member_with_a_full_disk_holds_nobody_up_and_gets_everything_when_there_is_room() {
    history(8, 3, async |world| {
        let leader = world.leader().unwrap();
        let full = other(world, leader);
        world.disk(full).unwrap().leave_free(Some(100));
        for n in 0..50 {
            write(world, leader, "k", &n.to_string()).await;
        }
        world.disk(full).unwrap().leave_free(None);
        seconds(10).await;
        assert_eq!(get(&world.store(full).unwrap(), "k").await.unwrap(), Some("49".to_owned()));
        write(world, full, "k", "there is room").await;
    });
}

#[test]
fn one_becomes_three_becomes_five_and_one_again_under_load() {
    history(9, 1, async |world| {
        let clients = crate::clients::spawn(world, 3);
        for id in 2..=5 {
            let leader = world.leader().unwrap();
            world.store(leader).unwrap().add_learner(id, &address(id)).await.unwrap();
            world.add(id, true);
            world.start(id).await;
            promote(world, id).await;
        }
        let status = world.store(3).unwrap().status().await.unwrap();
        assert_eq!(status.members.iter().filter(|member| member.voter).count(), 5);
        assert_eq!(world.network.told(1).len(), 4, "the transport knows everybody");
        for id in 1..=4 {
            let asked = other(world, id);
            let removed = world.store(asked).unwrap().remove(id).await;
            removed.unwrap_or_else(|err| panic!("cannot remove {id} through {asked}: {err}"));
            seconds(3).await;
            world.scrap(id);
        }
        clients.stop().await;
        write(world, 5, "k", "alone again").await;
        let status = world.store(5).unwrap().status().await.unwrap();
        assert_eq!(status.members.iter().map(|member| member.id).collect::<Vec<_>>(), [5]);
        world.ledger.check_everything();
    });
}

pub(crate) async fn promote(world: &World, id: u64) {
    for _ in 0..100 {
        let leader = world.wait_for_leader().await;
        match world.store(leader).unwrap().promote(id).await {
            Ok(()) => return,
            Err(MemberError::Behind { .. } | MemberError::LosesQuorum { .. } | MemberError::Busy) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(err) => panic!("{err}"),
        }
    }
    panic!("learner {id} does not catch up");
}

#[test]
fn a_learner_does_not_vote_before_it_has_caught_up() {
    history(10, 1, async |world| {
        for n in 0..500 {
            write(world, 1, &n.to_string(), "x").await;
        }
        let store = world.store(1).unwrap();
        store.add_learner(2, &address(2)).await.unwrap();
        let err = store.promote(2).await.unwrap_err();
        assert!(matches!(err, MemberError::Behind { id: 2, entries: 500.. }), "{err}");
        write(world, 1, "k", "a learner that is not there holds nobody up").await;
        world.add(2, true);
        world.start(2).await;
        promote(world, 2).await;
        assert_eq!(get(&world.store(2).unwrap(), "499").await.unwrap(), Some("x".to_owned()));
    });
}

#[test]
fn a_dead_member_is_replaced_in_one_step_and_what_would_lose_the_quorum_is_refused() {
    history(11, 3, async |world| {
        let leader = world.leader().unwrap();
        let dead = other(world, leader);
        world.scrap(dead);
        seconds(3).await;
        let store = world.store(leader).unwrap();
        let third = other(world, leader);
        let err = store.remove(third).await.unwrap_err();
        assert!(matches!(err, MemberError::LosesQuorum { voters: 2, reachable: 1, needed: 2 }), "{err}");
        store.add_learner(4, &address(4)).await.unwrap();
        world.add(4, true);
        world.start(4).await;
        seconds(5).await;
        world.store(third).unwrap().replace(dead, 4).await.unwrap();
        seconds(2).await;
        let status = store.status().await.unwrap();
        let voters: Vec<u64> = status.members.iter().filter(|member| member.voter).map(|member| member.id).collect();
        assert_eq!(
            voters,
            [leader, third, 4].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
        let err = store.add_learner(dead, "elsewhere:1").await.unwrap_err();
        assert!(matches!(err, MemberError::Removed { .. }), "{err}");
        world.crash(leader, true);
        seconds(5).await;
        write(world, 4, "k", "the new one counts").await;
    });
}

#[test]
fn a_member_that_is_restarted_still_knows_who_belongs_to_the_group() {
    history(12, 1, async |world| {
        world.store(1).unwrap().add_learner(2, &address(2)).await.unwrap();
        world.add(2, true);
        world.start(2).await;
        promote(world, 2).await;
        for power in [false, true] {
            for id in [1, 2] {
                world.crash(id, power);
            }
            for id in [1, 2] {
                world.start(id).await;
            }
            seconds(5).await;
            let status = world.store(1).unwrap().status().await.unwrap();
            let members: Vec<_> = status.members.iter().map(|m| (m.id, m.voter, m.address.clone())).collect();
            assert_eq!(members, [(1, true, address(1)), (2, true, address(2))]);
            write(world, 1, "k", "both count").await;
        }
    });
}

#[test]
fn a_leader_that_is_stopped_in_order_hands_over_without_an_election_timeout() {
    history(13, 3, async |world| {
        let leader = world.leader().unwrap();
        write(world, leader, "k", "1").await;
        let before = world.clock.monotonic();
        world.stop(leader).await;
        write(world, other(world, leader), "k", "2").await;
        let took = world.clock.monotonic().saturating_sub(before);
        assert!(took < Duration::from_millis(700), "nobody led for {took:?}");
    });
}

#[test]
fn a_write_through_a_follower_is_made_once_whatever_the_network_does() {
    history(14, 3, async |world| {
        let weather = Weather { lost: 200, repeated: 500, delay: Duration::from_millis(40) };
        world.network.set_weather(weather);
        let clients = crate::clients::spawn(world, 6);
        seconds(40).await;
        world.network.set_weather(Weather::default());
        clients.stop().await;
        seconds(2).await;
        world.ledger.check_everything(); // among others that every value stands in history once
    });
}

#[test]
fn without_a_majority_callers_are_told_so() {
    history(15, 3, async |world| {
        let leader = world.leader().unwrap();
        let lonely = other(world, leader);
        world.ids().into_iter().filter(|id| *id != lonely).for_each(|id| world.crash(id, false));
        seconds(5).await;
        let store = world.store(lonely).unwrap();
        let err = put(&store, "k", "1").await.unwrap_err().to_string();
        assert_eq!(err, "store is not available: no answer within 7s: there is no leader");
        let err = get(&store, "k").await.unwrap_err().to_string();
        assert_eq!(err, "store is not available: no answer within 7s: there is no leader");
        let err = store.add_learner(9, "x:1").await.unwrap_err().to_string();
        assert_eq!(err, "the members cannot be changed now: there is no leader");
    });
}

#[test]
fn after_a_partition_a_watch_goes_on_where_it_was_etcd_15271() {
    history(16, 3, async |world| {
        for round in 0..5 {
            let leader = world.wait_for_leader().await;
            let apart = other(world, leader);
            write(world, apart, "k", &format!("{round} before")).await;
            world.network.isolate(apart, world.ids());
            for n in 0..20 {
                write(world, leader, "k", &format!("{round}/{n}")).await;
            }
            seconds(3).await;
            world.network.mend();
            seconds(5).await;
            // The ledger complains of whatever comes twice, late, or not at all.
            let newest = world.store(leader).unwrap().revision();
            assert_eq!(world.ledger.seen_by(apart), newest);
        }
    });
}

#[test]
fn a_death_while_history_is_removed_takes_no_revision_back_etcd_17780() {
    history(17, 3, async |world| {
        world.forget_watches();
        for round in 0..6_u64 {
            let leader = world.wait_for_leader().await;
            for n in 0..60 {
                write(world, leader, &format!("k{}", n % 5), &format!("{round}/{n}")).await;
            }
            let store = world.store(leader).unwrap();
            let newest = store.revision();
            store.compact(Revision(newest.0 - 3)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(round)).await; // the removal is somewhere on its way
            world.ids().into_iter().for_each(|id| world.crash(id, round % 2 == 0));
            for id in world.ids() {
                world.start(id).await;
            }
            let again = world.wait_for_leader().await;
            let read = world.store(again).unwrap().range(RangeRequest::key("k4")).await.unwrap();
            assert_eq!((read.revision, read.kvs[0].value.clone()), (newest, format!("{round}/59").into()));
            seconds(3).await;
            world.check_that_members_agree().await;
        }
    });
}

#[test]
fn a_read_of_compacted_history_in_a_transaction_comes_out_the_same_everywhere_etcd_18667() {
    history(18, 3, async |world| {
        world.forget_watches();
        for round in 0..10_u64 {
            let leader = world.wait_for_leader().await;
            write(world, leader, "k", &round.to_string()).await;
            let newest = world.store(leader).unwrap().revision();
            let compaction = tokio::spawn({
                let store = world.store(leader).unwrap();
                async move { store.compact(newest).await }
            });
            let follower = world.store(other(world, leader)).unwrap();
            let read = RangeRequest { revision: Some(Revision(newest.0 - 1)), ..RangeRequest::key("k") };
            let put = Op::Put { key: "in the same transaction".into(), value: round.to_string().into() };
            // Whether the read comes before the compaction or after it is for the log to say.
            let _ = follower.txn(Txn { then: vec![Op::Range(read), put], ..Txn::default() }).await;
            compaction.await.unwrap().unwrap();
            seconds(1).await;
            world.check_that_members_agree().await;
        }
    });
}

#[test]
fn a_member_that_comes_back_elsewhere_says_so() {
    history(19, 3, async |world| {
        let leader = world.leader().unwrap();
        let moved = other(world, leader);
        world.crash(moved, false);
        world.start_at(moved, "elsewhere:2380").await;
        seconds(6).await;
        for id in world.ids().into_iter().filter(|id| *id != moved) {
            let told = world.network.told(id);
            let peer = told.iter().find(|peer| peer.id == moved).unwrap();
            assert_eq!(peer.address, "elsewhere:2380", "as member {id} was told");
        }
    });
}

#[test]
fn whoever_has_been_removed_is_heard_no_more_and_knows_it() {
    history(20, 3, async |world| {
        let leader = world.leader().unwrap();
        let removed = other(world, leader);
        world.store(removed).unwrap().remove(removed).await.unwrap();
        seconds(2).await;
        let err = put(&world.store(removed).unwrap(), "k", "1").await.unwrap_err().to_string();
        assert_eq!(err, "store is not available: this member was removed from the group");
        let parcel = Parcel { from: removed, to: leader, message: Vec::new().into(), urgent: true };
        let heard = world.store(leader).unwrap().inbox().receive(parcel).await;
        assert_eq!(heard, Err(ReceiveError::Removed { from: removed }));
        write(world, leader, "k", "two are enough").await;
    });
}

#[test]
fn after_the_death_of_a_leader_the_next_write_is_acknowledged_within_a_second() {
    let mut took = Vec::new();
    for seed in 100..150 {
        history(seed, 3, async |world| {
            world.network.set_weather(Weather { delay: Duration::from_millis(1), ..Weather::default() });
            let leader = world.leader().unwrap();
            let asked = world.store(other(world, leader)).unwrap();
            write(world, leader, "k", "before").await;
            tokio::time::sleep(Duration::from_millis(world.below(1000))).await;
            world.crash(leader, false);
            let died = world.clock.monotonic();
            put(&asked, "k", "after").await.unwrap();
            took.push(world.clock.monotonic().saturating_sub(died));
        });
    }
    took.sort_unstable();
    let (half, all) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(half <= Duration::from_millis(400) && all <= Duration::from_secs(1), "half within {half:?}, all {all:?}");
}

#[test]
fn a_store_that_was_alone_becomes_a_member_and_no_other_one() {
    let outcome = in_virtual_time(async {
        let (disk, views, clock) = (SimDisk::default(), MemoryView::default(), RuntimeClock::shared());
        let network = Network::new(Arc::new(SeededRng::new(21)));
        let open = |member: MemberConfig| {
            Store::open(StoreConfig {
                disk: Arc::new(disk.clone()),
                views: Arc::new(views.clone()),
                jobs: Jobs::simulated(|| Duration::from_millis(1)),
                member,
                ..StoreConfig::new("/nonexistent", clock.clone(), Arc::new(SeededRng::new(21)))
            })
        };
        let member = |id, cluster| {
            let peers = vec![Peer { id, address: address(id) }];
            MemberConfig::Cluster { id, cluster, peers, transport: network.transport(id) }
        };
        let alone = open(MemberConfig::Sole).await.unwrap();
        put(&alone, "k", "from before").await.unwrap();
        alone.close().await.unwrap();
        let err = open(member(2, 7)).await.unwrap_err().to_string();
        let (whose, as_whom) = ("member 1 of cluster 0, version 1", "member 2 of cluster 7, version 1");
        assert_eq!(err, format!("sim:/member belongs to {whose}, but was opened as {as_whom}"));
        let first = open(member(1, 7)).await.unwrap();
        network.plug_in(1, first.inbox());
        seconds(1).await;
        let told = first.status().await.unwrap().members;
        assert_eq!((told.len(), told[0].address.clone()), (1, address(1)), "it has said where it is");
        first.add_learner(2, &address(2)).await.unwrap();
        first.close().await.unwrap();
        assert!(matches!(open(member(1, 8)).await, Err(OpenError::Identity { .. })));
        assert!(matches!(open(MemberConfig::Sole).await, Err(OpenError::Identity { .. })));
        let again = open(member(1, 7)).await.unwrap();
        assert_eq!(get(&again, "k").await.unwrap(), Some("from before".to_owned()));
        assert_eq!(again.status().await.unwrap().members.len(), 2);
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
