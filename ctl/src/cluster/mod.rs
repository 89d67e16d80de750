//! `reeve up` and `reeve down`: one-node clusters on this machine.
//!
//! [`up`] launches and waits, [`daemon`] is the background process with every component in it, [`down`] stops and
//! removes. Lasting choices are in [`config`], what is true while a cluster runs in [`state`].

pub(crate) mod args;
mod components;
mod config;
mod daemon;
pub(crate) mod down;
mod error;
mod files;
mod identity;
mod kernel;
pub(crate) mod kubeconfig;
mod machine;
mod memory;
mod netns;
mod probe;
mod remains;
mod state;
mod stop;
pub(crate) mod up;

pub(crate) use error::ClusterError;

/// The folder of a running or resting cluster, for verbs that work on its images.
pub(crate) fn data_dir(name: &str, data_dir: Option<std::path::PathBuf>) -> Result<std::path::PathBuf, ClusterError> {
    config::validate_name(name)?;
    let paths = config::Paths::of(name, data_dir.as_deref());
    let running = state::RunState::load(&paths.run_dir).map(|running| running.data_dir);
    Ok(data_dir.or(running).unwrap_or(paths.data_dir))
}
