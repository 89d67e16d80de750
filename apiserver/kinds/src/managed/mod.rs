//! Who manages which field: server-side apply and `metadata.managedFields`.
//!
//! Every write leaves behind who last set which field. [`update`] keeps that book for creates, updates and patches;
//! [`apply`] merges a configuration into an object, refuses to change what others manage, and removes what its
//! manager applied before and applies no more. Pure: objects, entries and the time come in, objects and entries go
//! out. Behaviour and words are those of Kubernetes' structured-merge-diff v6 and `managedfields`. Not here: defaults,
//! validation, admission, and when a write is one (the API server's registry).
//!
//! | module | holds |
//! |---|---|
//! | `element`, `set` | paths and sets of fields, `fieldsV1` |
//! | `schema` | what merging must know of a kind; [`MergeSchema`] |
//! | `compare`, `merge`, `fields`, `validate`, `items` | walks over values along a schema |
//! | `entry` | `metadata.managedFields` |
//! | `update`, `apply`, `conflict` | the operations |
//! | `scale` | managers of replicas, seen through the scale subresource |

mod apply;
mod compare;
mod conflict;
mod element;
mod entry;
mod fields;
mod items;
mod merge;
mod scale;
mod schema;
mod set;
mod update;
mod validate;

#[cfg(test)]
mod tests;

pub use apply::{Applied, ApplyError, LAST_APPLIED, Request, apply, shown_object};
pub use compare::{Comparison, compare, compare_merged, compare_with_empty};
pub use conflict::{Conflict, message as conflict_message};
pub use element::{ElementError, PathElement};
pub use entry::{Entry, Managed, ManagerId, Operation, is_reset};
pub use fields::{field_set, remove, with_named_fields};
pub use items::{Misfit, Misfits};
pub use merge::merge;
pub use scale::{ReplicasPaths, from_scale, scale_shape, to_scale};
pub use schema::{
    ATOMIC, DEDUCED, ListKind, ListRule, MapFields, MapRule, MergeKey, MergeSchema, Rule, Scalar, Untyped,
};
pub use set::{Path, Set, path_text};
pub use update::{Context, OneVersion, Versions, before, update};
pub use validate::validate;
