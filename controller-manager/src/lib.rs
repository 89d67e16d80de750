//! The controllers: one folder each, plan and apply.
//!
//! A controller watches (`mod.rs`), decides without I/O (`plan.rs`) and writes (`apply.rs`). All share one watch
//! per kind ([`ControllerManager`]). Each acts from the state it sees, never from the event that woke it, and
//! protects its writes by names, uids or resourceVersions, so that an old view can only make it try again.

mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod expectations;
mod garbage;
mod manager;
mod namespace;
mod namespaces;
mod nodeipam;
mod nodelifecycle;
mod ownership;
mod podgc;
mod pods;
mod replicaset;
mod requests;
mod resourcequota;
mod roleaggregation;
mod rootca;
mod service_pods;
mod serviceaccount;
mod storageprotection;
mod tokencleaner;

pub use manager::{ControllerManager, ControllerManagerConfig, ManagerError};
pub use nodeipam::RangeError;
