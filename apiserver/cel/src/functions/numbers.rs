//! Numbers as texts, the way Go writes them.

/// `%g`: as many digits as are needed, with an exponent when that is large or very small.
pub(crate) fn shown(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let exponential = format!("{value:e}");
    let Some((digits, exponent)) = exponential.split_once('e') else { return exponential };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) { format!("{value}") } else { with_exponent(digits, exponent) }
}

/// `%.Ne`
pub(crate) fn scientific(value: f64, precision: usize) -> String {
    let exponential = format!("{value:.precision$e}");
    let Some((digits, exponent)) = exponential.split_once('e') else { return exponential };
    with_exponent(digits, exponent.parse().unwrap_or_default())
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
