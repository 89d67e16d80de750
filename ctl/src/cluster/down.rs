//! `reeve down`: stops a cluster and its containers; with `--purge` nothing of it is left.

use std::io::Write as _;

use super::args::{DownArgs, UpArgs};
use super::config::{self, ClusterConfig, Paths};
use super::data_dir;
use super::error::ClusterError;
use super::kubeconfig::{self, Owner};
use super::state::{self, Claim, ClusterLock, RunState};
use super::store::StoreArgs;

/// Runs `reeve down` to its end and prints what the user should know. Killed at any moment, it can be run again.
pub(crate) fn run(args: &DownArgs) -> Result<(), ClusterError> {
    config::validate_name(&args.name)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(ClusterError::NotRoot { verb: "down" });
    }
    let _lock = ClusterLock::take(&args.name)?;
    let paths = super::up::paths_of(&as_up(args))?;
    // The claim outlives the choices in the data folder: an earlier `down --purge` may have been killed.
    let claimed = || Claim::load(&paths.run_dir).map(|claim| claim.config);
    let Some(config) = config::load(&paths)?.or_else(claimed) else { return remove_rest(args, &paths) };
    if config.name != args.name {
        return Err(ClusterError::NoCluster {
            name: args.name.clone(),
            hint: format!(" in {}: it holds cluster {:?}", paths.data_dir.display(), config.name),
        });
    }
    let was_running = stop(&paths, &config, args.purge)?;
    if args.purge {
        purge(&paths, &config)?;
        say(&format!("Cluster {:?} is down and removed.", args.name));
    } else if was_running {
        say(&format!("Cluster {:?} is down; its data is kept in {}.", args.name, paths.data_dir.display()));
    } else {
        say(&format!("Cluster {:?} was not up.", args.name));
    }
    Ok(())
}

/// A reader that has gone away is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// There is no cluster of that name. With `--purge` what an `up` or a `down` that was killed has left of one goes too:
/// empty folders, a context in the kubeconfig.
fn remove_rest(args: &DownArgs, paths: &Paths) -> Result<(), ClusterError> {
    let mut removed = false;
    if args.purge {
        removed |= paths.run_dir.exists();
        super::remains::unmount_run_dir(paths)?;
        data_dir::remove_run_dir(&paths.run_dir)?;
        removed |= std::fs::remove_dir(&paths.data_dir).is_ok();
        removed |= forget_context(&args.name)?;
    }
    if !removed {
        return Err(ClusterError::NoCluster { name: args.name.clone(), hint: hint() });
    }
    say(&format!("What was left of cluster {:?} is removed.", args.name));
    Ok(())
}

fn as_up(args: &DownArgs) -> UpArgs {
    UpArgs {
        name: args.name.clone(),
        data_dir: args.data_dir.clone(),
        foreground: false,
        netns: false,
        no_kubeconfig: true,
        store: StoreArgs::default(),
        etcd: super::etcd::EtcdArgs::default(),
        runtime: super::runtime::RuntimeArgs::default(),
        background_child: false,
    }
}

fn hint() -> String {
    let names: Vec<String> = state::known().into_iter().map(|claim| claim.config.name).collect();
    if names.is_empty() { String::new() } else { format!("; there is: {}", names.join(", ")) }
}

/// Ends the main process, then the containers, then what the cluster put into the kernel.
fn stop(paths: &Paths, config: &ClusterConfig, purge: bool) -> Result<bool, ClusterError> {
    // Before the signal: were this killed right behind it, `up` would find a process that still answers.
    if let Some(running) = RunState::load(&paths.run_dir) {
        RunState { ending: true, ..running }.save(&paths.run_dir)?;
    }
    super::stop::end_main_process(&paths.run_dir)?;
    super::remains::stop(paths, config, purge)?;
    let Some(running) = RunState::load(&paths.run_dir) else { return Ok(false) };
    let was_running = !running.stopped;
    RunState { stopped: true, ..running }.save(&paths.run_dir)?;
    Ok(was_running)
}

/// Takes a cluster down whose main process is this one, on its way out. In a process of its own: network namespaces
/// can only be entered by a process of one thread.
pub(crate) fn stop_in_child(paths: &Paths, config: &ClusterConfig) -> Result<(), ClusterError> {
    let program = std::env::current_exe().map_err(|err| ClusterError::io("find this program", err))?;
    let mut command = std::process::Command::new(program);
    command.args(["down", "--name", &config.name, "--data-dir"]).arg(&paths.data_dir);
    let status = command.status().map_err(|err| ClusterError::io("bring the cluster down", err))?;
    if status.success() { Ok(()) } else { Err(ClusterError::component("reeve down", status)) }
}

/// The order lets a `down --purge` that was killed be run again: the folders that tell of the cluster go last. Only a
/// kubeconfig that cannot be edited does not keep the rest from going.
fn purge(paths: &Paths, config: &ClusterConfig) -> Result<(), ClusterError> {
    data_dir::empty(&paths.data_dir)?;
    let forgotten = forget_context(&config.name);
    data_dir::remove(&paths.data_dir)?;
    super::remains::unmount_run_dir(paths)?;
    data_dir::remove_run_dir(&paths.run_dir)?;
    forgotten.map(drop)
}

/// Takes the cluster out of the user's kubeconfig. Returns whether it was there.
fn forget_context(name: &str) -> Result<bool, ClusterError> {
    let owner = Owner::current();
    let file = kubeconfig::file_to_write(std::env::var_os("KUBECONFIG").as_deref(), &owner);
    kubeconfig::remove(&file, &format!("reeve-{name}"), &owner)
}
