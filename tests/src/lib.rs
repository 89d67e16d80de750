//! What the end-to-end tests share: clusters and servers from the binary under test, and the source tree
//! for the tidy test.

pub mod binary;
pub mod cluster;
pub mod command;
pub mod etcds;
mod leftovers;
pub mod machine;
pub mod patience;
pub mod processes;
pub mod servers;
pub mod source;
pub mod space;
pub mod terminal;
pub mod torture;
pub mod vm;
