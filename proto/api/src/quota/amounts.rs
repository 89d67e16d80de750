//! Lists of amounts by name, and how they are told.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// Amounts by name: `pods`, `requests.cpu`, `count/secrets`.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a JSON object, as in `status.used`; what is no quantity is left out.
#[must_use]
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

/// Both together; the format of the first is kept.
#[must_use]
pub fn sum(a: &Amounts, b: &Amounts) -> Amounts {
    let mut sum = a.clone();
    add(&mut sum, b);
    sum
}

/// What `a` has more than `b`; never below zero.
#[must_use]
pub fn more(a: &Amounts, b: &Amounts) -> Amounts {
    let rest = |(name, amount): (&String, &Quantity)| {
        let left = b.get(name).map_or(*amount, |less| *amount - *less);
        (name.clone(), if left.is_negative() { Quantity::ZERO } else { left })
    };
    a.iter().map(rest).collect()
}

/// Adds what is in `more`.
pub(super) fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let there = sum.get(name).copied();
        // The first amount decides how the sum is written.
        sum.insert(
            name.clone(),
            there.map_or(*amount, |there| if there.is_zero() { *amount } else { there + *amount }),
        );
    }
}

/// Raises to what is in `more`, where that is larger.
pub(super) fn raise(list: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        if list.get(name).is_none_or(|there| there < amount) {
            list.insert(name.clone(), *amount);
        }
    }
}

/// `pods=1,requests.cpu=2`, as Kubernetes writes amounts into messages.
#[must_use]
pub fn show(list: &Amounts) -> String {
    let parts: Vec<String> = list.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    parts.join(",")
}

/// `pods,requests.cpu`.
#[must_use]
pub fn show_names(names: &[String]) -> String {
    let mut names = names.to_vec();
    names.sort();
    names.join(",")
}
