//! Patches: how they are applied and how they are made.
//!
//! JSON merge patch ([`merge`], RFC 7386) and strategic merge patch ([`strategic`] applies, [`create`] makes).
//! Rules of the latter: Kubernetes' "Strategic Merge Patch" (contributor guide, sig-api-machinery) and the
//! observable behaviour of `kubectl apply`. JSON patch (RFC 6902) is the crate `json-patch`'s business, and
//! server-side apply is not here.

use serde_json::Value;

mod create;
mod merge;
mod strategic;

#[cfg(test)]
mod tests;

pub use create::{create_three_way, create_three_way_json, create_two_way, create_two_way_json};
pub use merge::merge_patch;
pub use strategic::strategic_merge;

/// How strategic merge patch treats a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListStrategy<'a> {
    /// The patch's list replaces the object's.
    Replace,
    /// Lists of objects are merged; objects with the same value of this key are the same.
    MergeByKey(&'a str),
    /// Lists of plain values are merged as sets.
    MergeAsSet,
}

/// What strategic merge patch must know of one field.
#[derive(Clone, Copy)]
pub struct FieldStrategy<'a> {
    /// How a list in this field is treated; meaningless for other values.
    pub list: ListStrategy<'a>,
    /// Whether patches made for the object in this field carry `$retainKeys`.
    pub retain_keys: bool,
    /// The fields of the object in this field, or of the objects in the list or map in it.
    /// `None`: nothing is known below; maps merge and lists are replaced.
    pub schema: Option<&'a dyn PatchSchema>,
}

impl FieldStrategy<'_> {
    /// For a field of which nothing is known.
    pub const UNKNOWN: FieldStrategy<'static> =
        FieldStrategy { list: ListStrategy::Replace, retain_keys: false, schema: None };
}

/// Answers for one object how strategic merge patch treats its fields. Implemented by the kinds' shapes.
pub trait PatchSchema: Sync {
    /// What must be known of `field`; `None` when the object has no such field.
    fn field(&self, field: &str) -> Option<FieldStrategy<'_>>;
}

/// A schema that knows nothing: maps merge, lists are replaced, as for custom resources.
#[derive(Debug, Clone, Copy)]
pub struct NoSchema;

impl PatchSchema for NoSchema {
    fn field(&self, _field: &str) -> Option<FieldStrategy<'_>> {
        None
    }
}

/// Why a patch cannot be applied or made, in Kubernetes' words. Always the fault of the patch, never retryable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// A `$patch` directive that does not exist, or not at this place.
    #[error("unknown patch type: {value} in map: {map}")]
    UnknownDirective {
        /// What it says.
        value: String,
        /// Where it stands, as Go shows maps.
        map: String,
    },
    /// An item of a list says that it is to be merged.
    #[error("merging lists cannot yet be specified in the patch")]
    MergingItem,
    /// A value has the wrong type.
    #[error("expected a {expected}, but received a {received}")]
    WrongType {
        /// Its Go type as it should be.
        expected: &'static str,
        /// Its Go type.
        received: &'static str,
    },
    /// The items of a list and of its patch are not of one type.
    #[error("list element types are not identical: {lists}")]
    MixedItems {
        /// Both, as Go shows lists.
        lists: String,
    },
    /// An item of a list that is merged by key lacks the key.
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The item, as Go shows maps.
        item: String,
        /// The key it lacks.
        key: String,
    },
    /// `$retainKeys` is no list, or leaves out a key that the patch sets.
    #[error("invalid patch format of retainKeys")]
    BadRetainKeys,
    /// `$setElementOrder` names the items in another order than the patch, or leaves some out.
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch {
        /// The patch's items, as Go shows lists.
        patch: String,
        /// The order.
        order: String,
    },
    /// The documents to compare, or a patch, are not objects.
    #[error("a strategic merge patch and what it is applied to must be objects")]
    NotAnObject,
}

/// A value as Go shows it (`%v`).
#[must_use]
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        plain => plain.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

pub(crate) const DIRECTIVE: &str = "$patch";
pub(crate) const RETAIN_KEYS: &str = "$retainKeys";
pub(crate) const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
pub(crate) const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

fn strategy_of<'a>(schema: Option<&'a dyn PatchSchema>, field: &str) -> FieldStrategy<'a> {
    schema.and_then(|schema| schema.field(field)).unwrap_or(FieldStrategy::UNKNOWN)
}
