//! What a cluster leaves behind when its main process is gone, and how it is taken away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::MntFlags;

use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_engine::builtin::EngineConfig;
use reeve_engine::runtime::hooks;

use super::config::{ClusterConfig, Paths};
use super::error::{ClusterError, at};
use super::netns;
use super::runtime::Runtime;

/// How long containers have to end on `reeve down`; the rest of their grace period is forfeit, as at a shutdown.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The engine's configuration of a cluster: the same for the daemon and for `down`.
pub(crate) fn engine_config(paths: &Paths, name: &str) -> EngineConfig {
    EngineConfig {
        data_dir: paths.data_dir.clone(),
        run_dir: paths.run_dir.clone(),
        cgroup_root: format!("reeve-{name}"),
        supervisor_program: "/proc/self/exe".into(),
        ends_with_engine: false,
        hook_dirs: hooks::DIRS.map(PathBuf::from).to_vec(),
        clock: RealClock::shared(),
        rng: SeededRng::shared(),
    }
}

/// Unmounts everything below a folder, the last mounted first: pods' volumes, and what a killed process left.
fn unmount_below(dir: &Path) -> Result<(), ClusterError> {
    for target in mounts_below(dir) {
        nix::mount::umount2(&target, MntFlags::MNT_DETACH)
            .map_err(|err| ClusterError::io(at("unmount", &target), err))?;
    }
    Ok(())
}

/// What is mounted below a folder, the last mounted first. Not what is mounted at it: that is the user's.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    // The kernel names mount points without links.
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<PathBuf> = targets.filter(|target| *target != dir && target.starts_with(&dir)).collect();
    below.reverse();
    below
}

/// `/proc/self/mountinfo` writes blanks as octal numbers (proc(5)).
fn unescape(text: &str) -> PathBuf {
    let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(text)
}

/// Stops the containers and takes the cluster out of the kernel; with `purge` the engine's files go too.
/// Each step is tried even when one before it failed; the first failure is told.
pub(crate) fn stop(paths: &Paths, config: &ClusterConfig, purge: bool) -> Result<(), ClusterError> {
    if config.netns && !netns::exists(&paths.run_dir) {
        // The machine was restarted: nothing of the cluster is in the kernel.
        return stop_in(paths, config, purge).and(unmount_below(&paths.data_dir));
    }
    if config.netns {
        netns::enter(&paths.run_dir)?;
    }
    let stopped = stop_in(paths, config, purge);
    stopped.and(unmount_below(&paths.data_dir)).and(netns::unpin(&paths.run_dir))
}

/// Unmounts what an engine that was killed in its own purge has left in the run folder.
pub(crate) fn unmount_run_dir(paths: &Paths) -> Result<(), ClusterError> {
    unmount_below(&paths.run_dir)
}

fn stop_in(paths: &Paths, config: &ClusterConfig, purge: bool) -> Result<(), ClusterError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|err| ClusterError::io("start the runtime", err))?;
    runtime.block_on(async {
        let containers = stop_containers(paths, config, purge).await;
        let proxy = reeve_proxy::cleanup(&config.name, &config.link_prefix()).await;
        let network = reeve_node_agent::cleanup_network(&config.name, &config.link_prefix(), config.cluster_cidr).await;
        let address = netns::withdraw(config.own_node_address()).await;
        containers?;
        proxy.map_err(|err| ClusterError::component("clean-up of the proxy", err))?;
        network.map_err(|err| ClusterError::component("clean-up of the pod network", err))?;
        address
    })
}

async fn stop_containers(paths: &Paths, config: &ClusterConfig, purge: bool) -> Result<(), ClusterError> {
    let failed = |err| ClusterError::component("container engine", err);
    let engine = Runtime::open(paths, config).await?;
    if purge {
        return engine.purge().await.map_err(failed);
    }
    engine.stop(STOP_GRACE).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape("/var/lib/my\\040data/a\\134b"), Path::new("/var/lib/my data/a\\b"));
    }
}
