//! Services: from API objects to the elements of nftables maps.
//!
//! [`plan`] decides what one Service needs, [`layout`] is the fixed part of the table, [`chooser`] the chains that draw
//! an endpoint, [`rules`] keeps the kernel in step element by element, [`flows`] ends UDP flows to endpoints that are
//! gone, [`loopback`] answers NodePorts on 127.0.0.1 and holds them against other programs
//! ([`datagrams`]: the UDP ones), [`health`] tells load
//! balancers whether this node has endpoints. What is not here: load balancers' own addresses.

pub(crate) mod chooser;
mod datagrams;
pub(crate) mod flows;
pub(crate) mod health;
pub(crate) mod layout;
pub(crate) mod loopback;
pub(crate) mod plan;
pub(crate) mod rules;

#[cfg(test)]
mod packet_tests;
