//! Containers' logs: the CRI format, and the thread of the supervisor that writes them.
//!
//! Nothing here starts or reaps processes; nothing outside here touches a disk on the supervisor's behalf.

pub mod cri;
pub(crate) mod queue;
pub mod rotate;
pub(crate) mod writer;
