//! kubectl's verbs, flags, words and exit codes.
//!
//! One file per verb; what several verbs share is beside them: [`connect`] (kubeconfig), [`api`] (requests and the
//! server's errors), [`mapper`] (names of resources), [`manifest`] (what `-f` names), [`output`] (what `-o` asks for).
//! Speaks to any cluster; knows nothing of Reeve's own.

pub(crate) mod api;
pub(crate) mod api_resources;
pub(crate) mod apply;
pub(crate) mod args;
pub(crate) mod cluster_info;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod cordon;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod edit;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod expose;
pub(crate) mod get;
pub(crate) mod label;
pub(crate) mod logs;
pub(crate) mod manifest;
pub(crate) mod mapper;
pub(crate) mod output;
pub(crate) mod patch;
pub(crate) mod port_forward;
pub(crate) mod replace;
pub(crate) mod run;
pub(crate) mod select;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod workload;
