//! The Kubernetes API server: REST, watch cache, admission, authentication.

mod admission;
pub mod auth;
mod cache;
pub mod decode;
mod http;
pub mod pki;
mod proxy_node;
pub mod registry;
pub mod server;
pub mod status;

pub use server::{ApiServer, ApiServerConfig, StartError};
