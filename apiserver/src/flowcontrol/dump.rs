//! Who is in the levels, as tables for people: `/debug/api_priority_and_fairness/…`.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::FlowControl;
use super::level::{State, Waiter};
use super::queues::{Entry, Phase, SEAT_SECOND, SeatTime};

/// Narrowest column.
const WIDTH_MIN: usize = 8;

const LEVELS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

/// Most rows about the queues of a level: one with more has them told as far as they are used.
const QUEUE_ROWS_MAX: u32 = 1000;

type Row = Vec<String>;

impl FlowControl {
    /// The table of that name; `None` when there is no such table.
    pub(crate) fn dump(&self, table: &str, with_details: bool) -> Option<String> {
        let rows = match table {
            "dump_priority_levels" => self.level_rows(),
            "dump_queues" => self.queue_rows(),
            "dump_requests" => self.request_rows(with_details),
            _ => return None,
        };
        Some(aligned(&rows))
    }

    fn level_rows(&self) -> Vec<Row> {
        let mut rows = vec![LEVELS.map(str::to_owned).to_vec()];
        for (name, slot) in &self.config.load().levels {
            let state = slot.level.state();
            let queues = &state.queues;
            let numbers = [queues.waiting as u64, queues.running as u64, queues.counts.dispatched];
            let active = queues.queues.values().filter(|queue| !queue.waiting.is_empty()).count();
            let mut row =
                vec![name.clone(), active.to_string(), queues.is_idle().to_string(), slot.is_quiescing().to_string()];
            row.extend(numbers.iter().map(u64::to_string));
            row.extend([queues.counts.rejected, 0, queues.counts.cancelled].iter().map(u64::to_string));
            rows.push(row);
        }
        rows
    }

    fn queue_rows(&self) -> Vec<Row> {
        let mut rows = vec![QUEUES.map(str::to_owned).to_vec()];
        for (name, slot) in &self.config.load().levels {
            let state = slot.level.state();
            let there = state.queues.queues.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
            let of_shape = match slot.spec.shape {
                super::objects::Shape::Queue { queues, .. } => queues.min(QUEUE_ROWS_MAX),
                _ => 0,
            };
            let empty = super::queues::Queue::default();
            for number in 0..of_shape.max(there.min(QUEUE_ROWS_MAX)) {
                let queue = state.queues.queues.get(&number).unwrap_or(&empty);
                rows.push(vec![
                    name.clone(),
                    number.to_string(),
                    queue.waiting.len().to_string(),
                    queue.running.to_string(),
                    queue.seats_in_use.to_string(),
                    seat_seconds(queue.next_r),
                    queue.initial_seats.to_string(),
                    queue.max_seats.to_string(),
                    seat_seconds(queue.work),
                ]);
            }
        }
        rows
    }

    fn request_rows(&self, with_details: bool) -> Vec<Row> {
        let mut head = REQUESTS.map(str::to_owned).to_vec();
        head.extend(with_details.then_some(DETAILS).into_iter().flatten().map(str::to_owned));
        let mut rows = vec![head];
        let times = (self.common.clock.now(), self.common.now());
        for (name, slot) in &self.config.load().levels {
            let state = slot.level.state();
            let entries = state.queues.entries.iter();
            for (id, entry) in entries.filter(|(_, entry)| !matches!(entry.phase, Phase::Lingering { .. })) {
                let place = entry.queue.and_then(|number| place_in_queue(&state, number, *id));
                rows.push(request_row(name, entry, place, times, with_details));
            }
        }
        rows
    }
}

fn place_in_queue(state: &State, number: u32, id: u64) -> Option<usize> {
    state.queues.queues.get(&number)?.waiting.iter().position(|waiting| *waiting == id)
}

fn request_row(
    level: &str,
    entry: &Entry<Waiter>,
    place: Option<usize>,
    times: (Timestamp, Duration),
    with_details: bool,
) -> Row {
    let or_none = |number: Option<String>| number.unwrap_or_else(|| "-1".to_owned());
    let started = match entry.phase {
        Phase::Running { since } => wall_time(since, times),
        _ => "0001-01-01T00:00:00Z".to_owned(),
    };
    let details = &entry.guest.details;
    let mut row = vec![
        level.to_owned(),
        entry.guest.flow.name.clone(),
        or_none(entry.queue.map(|number| number.to_string())),
        or_none(place.map(|place| place.to_string())),
        if entry.queue.is_some() { details.distinguisher(entry.guest.flow.distinguisher) } else { "" }.to_owned(),
        wall_time(entry.arrived, times),
        entry.work.initial_seats.to_string(),
        entry.work.final_seats.to_string(),
        go_duration(entry.work.linger),
        started,
    ];
    if with_details {
        row.extend(details.texts().map(printable));
    }
    row
}

/// A path or a name may hold what would look like a row of its own.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A moment of the clock that does not go back, as a date.
fn wall_time(moment: Duration, (now, monotonic): (Timestamp, Duration)) -> String {
    let ago = SignedDuration::try_from(monotonic.saturating_sub(moment)).unwrap_or_default();
    now.checked_sub(ago).unwrap_or(now).to_string()
}

/// As Go writes durations; milliseconds are the finest that is told.
pub(crate) fn go_duration(time: Duration) -> String {
    let (hours, minutes) = (time.as_secs() / 3600, time.as_secs() / 60 % 60);
    let seconds = time.as_secs_f64() % 60.0;
    match time.as_millis() {
        0 => "0s".to_owned(),
        millis if millis < 1000 => format!("{millis}ms"),
        _ if hours > 0 => format!("{hours}h{minutes}m{seconds}s"),
        _ if minutes > 0 => format!("{minutes}m{seconds}s"),
        _ => format!("{seconds}s"),
    }
}

fn seat_seconds(time: SeatTime) -> String {
    let time = time.max(0);
    format!("{}.{:08}ss", time / SEAT_SECOND, time % SEAT_SECOND)
}

/// Rows with their columns below each other, as Go's `text/tabwriter` sets them.
fn aligned(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count() + 1);
        (cells.max().unwrap_or(0) + 1).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if place + 1 == columns {
                text.push_str(cell);
            } else {
                let _ = write!(text, "{:<width$}", format!("{cell},"));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_as_in_kubernetes() {
        let rows = [["PriorityLevelName", "Index", "R"], ["system", "0", "1"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "PriorityLevelName, Index,  R\nsystem,            0,      1\n");
        assert_eq!(seat_seconds(150_000_001), "1.50000001ss");
        assert_eq!(go_duration(Duration::from_millis(5)), "5ms");
    }
}
