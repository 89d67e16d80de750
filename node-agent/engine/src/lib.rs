//! The container engine: images, snapshots, runtime, supervisor.
//!
//! [`Engine`] is the seam the node agent stands on: the verbs of CRI. The engine knows nothing of the
//! Kubernetes API, and works without a cluster.

pub mod build;
pub mod builtin;
pub mod disk_usage;
pub mod engine;
pub mod images;
pub mod logs;
pub mod loopback;
pub mod metrics;
pub mod runtime;
pub mod snapshot;
pub mod supervisor;
