//! The node agent (what Kubernetes calls the kubelet): it makes the pods bound to its node run, tells the API
//! how they are, and serves their logs and commands.
//!
//! It stands on the engine (containers), the pod network (its own), and the API. What is not here: anything
//! that runs containers (`reeve-engine`), Services and DNS (`reeve-proxy`).

// Tests build small objects with `json!` where they are used.
#![cfg_attr(test, allow(clippy::needless_pass_by_value))]

mod agent;
mod config;
mod credentials;
mod logs;
mod net;
mod node;
mod objects;
mod peers;
mod pod;
mod probe;
mod server;
#[cfg(test)]
mod testing;
mod volume;

pub use agent::{AgentSeams, NodeAgent};
pub use config::{AgentConfig, NodeConfig, PeersConfig, Reserved, ServerConfig, node_link};
pub use credentials::CredentialProviders;
pub use net::{NetError, cleanup as cleanup_network, pod_link_prefix};
pub use server::ServerError;
