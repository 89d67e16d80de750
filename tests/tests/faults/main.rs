//! A little of what `make torture` does for long, with real processes. Needs root.

use reeve_tests::torture::network::Cut;
use reeve_tests::torture::rounds::{Equipment, Torture};

#[test]
fn servers_killed_paused_and_cut_off_under_load_lose_nothing_and_answer_nothing_stale() {
    let mut torture = Torture::begin(Equipment::default(), 1);
    torture.kill_leader();
    torture.pause_leader();
    torture.cut_leader(Cut::Both);
    let (summary, figures) = torture.finish();
    println!("{figures}\n{summary:?}");
    assert!(summary.acknowledged > 50 && summary.reads > 50, "{summary:?} proves little");
}
