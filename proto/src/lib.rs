//! Protobuf contracts between Reeve's processes and machines, and with its own past: what stands on disk.
//!
//! The messages are written by hand, so that building needs no `protoc`. Rules: a tag is never used twice, a
//! field never changes its meaning, and what a reader does not know it refuses by the `version` of the message.

pub mod store;
