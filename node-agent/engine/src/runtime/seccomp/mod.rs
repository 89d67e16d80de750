//! Seccomp: profiles as the OCI writes them, compiled to the kernel's BPF.
//!
//! `seccompiler` takes one action and one architecture, libseccomp is a C library: so this is ours. The default
//! profile is in [`default`], the compiler in [`compile`].

pub(crate) mod cache;
pub mod compile;
#[cfg(test)]
mod compile_tests;
pub mod default;
#[cfg(test)]
mod libseccomp_tests;
pub mod profile;
mod table;

pub use cache::Filters;
pub use compile::{CompileError, compile};
pub use profile::Profile;
