//! The controllers: one folder each, plan and apply.

mod deployment;
mod expectations;
mod manager;
mod ownership;
mod pods;
mod replicaset;
mod requests;

pub use manager::{ControllerManager, ControllerManagerConfig};
