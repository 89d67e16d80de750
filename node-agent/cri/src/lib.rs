//! The container runtime interface, v1, over gRPC on a Unix socket.
//!
//! [`server`] serves it on top of our [`Engine`](reeve_engine::engine::Engine), for `crictl` and stock kubelets
//! (`reeve engine`); [`client`] is that seam on top of any other runtime that serves it. How messages and the engine's
//! types answer to each other is [`convert`], pure; pods are wired by CNI plugins ([`cni`]). What is not here:
//! containers themselves.

pub mod client;
pub mod cni;
pub mod convert;
pub mod server;
