//! `reeve up` and `reeve down`: one-node clusters on this machine. `reeve server`: one server of a control plane.
//!
//! [`up`] launches and waits, [`daemon`] is the background process with every component in it, [`down`] stops and
//! removes; [`server`] is the other way to run the same components. Lasting choices are in [`config`], what is true
//! while a cluster runs in [`state`].

pub(crate) mod args;
mod as_user;
mod components;
mod config;
mod control;
mod daemon;
mod data_dir;
pub(crate) mod down;
mod error;
mod etcd;
mod files;
mod identity;
mod kernel;
pub(crate) mod kubeconfig;
mod kubeconfig_lock;
mod machine;
mod memory;
mod netns;
mod probe;
mod remains;
mod restored;
mod runtime;
pub(crate) mod server;
mod state;
mod stop;
mod store;
pub(crate) mod up;

pub(crate) use config::FILE as CONFIG_FILE;
pub(crate) use error::ClusterError;
pub(crate) use memory::avoid_huge_pages;
pub(crate) use restored::{NewCluster, choices, ranges};
pub(crate) use state::ClusterLock;
pub(crate) use store::BackupChoices;

pub(crate) use kubeconfig::current_context;

/// The folder of a running or resting cluster, for verbs that work on its images.
pub(crate) fn data_dir(name: &str, data_dir: Option<std::path::PathBuf>) -> Result<std::path::PathBuf, ClusterError> {
    config::validate_name(name)?;
    let paths = config::Paths::of(name, data_dir.as_deref());
    Ok(data_dir.or_else(|| state::data_dir(&paths.run_dir)).unwrap_or(paths.data_dir))
}
