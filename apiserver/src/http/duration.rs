//! Spans of time as Go writes them: `1h15m30.918s`, `300ms`, `-1.5h`.
//!
//! Source: the Go documentation of `time.ParseDuration`, and its error texts.

use std::time::Duration;

/// The units, in nanoseconds.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Longest span that Go knows.
const NANOS_MAX: f64 = 9.223_372_036_854_776e18;

/// Reads a span; `None` for one that is negative.
pub(crate) fn parse(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let number_len = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(number_len);
        // A point alone is no number, and of two points the second begins what should be a unit.
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit_len = behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let found = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, scale) = found.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        nanos += number * scale;
        if nanos > NANOS_MAX {
            return Err(invalid());
        }
        rest = behind;
    }
    if is_negative {
        return Ok((nanos == 0.0).then_some(Duration::ZERO));
    }
    Ok(Some(Duration::from_secs_f64(nanos / 1e9)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        for (text, millis) in
            [("34s", 34_000), ("1h1m", 3_660_000), ("1.5s", 1500), ("300ms", 300), ("0", 0), ("+1s", 1000)]
        {
            assert_eq!(parse(text), Ok(Some(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(parse("-5s"), Ok(None));
        for (text, why) in [
            ("10", "time: missing unit in duration \"10\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("soon", "time: invalid duration \"soon\""),
            (".s", "time: invalid duration \".s\""),
            ("-", "time: invalid duration \"-\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
