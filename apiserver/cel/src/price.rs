//! What a call costs when it runs, by cel-go's rules and Kubernetes' on top.

use crate::error::EvalError;
use crate::opaque::{Inner, Opaque};
use crate::value::Value;

/// Going through a letter.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// A letter of a pattern.
pub(crate) const PATTERN: f64 = 0.25;
/// Making a list, a map, an object.
pub(crate) const MAKE_LIST: u64 = 10;
pub(crate) const MAKE_MAP: u64 = 30;
pub(crate) const MAKE_STRUCT: u64 = 40;
/// An authorization check: dear, so that an expression makes two at most.
pub(crate) const CHECK: u64 = 350_000;

/// How the cost of a call is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Price {
    Fixed(u64),
    /// Going through the first argument that many times.
    Traverse(u32),
    /// Building the result.
    Join,
    /// Going through all there is in the first argument.
    Deep,
    Selector,
    Pattern,
    Contains,
    Sum,
    /// The size of the second argument.
    Second,
    /// The smaller of two.
    Compare,
    Equals,
    Validate,
    ContainsIp(bool),
    ContainsCidr(bool),
    Result,
    Flatten,
    /// Every element with every other.
    SelfCompare(usize),
    Sets(u64),
}

/// The price of `function` in the form `overload`.
pub(crate) fn price(function: &str, overload: Option<&str>) -> Price {
    of_overload(overload).or_else(|| of_function(function, overload)).unwrap_or_else(|| standard(function, overload))
}

/// What the extension libraries say of their forms.
fn of_overload(overload: Option<&str>) -> Option<Price> {
    Some(match overload? {
        "list_slice" | "lists_range" | "list_reverse" => Price::Result,
        "list_flatten" | "list_flatten_int" => Price::Flatten,
        "list_distinct" => Price::SelfCompare(0),
        "list_sets_contains_list" | "list_sets_intersects_list" => Price::Sets(1),
        "list_sets_equivalent_list" => Price::Sets(2),
        id if id.starts_with("list_") && id.ends_with("_sort") => Price::SelfCompare(0),
        id if id.ends_with("_sortByAssociatedKeys") => Price::SelfCompare(1),
        _ => return None,
    })
}

/// What Kubernetes says of functions.
fn of_function(function: &str, overload: Option<&str>) -> Option<Price> {
    Some(match function {
        "check" => Price::Fixed(CHECK),
        "fieldSelector" | "labelSelector" => Price::Selector,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Price::Deep,
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => Price::Traverse(1),
        "replace" | "split" => Price::Traverse(2),
        "join" => Price::Join,
        "find" | "findAll" => Price::Pattern,
        "ip" if overload == Some("cidr_ip") => Price::Fixed(1),
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => Price::Traverse(1),
        "ip.isCanonical" => Price::Traverse(2),
        "containsIP" => Price::ContainsIp(overload == Some("cidr_contains_ip_string")),
        "containsCIDR" => Price::ContainsCidr(overload == Some("cidr_contains_cidr_string")),
        "validate" => Price::Validate,
        _ => return None,
    })
}

/// What cel-go says of the standard forms; with several forms possible a call costs one.
fn standard(_function: &str, overload: Option<&str>) -> Price {
    let Some(id) = overload else { return Price::Fixed(1) };
    let ordered = ["less_", "less_equals_", "greater_", "greater_equals_"]
        .iter()
        .any(|prefix| id.strip_prefix(prefix).is_some_and(|of| of == "string" || of == "bytes"));
    match id {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
        | "string_format" => Price::Traverse(1),
        "in_list" => Price::Second,
        "add_string" | "add_bytes" => Price::Sum,
        "matches_string" => Price::Pattern,
        "contains_string" => Price::Contains,
        _ if ordered => Price::Compare,
        _ => Price::Fixed(1),
    }
}

/// `ceil(size * factor)`
pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "costs are what they are in floating point")]
    let scaled = (size as f64 * factor).ceil();
    to_cost(scaled)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
pub(crate) fn to_cost(cost: f64) -> u64 {
    cost as u64
}

impl Price {
    /// What the call cost.
    pub(crate) fn of(self, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
        let size = |index: usize| args.get(index).map_or(1, Value::size);
        match self {
            Self::Fixed(cost) => cost,
            Self::Traverse(times) => scaled(size(0) * u64::from(times), TRAVERSAL),
            Self::Join => scaled(result.map_or(1, Value::size) * 2, TRAVERSAL),
            Self::Deep => args.first().map_or(0, deep),
            Self::Selector => selector(size(1)),
            Self::Pattern => scaled(size(0) + 1, TRAVERSAL) * scaled(size(1), PATTERN),
            Self::Contains => scaled(size(0), TRAVERSAL) * scaled(size(1), TRAVERSAL),
            Self::Sum => scaled(size(0) + size(1), TRAVERSAL),
            Self::Second => size(1),
            Self::Compare => scaled(size(0).min(size(1)), TRAVERSAL),
            Self::Equals => match args.first() {
                Some(Value::Opaque(_)) => 1,
                _ => scaled(size(0).min(size(1)), TRAVERSAL),
            },
            Self::Validate => match args.first() {
                Some(Value::Opaque(Opaque(Inner::Format(format)))) => {
                    scaled(size(1) + 1, TRAVERSAL) * scaled(format.pattern_size, PATTERN)
                }
                _ => 1,
            },
            Self::ContainsIp(text) => scaled(size(0) * 2, TRAVERSAL) + parsed(text, size(1)),
            Self::ContainsCidr(text) => {
                scaled(size(0) * 2, TRAVERSAL) + scaled(size(0), TRAVERSAL) + 1 + parsed(text, size(1))
            }
            Self::Result => result.map_or(1, Value::size) + 1 + MAKE_LIST,
            Self::Flatten => {
                let depth = match args.get(1) {
                    Some(Value::Int(depth)) => u64::try_from(*depth).unwrap_or_default(),
                    _ => 1,
                };
                size(0).saturating_mul(depth).saturating_add(1 + MAKE_LIST)
            }
            Self::SelfCompare(index) => self_compare(args.get(index)),
            Self::Sets(factor) => 1 + size(0).saturating_mul(size(1)).saturating_mul(factor),
        }
    }
}

fn parsed(text: bool, size: u64) -> u64 {
    if text { scaled(size, TRAVERSAL) } else { 0 }
}

pub(crate) fn selector(length: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "what a requirement costs is a small number")]
    let requirement = (MAKE_LIST + MAKE_STRUCT) as f64;
    MAKE_LIST + scaled(length, TRAVERSAL) + scaled(scaled(length, 0.5), requirement)
}

fn self_compare(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let first = list.get(0);
    let texts = matches!(first, Some(Ok(Value::String(_) | Value::Bytes(_))));
    let factor = if texts { 2.0 + TRAVERSAL } else { 2.0 };
    let size = list.len() as u64;
    #[expect(clippy::cast_precision_loss, reason = "costs are what they are in floating point")]
    let cost = size.saturating_mul(size) as f64 * factor;
    to_cost(cost).saturating_add(1 + MAKE_LIST)
}

/// Going through a value with all it holds.
fn deep(value: &Value<'_>) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "costs are what they are in floating point")]
    let letters = |bytes: usize| to_cost(bytes as f64 * TRAVERSAL);
    match value {
        Value::String(text) => letters(text.len()),
        Value::Bytes(bytes) => letters(bytes.len()),
        Value::List(list) => list.iter().map(deep_or_one).sum(),
        Value::Map(map) => {
            map.pairs().map_or(1, |pairs| pairs.iter().map(|(key, value)| deep(key) + deep(value)).sum())
        }
        _ => 1,
    }
}

fn deep_or_one(element: Result<Value<'_>, EvalError>) -> u64 {
    element.map_or(1, |element| deep(&element))
}
