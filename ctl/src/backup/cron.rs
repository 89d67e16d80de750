//! When scheduled backups are made: every so often, or at the minutes that five fields of cron name, in the machine's
//! time zone. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::kubectl::connect::parse_duration;

/// More often a backup is not made.
const EVERY_MIN: Duration = Duration::from_secs(1);
/// A day that does not come within so many days (29 February comes within eight years) never does.
const DAYS_MAX: i64 = 366 * 9;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// So long after the last one.
    Every(Duration),
    /// At these minutes.
    At(Box<Minutes>),
}

/// The minutes that cron's fields name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Minutes {
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    days: BTreeSet<i8>,
    months: BTreeSet<i8>,
    weekdays: BTreeSet<i8>,
    /// Whether days of the month and of the week are both given: then either will do, as cron has it.
    either: bool,
}

impl Schedule {
    /// A duration such as `6h`, five fields such as `30 3 * * mon-fri`, or `@hourly`, `@daily`, `@weekly`, `@monthly`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        match fields[..] {
            [one] => match parse_duration(one) {
                Ok(Some(every)) if every >= EVERY_MIN => Ok(Self::Every(every)),
                _ => Err(format!("{one:?} is no duration such as 6h; or five fields such as \"30 3 * * *\"")),
            },
            [minutes, hours, days, months, weekdays] => {
                let mut own = Minutes {
                    minutes: field(minutes, (0, 59), &[])?,
                    hours: field(hours, (0, 23), &[])?,
                    days: field(days, (1, 31), &[])?,
                    months: field(months, (1, 12), &MONTHS)?,
                    weekdays: field(weekdays, (0, 7), &WEEKDAYS)?,
                    either: !days.starts_with('*') && !weekdays.starts_with('*'),
                };
                if own.weekdays.remove(&7) {
                    own.weekdays.insert(0);
                }
                let own = Self::At(Box::new(own));
                let never = || format!("{text:?} names a day that never comes");
                own.next(Timestamp::UNIX_EPOCH, None, &TimeZone::UTC).ok_or_else(never)?;
                Ok(own)
            }
            _ => Err(format!("{text:?} has {} fields: minute, hour, day, month, weekday", fields.len())),
        }
    }

    /// When the next one is due: after `now`, or at once (`now`) when one is overdue. `last` is when the last one was.
    pub(crate) fn next(&self, now: Timestamp, last: Option<Timestamp>, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                let every = SignedDuration::try_from(*every).ok()?;
                let due = last.map_or(Ok(now), |last| last.checked_add(every)).ok()?;
                Some(due.max(now))
            }
            Self::At(minutes) => minutes.after(now, zone),
        }
    }
}

impl Minutes {
    fn after(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = now.to_zoned(zone.clone()).date();
        for _ in 0..DAYS_MAX {
            if self.has_day(date) {
                for (hour, minute) in
                    self.hours.iter().flat_map(|hour| self.minutes.iter().map(move |own| (*hour, *own)))
                {
                    // Where clocks are put forward an hour is missing: then it is the one behind the gap.
                    let at = date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?.timestamp();
                    if at > now {
                        return Some(at);
                    }
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let (day, weekday) =
            (self.days.contains(&date.day()), self.weekdays.contains(&date.weekday().to_sunday_zero_offset()));
        self.months.contains(&date.month()) && if self.either { day || weekday } else { day && weekday }
    }
}

/// `*`, `*/15`, `7`, `1-5`, `1-9/2`, `1,15`, names.
fn field(text: &str, (least, most): (i8, i8), names: &[&str]) -> Result<BTreeSet<i8>, String> {
    let invalid = || format!("{text:?} is not made of numbers from {least} to {most}");
    let number = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let named = names.iter().position(|name| *name == lower).and_then(|at| i8::try_from(at).ok());
        let number = named.map(|at| at + if names.len() == 12 { 1 } else { 0 }).or_else(|| text.parse().ok());
        number.filter(|number| (least..=most).contains(number)).ok_or_else(invalid)
    };
    let mut all = BTreeSet::new();
    for piece in text.split(',') {
        let (range, step) = match piece.split_once('/') {
            Some((range, step)) => (range, step.parse::<usize>().ok().filter(|step| *step > 0).ok_or_else(invalid)?),
            None => (piece, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            None if step > 1 => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(invalid());
        }
        all.extend((from..=to).step_by(step));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, now: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
        Schedule::parse(schedule).unwrap().next(now.parse().unwrap(), None, &zone).unwrap().to_string()
    }

    #[test]
    fn the_next_minute_is_the_first_that_all_fields_name() {
        let now = "2026-01-30T22:10:30Z"; // a Friday
        for (schedule, due) in [
            ("* * * * *", "2026-01-30T22:11:00Z"),
            ("*/15 * * * *", "2026-01-30T22:15:00Z"),
            ("10 22 * * *", "2026-01-31T22:10:00Z"),
            ("30 3 * * mon-fri", "2026-02-02T03:30:00Z"),
            ("0 0 31 * *", "2026-01-31T00:00:00Z"),
            ("0 0 1 * 7", "2026-02-01T00:00:00Z"),
            ("0 0 15 * sun", "2026-02-01T00:00:00Z"),
            ("5,50 8-10/2 29 Feb *", "2028-02-29T08:05:00Z"),
            ("@weekly", "2026-02-01T00:00:00Z"),
            ("@hourly", "2026-01-30T23:00:00Z"),
        ] {
            assert_eq!(next(schedule, now, "UTC"), due, "{schedule}");
        }
    }

    #[test]
    fn an_hour_that_is_left_out_or_comes_twice_in_a_year_is_met_once() {
        if TimeZone::get("Europe/Berlin").is_err() {
            return; // a machine without time zones
        }
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin"), "2026-03-29T01:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Berlin"), "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-25T00:30:00Z", "Europe/Berlin"), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn a_duration_counts_from_the_last_one_and_what_is_overdue_is_due_now() {
        let every = Schedule::parse("6h").unwrap();
        let (now, hour) = ("2026-01-30T12:00:00Z".parse::<Timestamp>().unwrap(), SignedDuration::from_hours(1));
        let due = |last: Option<Timestamp>| every.next(now, last, &TimeZone::UTC).unwrap();
        assert_eq!(due(Some(now - hour)), now + hour * 5);
        assert_eq!((due(Some(now - hour * 9)), due(None)), (now, now));
    }

    #[test]
    fn schedules_that_mean_nothing_are_refused() {
        for bad in
            ["", "0", "6 hours", "* * * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "0 0 30 2 *"]
        {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }
}
