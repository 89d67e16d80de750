//! How much work a request is guessed to be: seats while it runs, seats for a while after it.
//!
//! Source: `pkg/util/flowcontrol/request` of `k8s.io/apiserver` v0.36, with its default numbers. Pure.

use std::time::Duration;

/// Most seats of a request that reads, and of one that writes.
const LIST_SEATS_MAX: u32 = 100;
const WRITE_SEATS_MAX: u32 = 10;
/// So much of a list's text makes a seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// What is sent from the cache is sent piece by piece: more of it is not held at once.
const STREAMED_BYTES_MAX: u64 = 1_000_000;
/// So many watchers make a seat, for so long.
const WATCHERS_PER_SEAT: u32 = 10;
const TIME_OF_EVENT: Duration = Duration::from_millis(5);

/// What a request is guessed to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// While it runs.
    pub(super) initial_seats: u32,
    /// After it, for the watchers that hear of what it did.
    pub(super) final_seats: u32,
    /// How long after it.
    pub(super) linger: Duration,
}

impl Work {
    /// The least.
    pub(super) const ONE: Self = Self { initial_seats: 1, final_seats: 0, linger: Duration::ZERO };

    /// Kept for it from its beginning to its end.
    pub(super) fn max_seats(&self) -> u32 {
        self.initial_seats.max(self.final_seats)
    }

    /// The same work on at most so many seats, which takes longer.
    pub(super) fn narrow(&mut self, seats: u32) {
        if seats > 0 && self.final_seats > seats {
            self.linger = self.linger * self.final_seats / seats;
            self.final_seats = seats;
        }
    }
}

/// What there is of a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Objects, in all namespaces.
    pub objects: u64,
    /// Bytes of all of them as they are sent.
    pub bytes: u64,
}

/// What a list or a watch says about how much it wants: its query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted<'r> {
    /// Whether it is a watch.
    pub is_watch: bool,
    /// Whether it can only be about one object.
    pub is_single: bool,
    /// `limit`; 0 means none.
    pub limit: u64,
    /// Whether labels or fields are selected.
    pub has_selector: bool,
    /// Whether it goes on with a list.
    pub has_continue: bool,
    /// `resourceVersion`
    pub resource_version: &'r str,
    /// `resourceVersionMatch`
    pub version_match: &'r str,
    /// `sendInitialEvents`
    pub sends_initial_events: bool,
}

/// The work of a list, or of what a watch begins with. `seats_max` is the level's limit, 0 for none; `stored` is only
/// asked when it matters, and answers `None` for what is not stored here.
pub(super) fn of_list(wanted: &Wanted<'_>, seats_max: u32, stored: impl FnOnce() -> Option<Stored>) -> Work {
    let begins_with_all = wanted.sends_initial_events || matches!(wanted.resource_version, "" | "0");
    if wanted.is_watch && !begins_with_all {
        return Work::ONE;
    }
    let Some(stored) = stored() else { return Work::ONE };
    let limited = if wanted.limit > 0 { wanted.limit.min(stored.objects) } else { stored.objects };
    let from_cache = wanted.is_watch || is_from_cache(wanted);
    let read = match (wanted.is_single, from_cache, wanted.has_selector) {
        (true, ..) => 1,
        (false, false, true) => limited.max(stored.objects / 2),
        _ => limited,
    };
    let average = stored.bytes.checked_div(stored.objects).unwrap_or(0);
    let held = read.saturating_mul(average);
    let held = if from_cache { held.min(STREAMED_BYTES_MAX) } else { held };
    let seats = u32::try_from(held.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX);
    Work { initial_seats: seats.min(at_most(seats_max, LIST_SEATS_MAX)).max(1), ..Work::ONE }
}

/// Whether a list shows a state that is in the cache; an exact one may have to be read from history.
fn is_from_cache(wanted: &Wanted<'_>) -> bool {
    match wanted.version_match {
        "NotOlderThan" => true,
        "" => !wanted.has_continue && (wanted.limit == 0 || matches!(wanted.resource_version, "" | "0")),
        _ => false,
    }
}

/// The work of a write that so many watchers will hear of.
pub(super) fn of_write(watchers: u32, seats_max: u32) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::ONE;
    }
    let mut work = Work { initial_seats: 1, final_seats: watchers.div_ceil(WATCHERS_PER_SEAT), linger: TIME_OF_EVENT };
    work.narrow(at_most(seats_max, WRITE_SEATS_MAX));
    work
}

fn at_most(level: u32, own: u32) -> u32 {
    if level == 0 { own } else { level.min(own) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(wanted: Wanted<'_>, objects: u64, size: u64) -> u32 {
        of_list(&wanted, 0, || Some(Stored { objects, bytes: objects * size })).initial_seats
    }

    #[test]
    fn a_list_takes_seats_by_what_is_held_of_it_at_once() {
        let all = Wanted::default();
        assert_eq!(seats(all, 0, 0), 1);
        assert_eq!(seats(all, 100, 1000), 1);
        assert_eq!(seats(all, 101, 1000), 2);
        assert_eq!(seats(all, 1_000_000, 1000), 10);
        assert_eq!(seats(Wanted { limit: 200, ..all }, 5000, 1000), 2);
        assert_eq!(seats(Wanted { is_single: true, ..all }, 5000, 1000), 1);
        let exact = Wanted { resource_version: "7", version_match: "Exact", ..all };
        assert_eq!(seats(exact, 5000, 1000), 50);
        assert_eq!(seats(exact, 1_000_000, 1000), 100);
        let page = Wanted { limit: 500, has_continue: true, ..all };
        assert_eq!((seats(page, 5000, 1000), seats(Wanted { has_selector: true, ..page }, 5000, 1000)), (5, 25));
        assert_eq!(of_list(&exact, 8, || Some(Stored { objects: 5000, bytes: 5_000_000 })).initial_seats, 8);
        assert_eq!(of_list(&all, 0, || None), Work::ONE);
    }

    #[test]
    fn a_watch_costs_what_it_begins_with() {
        let watch = |resource_version, sends_initial_events| {
            let wanted = Wanted { is_watch: true, resource_version, sends_initial_events, ..Wanted::default() };
            seats(wanted, 500, 1000)
        };
        assert_eq!((watch("", false), watch("0", false), watch("17", false), watch("17", true)), (5, 5, 1, 5));
    }

    #[test]
    fn a_write_keeps_its_seats_for_those_who_watch() {
        assert_eq!(of_write(9, 0), Work::ONE);
        let work = |watchers, max| {
            let work = of_write(watchers, max);
            (work.initial_seats, work.final_seats, work.linger.as_millis())
        };
        assert_eq!(work(10, 0), (1, 1, 5));
        assert_eq!(work(95, 0), (1, 10, 5));
        assert_eq!(work(1000, 0), (1, 10, 50));
        assert_eq!(work(1000, 5), (1, 5, 100));
    }
}
