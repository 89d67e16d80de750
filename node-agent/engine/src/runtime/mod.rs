//! The agent's half of the runtime: turns what a container is to be into a flat launch plan, and makes what the
//! plan names (cgroups, pinned namespaces).
//!
//! Compiling is pure ([`process`], [`root`], [`users`], [`caps`], [`seccomp`]); what touches the kernel, or reads what
//! the node's owner has written, is in [`app_armor`], [`cdi`], [`cgroup`], [`disks`], [`hooks`], [`interfaces`] and
//! [`namespaces`]. Starting processes is the supervisor's.

pub mod app_armor;
pub mod caps;
pub mod cdi;
pub mod cgroup;
pub mod disks;
pub mod hooks;
pub mod interfaces;
pub(crate) mod mount_attr;
pub mod namespaces;
pub mod process;
pub mod root;
pub mod seccomp;
pub mod users;
