//! `make bench`: the figures of a one-node cluster, measured through its API and `/proc`, as a table.
//!
//! Usage: `bench PATH_TO_REEVE` (as root); `bench --api KUBECONFIG PID` only loads the API server that runs as that
//! process, which may be anybody's; `bench --etcd` only measures the store next to etcd. Makes clusters of its own in
//! their own network namespaces and leaves nothing behind. Not here: the micro-benchmarks of single crates
//! (`cargo bench -p CRATE`).

mod api;
mod bare;
mod cluster;
mod etcd;
mod floor;
mod http;
mod pods;
mod process;
mod sample;
mod table;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::api::Target;
use crate::bare::Bare;
use crate::cluster::{Cluster, Program};
use crate::http::Server;
use crate::process::Reading;
use crate::table::{Row, Table};

/// Fresh starts, and starts of a cluster that was there before.
const STARTS: usize = 5;
/// How long an empty cluster is left alone before its memory is read, and then watched for its use of the CPU.
const IDLE: Duration = Duration::from_secs(10);
/// How long the cluster with many pods is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);
const PODS_ONE_BY_ONE: usize = 40;
const PODS_AT_ONCE: usize = 50;
/// How many clients load the API at once.
const CLIENTS: [usize; 3] = [1, 16, 64];
/// How many objects the API server holds when its memory is read.
const OBJECTS: usize = 20_000;

/// As the program that is measured has it: members of a store run in this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match args.as_slice() {
        [option, folder] if option == "--bare" => bare::serve(Path::new(folder)),
        [option, file] if option == "--member" => etcd::serve(Path::new(file)),
        _ => measured(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Without the backtrace that `{err:?}` may have.
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// One worker: the measured cluster keeps the other cores.
#[tokio::main(flavor = "current_thread")]
async fn measured() -> anyhow::Result<()> {
    run().await
}

async fn run() -> anyhow::Result<()> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let folder = tempfile::Builder::new().prefix("reeve-bench-").tempdir().context("make a folder")?;
    let program = match args.as_slice() {
        [option, kubeconfig, pid, part @ ..] if option == "--api" && part.len() < 2 => {
            let part = part.first().and_then(|part| part.to_str()).unwrap_or_default();
            let pid = pid.to_str().and_then(|pid| pid.parse().ok()).context("PID is not a number")?;
            let mut table = Table::default();
            let target = Target { server: Server::of(Path::new(kubeconfig))?, pid };
            let outcome = load(&target, folder.path(), part, &mut table).await;
            table.print();
            return outcome;
        }
        [option, part @ ..] if option == "--etcd" && part.len() < 2 => {
            let part = part.first().and_then(|part| part.to_str()).unwrap_or_default();
            let mut table = Table::default();
            let outcome = tokio::select! {
                outcome = etcd::compare(folder.path(), part, &mut table) => outcome,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            };
            table.print();
            return outcome;
        }
        [program] => PathBuf::from(program),
        _ => anyhow::bail!(
            "usage: bench PATH_TO_REEVE, bench --etcd [1|3|restart], \
             or bench --api KUBECONFIG PID [memory|requests|lists|watches]"
        ),
    };
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "bench starts containers: it must be run as root");
    let mut table = Table::default();
    let outcome = tokio::select! {
        outcome = measure(&program, folder.path(), &mut table) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    table.print();
    outcome
}

async fn measure(program: &Path, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let size = std::fs::metadata(program).with_context(|| format!("read {}", program.display()))?.len();
    let program = Program::copy(program, folder)?;
    starts(&program, folder, table)?;
    let cluster = Cluster::up(&program, folder, "pods")?;
    idle(&cluster, table).await?;
    containers(&cluster, folder, table).await?;
    api(&cluster, folder, table).await?;
    drop(cluster);
    etcd::compare(folder, "", table).await?;
    table.push(Row::new("release binary").mebibytes(size).goal_mb(60).how("size of the file, stripped"));
    Ok(())
}

/// `reeve up`, from its start to its end, which is when the node is Ready.
fn starts(program: &Program, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let exec = floor::exec(&program.path, &["version", "--client"], STARTS)?;
    let (mut fresh, mut again) = (Vec::new(), Vec::new());
    for number in 0..STARTS {
        let mut cluster = Cluster::up(program, folder, &format!("start{number}"))?;
        fresh.push(cluster.up_took);
        cluster.stop()?;
        again.push(cluster.start()?);
    }
    let row = Row::new("up, fresh data").time(sample::median(&mut fresh)).goal_ms(1500).floor(exec);
    table.push(row.how("wall time of `reeve up` to node Ready, median of 5; floor: `reeve version`"));
    let row = Row::new("up, second start").time(sample::median(&mut again)).goal_ms(1500).floor(exec);
    table.push(row.how("the same after `reeve down`, median of 5"));
    Ok(())
}

async fn idle(cluster: &Cluster, table: &mut Table) -> anyhow::Result<()> {
    tokio::time::sleep(IDLE).await;
    let before = Reading::of(&cluster.processes()?)?;
    let row = Row::new("memory, empty cluster").mebibytes(before.pss_bytes).goal_mib(60);
    table.push(row.how(format!("PSS of {} processes (main, supervisor) after 10 s", before.processes)));
    let row = Row::new("  of it not the binary's pages").mebibytes(before.anonymous_bytes);
    table.push(row.how("anonymous pages"));
    tokio::time::sleep(IDLE).await;
    let after = Reading::of(&cluster.processes()?)?;
    let used = after.cpu.saturating_sub(before.cpu);
    let share = used.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let row = Row::new("CPU, empty cluster").text(format!("{share:.1} % ({} ms)", used.as_millis()));
    table.push(row.how("utime + stime of all processes over 10 s (ticks of 10 ms); 100 % is one core"));
    Ok(())
}

async fn containers(cluster: &Cluster, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let busybox = cluster.build_image(folder)?;
    let exec = floor::exec(&busybox, &["true"], PODS_ONE_BY_ONE)?;
    let client = cluster.client().await?;
    let mut one = pods::one_by_one(&client, PODS_ONE_BY_ONE).await.context("one pod after the other")?;
    let row = Row::new("one pod, p50").time(sample::median(&mut one)).goal_ms(60).floor(exec);
    table.push(row.how(format!(
        "create sent to Running seen by a watcher, {PODS_ONE_BY_ONE} one by one; floor: fork and exec of busybox"
    )));
    table.push(Row::new("one pod, p90").time(sample::percentile(&mut one, 90)).how("the same pods"));
    let empty = Reading::of(&cluster.processes()?)?;
    let took = pods::at_once(&client, PODS_AT_ONCE).await.context("many pods at once")?;
    let row = Row::new(format!("{PODS_AT_ONCE} pods at once")).time(took).goal_ms(2000);
    table.push(row.how("first create sent to all Running seen by a watcher"));
    tokio::time::sleep(SETTLE).await;
    let full = Reading::of(&cluster.processes()?)?;
    table.push(Row::new(format!("memory, {PODS_AT_ONCE} pods")).mebibytes(full.pss_bytes).how("PSS, as above"));
    let each = full.pss_bytes.saturating_sub(empty.pss_bytes) / PODS_AT_ONCE as u64;
    table.push(Row::new("memory per pod").text(format!("{} KiB", each / 1024)).how("the difference they make, each"));
    let took = pods::delete_all(&client).await.context("delete all pods")?;
    table.push(
        Row::new(format!("{PODS_AT_ONCE} pods deleted")).time(took).how("grace period 0, until the last is gone"),
    );
    Ok(())
}

async fn api(cluster: &Cluster, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let target = Target { server: Server::of(&cluster.kubeconfig())?, pid: cluster.main_pid()? };
    load(&target, folder, "", table).await
}

/// The figures of the API alone: of one part, or of all of them.
async fn load(target: &Target, folder: &Path, part: &str, table: &mut Table) -> anyhow::Result<()> {
    let wanted = |name: &str| part.is_empty() || part == name;
    if wanted("memory") {
        memory(target, table).await?;
    }
    if wanted("requests") {
        requests(target, folder, table).await?;
    }
    if wanted("lists") {
        lists(target, folder, table).await?;
    }
    if wanted("watches") {
        watches(target, folder, table).await?;
    }
    Ok(())
}

async fn requests(target: &Target, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let fsync = floor::fsync(folder)?;
    let bare = Bare::start(folder)?;
    for clients in CLIENTS {
        let floors = bare.target.requests(clients).await?;
        for (figure, floor) in target.requests(clients).await?.iter().zip(floors) {
            push_requests(table, figure, clients, &floor, fsync);
        }
    }
    Ok(())
}

async fn lists(target: &Target, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let bare = Bare::start(folder)?;
    let (floors, figures) = (bare.target.lists().await?, target.lists().await?);
    for ((figure, floor), clients) in figures.iter().zip(floors).zip([1, 16]) {
        let title = format!("list of 5,000, {clients} client{}", if clients == 1 { "" } else { "s" });
        let row = Row::new(title).time(figure.p50).floor(floor.p50);
        let row = if clients == 1 { row.goal_ms(8) } else { row };
        table.push(row.how(format!(
            "p50 of {} lists of {:.1} MB; {:.0}/s, {:.1} ms of server CPU each, {:.1} ms of the generator's; \
             floor: as many bytes from a bare server",
            figure.requests,
            figure.answer as f64 / 1e6,
            figure.per_second,
            figure.server_each.as_secs_f64() * 1e3,
            figure.generator_each.as_secs_f64() * 1e3,
        )));
    }
    Ok(())
}

fn push_requests(table: &mut Table, figure: &api::Figure, clients: usize, bare: &api::Figure, fsync: Duration) {
    let title = format!("{}, {clients} client{}", figure.verb, if clients == 1 { "" } else { "s" });
    let row = Row::new(title).time(figure.p50).floor(if figure.writes { fsync.max(bare.p50) } else { bare.p50 });
    table.push(row.how(format!(
        "p50 of {} over TLS, 1 KB ConfigMaps; {:.0}/s, {} µs of server CPU each, {} µs of the generator's; floor: {}",
        figure.requests,
        figure.per_second,
        figure.server_each.as_micros(),
        figure.generator_each.as_micros(),
        if figure.writes { "a bare server, or to append 1 KB and fdatasync" } else { "a bare server" },
    )));
    if clients == CLIENTS[2] {
        let cpu = Row::new(format!("  server CPU of one {}", figure.verb)).time(figure.server_each);
        let cpu = cpu.floor(bare.server_each).goal_us(if figure.writes { 80 } else { 25 });
        table.push(cpu.how("of the same requests; floor: a server that only speaks HTTP/1.1 over TLS"));
    }
}

/// To be measured before anything else has left its traces.
async fn memory(target: &Target, table: &mut Table) -> anyhow::Result<()> {
    let memory = target.memory(OBJECTS, 100).await?;
    let row = Row::new(format!("memory, {OBJECTS} objects")).mebibytes(memory.pss_bytes).goal_mib(80);
    table.push(row.how("PSS of the server's process after creates of 1 KB with 100 watchers"));
    let goal = memory.json * 13 / 10 + 300;
    let row = Row::new("memory of one object").text(format!("{} B", memory.per_object));
    table.push(row.how(format!("what each added; its JSON has {} B; goal: 1.3 × that + 300 = {goal} B", memory.json)));
    Ok(())
}

async fn watches(target: &Target, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let bare = Bare::start(folder)?;
    for (watchers, changes, every) in [(100, 200, 10), (1000, 50, 100)] {
        let every = Duration::from_millis(every);
        let mut floors = bare.target.delays(watchers, changes, every).await?;
        let mut delays = target.delays(watchers, changes, every).await?;
        let row = Row::new(format!("event, {watchers} watchers, p50")).time(sample::median(&mut delays));
        let row = row.floor(sample::median(&mut floors));
        table.push(row.how(format!(
            "update sent to event read, {changes} updates, {} ms between them; floor: a bare server",
            every.as_millis()
        )));
        let row = Row::new(format!("event, {watchers} watchers, p99")).time(sample::percentile(&mut delays, 99));
        let row = row.floor(sample::percentile(&mut floors, 99));
        table.push(if watchers == 1000 { row.goal_ms(10) } else { row }.how("the same events"));
    }
    Ok(())
}
