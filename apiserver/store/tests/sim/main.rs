//! The simulation: three or five members of one store in one process, all production code above the seams, on virtual
//! time, a network that loses, repeats, delays, reorders and cuts, and disks that stall, fail, fill up, flip bits
//! and lose what was not synced. Everything is drawn from one seed.
//!
//! While it goes wrong, nothing may *be* wrong (`ledger.rs`); when all is healed, everything must go on.
//!
//! `make sim SEEDS=1000` runs more seeds than CI does. A failure names its seed and how to run that one alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod clients;
#[path = "../cluster/mod.rs"]
mod cluster;
mod damage;
mod histories;
mod holders;
mod lease_histories;
mod ledger;
mod nemesis;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use reeve_api::rng::{RngExt as _, SeededRng};

use crate::nemesis::Kind;
use crate::world::World;

/// How long things go wrong, in virtual time.
const STORM: Duration = Duration::from_secs(25);
/// Seeds in the ordinary tests.
const SEEDS: u64 = 200;

thread_local! {
    /// What panicked on this thread, while a simulation runs on it: a member that panics takes nobody with it, but it
    /// is a bug.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Has panics noted where a simulation runs; all others are told as ever.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANICS.try_with(|panics| panics.borrow_mut().as_mut().map(|all| all.push(info.to_string())));
            if !matches!(noted, Ok(Some(()))) {
                told(info);
            }
        }));
    });
}

/// Runs something on a runtime of its own whose time is virtual, and notes every panic on the way.
fn in_virtual_time<T>(run: impl Future<Output = T>) -> Result<T, String> {
    note_panics();
    PANICS.with(|panics| *panics.borrow_mut() = Some(Vec::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run)));
    drop(runtime);
    let panics = PANICS.with(RefCell::take).unwrap_or_default();
    match outcome {
        Ok(value) if panics.is_empty() => Ok(value),
        _ => Err(panics.join("\n")),
    }
}

/// One whole life of a group; what it comes to, as a number that depends on everything that happened.
async fn live(seed: u64, founders: u64) -> u64 {
    let world = World::found(seed, founders).await;
    let (clients, holders) = (clients::spawn(&world, 4), clients::spawn_holders(&world, 2));
    // Whose disk is damaged must be replaced, which is a change of the members: others would get into its way.
    let kind = if seed % 2 == 0 { Kind::Members } else { Kind::Damage };
    let storm = nemesis::rage(&world, STORM, kind);
    storm.await;
    world.heal().await;
    nemesis::replace_damaged(&world).await;
    clients.stop().await;
    let keys = holders.stop().await;
    world.check_that_it_goes_on().await;
    world.check_that_they_go(&keys.concat()).await;
    world.check_that_members_agree().await;
    world.ledger.check_everything();
    world.fingerprint()
}

fn run(seed: u64, founders: u64) -> u64 {
    let trace = Arc::new(std::sync::Mutex::new(Vec::new()));
    let outcome = in_virtual_time(world::traced(trace.clone(), live(seed, founders)));
    outcome.unwrap_or_else(|failure| {
        let trace = trace.lock().unwrap().join("\n");
        panic!(
            "{trace}\n{failure}\nseed {seed} with {founders} members; again with:\n\
             REEVE_SIM_SEED={seed} cargo test -p reeve-store --features sim --test sim with_{founders}_members"
        );
    })
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match (number("REEVE_SIM_SEED"), number("REEVE_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(n)) => (0..n).collect(),
        // Other ones every day would find more, but a test that fails must fail again.
        (None, None) => (0..SEEDS).collect(),
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_stale_with_3_members() {
    for seed in seeds() {
        run(seed, 3);
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_stale_with_5_members() {
    let seeds = seeds();
    let n = if seeds.len() == 1 { 1 } else { seeds.len() / 3 };
    for seed in seeds.into_iter().take(n) {
        run(seed, 5);
    }
}

#[test]
fn a_seed_replays_exactly() {
    let seed = SeededRng::from_os().below(1_000_000);
    assert_eq!(run(seed, 3), run(seed, 3), "seed {seed}");
}
