//! The flags of the cluster verbs.

use std::path::PathBuf;

use clap::Args;

use super::etcd::EtcdArgs;
use super::runtime::RuntimeArgs;
use super::store::StoreArgs;

/// `reeve up`
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Name of the cluster
    #[arg(long, default_value = "dev")]
    pub name: String,
    /// Where its data lies [default: /var/lib/reeve/NAME]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Stay in the foreground and log to the terminal; Ctrl-C brings the cluster down
    #[arg(long)]
    pub foreground: bool,
    /// Give the node a network namespace of its own, without a way out
    #[arg(long)]
    pub netns: bool,
    /// Do not touch $KUBECONFIG or ~/.kube/config
    #[arg(long)]
    pub no_kubeconfig: bool,
    /// Where the cluster's state lies.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Set by `reeve up` for its background process: report on standard output, then log only.
    #[arg(long, hide = true)]
    pub background_child: bool,
}

/// `reeve down`
#[derive(Debug, Clone, Args)]
pub(crate) struct DownArgs {
    /// Name of the cluster
    #[arg(long, default_value = "dev")]
    pub name: String,
    /// Where its data lies, if it does not run and lies elsewhere than /var/lib/reeve/NAME
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Also remove its data, networks, cgroups, mounts and kubeconfig entry
    #[arg(long)]
    pub purge: bool,
}
