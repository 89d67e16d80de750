//! End to end: real one-node clusters from the binary of this tree, the real kubectl, real containers.
//!
//! Most tests share one cluster, each in a namespace of its own; those that kill or stop one bring up their own.
//! Needs root, a static busybox and curl. `cargo test -p reeve-tests --test e2e returns::` runs one chapter.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test that calls them")]

mod backups;
mod connections;
mod etcds;
mod failures;
mod garbage;
mod hostnet;
mod huge_pages;
mod image_volumes;
mod input;
mod killed;
mod kubeconfig;
mod metrics;
mod peers;
mod places;
mod pods;
mod probes;
mod protection;
mod resizes;
mod returns;
mod services;
mod software;
mod updown;
mod workloads;
mod writes;
