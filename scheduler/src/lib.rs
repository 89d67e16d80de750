//! Assigns pods to nodes.
//!
//! A pure core decides on a snapshot ([`snapshot`], [`plugins`], [`decide`]); a thin loop feeds it from watches
//! and binds what it decided ([`Scheduler`]). Pods wait in a [`queue`] that is woken by events, never by polling.
//! What is not here: preemption, and constraints between pods (affinity to pods, topology spread).

mod bind;
pub mod decide;
mod fit_error;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;
mod run;
pub mod snapshot;

pub use fit_error::FitError;
pub use run::{Scheduler, SchedulerConfig, SchedulerError};
