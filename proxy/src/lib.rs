//! Services over nftables, and cluster DNS.
//!
//! [`Proxy`] follows Services and EndpointSlices and keeps one nftables table and one DNS server in step. The proxy
//! is the only owner of its table. What is not here: links, routes and addresses of pods (the node agent's).

#[doc(hidden)]
pub mod bench;
mod cache;
mod conntrack;
pub mod dns;
mod link;
mod proxy;
mod services;

pub use link::LinkError;
pub use reeve_nft::NftError;
// Every file says `crate::nft`.
pub use proxy::{Proxy, ProxyConfig, ProxyError, cleanup};
use reeve_nft as nft;
