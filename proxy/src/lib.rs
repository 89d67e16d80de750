//! Services over nftables, and cluster DNS.
//!
//! The proxy is the only owner of its nftables table. What is not here: links, routes and addresses of pods (the
//! node agent's).

pub mod dns;
