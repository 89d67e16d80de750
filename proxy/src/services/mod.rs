//! Services: from API objects to the elements of nftables maps.
//!
//! [`plan`] decides what one Service needs, [`layout`] is the fixed part of the table, [`rules`] keeps the kernel in
//! step element by element, [`loopback`] answers NodePorts on 127.0.0.1 and holds them against other programs.
//! What is not here: session affinity, external IPs and load balancers.

pub(crate) mod layout;
pub(crate) mod loopback;
pub(crate) mod plan;
pub(crate) mod rules;

#[cfg(test)]
mod packet_tests;
