//! Makes things go wrong.

use std::time::Duration;

use reeve_store::{Kv as _, MemberError, Revision};

use crate::cluster::{Weather, address};
use crate::world::World;

/// Members that come later have numbers from here on.
const NEWCOMERS: u64 = 11;
/// More than so many at one time do not make anything harder.
const MEMBERS_MAX: usize = 6;

/// What goes wrong besides all else: not both, for they get into each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Members come and go.
    Members,
    /// Bits flip on disks, and whom that has hit is replaced.
    Damage,
}

/// Does one bad thing after the other for a while.
pub(crate) async fn rage(world: &World, time: Duration, kind: Kind) {
    let end = world.clock.monotonic() + time;
    let mut newcomer = NEWCOMERS;
    while world.clock.monotonic() < end {
        tokio::time::sleep(Duration::from_millis(50 + world.below(1500))).await;
        if let Some(complaint) = world.ledger.complaint() {
            panic!("{complaint}");
        }
        match world.below(18) {
            0 | 1 => weather(world),
            2 => part(world),
            3 => cut_one_way(world),
            4 => isolate_leader(world),
            5 | 6 => mend(world),
            7 | 8 if world.running().len() * 2 > world.ids().len() + 1 || world.below(3) == 0 => crash(world),
            7..=10 => restart(world).await,
            11 => stall(world),
            12 => disk(world),
            13 => transfer(world),
            14 | 15 => compact(world),
            _ if kind == Kind::Members => members(world, &mut newcomer).await,
            _ if world.damaged().is_empty() => flip(world).await,
            _ => drop(replace_one(world).await),
        }
    }
}

/// Removes most of history.
fn compact(world: &World) {
    let Some((id, store)) = world.any_store() else { return };
    let before = Revision(store.revision().0.saturating_sub(world.below(200)));
    if before.0 > 1 {
        world.note(format!("member {id} is asked to forget what was before {before}"));
        world.ledger.may_forget(before);
        tokio::spawn(async move { store.compact(before).await });
    }
}

/// A voter goes down, and a bit flips on its disk, when all others can do without it.
async fn flip(world: &World) {
    let Some((_, store)) = world.any_store() else { return };
    let Ok(status) = store.status().await else { return };
    let voters = status.members.iter().filter(|member| member.voter).count();
    let Some(id) = world.pick(&world.ids()) else { return };
    if voters > 2 && status.members.len() == voters && world.ids().len() == voters {
        world.crash(id, world.below(2) == 0);
        world.flip(id);
    }
}

/// Has somebody new take the place of whoever is damaged, as far as that is possible now. What `reeve member replace`
/// and another start do.
async fn replace_one(world: &World) -> Option<()> {
    let dead = *world.damaged().first()?;
    let leader = world.leader()?;
    let store = world.store(leader)?;
    let status = store.status().await.ok()?;
    if !status.members.iter().any(|member| member.id == dead) {
        world.scrap(dead);
        return Some(());
    }
    let learner = status.members.iter().find(|member| !member.voter).map(|member| member.id);
    if let Some(learner) = learner {
        let replaced = store.replace(dead, learner).await;
        world.note(format!("replace {dead} by {learner}: {replaced:?}"));
        return replaced.ok();
    }
    let id = world.ids().into_iter().max()?.max(NEWCOMERS) + 1;
    let added = store.add_learner(id, &address(id)).await;
    world.note(format!("add {id}: {added:?}"));
    if !matches!(&added, Err(MemberError::Busy | MemberError::Removed { .. })) {
        world.add(id, true);
        world.start(id).await;
    }
    None
}

/// Replaces everybody who is damaged.
pub(crate) async fn replace_damaged(world: &World) {
    world
        .eventually("whoever is damaged is not replaced", || async {
            let _ = replace_one(world).await;
            world.damaged().is_empty().then_some(())
        })
        .await;
}

fn weather(world: &World) {
    let delays = [0, 2, 20, 150];
    let delay = Duration::from_millis(world.pick(&delays).unwrap());
    let weather = Weather { lost: world.below(150), repeated: world.below(100), delay };
    world.note(format!("{weather:?}"));
    world.network.set_weather(weather);
}

/// Parts the members in two.
fn part(world: &World) {
    let ids = world.ids();
    let (left, right): (Vec<u64>, Vec<u64>) = ids.into_iter().partition(|_| world.below(2) == 0);
    world.note(format!("{left:?} and {right:?} are parted"));
    for a in &left {
        for b in &right {
            world.network.cut(*a, *b);
            world.network.cut(*b, *a);
        }
    }
}

fn cut_one_way(world: &World) {
    let ids = world.ids();
    if let (Some(from), Some(to)) = (world.pick(&ids), world.pick(&ids)) {
        world.note(format!("nothing goes from {from} to {to}"));
        world.network.cut(from, to);
    }
}

fn isolate_leader(world: &World) {
    if let Some(leader) = world.leader() {
        world.note(format!("leader {leader} is alone"));
        world.network.isolate(leader, world.ids());
    }
}

fn mend(world: &World) {
    world.note("the network is whole");
    world.network.mend();
}

fn crash(world: &World) {
    if let Some(id) = world.pick(&world.running()) {
        let power = world.below(2) == 0;
        world.note(format!("member {id} dies{}", if power { " with its machine" } else { "" }));
        world.crash(id, power);
    }
}

async fn restart(world: &World) {
    let running = world.running();
    let down: Vec<u64> = world.ids().into_iter().filter(|id| !running.contains(id)).collect();
    if let Some(id) = world.pick(&down) {
        world.note(format!("member {id} comes back"));
        world.start(id).await;
    }
}

fn stall(world: &World) {
    if let Some(id) = world.pick(&world.running()) {
        let time = Duration::from_millis(world.pick(&[200, 900, 3_000, 8_000]).unwrap());
        world.note(format!("the disk of {id} does not answer for {time:?}"));
        world.stall(id, time);
    }
}

fn disk(world: &World) {
    let Some(id) = world.pick(&world.running()) else { return };
    let Some(disk) = world.disk(id) else { return };
    match world.below(4) {
        0 => {
            world.note(format!("the disk of {id} cannot sync"));
            world.break_disk(id);
        }
        1 => {
            let left = usize::try_from(world.below(200)).unwrap() * 1024 * 1024 / 2;
            world.note(format!("{left} bytes are free on the disk of {id}"));
            disk.leave_free(Some(left));
        }
        _ => {
            world.note(format!("there is room on the disk of {id}"));
            disk.leave_free(None);
        }
    }
}

fn transfer(world: &World) {
    if let Some((id, store)) = world.any_store() {
        world.note(format!("member {id} is asked for another leader"));
        tokio::spawn(async move { store.transfer_leadership(None).await });
    }
}

/// Adds, promotes, removes.
async fn members(world: &World, newcomer: &mut u64) {
    let Some((_, store)) = world.any_store() else { return };
    let Ok(status) = store.status().await else { return };
    let learners: Vec<u64> = status.members.iter().filter(|m| !m.voter).map(|m| m.id).collect();
    let voters: Vec<u64> = status.members.iter().filter(|m| m.voter).map(|m| m.id).collect();
    let outcome: (String, Result<(), MemberError>) = match (world.below(4), world.pick(&learners)) {
        (0, _) if status.members.len() < MEMBERS_MAX => {
            let id = *newcomer;
            *newcomer += 1;
            let added = store.add_learner(id, &address(id)).await;
            if !matches!(&added, Err(MemberError::Busy | MemberError::Removed { .. })) {
                world.add(id, true); // if it was not added after all, it waits for ever
                world.start(id).await;
            }
            (format!("add {id}"), added)
        }
        (1, Some(learner)) => (format!("promote {learner}"), store.promote(learner).await),
        (2, Some(learner)) => {
            let Some(voter) = world.pick(&voters) else { return };
            (format!("replace {voter} by {learner}"), store.replace(voter, learner).await)
        }
        // A store that has shrunk to one member shows nothing of members that agree.
        (3, _) if voters.len() > 2 => {
            let all: Vec<u64> = status.members.iter().map(|m| m.id).collect();
            let Some(id) = world.pick(&all) else { return };
            (format!("remove {id}"), store.remove(id).await)
        }
        _ => return,
    };
    world.note(format!("{}: {:?}", outcome.0, outcome.1));
}
