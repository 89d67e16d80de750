//! Numbers as Go prints them.

use serde_json::Number;

/// A float without an exponent, as `strconv.FormatFloat(f, 'f', -1, 64)` prints it.
pub(crate) fn plain(float: f64) -> String {
    format!("{float}")
}

/// A float as Go's `%v` prints it: the shortest digits, with an exponent when that is below -4 or above 5.
pub(crate) fn verb_v(float: f64) -> String {
    if float == 0.0 {
        return if float.is_sign_negative() { "-0".to_owned() } else { "0".to_owned() };
    }
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return plain(float);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// What Go makes of a JSON number: a whole number that fits, or a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GoNumber {
    /// `int64`
    Int(i64),
    /// `float64`
    Float(f64),
}

impl GoNumber {
    /// Of a JSON number.
    pub(crate) fn of(number: &Number) -> Self {
        match number.as_i64() {
            Some(int) => Self::Int(int),
            None => Self::Float(number.as_f64().unwrap_or_default()),
        }
    }

    /// As a float, perhaps with a loss.
    #[expect(clippy::cast_precision_loss, reason = "as Go converts it")]
    pub(crate) fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    /// Whether it is a whole number, or a float without a fraction in the range where floats count exactly.
    pub(crate) fn is_whole(self) -> bool {
        match self {
            Self::Int(_) => true,
            Self::Float(float) => float_is_whole(float),
        }
    }
}

/// Whether a float is a whole number as JSON understands it (go-openapi's `IsFloat64AJSONInteger`).
pub(crate) fn float_is_whole(float: f64) -> bool {
    const MAX_SAFE: f64 = 9_007_199_254_740_991.0;
    const EPSILON: f64 = 1e-9;
    if float.is_nan() || float.is_infinite() || !(-MAX_SAFE..=MAX_SAFE).contains(&float) {
        return false;
    }
    let whole = float.trunc();
    let (difference, size) = ((float - whole).abs(), float.abs() + whole.abs());
    if float == whole {
        return true;
    }
    if float == 0.0 || whole == 0.0 || difference < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / size.min(f64::MAX) < EPSILON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_go() {
        let printed: Vec<_> =
            [1.0, 1.5, 1e6, 1_234_567.0, 1e21, 1.5e-7, 0.0001, -2.25, 0.0].into_iter().map(verb_v).collect();
        assert_eq!(printed, ["1", "1.5", "1e+06", "1.234567e+06", "1e+21", "1.5e-07", "0.0001", "-2.25", "0"]);
    }
}
