//! The kinds: everything the API server must know about one kind of object, and nothing about requests.
//!
//! A [`Kind`] is a bundle of pure functions over JSON values. Built-in kinds live under `kinds/`, a folder for
//! each API group, in it one file or one folder for each kind, all of one shape (names and wiring, defaults, rules,
//! update rules, table). Custom resources implement the same trait.
//! What is not here: I/O, storage, HTTP, authorization, patches. A crate of its own
//! because it is large, pure and changes often: it builds and tests without the server.
//!
//! | module | holds |
//! |---|---|
//! | [`kind`] | the trait |
//! | [`field`] | one broken rule, in Kubernetes' words |
//! | [`shape`] | fields, types, merge keys of a kind |
//! | [`strict`] | brings a JSON object into its kind's form: types, unknown fields, canonical values |
//! | [`managed`] | who manages which field: server-side apply and `metadata.managedFields` |
//! | [`openapi`] | OpenAPI v3 documents |
//! | `meta` | rules for `metadata` |
//! | `custom` | custom resources: schemas and what follows from them |
//! | `pod` | defaults and rules of pod specs and templates, for every kind that has one |
//! | `kinds` | the kinds themselves |
//!
//! # How to add the next kind
//!
//! An afternoon's work; take the kind nearest to yours as the pattern.
//!
//! 1. `kinds/GROUP/NAME.rs` (or a folder `kinds/GROUP/NAME/` when it passes 400 lines) with a unit struct and
//!    `impl Kind for …`: its `Names` as discovery shows them, its columns, and `wiring!(TYPE, NAMES, COLUMNS);`;
//!    `parts` names the subresources that are parts of the object (status). A new group is a folder of its own whose
//!    `mod.rs` lists its kinds, and one entry in [`builtin`].
//! 2. `default`: what `SetDefaults_*` of its API group does. Idempotent. Only what the user left out.
//! 3. `prepare_create`, `prepare_update`: what the kind's `strategy.go` does: drop status, keep the part that the
//!    request may not change, count generations.
//! 4. `validate_create`, `validate_update`: the rules in Kubernetes' order, with its paths and words. Pod templates
//!    are checked by `pod`, metadata by `meta`.
//! 5. `row` as kube-apiserver prints it; `selectable_field`, `warnings`, `create_on_update` … where the kind's strategy
//!    says so.
//! 6. Lines in `shape/tables.rs` for plain numbers and truth values that are left
//!    out when zero. A test refuses lines that name no field.
//! 7. One line in the group's `mod.rs`. Discovery, OpenAPI, watch, patch, tables and field selectors follow by
//!    themselves.
//! 8. Tests as data: an object in, the object with defaults out; an object in, the list of `field: message` out;
//!    an object in, its table row out (`testing` has one helper for each).

mod age;
mod claim;
mod custom;
mod errors;
pub mod expressions;
pub mod field;
mod int_or_percent;
mod intern;
mod json;
pub mod kind;
mod kinds;
pub mod managed;
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

pub use custom::{CustomKind, compare_versions};
pub use intern::{intern, intern_all};
pub use kind::{Column, Kind, Names, Part, ScalePaths, StoredAs};
pub use kinds::{
    Approval, approval_of, bodies, body, bootstrap, builtin, component_status, is_protected_group, reviews,
    service_address_rules,
};
pub use meta::common_changes;
