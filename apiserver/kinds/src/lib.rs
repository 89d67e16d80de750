//! The kinds: everything the API server must know about one kind of object, and nothing about requests.
//!
//! A [`Kind`] is a bundle of pure functions over JSON values. Built-in kinds live under `kinds/`, one file or one
//! folder each, all of one shape (names and wiring, defaults, rules, update rules, table). Custom resources will
//! implement the same trait. What is not here: I/O, storage, HTTP, authorization, patches. A crate of its own
//! because it is large, pure and changes often: it builds and tests without the server.
//!
//! | module | holds |
//! |---|---|
//! | [`kind`] | the trait |
//! | [`field`] | one broken rule, in Kubernetes' words |
//! | [`shape`] | fields, types, merge keys of a kind |
//! | [`strict`] | brings a JSON object into its kind's form: types, unknown fields, canonical values |
//! | [`openapi`] | OpenAPI v3 documents |
//! | `meta` | rules for `metadata` |
//! | `pod` | defaults and rules of pod specs and templates, for every kind that has one |
//! | `kinds` | the kinds themselves |
//!
//! # How to add the next kind
//!
//! An afternoon's work; take the kind nearest to yours as the pattern.
//!
//! 1. `kinds/NAME.rs` (or a folder `kinds/NAME/` when it passes 400 lines) with a unit struct and
//!    `impl Kind for …`: its `Names` as discovery shows them, its shape (`shape::of::<k8s_openapi type>()`
//!    in a `OnceLock`), columns and row as kube-apiserver prints them.
//! 2. `default`: what `SetDefaults_*` of its API group does. Idempotent. Only what the user left out.
//! 3. `prepare_create`, `prepare_update`: what the kind's `strategy.go` does: drop status, keep the part that the
//!    request may not change, count generations.
//! 4. `validate_create`, `validate_update`: the rules in Kubernetes' order, with its paths and words. Pod templates
//!    are checked by `pod`, metadata by `meta`.
//! 5. Lines in `shape/tables.rs` for lists with merge keys and for plain numbers and truth values that are left
//!    out when zero. A test refuses lines that name no field.
//! 6. One line in [`builtin`]. Discovery, OpenAPI, watch, patch, tables and field selectors follow by themselves.
//! 7. Tests as data: an object in, the object with defaults out; an object in, the list of `field: message` out;
//!    an object in, its table row out (`testing` has one helper for each).

mod age;
mod errors;
pub mod field;
mod json;
pub mod kind;
mod kinds;
mod meta;
pub mod openapi;
mod path;
mod pod;
pub mod shape;
mod shown;
pub mod strict;
mod table;
#[cfg(test)]
mod testing;

pub use kind::{Column, Kind, Names, Part, ScalePaths};
pub use kinds::builtin;
