//! The kinds: everything the API server must know about one kind of object, and nothing about requests.
//!
//! A [`Kind`] is a bundle of pure functions over JSON values. Built-in kinds live in one folder each under
//! `kinds/`, all of one shape (`mod.rs` names and wiring, `defaults.rs`, `validate.rs`, `strategy.rs`,
//! `table.rs`; a small kind is one file with the same sections). Custom resources will implement the same trait.
//! What is not here: I/O, storage, HTTP, authorization, patches. A crate of its own because it is large, pure
//! and changes often: it builds and tests without the server.

pub mod field;
pub mod kind;
pub mod shape;

pub use kind::{Column, Kind, Names, Part, ScalePaths};
