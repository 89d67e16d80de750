//! How much a device has: capacities, what of them may be asked for, counters that devices share.

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::shared::{each_once, label};
use crate::errors::Errors;
use crate::json::{entries, get, has, list, text};
use crate::path::Path;

const MAX_COUNTERS: usize = 32;
const MAX_OPTIONS: usize = 10;

/// A key as a path shows it: its middle left out when it is too long.
pub(super) fn shortened(key: &str, max: usize) -> String {
    if key.len() <= max {
        return key.to_owned();
    }
    let rest = max - 3;
    let (mut start, mut end) = (rest.div_ceil(2), key.len() - rest / 2);
    while !key.is_char_boundary(start) {
        start -= 1;
    }
    while !key.is_char_boundary(end) {
        end += 1;
    }
    format!("{}...{}", &key[..start], &key[end..])
}

/// A named set of counters; the field with its name is called differently where it is offered and where it is used.
pub(super) fn counters(set: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    match text(set, name) {
        "" => errors.required(&path.child(name), ""),
        own => label(own, &path.child(name), errors),
    }
    let (count, path) = (entries(set, "counters").count(), path.child("counters"));
    if count == 0 {
        return errors.required(&path, "");
    }
    if count > MAX_COUNTERS {
        return errors.too_many(&path, count, MAX_COUNTERS);
    }
    for (key, _) in entries(set, "counters") {
        errors.invalid_each(&path, key, names::dns1123_label(key));
    }
}

/// A capacity; only one of a device that is shared may say what of it can be asked for.
pub(super) fn check(capacity: &Value, shared: bool, path: &Path<'_>, errors: &mut Errors) {
    let (policy, path) = (get(capacity, "requestPolicy"), path.child("requestPolicy"));
    if policy.is_null() {
        return;
    }
    if !shared {
        return errors.forbidden(&path, "allowMultipleAllocations must be true");
    }
    let (values, range) = (list(policy, "validValues"), get(policy, "validRange"));
    if !values.is_empty() && !range.is_null() {
        let detail =
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        return errors.forbidden(&path, detail);
    }
    let field = if !values.is_empty() {
        "validValues"
    } else if !range.is_null() {
        "validRange"
    } else {
        return;
    };
    let max = amount(capacity, "value");
    match amount(policy, "default") {
        None => errors.required(&path.child("default"), format!("required when {field} is defined")),
        Some(default) if field == "validValues" => {
            options(values, default, max.unwrap_or(default), &path.child(field), errors);
        }
        Some(default) => within(range, default, max.unwrap_or(default), &path.child(field), errors),
    }
}

fn amount(holder: &Value, field: &str) -> Option<Quantity> {
    Quantity::from_value(get(holder, field)).ok().filter(|_| has(holder, field))
}

fn options(values: &[Value], default: Quantity, max: Quantity, path: &Path<'_>, errors: &mut Errors) {
    let all: Vec<_> = values.iter().filter_map(|value| Quantity::from_value(value).ok()).collect();
    for (index, pair) in all.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        errors.invalid(&path.index(index + 1), pair[1].to_string(), "values must be sorted in ascending order");
    }
    let key = |value: &Value| Quantity::from_value(value).map(|one| one.value().to_string()).unwrap_or_default();
    each_once(values, MAX_OPTIONS, key, path, errors, |value, path, errors| {
        if let Ok(option) = Quantity::from_value(value)
            && option > max
        {
            errors.invalid(path, option.to_string(), format!("option is larger than capacity value: {max}"));
        }
    });
    if values.len() > MAX_OPTIONS || !all.contains(&default) {
        errors.invalid(path, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn within(range: &Value, default: Quantity, capacity: Quantity, path: &Path<'_>, errors: &mut Errors) {
    let (min_path, max_path, step_path) = (path.child("min"), path.child("max"), path.child("step"));
    let Some(min) = amount(range, "min") else {
        return errors.required(&min_path, "required when validRange is defined");
    };
    let max = amount(range, "max");
    if min > capacity {
        errors.invalid(&min_path, min.to_string(), format!("min is larger than capacity value: {capacity}"));
    }
    if default < min {
        errors.invalid(&min_path, default.to_string(), format!("default is less than min: {min}"));
    }
    if let Some(max) = max {
        if min > max {
            errors.invalid(&max_path, min.to_string(), format!("min is larger than max: {max}"));
        }
        if max > capacity {
            errors.invalid(&max_path, max.to_string(), format!("max is larger than capacity value: {capacity}"));
        }
        if default > max {
            errors.invalid(&max_path, default.to_string(), format!("default is more than max: {max}"));
        }
    }
    let Some(step) = amount(range, "step") else { return };
    let first = Quantity::new(min.value().saturating_add(step.value()), min.format());
    if first > capacity {
        let detail = format!("one step {first} is larger than capacity value: {capacity}");
        errors.invalid(&step_path, step.to_string(), detail);
    }
    for value in [Some(default), max].into_iter().flatten() {
        // Kubernetes cannot divide by nothing either; such a step fits nothing.
        let distance = value.value().saturating_sub(min.value());
        if distance.checked_rem(step.value()).is_none_or(|rest| rest != 0) {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            errors.invalid(&step_path, value.to_string(), detail);
        }
    }
}
