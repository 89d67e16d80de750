//! `reeve down`: stops a cluster and its containers; with `--purge` nothing of it is left.

use std::io::Write as _;
use std::path::Path;

use super::args::{DownArgs, UpArgs};
use super::config::{self, ClusterConfig, Paths};
use super::error::{ClusterError, at};
use super::kubeconfig::{self, Owner};
use super::state::{self, ClusterLock, RunState};

/// Runs `reeve down` to its end and prints what the user should know.
pub(crate) fn run(args: &DownArgs) -> Result<(), ClusterError> {
    config::validate_name(&args.name)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(ClusterError::NotRoot { verb: "down" });
    }
    let lock = ClusterLock::take(&args.name)?;
    let paths = super::up::paths_of(&as_up(args))?;
    let Some(config) = config::load(&paths)? else {
        lock.remove();
        return Err(ClusterError::NoCluster { name: args.name.clone(), hint: hint() });
    };
    if config.name != args.name {
        return Err(ClusterError::NoCluster {
            name: args.name.clone(),
            hint: format!(" in {}: it holds cluster {:?}", paths.data_dir.display(), config.name),
        });
    }
    let was_running = stop(&paths, &config, args.purge)?;
    if args.purge {
        purge(&paths, &config)?;
        lock.remove();
        let _ = writeln!(std::io::stdout(), "Cluster {:?} is down and removed.", args.name);
    } else if was_running {
        let _ = writeln!(
            std::io::stdout(),
            "Cluster {:?} is down; its data is kept in {}.",
            args.name,
            paths.data_dir.display()
        );
    } else {
        let _ = writeln!(std::io::stdout(), "Cluster {:?} was not up.", args.name);
    }
    Ok(())
}

fn as_up(args: &DownArgs) -> UpArgs {
    UpArgs {
        name: args.name.clone(),
        data_dir: args.data_dir.clone(),
        foreground: false,
        netns: false,
        no_kubeconfig: true,
        background_child: false,
    }
}

fn hint() -> String {
    let names: Vec<String> = state::known().into_iter().map(|running| running.config.name).collect();
    if names.is_empty() { String::new() } else { format!("; there is: {}", names.join(", ")) }
}

/// Ends the main process, then the containers, then what the cluster put into the kernel.
pub(crate) fn stop(paths: &Paths, config: &ClusterConfig, purge: bool) -> Result<bool, ClusterError> {
    let running = RunState::load(&paths.run_dir);
    if let Some(running) = &running {
        super::stop::end_process(running.process)?;
    }
    super::remains::stop(paths, config, purge)?;
    let Some(running) = running else { return Ok(false) };
    let was_running = !running.stopped;
    // Kept, so that the next `up` finds the data folder without being told.
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

fn purge(paths: &Paths, config: &ClusterConfig) -> Result<(), ClusterError> {
    for dir in [&paths.run_dir, &paths.data_dir] {
        remove_tree(dir)?;
    }
    let owner = Owner::current();
    let file = kubeconfig::file_to_write(std::env::var_os("KUBECONFIG").as_deref(), &owner);
    kubeconfig::remove(&file, &format!("reeve-{}", config.name), &owner)
}

/// Removes a folder of ours. Refuses when something is still mounted below it: what is behind a mount is not ours.
fn remove_tree(dir: &Path) -> Result<(), ClusterError> {
    if let Some(target) = super::remains::mounts_below(dir).first() {
        return Err(ClusterError::Invalid {
            what: "folder",
            value: dir.display().to_string(),
            rule: format!("{} is still mounted in it; unmount it and run `reeve down --purge` again", target.display()),
        });
    }
    match std::fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(ClusterError::io(at("remove", dir), err)),
        _ => Ok(()),
    }
}
