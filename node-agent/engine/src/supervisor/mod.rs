//! The supervisor: one small process per node, parent of all containers, which executes plans.
//!
//! It knows nothing of images, pods or Kubernetes, parses nothing from outside, and outlives the agent. It is the
//! program itself, started again under a hidden name; see [`spawn`] for how, and [`server`] for its loop.

mod child;
mod child_restore;
mod child_root;
mod child_user;
mod connection;
mod containers;
mod execs;
mod failure;
mod launch;
pub mod plan;
mod prepare;
mod process;
mod restores;
mod server;
mod spawn;
mod streams;
pub(crate) mod terminal;
pub mod wire;

pub(crate) use prepare::CRIU_NETWORK;
pub(crate) use process::{boot_id, exit_code_of, is_populated, kill_cgroup};
pub use spawn::{SpawnError, connect_or_spawn, supervisor_main};
