//! etcd's own protocol (v3, gRPC), both ways.
//!
//! [`EtcdServer`] serves a store ([`reeve_store::Kv`]) to clients of etcd: `etcdctl`, and even a kube-apiserver. Texts
//! and codes of its errors are etcd's, because clients tell errors apart by them. [`EtcdKv`] is the other way round: a
//! store for our API server that is a cluster of etcd.
//!
//! Whoever reaches the port reads and writes everything, so it takes only holders of a certificate that was made for
//! it. What is not here: users and roles of etcd's (they are answered as not enabled), and what a key means.

mod auth;
mod check;
mod client;
mod cluster;
mod connection;
mod convert;
mod error;
mod facts;
mod keys;
mod lease;
mod maintenance;
mod server;
mod watch;

pub use client::{EtcdConfig, EtcdError, EtcdKv, EtcdTls};
pub use facts::{Facts, GroupMember, GroupStatus, Identity, StoreFacts};
pub use server::{EtcdServer, ServerConfig};

/// The version of etcd whose protocol and answers these are: clients decide by it what they may ask for.
pub const ETCD_VERSION: &str = "3.6.0";
/// Bytes of a request that writes: etcd's `--max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1536 * 1024;
