//! Single histories about disks that do not give back what was written, or take nothing more.

use std::time::Duration;

use crate::cluster::{Weather, address};
use crate::histories::{history, other, promote, seconds, write};
use crate::world::{get, put};

#[test]
fn a_member_with_damage_in_the_middle_of_its_log_is_refused_and_replaced_while_the_others_go_on() {
    history(50, 3, async |world| {
        let leader = world.leader().unwrap();
        let damaged = other(world, leader);
        for n in 0..50 {
            write(world, leader, "k", &n.to_string()).await;
        }
        world.crash(damaged, false);
        assert!(world.flip(damaged));
        world.start(damaged).await; // the world complains if it starts, or does not say where the damage is
        assert!(world.store(damaged).is_none());
        write(world, leader, "k", "without it").await;
        world.store(leader).unwrap().add_learner(9, &address(9)).await.unwrap();
        world.add(9, true);
        world.start(9).await;
        seconds(5).await;
        world.store(leader).unwrap().replace(damaged, 9).await.unwrap();
        world.scrap(damaged);
        world.crash(leader, true);
        seconds(3).await;
        write(world, 9, "k", "the new one counts").await;
    });
}

#[test]
fn a_snapshot_that_is_damaged_on_the_leaders_disk_is_written_anew_for_who_needs_it() {
    history(51, 1, async |world| {
        for n in 0..400 {
            write(world, 1, &format!("k{}", n % 40), &"x".repeat(2000)).await;
        }
        seconds(1).await;
        let disk = world.disk(1).unwrap();
        let store = world.store(1).unwrap();
        store.add_learner(2, &address(2)).await.unwrap();
        world.add(2, true);
        // The one that the newcomer is offered is written for it; a slow network leaves time to damage it.
        let newest = || disk.files_of("snapshots").into_iter().rfind(|file| file.ends_with(".snap"));
        let before = newest();
        world.network.set_weather(Weather { delay: Duration::from_millis(300), ..Weather::default() });
        world.start(2).await;
        while newest() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let offered = newest().unwrap();
        assert!(disk.flip(&offered, disk.len_of(&offered) / 2));
        seconds(10).await;
        world.network.set_weather(Weather::default());
        promote(world, 2).await;
        seconds(2).await;
        assert_eq!(get(&world.store(2).unwrap(), "k7").await.unwrap(), Some("x".repeat(2000)));
    });
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_to_one_that_has_room() {
    history(52, 3, async |world| {
        let leader = world.leader().unwrap();
        write(world, leader, "k", "before").await;
        // Less than it wants to be free, but enough to say what it has to.
        world.disk(leader).unwrap().leave_free(Some(40 * 1024 * 1024));
        let asked = world.store(other(world, leader)).unwrap();
        put(&asked, "k", "by this it notices").await.unwrap();
        let mut refused = 0;
        while put(&asked, "k", "after").await.is_err() {
            refused += 1;
            assert!(refused < 100, "nobody takes over");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(refused > 0, "it was not full");
        assert_ne!(world.leader(), Some(leader));
        seconds(5).await;
        write(world, leader, "k", "through it, the others write").await;
        world.disk(leader).unwrap().leave_free(None);
    });
}

#[test]
fn where_no_disk_has_room_nobody_hands_over() {
    history(53, 3, async |world| {
        let leader = world.leader().unwrap();
        write(world, leader, "k", "before").await;
        world.ids().into_iter().for_each(|id| world.disk(id).unwrap().leave_free(Some(40 * 1024 * 1024)));
        for id in world.ids() {
            let _ = put(&world.store(id).unwrap(), "k", "whoever writes notices").await;
        }
        seconds(10).await; // by now everybody has noticed, and said so
        let (next, term) = (world.leader().unwrap(), world.store(leader).unwrap().leadership().borrow().term);
        seconds(30).await;
        assert_eq!(world.leader(), Some(next));
        assert_eq!(world.store(leader).unwrap().leadership().borrow().term, term, "leaders come and go");
        assert!(put(&world.store(next).unwrap(), "k", "no room").await.is_err());
        assert_eq!(get(&world.store(next).unwrap(), "k").await.unwrap(), Some("whoever writes notices".to_owned()));
        world.ids().into_iter().for_each(|id| world.disk(id).unwrap().leave_free(None));
        seconds(5).await;
        write(world, next, "k", "after").await;
    });
}
