//! Schedules of CronJobs: five fields, or a name such as `@daily`.
//!
//! The texts are those that kube-apiserver passes on from the parser it uses (robfig/cron v3).

/// A field of a schedule: its smallest and largest number, and the names that stand for numbers.
struct Field {
    min: u64,
    max: u64,
    names: &'static [(&'static str, u64)],
}

const MONTHS: &[(&str, u64)] = &[
    ("jan", 1),
    ("feb", 2),
    ("mar", 3),
    ("apr", 4),
    ("may", 5),
    ("jun", 6),
    ("jul", 7),
    ("aug", 8),
    ("sep", 9),
    ("oct", 10),
    ("nov", 11),
    ("dec", 12),
];

const DAYS: &[(&str, u64)] = &[("sun", 0), ("mon", 1), ("tue", 2), ("wed", 3), ("thu", 4), ("fri", 5), ("sat", 6)];

const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field { min: 1, max: 12, names: MONTHS },
    Field { min: 0, max: 6, names: DAYS },
];

const NAMED: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Whether a schedule can be read.
///
/// # Errors
/// What is wrong with it. A time zone in front is not looked at: schedules with one are refused anyhow.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let mut schedule = schedule;
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        let Some((zone, rest)) = schedule.split_once(' ') else {
            // What becomes of it in the parser.
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned());
        };
        let zone = zone.split_once('=').map_or(zone, |(_, zone)| zone);
        if let Err(complaint) = time_zone(zone) {
            return Err(format!("provided bad location {zone}: {complaint}"));
        }
        schedule = rest.trim();
    }
    if schedule.starts_with('@') {
        return named(schedule);
    }
    let parts: Vec<_> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    for (part, field) in parts.iter().zip(&FIELDS) {
        for range in part.split(',').filter(|range| !range.is_empty()) {
            check_range(range, field)?;
        }
    }
    Ok(())
}

/// Whether a time zone is known.
///
/// # Errors
/// That it is not, as Go says it.
pub(super) fn time_zone(name: &str) -> Result<(), String> {
    let is_fixed = ["", "UTC", "Local"].contains(&name);
    // Names are told apart by case.
    let is_known = || jiff::tz::TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name));
    if is_fixed || is_known() { Ok(()) } else { Err(format!("unknown time zone {name}")) }
}

fn named(schedule: &str) -> Result<(), String> {
    if NAMED.contains(&schedule) {
        return Ok(());
    }
    match schedule.strip_prefix("@every ") {
        None => Err(format!("unrecognized descriptor: {schedule}")),
        Some(every) => duration(every).map_err(|complaint| format!("failed to parse duration {schedule}: {complaint}")),
    }
}

/// A duration as Go reads it: `1h30m`, `1.5s`.
fn duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let digits = &rest[..number];
        if !digits.contains(|letter: char| letter.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return Err(invalid());
        }
        rest = &rest[number..];
        let end = rest.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(rest.len());
        let unit = &rest[..end];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        if !["ns", "us", "µs", "μs", "ms", "s", "m", "h"].contains(&unit) {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        }
        rest = &rest[end..];
    }
    Ok(())
}

/// `*`, `3`, `mon-fri`, `*/5`, `10-20/2`
fn check_range(range: &str, field: &Field) -> Result<(), String> {
    let parts: Vec<_> = range.split('/').collect();
    let limits: Vec<_> = parts[0].split('-').collect();
    let (mut start, mut end) = (field.min, field.max);
    if !["*", "?"].contains(&limits[0]) {
        start = number_or_name(limits[0], field)?;
        end = match limits.len() {
            1 => start,
            2 => number_or_name(limits[1], field)?,
            _ => return Err(format!("too many hyphens: {range}")),
        };
    }
    let step = match parts.len() {
        1 => 1,
        2 => {
            // A single number with a step goes on to the end.
            if limits.len() == 1 {
                end = field.max;
            }
            number(parts[1])?
        }
        _ => return Err(format!("too many slashes: {range}")),
    };
    let (min, max) = (field.min, field.max);
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {range}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {range}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    Ok(())
}

fn number_or_name(text: &str, field: &Field) -> Result<u64, String> {
    let lower = text.to_lowercase();
    match field.names.iter().find(|(name, _)| *name == lower) {
        Some((_, number)) => Ok(*number),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.chars().all(|letter| letter.is_ascii_digit());
    let failed = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
    if !is_number {
        return Err(failed("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| failed("value out of range"))?;
    u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for schedule in
            ["* * * * *", "*/5 0,12 1-15 jan-jun ?", "0 0 * * MON-fri", "@daily", "@every 1h30m", "59/2 * * * 6"]
        {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn a_schedule_that_cannot_be_read_is_told_what_is_wrong() {
        for (schedule, complaint) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/1/2 * * * *", "too many slashes: */1/2"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every 3", "failed to parse duration @every 3: time: missing unit in duration \"3\""),
            ("@every 3x", "failed to parse duration @every 3x: time: unknown unit \"x\" in duration \"3x\""),
        ] {
            assert_eq!(check(schedule), Err(complaint.to_owned()), "{schedule}");
        }
    }
}
