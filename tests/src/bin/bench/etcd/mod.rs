//! The store next to etcd: both through etcd's protocol, with the same client, TLS, machine and disk, in rounds that
//! take turns, so that whatever else the machine does meets both. What counts is the ratio.

mod certificates;
mod group;
mod load;
mod member;
mod wire;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

pub(crate) use member::serve;

use crate::process;
use crate::sample;
use crate::table::{Row, Table};
use group::{Group, Maker};
use load::{Call, Clients, FILLED_AT_ONCE, Job, Work};

/// How many clients there are at once.
const CLIENTS: [usize; 3] = [1, 64, 512];
/// How often each is measured, in turns, and for how long.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);
/// Keys that are written and read.
const KEYS: u64 = 10_000;
/// Objects that a store is restarted with.
const OBJECTS: u64 = 100_000;
/// Freed memory goes back to the kernel with a delay.
const SETTLE: Duration = Duration::from_secs(5);
/// What a store may take in memory: this, and half of what lives in it.
const MEMORY_BASE: u64 = 16 << 20;

/// What all rounds of one maker came to.
#[derive(Debug, Default)]
struct Total {
    took: Vec<Duration>,
    wall: Duration,
    server: Duration,
    client: Duration,
}

impl Total {
    fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.wall.as_secs_f64()
    }

    fn described(&mut self) -> String {
        let thousands = (self.took.len() as f64 / 1000.0).max(0.001);
        let (server, client) = (self.server.as_secs_f64() / thousands, self.client.as_secs_f64() / thousands);
        let (p50, p99) = (sample::median(&mut self.took), sample::percentile(&mut self.took, 99));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        format!("p50 {:.2} ms, p99 {:.2} ms, CPU of 1,000: {server:.3} s, client's {client:.3} s", ms(p50), ms(p99))
    }
}

/// All rows, or those of one part: so many members, or the restart. Without etcd on the machine it says so, and
/// measures nothing.
pub(crate) async fn compare(folder: &Path, part: &str, table: &mut Table) -> anyhow::Result<()> {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        eprintln!("bench: etcd is not installed: the store is not measured next to it");
        return Ok(());
    }
    let wanted = |name: &str| part.is_empty() || part == name;
    for members in [1, 3].into_iter().filter(|members| wanted(&members.to_string())) {
        let folder = folder.join(format!("etcd-{members}"));
        let ours = Group::start(Maker::Reeve, &folder.join("reeve"), members).await?;
        let theirs = Group::start(Maker::Etcd, &folder.join("etcd"), members).await?;
        requests(&ours, &theirs, members, table).await?;
        drop((ours, theirs));
        std::fs::remove_dir_all(&folder)?;
    }
    if wanted("restart") { restarts(folder, table).await } else { Ok(()) }
}

async fn fill(group: &Group, keys: u64) -> anyhow::Result<()> {
    let clients = Clients::connect(&group.callers()?[..1], 4, Call::Fill).await?;
    let job = Job::new(Call::Fill, keys, keys.div_ceil(FILLED_AT_ONCE), Instant::now() + Duration::from_secs(600));
    clients.work(job).await.context("fill the store").map(drop)
}

async fn requests(ours: &Group, theirs: &Group, members: u64, table: &mut Table) -> anyhow::Result<()> {
    fill(ours, KEYS).await?;
    fill(theirs, KEYS).await?;
    let where_ = if members == 1 { "1 member".to_owned() } else { format!("{members} members") };
    for (call, name) in [(Call::Put, "durable puts of 1 KB"), (Call::Get, "linearizable gets")] {
        for clients in CLIENTS {
            let mut totals = [Total::default(), Total::default()];
            for round in 0..ROUNDS {
                let mut turns = [(0, ours), (1, theirs)];
                turns.rotate_left(round % 2);
                for (at, group) in turns {
                    run(group, call, clients, &mut totals[at]).await.with_context(|| format!("{where_}: {name}"))?;
                }
            }
            let [mut own, mut other] = totals;
            let goal = match (call, clients) {
                (Call::Get, _) => 5.0,
                (_, 1) => 1.0,
                _ => 3.0,
            };
            let s = if clients == 1 { "" } else { "s" };
            let row = Row::new(format!("{name}, {where_}, {clients} client{s}"));
            let row = row.times(own.per_second(), other.per_second(), goal);
            table.push(row.how(format!("{}; etcd: {}", own.described(), other.described())));
        }
    }
    Ok(())
}

async fn run(group: &Group, call: Call, clients: usize, total: &mut Total) -> anyhow::Result<()> {
    let connected = Clients::connect(&group.callers()?, clients, call).await?;
    let own = std::process::id();
    let (server, client) = (group.cpu()?, process::cpu(own)?);
    let Work { mut took, wall } = connected.work(Job::new(call, KEYS, u64::MAX, Instant::now() + ROUND)).await?;
    total.server += group.cpu()?.saturating_sub(server);
    total.client += process::cpu(own)?.saturating_sub(client);
    total.took.append(&mut took);
    total.wall += wall;
    Ok(())
}

async fn restarts(folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let folder = folder.join("etcd-restart");
    let mut took = Vec::new();
    for maker in [Maker::Reeve, Maker::Etcd] {
        let mut group = Group::start(maker, &folder.join(format!("{maker:?}")), 1).await?;
        fill(&group, OBJECTS).await?;
        group.stop()?;
        let clean = group.start_again().await?;
        group.kill();
        let killed = group.start_again().await?;
        tokio::time::sleep(SETTLE).await;
        took.push((clean, killed, group.reading()?));
    }
    std::fs::remove_dir_all(&folder)?;
    let [(clean, killed, memory), (etcd_clean, etcd_killed, etcd_memory)] = took[..] else { return Ok(()) };
    let what = format!("start of the process to the first linearizable get, {OBJECTS} objects of 1 KB");
    table.push(Row::new("restart after a clean end").time(clean).goal_ms(1000).floor(etcd_clean).how(&what));
    table.push(Row::new("restart after kill -9").time(killed).goal_ms(1000).floor(etcd_killed).how(&what));
    let live = OBJECTS * load::object_bytes();
    let row = Row::new("memory of the store").mebibytes(memory.pss_bytes);
    let row = row.goal_mib((MEMORY_BASE + live / 2) >> 20).floor_text(format!("{} MiB", etcd_memory.pss_bytes >> 20));
    table.push(row.how(format!("PSS with these, {} MiB of keys and values; goal: 16 MiB + half of that", live >> 20)));
    Ok(())
}
