//! The cluster DNS: names of Services and pods, answered from the proxy's own cache.
//!
//! Names and records are those of the Kubernetes DNS specification, version 1.1.0
//! (`kubernetes/dns`, `docs/specification.md`). [`zone`] decides, [`answer`] speaks the wire format, [`server`]
//! owns the sockets, [`forward`] passes on what is not the cluster's ([`wire`]: without understanding all of it).
//! What is not here: a cache of foreign names.

pub mod answer;
pub mod forward;
pub mod server;
mod wire;
pub mod zone;

pub use server::{DnsConfig, DnsError, DnsServer};
pub use zone::Records;
