//! `make torture`: three servers under load, and everything that machines do to them: killed, paused, cut off, their
//! clocks turned, their disks filled and stalled. As root; leaves nothing behind.
//!
//! Usage: `REEVE_BIN=PATH torture [CYCLES] [PART…]`: CYCLES times one of the servers is killed, and a tenth as often
//! all of them; the other rounds are done as often as CYCLES is 20. PART is any of `kill pause cut clock full stall`,
//! all of them unless some are named. Ends with 101 at the first thing that is wrong.

use std::process::ExitCode;

use reeve_tests::torture::network::Cut;
use reeve_tests::torture::rounds::{Equipment, Torture};
use reeve_tests::torture::{clock, disk};

const PARTS: [&str; 6] = ["kill", "pause", "cut", "clock", "full", "stall"];
/// Kills unless it is said.
const CYCLES: usize = 200;
/// One of each other round is for so many kills.
const KILLS_PER_ROUND: usize = 20;
/// Everything is checked after so many rounds.
const CHECK_EVERY: usize = 10;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (numbers, parts): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.parse::<usize>().is_ok());
    if let Some(other) = parts.iter().find(|part| !PARTS.contains(&&***part)) {
        eprintln!("error: there is no part {other:?}; there is: {}", PARTS.join(", "));
        return ExitCode::from(64);
    }
    if let Err(err) = disk::own_mounts() {
        eprintln!("error: no mounts of one's own (this needs root): {err}");
        return ExitCode::FAILURE;
    }
    let cycles = numbers.first().and_then(|n| n.parse().ok()).unwrap_or(CYCLES);
    torture(cycles, &|part| parts.is_empty() || parts.iter().any(|named| named == part));
    ExitCode::SUCCESS
}

fn torture(cycles: usize, wanted: &dyn Fn(&str) -> bool) {
    let clocks = wanted("clock") && clock::library().is_some();
    if wanted("clock") && !clocks {
        eprintln!("SKIPPED: clocks are not turned: libfaketime is not installed (deploy/scripts/deps.sh torture)");
    }
    let disks = wanted("full") || wanted("stall");
    let mut torture = Torture::begin(Equipment { disks, clocks }, 1);
    let rounds = cycles.div_ceil(KILLS_PER_ROUND);
    if wanted("kill") {
        repeat(&mut torture, "killed", cycles, |torture, n| {
            if n % 10 == 9 {
                torture.kill_all();
            }
            torture.kill_one();
        });
    }
    if wanted("pause") {
        repeat(&mut torture, "paused", rounds, |torture, _| {
            torture.pause_leader();
            torture.pause_follower();
        });
    }
    if wanted("cut") {
        repeat(&mut torture, "cut off", rounds, |torture, _| {
            for cut in [Cut::Both, Cut::Hears, Cut::Says] {
                torture.cut_leader(cut);
                torture.cut_follower(cut);
            }
            torture.cut_pair();
        });
    }
    if clocks {
        repeat(&mut torture, "clocks turned", rounds.div_ceil(5), |torture, _| torture.turn_clocks());
    }
    if wanted("full") {
        repeat(&mut torture, "disks filled", rounds.div_ceil(2), |torture, _| {
            torture.fill_follower();
            torture.fill_leader();
            torture.fill_all();
        });
    }
    if wanted("stall") {
        repeat(&mut torture, "disks stalled", rounds.div_ceil(5), |torture, _| {
            torture.stall_leader();
            torture.stall_follower();
        });
    }
    let (summary, figures) = torture.finish();
    println!("{figures}\n{summary:?}: none lost, none stale");
}

fn repeat(torture: &mut Torture, what: &str, n: usize, round: impl Fn(&mut Torture, usize)) {
    for done in 0..n {
        round(torture, done);
        if (done + 1) % CHECK_EVERY == 0 || done + 1 == n {
            println!("{what} {} of {n} times: {:?}", done + 1, torture.check());
        }
    }
}
