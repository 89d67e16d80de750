//! `make bench`: the figures of a one-node cluster, measured through its API and `/proc`, as a table.
//!
//! Usage: `bench PATH_TO_REEVE` (as root). Makes clusters of its own in their own network namespaces and leaves
//! nothing behind. Not here: the micro-benchmarks of single crates (`cargo bench -p CRATE`).

mod api;
mod cluster;
mod floor;
mod pods;
mod process;
mod sample;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::cluster::{Cluster, Program};
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

/// One worker: the measured cluster keeps the other cores.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Without the backtrace that `{err:?}` may have.
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let program = std::env::args_os().nth(1).map(PathBuf::from).context("usage: bench PATH_TO_REEVE")?;
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "bench starts containers: it must be run as root");
    let folder = tempfile::Builder::new().prefix("reeve-bench-").tempdir().context("make a folder")?;
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
    requests(&cluster, folder, table).await?;
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

async fn requests(cluster: &Cluster, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let fsync = floor::fsync(folder)?;
    let client = cluster.client().await?;
    for clients in [1, 64] {
        for figure in api::measure(&client, clients, || cluster.main_cpu()).await? {
            let title = format!("{}, {clients} client{}", figure.verb, if clients == 1 { "" } else { "s" });
            let mut row = Row::new(title).time(figure.p50);
            if figure.writes {
                row = row.floor(fsync);
            }
            table.push(row.how(format!(
                "p50 of {} over TLS, 1 KB ConfigMaps; {:.0}/s, {} µs of server CPU each{}",
                figure.requests,
                figure.per_second,
                figure.cpu_each.as_micros(),
                if figure.writes { "; floor: append 1 KB and fdatasync" } else { "" },
            )));
        }
    }
    Ok(())
}
