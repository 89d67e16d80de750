//! Container logs: reading, following, rotating.

pub(crate) mod cri;
pub(crate) mod follow;
pub(crate) mod notify;
pub(crate) mod rotate;
