//! Kubernetes API vocabulary shared by every component, and the two seams that keep decisions pure.
//!
//! What is here has no I/O and depends on none of our crates: time ([`clock`]), randomness ([`rng`]),
//! and the agreement between node agent and proxy on when a pod may be told to stop ([`drain`]).
//! What is not here: anything that talks to a server (that is `reeve-client`) or that defines how a
//! kind behaves in the API server (that is `reeve-kinds`).

pub mod clock;
pub mod drain;
pub mod patch;
pub mod rng;
