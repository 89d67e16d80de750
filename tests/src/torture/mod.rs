//! Three servers as real processes, clients that load them and write down what they are told, and everything that is
//! done to the servers meanwhile: killed, paused, cut off, their clocks turned, their disks filled and stalled.
//!
//! What may not happen is said by one pure check of what the clients wrote down ([`history`]): no acknowledged write is
//! lost, no read is stale. Each round ([`rounds`]) adds what it expects besides, and that all goes on when it is over.
//! `make torture` runs all of it for long, `tests/tests/faults` a little of it.

pub mod clients;
pub mod clock;
pub mod disk;
pub mod figures;
pub mod history;
pub mod network;
pub mod observer;
pub mod rounds;
