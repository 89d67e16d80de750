//! The printed table: what was measured, what was reached, what was wanted, how it was obtained.

use std::time::Duration;

const MEBIBYTE: u64 = 1 << 20;
const MEGABYTE: u64 = 1_000_000;

/// One line. A row without a goal is for information.
#[derive(Debug, Default)]
pub(crate) struct Row {
    title: String,
    reached: String,
    goal: String,
    floor: String,
    how: String,
    /// What was reached, in the unit of its kind (nanoseconds, bytes), to compare with a goal.
    value: u128,
}

impl Row {
    /// A row of that title.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// What was reached: a time.
    pub(crate) fn time(mut self, time: Duration) -> Self {
        self.reached = milliseconds(time);
        self.value = time.as_nanos();
        self
    }

    /// What was reached: bytes.
    pub(crate) fn mebibytes(mut self, bytes: u64) -> Self {
        self.reached = in_units(bytes, MEBIBYTE, "MiB");
        self.value = bytes.into();
        self
    }

    /// What was reached, in words.
    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.reached = text.into();
        self
    }

    /// The time that should not be exceeded.
    pub(crate) fn goal_ms(self, goal: u64) -> Self {
        let limit = Duration::from_millis(goal);
        self.goal(&format!("{goal} ms"), limit.as_nanos())
    }

    /// The time that should not be exceeded, in microseconds.
    pub(crate) fn goal_us(self, goal: u64) -> Self {
        let limit = Duration::from_micros(goal);
        self.goal(&format!("{goal} µs"), limit.as_nanos())
    }

    /// The memory that should not be exceeded.
    pub(crate) fn goal_mib(self, goal: u64) -> Self {
        self.goal(&format!("{goal} MiB"), (goal * MEBIBYTE).into())
    }

    /// The size that should not be exceeded, which is also how the size is shown.
    pub(crate) fn goal_mb(mut self, goal: u64) -> Self {
        self.reached = in_units(u64::try_from(self.value).unwrap_or(u64::MAX), MEGABYTE, "MB");
        self.goal(&format!("{goal} MB"), (goal * MEGABYTE).into())
    }

    /// What was reached, in calls a second, beside somebody else; how many times as many there should be.
    pub(crate) fn times(mut self, own: f64, other: f64, goal: f64) -> Self {
        let ratio = own / other.max(f64::MIN_POSITIVE);
        let mark = if ratio >= goal { "" } else { " MISSED" };
        self.reached = format!("{own:.0}/s, {ratio:.2} ×");
        self.goal = format!("≥ {goal} ×{mark}");
        self.floor_text(format!("{other:.0}/s"))
    }

    fn goal(mut self, text: &str, limit: u128) -> Self {
        let mark = if self.value <= limit { "" } else { " MISSED" };
        self.goal = format!("≤ {text}{mark}");
        self
    }

    /// What the machine, or a server that does nothing else, needs for the part of it that nobody can avoid.
    pub(crate) fn floor(mut self, floor: Duration) -> Self {
        self.floor = milliseconds(floor);
        self
    }

    /// The same in words; what somebody else reaches.
    pub(crate) fn floor_text(mut self, text: impl Into<String>) -> Self {
        self.floor = text.into();
        self
    }

    /// How the figure was obtained.
    pub(crate) fn how(mut self, how: impl Into<String>) -> Self {
        self.how = how.into();
        self
    }
}

fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 0.3 {
        return format!("{:.0} µs", ms * 1000.0);
    }
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn in_units(bytes: u64, unit: u64, name: &str) -> String {
    format!("{:.1} {name}", bytes as f64 / unit as f64)
}

/// All rows, printed together at the end; what is there already is printed even when something failed.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a line, and says on standard error that this much is done.
    pub(crate) fn push(&mut self, row: Row) {
        eprintln!("bench: {}: {}", row.title.trim(), row.reached);
        self.rows.push(row);
    }

    /// To standard output.
    pub(crate) fn print(&self) {
        let heading = |text: &str| text.to_owned();
        let head = Row {
            title: heading("FIGURE"),
            reached: heading("REACHED"),
            goal: heading("GOAL"),
            floor: heading("FLOOR, ETCD"),
            how: heading("HOW"),
            value: 0,
        };
        let rows: Vec<&Row> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
        let (title, reached) = (width(|row| &row.title), width(|row| &row.reached));
        let (goal, floor) = (width(|row| &row.goal), width(|row| &row.floor));
        for row in rows {
            println!(
                "{:<title$}  {:>reached$}  {:<goal$}  {:>floor$}  {}",
                row.title, row.reached, row.goal, row.floor, row.how
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_said_and_a_kept_one_is_not() {
        let kept = Row::new("a").time(Duration::from_millis(60)).goal_ms(60);
        let missed = Row::new("a").time(Duration::from_micros(60_001)).goal_ms(60);
        assert_eq!((kept.goal.as_str(), missed.goal.as_str()), ("≤ 60 ms", "≤ 60 ms MISSED"));
        assert_eq!(Row::new("a").mebibytes(60_000_001).goal_mb(60).goal, "≤ 60 MB MISSED");
        let (kept, missed) = (Row::new("a").times(300.0, 100.0, 3.0), Row::new("a").times(299.0, 100.0, 3.0));
        assert_eq!((kept.goal.as_str(), missed.goal.as_str()), ("≥ 3 ×", "≥ 3 × MISSED"));
    }
}
