//! Kubernetes API vocabulary shared by every component, and the two seams that keep decisions pure.
//!
//! What is here has no I/O and depends on none of our crates: time ([`clock`]), randomness ([`rng`]),
//! quantities ([`quantity`]), what objects cost of quotas ([`quota`]), selectors ([`selector`]), tolerations
//! ([`taints`]), the syntax of names ([`names`]), and the agreement between node agent and proxy on when a pod may be
//! told to stop ([`drain`]).
//! What is not here: anything that talks to a server (that is `reeve-client`) or that defines how a
//! kind behaves in the API server (that is `reeve-kinds`).

pub mod clock;
pub mod drain;
mod field_selector;
mod label_parser;
pub mod names;
pub mod patch;
pub mod quantity;
pub mod quota;
pub mod rng;
pub mod selector;
pub mod taints;
