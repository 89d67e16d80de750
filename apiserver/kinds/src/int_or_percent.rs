//! Amounts that are a number or a share of a whole: `maxSurge`, `minAvailable`.

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::path::Path;

/// A number that is not negative, or a share such as `25%`.
pub(crate) fn rules(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(text) if names::percent(text).is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.invalid(path, text.as_str(), detail);
        }
        Value::String(_) => {}
        _ => errors.not_negative(path, value.as_i64()),
    }
}

/// A share is at most the whole.
pub(crate) fn at_most_all(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if value.as_str().and_then(names::percent).is_some_and(|percent| percent > 100) {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// Whether nothing is meant: 0, `0%`, or a text that is no share.
pub(crate) fn is_zero(value: &Value) -> bool {
    let number = value.as_str().map(|text| names::percent(text).or_else(|| text.parse().ok()).unwrap_or_default());
    number.or_else(|| value.as_i64()).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn zero_is_zero_in_every_form() {
        for (value, zero) in
            [(json!(0), true), (json!("0%"), true), (json!("no"), true), (json!(1), false), (json!("1%"), false)]
        {
            assert_eq!(is_zero(&value), zero, "{value}");
        }
    }
}
