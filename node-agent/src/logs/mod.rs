//! Container logs: reading and following. Writing and rotating is the engine's.

pub(crate) mod cri;
pub(crate) mod follow;
pub(crate) mod notify;
