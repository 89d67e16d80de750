//! Points in time and spans of time: reading, writing, parts.

use std::cmp::Ordering;
use std::fmt;

use jiff::civil;
use jiff::tz::{Offset, TimeZone};

const SECOND: i64 = 1_000_000_000;
/// Seconds since 1970 of the first and last second there is: years 1 to 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// A point in time with the offset from UTC it was written with; only the point counts when compared.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp {
    at: jiff::Timestamp,
    offset: Offset,
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

impl Timestamp {
    /// The point that many seconds after 1970, in UTC.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        let at = jiff::Timestamp::from_second(seconds).ok()?;
        Self { at, offset: Offset::UTC }.in_range()
    }

    fn in_range(self) -> Option<Self> {
        (FIRST..=LAST).contains(&self.at.as_second()).then_some(self)
    }

    pub(crate) fn seconds(&self) -> i64 {
        self.at.as_second()
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.at.as_second() == FIRST && self.at.subsec_nanosecond() == 0
    }

    /// Reads RFC 3339, strictly; a year below 1 is `Ok(None)`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let date = read_date(date)?;
        let rest = rest.strip_prefix('T')?;
        let (clock, rest) = rest.split_at_checked(8)?;
        let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
        let digits =
            rest.strip_prefix(['.', ',']).map(|rest| rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (fraction, zone) = match digits {
            Some(0) => return None,
            Some(count) => rest.split_at_checked(count + 1)?,
            None => ("", rest),
        };
        let nanos = format!("{:0<9}", fraction.get(1..).unwrap_or_default());
        let nanos: i32 = nanos.get(..9)?.parse().ok()?;
        let offset = read_zone(zone)?;
        let small = |number: i32| i8::try_from(number).ok();
        let clock = civil::Time::new(small(hour)?, small(minute)?, small(second)?, nanos).ok()?;
        let at = offset.to_timestamp(date.to_datetime(clock)).ok()?;
        Self { at, offset }.in_range()
    }

    /// Reads what Kubernetes takes for `format: date-time`.
    #[must_use]
    pub fn parse_lenient(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Self::parse(&text.to_ascii_uppercase()))
    }

    /// Reads a date: its first moment in UTC.
    #[must_use]
    pub fn parse_date(text: &str) -> Option<Self> {
        let date = read_date(text)?;
        let at = Offset::UTC.to_timestamp(date.to_datetime(civil::Time::midnight())).ok()?;
        Self { at, offset: Offset::UTC }.in_range()
    }

    /// That much later; none when there is no such time.
    pub(crate) fn plus(self, nanos: i64) -> Option<Self> {
        let at = self.at.checked_add(jiff::SignedDuration::from_nanos(nanos)).ok()?;
        Self { at, ..self }.in_range()
    }

    /// Nanoseconds from `other` to here; none when there are too many.
    pub(crate) fn since(self, other: Self) -> Option<i64> {
        i64::try_from(self.at.as_nanosecond() - other.at.as_nanosecond()).ok()
    }

    /// Date and time in the zone called `zone`, an IANA name or `±HH:MM`; UTC without one.
    pub(crate) fn in_zone(&self, zone: Option<&str>) -> Result<civil::DateTime, String> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(text) => match text.split_once(':') {
                None if text.is_empty() || text == "UTC" => TimeZone::UTC,
                None => TimeZone::get(text).map_err(|_| format!("unknown time zone {text}"))?,
                Some((hours, minutes)) => {
                    let number = |text: &str| {
                        let invalid = || format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                        text.parse::<i32>().map_err(|_| invalid())
                    };
                    let (hours, minutes) = (number(hours)?, number(minutes)?);
                    let minutes = if text.starts_with('-') { hours * 60 - minutes } else { hours * 60 + minutes };
                    let offset = Offset::from_seconds(minutes.saturating_mul(60));
                    TimeZone::fixed(offset.map_err(|_| format!("unknown time zone {text}"))?)
                }
            },
        };
        Ok(zone.to_datetime(self.at))
    }
}

/// RFC 3339 with as many digits of a second as there are.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.offset.to_datetime(self.at);
        let date = format!("{:04}-{:02}-{:02}", local.year(), local.month(), local.day());
        write!(f, "{date}T{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second())?;
        if local.subsec_nanosecond() != 0 {
            let digits = format!("{:09}", local.subsec_nanosecond());
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        match self.offset.seconds() / 60 {
            0 => f.write_str("Z"),
            minutes => {
                let sign = if minutes < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
            }
        }
    }
}

/// Numbers of fixed widths between separators.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i32; N]> {
    let mut found = [0; N];
    let mut parts = text.split(separator);
    for (place, width) in found.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))?;
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn read_date(text: &str) -> Option<civil::Date> {
    let [year, month, day] = numbers(text, '-', [4, 2, 2])?;
    civil::Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn read_zone(text: &str) -> Option<Offset> {
    if text == "Z" {
        return Some(Offset::UTC);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(text.get(1..)?, ':', [2, 2])?;
    if hours > 24 || minutes > 60 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// Reads a span of time as Go writes it: `1h30m`, `1.5s`, `-2ms`, `0`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    let unit_of = |name: &str| match name {
        "ns" => Some(1),
        "us" | "µs" | "μs" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(SECOND),
        "m" => Some(60 * SECOND),
        "h" => Some(3600 * SECOND),
        _ => None,
    };
    sum_of_units(text, unit_of, false)
}

/// Reads what Kubernetes takes for `format: duration`: also days and weeks, names in full, and spaces.
#[must_use]
pub fn parse_open_api_duration(text: &str) -> Option<i64> {
    let unit_of = |name: &str| match name.to_lowercase().as_str() {
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => Some(1),
        "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => Some(1_000),
        "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => Some(1_000_000),
        "s" | "sec" | "secs" | "second" | "seconds" => Some(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60 * SECOND),
        "h" | "hr" | "hour" | "hours" => Some(3600 * SECOND),
        "d" | "day" | "days" => Some(24 * 3600 * SECOND),
        "w" | "week" | "weeks" => Some(7 * 24 * 3600 * SECOND),
        _ => None,
    };
    parse_duration(text).or_else(|| sum_of_units(text, unit_of, true))
}

fn sum_of_units(text: &str, unit_of: impl Fn(&str) -> Option<i64>, spaces: bool) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0_i128;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let number_end = rest.find(|c: char| !is_number(c)).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(number_end)?;
        let after = if spaces { after.trim_start() } else { after };
        let unit_end = after.find(|c: char| is_number(c) || c == ' ').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        rest = if spaces { after.trim_start() } else { after };
        sum = sum.checked_add(amount(number, unit_of(unit)?)?)?;
        if sum > i128::from(i64::MAX) + 1 {
            return None;
        }
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

fn amount(number: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = fraction.get(..fraction.len().min(18))?;
    let part: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_mul(i128::from(unit))?.checked_add(part * i128::from(unit) / scale)
}

/// As CEL writes it: seconds.
#[must_use]
pub fn seconds(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = format!("{:09}", magnitude % SECOND.unsigned_abs());
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{dot}{fraction}s", magnitude / SECOND.unsigned_abs())
}

/// As Go writes it: `1h30m0s`.
#[must_use]
pub fn go_duration(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let decimal = |unit: u64, name: &str| {
        let fraction = format!("{:0width$}", magnitude % unit, width = unit.ilog10() as usize);
        let fraction = if unit == 1 { "" } else { fraction.trim_end_matches('0') };
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{}{dot}{fraction}{name}", magnitude / unit)
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => decimal(1, "ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let whole = magnitude / SECOND.unsigned_abs();
            let (hours, minutes) = (whole / 3600, whole / 60 % 60);
            let rest = i64::try_from(magnitude % (60 * SECOND.unsigned_abs())).unwrap_or_default();
            let rest = seconds(rest);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}"),
                (0, _) => format!("{sign}{minutes}m{rest}"),
                _ => format!("{sign}{hours}h{minutes}m{rest}"),
            }
        }
    }
}
