//! The Kubernetes API server: REST, watch cache, admission, authentication.

mod admission;
mod cache;
pub mod decode;
pub mod pki;
pub mod registry;
pub mod status;
