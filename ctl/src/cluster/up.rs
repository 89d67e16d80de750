//! `reeve up`: brings a one-node cluster up in the background and says when its node is ready.
//!
//! This is the launcher: it takes the lock, makes or reads the lasting choices, starts the background process
//! (this same binary with `--foreground --background-child`) and waits for its one line on standard output.
//! What the cluster consists of is `daemon`'s business.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use reeve_api::clock::Clock;

use super::args::UpArgs;
use super::config::{self, ClusterConfig, Paths};
use super::data_dir;
use super::error::{ClusterError, at};
use super::kubeconfig::{self, Owner};
use super::state::{self, Claim, ClusterLock, RunState};

/// What the background process writes to its standard output when the node is ready.
pub(crate) const READY_LINE: &str = "ready";
/// What stands before the reason when it cannot go on.
pub(crate) const FAILED_PREFIX: &str = "failed: ";
/// How much of the log's end is shown when the background process dies without a word.
const LOG_TAIL_BYTES: u64 = 2_000;
/// A longer log is put aside at the next start; the one put aside before it goes.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Longest wait for an answer of a cluster that says it runs.
const PROBE_WAIT: Duration = Duration::from_secs(3);

/// Runs `reeve up` to its end and prints what the user should know.
pub(crate) fn run(args: &UpArgs, clock: &dyn Clock) -> Result<(), ClusterError> {
    let started = clock.monotonic();
    config::validate_name(&args.name)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(ClusterError::NotRoot { verb: "up" });
    }
    super::kernel::check()?;
    if args.foreground && args.background_child {
        return super::daemon::run_child(args);
    }
    let lock = ClusterLock::take(&args.name)?;
    let paths = paths_of(args)?;
    if is_healthy(&paths) {
        let _ = writeln!(std::io::stdout(), "Cluster {:?} is already up.", args.name);
        if args.store.says_something() {
            let _ = writeln!(
                std::io::stderr(),
                "warning: what is said of its store counts after `reeve down` and `reeve up`"
            );
        }
        return finish(args, &paths);
    }
    let repaired = stop_remains(&paths)?;
    let config = prepare(args, &paths)?;
    if args.foreground {
        return super::daemon::run_foreground(args, &paths, &config, lock);
    }
    start(args, &paths, &lock)?;
    let merged = finish(args, &paths);
    let took = clock.monotonic().saturating_sub(started);
    // Also when the kubeconfig cannot be written: the cluster is up.
    print_summary(&paths, &config, repaired, took);
    drop(lock);
    merged
}

/// Where the cluster lies: where it runs, or where the flag says. Both must agree.
pub(crate) fn paths_of(args: &UpArgs) -> Result<Paths, ClusterError> {
    let mut paths = Paths::of(&args.name, args.data_dir.as_deref());
    let known = state::data_dir(&paths.run_dir);
    match (&args.data_dir, known) {
        (None, Some(known)) => paths.data_dir = known,
        (given, known) => {
            paths.data_dir = data_dir::resolve(given.as_ref().unwrap_or(&paths.data_dir))?;
            if let Some(known) = known.filter(|known| *known != paths.data_dir) {
                return Err(ClusterError::Invalid {
                    what: "--data-dir",
                    value: paths.data_dir.display().to_string(),
                    rule: format!("cluster {:?} already lies in {}", args.name, known.display()),
                });
            }
        }
    }
    Ok(paths)
}

/// Whether the main process lives, was not told to end, and its API server says it is ready.
fn is_healthy(paths: &Paths) -> bool {
    let alive = RunState::load(&paths.run_dir).is_some_and(|running| !running.ending && running.process.is_alive());
    alive && super::probe::is_ready(&paths.kubeconfig(), PROBE_WAIT)
}

/// Ends a main process that lives but does not answer, also one whose `up` was killed while it was starting. Its
/// containers go on and are adopted by the next one.
fn stop_remains(paths: &Paths) -> Result<bool, ClusterError> {
    super::stop::end_main_process(&paths.run_dir)?;
    Ok(RunState::load(&paths.run_dir).is_some_and(|running| !running.stopped))
}

/// Folders and lasting choices. What is refused is left as it was.
fn prepare(args: &UpArgs, paths: &Paths) -> Result<ClusterConfig, ClusterError> {
    match config::load(paths)? {
        Some(existing) => drop(usable(existing, args, paths)?),
        None => data_dir::check_unused(&paths.data_dir)?,
    }
    let mut made = data_dir::Made::default();
    made.make(&paths.data_dir)?;
    made.make(&paths.run_dir)?;
    let _choosing = state::lock_choices()?;
    let others = state::others(&args.name);
    let existing = config::load(paths)?;
    let is_new = existing.is_none();
    let config = match existing {
        Some(existing) => config::with_free_ports(usable(existing, args, paths)?, &others)?,
        None => config::create(&args.name, args.netns, super::machine::in_use(), &others)?,
    };
    let config = ClusterConfig { store: args.store.merged(config.store)?, ..config };
    let elsewhere = "`reeve down --purge` first, or another --name";
    let (etcd, etcd_port) =
        super::etcd::chosen((config.etcd.clone(), config.etcd_port), &args.etcd, is_new, elsewhere)?;
    super::etcd::check_store(etcd.as_ref(), &args.store)?;
    let config = ClusterConfig { etcd, etcd_port, ..config };
    let config = super::runtime::chosen(config, &args.runtime, is_new)?;
    // First the claim: it tells `down` where the rest is.
    Claim { config: config.clone(), data_dir: paths.data_dir.clone() }.save(&paths.run_dir)?;
    let tried = if is_new { data_dir::check_overlay(&paths.data_dir) } else { Ok(()) };
    if let Err(err) = tried.and_then(|()| config::save(paths, &config)) {
        if is_new {
            // A full disk, say. Then there is no cluster.
            let _ = std::fs::remove_dir_all(&paths.run_dir);
        }
        return Err(err);
    }
    made.keep();
    Ok(config)
}

/// The choices found in the data folder, if they are this cluster's and agree with the flags.
fn usable(existing: ClusterConfig, args: &UpArgs, paths: &Paths) -> Result<ClusterConfig, ClusterError> {
    if existing.name != args.name {
        return Err(ClusterError::Invalid {
            what: "--data-dir",
            value: paths.data_dir.display().to_string(),
            rule: format!("it holds the data of cluster {:?}", existing.name),
        });
    }
    if existing.netns != args.netns && args.netns {
        return Err(ClusterError::Invalid {
            what: "--netns",
            value: "true".to_owned(),
            rule: "the cluster was made without it; `reeve down --purge` first".to_owned(),
        });
    }
    Ok(existing)
}

/// Starts the background process and waits for its line. It shares the lock until it can be found.
fn start(args: &UpArgs, paths: &Paths, lock: &ClusterLock) -> Result<(), ClusterError> {
    let log_path = paths.log();
    put_aside(&log_path)?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
    let mut log = log.map_err(|err| ClusterError::io(at("open", &log_path), err))?;
    let log_start = log.seek(SeekFrom::End(0)).unwrap_or(0);
    let program = std::env::current_exe().map_err(|err| ClusterError::io("find this program", err))?;
    let mut command = Command::new(program);
    command.args(["up", "--foreground", "--background-child", "--name", &args.name, "--data-dir"]);
    command.arg(&paths.data_dir);
    command.current_dir("/").stdin(lock.share()?).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(|err| ClusterError::io("start the background process", err))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // Ends with the process at the latest: nothing to wait for longer.
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    if line.trim_end() == READY_LINE {
        return Ok(());
    }
    let reason = match line.strip_prefix(FAILED_PREFIX) {
        Some(reason) => reason.trim_end().to_owned(),
        None => format!("it ended without a word; the end of its log:\n{}", tail(&log_path, log_start)),
    };
    Err(ClusterError::NotStarted { name: args.name.clone(), reason, log: log_path.display().to_string() })
}

fn put_aside(log: &Path) -> Result<(), ClusterError> {
    if std::fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        let old = log.with_extension("log.1");
        std::fs::rename(log, &old).map_err(|err| ClusterError::io(at("rename", log), err))?;
    }
    Ok(())
}

fn tail(path: &Path, start: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Merges the context into the user's kubeconfig.
pub(crate) fn finish(args: &UpArgs, paths: &Paths) -> Result<(), ClusterError> {
    if args.no_kubeconfig {
        return Ok(());
    }
    let owner = Owner::current();
    let file = kubeconfig::file_to_write(std::env::var_os("KUBECONFIG").as_deref(), &owner);
    let entry = super::probe::entry_from(&paths.kubeconfig())?;
    kubeconfig::merge(&file, &entry, &owner)
}

fn print_summary(paths: &Paths, config: &ClusterConfig, repaired: bool, took: Duration) {
    // A reader that has gone away is no reason to fail: the cluster is up.
    let mut out = std::io::stdout().lock();
    let done = if repaired { "is up again" } else { "is up" };
    let _ = writeln!(out, "Cluster {:?} {done}: its node was ready after {:.2} s.", config.name, took.as_secs_f64());
    let _ = writeln!(out, "  API server  https://127.0.0.1:{}", config.api_port);
    let _ = writeln!(out, "  kubeconfig  {} (context reeve-{})", paths.kubeconfig().display(), config.name);
    let _ = writeln!(out, "  data        {}", paths.data_dir.display());
    let _ = writeln!(out);
    let _ = writeln!(out, "Next:  reeve apply -f app.yaml    or any kubectl");
    let _ = writeln!(out, "       reeve get pods -A");
    let flag = if config.name == "dev" { String::new() } else { format!(" --name {}", config.name) };
    let _ = writeln!(out, "       reeve down{flag}              (--purge removes its data too)");
}

#[cfg(test)]
mod tests {
    use super::super::store::StoreArgs;
    use super::*;

    #[test]
    fn a_data_folder_of_another_cluster_is_refused_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { data_dir: folder.path().join("data"), run_dir: folder.path().join("run") };
        std::fs::create_dir(&paths.data_dir).unwrap();
        let other = config::create("other", true, super::super::machine::in_use(), &[]).unwrap();
        config::save(&paths, &other).unwrap();
        let args = UpArgs {
            name: "mine".to_owned(),
            data_dir: Some(paths.data_dir.clone()),
            foreground: false,
            netns: true,
            no_kubeconfig: true,
            store: StoreArgs::default(),
            etcd: super::super::etcd::EtcdArgs::default(),
            runtime: super::super::runtime::RuntimeArgs::default(),
            background_child: false,
        };
        let refused = prepare(&args, &paths).unwrap_err().to_string();
        assert!(refused.contains("it holds the data of cluster \"other\""), "{refused}");
        assert!(!paths.run_dir.exists());
    }
}
