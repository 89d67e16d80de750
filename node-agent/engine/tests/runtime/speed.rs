//! Many at once: the right number, and no slower than a person notices. `REEVE_BENCH=1` prints figures.

use std::time::Duration;

use futures::future::join_all;
use reeve_engine::engine::Engine as _;
use tokio::time::Instant;

use crate::bed::Bed;

crate::tests![a_hundred_containers_start_at_once, one_container_after_the_other];

async fn a_hundred_containers_start_at_once() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let before = Instant::now();
    let ids = join_all((0..100).map(|n| {
        let config = bed.script(&format!("c{n}"), &format!("echo {n}; exit {}", n % 100));
        bed.start(&sandbox, config)
    }))
    .await;
    let started = before.elapsed();
    for (n, id) in (0..).zip(&ids) {
        assert_eq!(bed.end(id).await.0, Some(n));
    }
    report("100 at once: create and start", started);
    report("100 at once: until the last has ended", before.elapsed());
    report_memory(bed.engine.supervisor_pid().await.unwrap());
    bed.close().await;
}

async fn one_container_after_the_other() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for n in 0..20 {
        let mut at = Instant::now();
        let mut lap = |list: &mut Vec<Duration>| {
            list.push(at.elapsed());
            at = Instant::now();
        };
        let id = bed.engine.create_container(&sandbox.id, bed.command(&format!("t{n}"), &["true"])).await.unwrap();
        lap(&mut times[0]);
        bed.engine.start_container(&id).await.unwrap();
        lap(&mut times[1]);
        assert_eq!(bed.end(&id).await.0, Some(0));
        lap(&mut times[2]);
        bed.engine.remove_container(&id).await.unwrap();
        lap(&mut times[3]);
    }
    for (what, mut list) in ["create", "start", "end", "remove"].into_iter().zip(times) {
        list.sort();
        report(&format!("`true`, p50: {what}"), list[list.len() / 2]);
    }
    let at = Instant::now();
    let sandbox = bed.sandbox().await;
    report("sandbox: run", at.elapsed());
    let at = Instant::now();
    bed.engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    report("sandbox: remove", at.elapsed());
    bed.close().await;
}

fn report(what: &str, time: Duration) {
    if std::env::var_os("REEVE_BENCH").is_some() {
        println!("{what}: {:.2} ms", time.as_secs_f64() * 1e3);
    }
}

fn report_memory(pid: i32) {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    if std::env::var_os("REEVE_BENCH").is_some() {
        smaps
            .lines()
            .filter(|l| l.starts_with("Pss:") || l.starts_with("Private_Dirty"))
            .for_each(|l| println!("supervisor {l}"));
    }
}
