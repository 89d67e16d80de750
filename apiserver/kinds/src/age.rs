//! How long ago something was, as kubectl shows it: `5s`, `3m12s`, `2d4h`, `<unknown>`.
//!
//! Source: the behaviour of `k8s.io/apimachinery/pkg/util/duration.HumanDuration`.

use jiff::Timestamp;
use serde_json::Value;

use crate::json::{at, text};

/// What is shown for a time that is not there.
pub(crate) const UNKNOWN: &str = "<unknown>";

/// The age of an object.
pub(crate) fn of(object: &Value, now: Timestamp) -> String {
    since(text(at(object, &["metadata"]), "creationTimestamp"), now)
}

/// Time passed since a timestamp of RFC 3339.
pub(crate) fn since(timestamp: &str, now: Timestamp) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// Time between two timestamps, or since the first as long as there is no second; empty without a first.
pub(crate) fn between(start: &str, end: &str, now: Timestamp) -> String {
    let second = |text: &str| text.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let end = second(end).unwrap_or(now.as_second());
    second(start).map(|start| human(end - start)).unwrap_or_default()
}

/// A duration in seconds in short form, at most two units.
pub(crate) fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds, MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds, HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds, DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds, YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

fn two(seconds: i64, large: i64, large_name: &str, small: i64, small_name: &str) -> String {
    match seconds % large / small {
        0 => format!("{}{large_name}", seconds / large),
        rest => format!("{}{large_name}{rest}{small_name}", seconds / large),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_shows_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (3600, "60m"),
            (4 * 3600 + 60, "4h1m"),
            (30 * 3600, "30h"),
            (3 * 86400, "3d"),
            (3 * 86400 + 7200, "3d2h"),
            (400 * 86400, "400d"),
            (3 * 365 * 86400, "3y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
        assert_eq!(since("", Timestamp::UNIX_EPOCH), "<unknown>");
    }
}
