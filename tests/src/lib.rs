//! What the end-to-end tests share: reading the source tree for the tidy test.

pub mod source;
