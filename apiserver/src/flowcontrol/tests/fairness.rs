//! Who is served when, on a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reeve_api::rng::{RngExt as _, SeededRng};

use super::super::deal::flow_hash;
use super::super::objects::Shape;
use super::super::queues::{Arrival, Guest, Id, Queues, Refusal};
use super::super::work::Work;

/// A request of a simulated flow.
#[derive(Debug, Clone)]
struct Tag {
    flow: &'static str,
    takes: Duration,
}

impl Guest for Tag {}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn wide(seats: u32) -> Work {
    Work { initial_seats: seats, ..Work::ONE }
}

/// A level, its clock, and when those that run will have ended.
struct Level {
    queues: Queues<Tag>,
    now: Duration,
    ends: BTreeSet<(Duration, Id)>,
    /// For each flow when its requests began, and how long they had waited.
    began: BTreeMap<&'static str, Vec<(Duration, Duration)>>,
}

impl Level {
    fn new(shape: Shape, seats: u64) -> Self {
        let mut queues = Queues::new(Duration::ZERO);
        queues.configure(Duration::ZERO, shape, seats, 1);
        Self { queues, now: Duration::ZERO, ends: BTreeSet::new(), began: BTreeMap::new() }
    }

    fn send(&mut self, flow: &'static str, takes: Duration, work: Work) -> Result<Id, Refusal> {
        let arrival = self.queues.arrive(self.now, work, flow_hash(3, "schema", flow), Tag { flow, takes });
        let id = match arrival {
            Arrival::Refused(why) => return Err(why),
            Arrival::Waits(id) => id,
            Arrival::Runs(id) => {
                self.begin(id);
                id
            }
        };
        self.dispatch();
        Ok(id)
    }

    fn begin(&mut self, id: Id) {
        let entry = &self.queues.entries[&id];
        self.ends.insert((self.now + entry.guest.takes, id));
        self.began.entry(entry.guest.flow).or_default().push((self.now, self.now - entry.arrived));
    }

    fn dispatch(&mut self) {
        self.queues.dispatch(self.now).into_iter().for_each(|id| self.begin(id));
        self.check();
    }

    fn leave(&mut self, id: Id) {
        self.ends.retain(|(_, own)| *own != id);
        self.queues.leave(self.now, id);
        self.dispatch();
    }

    /// Lets time go by until `until`.
    fn run(&mut self, until: Duration) {
        loop {
            let end = self.ends.first().copied().filter(|(end, _)| *end <= until);
            let release = self.queues.next_release().filter(|at| *at <= until);
            match (end, release) {
                (Some((end, id)), release) if release.is_none_or(|at| end <= at) => {
                    self.now = self.now.max(end);
                    self.leave(id);
                }
                (_, Some(at)) => {
                    self.now = self.now.max(at);
                    self.dispatch();
                }
                _ => break,
            }
        }
        self.now = until;
        self.dispatch();
    }

    fn count(&self, flow: &str) -> usize {
        self.began.get(flow).map_or(0, Vec::len)
    }

    fn longest_wait(&self, flow: &str) -> Duration {
        self.began[flow].iter().map(|(_, waited)| *waited).max().unwrap()
    }

    /// What adds up must.
    fn check(&self) {
        let queues = &self.queues;
        let waiting: usize = queues.queues.values().map(|queue| queue.waiting.len()).sum();
        assert_eq!((waiting, queues.running), (queues.waiting, self.ends.len()));
        let seats: u64 = queues.queues.values().map(|queue| queue.max_seats).sum();
        assert_eq!(seats, queues.seats_waiting);
        let in_use: u64 = queues.queues.values().map(|queue| queue.seats_in_use).sum();
        assert!(in_use <= queues.seats_in_use);
    }
}

const QUEUES: Shape = Shape::Queue { queues: 64, hand: 6, length: 50 };

#[test]
fn a_flood_of_one_flow_does_not_delay_another() {
    let mut level = Level::new(QUEUES, 4);
    for _ in 0..250 {
        let _ = level.send("flood", ms(10), Work::ONE);
    }
    for _ in 0..100 {
        level.run(level.now + ms(5));
        let _ = level.send("flood", ms(10), Work::ONE);
        let _ = level.send("flood", ms(10), Work::ONE);
        if level.now.as_millis().is_multiple_of(20) {
            level.send("modest", ms(10), Work::ONE).unwrap();
        }
    }
    level.run(level.now + ms(100));
    assert_eq!(level.count("modest"), 25);
    // A seat comes free every 2.5 ms on the whole: it is nobody's turn before.
    assert!(level.longest_wait("modest") <= ms(10), "{:?}", level.began["modest"]);
    assert!(level.longest_wait("flood") > ms(300));
}

#[test]
fn flows_that_always_want_more_get_the_same_seat_time_however_long_their_requests_are() {
    let mut level = Level::new(Shape::Queue { queues: 512, hand: 1, length: 50 }, 6);
    let keep = |level: &mut Level| {
        for (flow, takes, work) in
            [("long", ms(30), Work::ONE), ("short", ms(3), Work::ONE), ("middle", ms(10), Work::ONE)]
        {
            while level.send(flow, takes, work).is_ok() {}
        }
    };
    keep(&mut level);
    while level.now < Duration::from_secs(20) {
        level.run(level.now + ms(10));
        keep(&mut level);
    }
    let seat_time = |flow, each: u64| u64::try_from(level.count(flow)).unwrap() * each;
    let times = [seat_time("long", 30), seat_time("short", 3), seat_time("middle", 10)];
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(most - least < most / 10, "{times:?}");
}

#[test]
fn a_flow_that_was_away_gets_no_arrears() {
    let mut level = Level::new(Shape::Queue { queues: 512, hand: 1, length: 50 }, 1);
    let keep = |level: &mut Level, flows: &[&'static str], until: Duration| {
        while level.now < until {
            for flow in flows {
                while level.queues.queues.len() < 3 && level.send(flow, ms(2), Work::ONE).is_ok() {}
            }
            level.run(level.now + ms(20));
        }
    };
    keep(&mut level, &["busy"], Duration::from_secs(5));
    let before = level.count("busy");
    keep(&mut level, &["busy", "back"], Duration::from_secs(7));
    let (busy, back) = (level.count("busy") - before, level.count("back"));
    assert!(busy * 10 > back * 9 && back * 10 > busy * 9, "{busy} {back}");
}

#[test]
fn what_finds_neither_seat_nor_place_is_refused_and_nobody_else_is() {
    let mut level = Level::new(Shape::Queue { queues: 2, hand: 1, length: 3 }, 1);
    let sent: Vec<_> = (0..6).map(|_| level.send("a", ms(10), Work::ONE).is_ok()).collect();
    assert_eq!(sent, [true, true, true, true, false, false]);
    let other = ["b", "c", "d", "e"].into_iter().find(|flow| level.send(flow, ms(10), Work::ONE).is_ok());
    assert!(other.is_some());
    let mut reject = Level::new(Shape::Reject, 2);
    let sent: Vec<_> = (0..3).map(|_| reject.send("a", ms(10), Work::ONE)).collect();
    assert!(matches!(sent[..], [Ok(_), Ok(_), Err(Refusal::NoSeat)]));
    reject.run(ms(10));
    assert!(reject.send("a", ms(10), Work::ONE).is_ok());
}

#[test]
fn an_exempt_level_never_refuses() {
    let mut level = Level::new(Shape::Exempt, 0);
    assert!((0..10_000).all(|_| level.send("a", ms(10), wide(10)).is_ok()));
    assert_eq!((level.queues.running, level.queues.waiting), (10_000, 0));
}

#[test]
fn a_request_that_goes_leaves_its_queue_and_those_behind_it_move_up() {
    let mut level = Level::new(Shape::Queue { queues: 1, hand: 1, length: 3 }, 1);
    let ids: Vec<_> = (0..4).map(|_| level.send("a", ms(10), Work::ONE).unwrap()).collect();
    level.send("a", ms(10), Work::ONE).unwrap_err();
    level.leave(ids[1]);
    assert_eq!((level.queues.waiting, level.queues.counts.cancelled), (2, 1));
    let last = level.send("a", ms(10), Work::ONE).unwrap();
    level.run(ms(25));
    assert_eq!(level.count("a"), 3);
    level.run(ms(35));
    assert_eq!(level.ends.first().unwrap().1, last);
    level.run(ms(100));
    assert!(level.queues.is_idle() && level.queues.queues.is_empty() && level.queues.entries.is_empty());
}

#[test]
fn a_wide_request_gets_its_seats_although_narrow_ones_keep_coming() {
    let mut level = Level::new(QUEUES, 10);
    for step in 0..200 {
        let _ = level.send("narrow", ms(10), Work::ONE);
        let _ = level.send("narrow", ms(10), Work::ONE);
        if step == 20 {
            level.send("wide", ms(10), wide(10)).unwrap();
        }
        level.run(level.now + ms(1));
    }
    assert_eq!(level.count("wide"), 1);
    assert!(level.longest_wait("wide") <= ms(40), "{:?}", level.longest_wait("wide"));
}

#[test]
fn a_request_wider_than_the_level_runs_alone() {
    let mut level = Level::new(QUEUES, 2);
    level.send("a", ms(10), Work::ONE).unwrap();
    level.send("b", ms(10), wide(5)).unwrap();
    assert_eq!(level.count("b"), 0);
    level.run(ms(10));
    assert_eq!(level.count("b"), 1);
    level.send("a", ms(10), Work::ONE).unwrap();
    assert_eq!(level.count("a"), 1);
    level.run(ms(20));
    assert_eq!(level.count("a"), 2);
}

#[test]
fn seats_of_a_write_stay_taken_while_its_watchers_are_told_and_then_come_free_by_themselves() {
    let mut level = Level::new(QUEUES, 4);
    let write = Work { initial_seats: 1, final_seats: 4, linger: ms(50) };
    level.send("a", ms(10), write).unwrap();
    level.send("b", ms(10), Work::ONE).unwrap();
    level.run(ms(40));
    assert_eq!((level.count("b"), level.queues.seats_in_use), (0, 4));
    level.run(ms(61));
    assert_eq!(level.began["b"], [(ms(60), ms(60))]);
    level.run(ms(200));
    assert!(level.queues.entries.is_empty() && level.queues.queues.is_empty());
    assert_eq!(level.queues.seats_in_use, 0);
}

#[test]
fn more_seats_let_more_run_at_once_and_fewer_take_none_away() {
    let mut level = Level::new(QUEUES, 1);
    for _ in 0..20 {
        level.send("a", ms(10), Work::ONE).unwrap();
    }
    level.queues.configure(level.now, QUEUES, 5, 1);
    level.dispatch();
    assert_eq!(level.queues.running, 5);
    level.queues.configure(level.now, Shape::Queue { queues: 1, hand: 1, length: 1 }, 2, 1);
    level.dispatch();
    assert_eq!(level.queues.running, 5);
    level.run(ms(10));
    assert_eq!(level.queues.running, 2);
    level.run(Duration::from_secs(1));
    assert_eq!(level.count("a"), 20);
}

#[test]
fn whatever_happens_everything_adds_up_and_nothing_is_left_behind() {
    let rng = SeededRng::new(5);
    let flows = ["a", "b", "c", "d", "e"];
    for round in 0..20 {
        let mut level = Level::new(Shape::Queue { queues: 8, hand: 2, length: 5 }, 1 + rng.below(6));
        let mut sent = Vec::new();
        for _ in 0..400 {
            let flow = flows[usize::try_from(rng.below(5)).unwrap()];
            let seats = |most| u32::try_from(rng.below(most)).unwrap();
            let work = Work { initial_seats: 1 + seats(3), final_seats: seats(8), linger: ms(rng.below(5)) };
            sent.extend(level.send(flow, ms(rng.below(20)), work));
            if rng.below(8) == 0 && !sent.is_empty() {
                let gone = sent.swap_remove(usize::try_from(rng.below(sent.len() as u64)).unwrap());
                level.leave(gone);
            }
            if rng.below(50) == 0 {
                let queues = 1 + u32::try_from(rng.below(8)).unwrap();
                level.queues.configure(level.now, Shape::Queue { queues, hand: 1, length: 4 }, 1 + rng.below(6), 1);
                level.dispatch();
            }
            level.run(level.now + ms(rng.below(4)));
        }
        level.run(level.now + Duration::from_secs(60));
        assert!(level.queues.is_idle(), "round {round}");
        assert!(level.queues.queues.is_empty() && level.queues.entries.is_empty(), "round {round}");
        assert_eq!((level.queues.seats_in_use, level.queues.seats_waiting), (0, 0));
    }
}

#[test]
fn a_level_with_millions_of_queues_costs_what_is_in_them() {
    let mut level = Level::new(Shape::Queue { queues: 10_000_000, hand: 2, length: 1 }, 1);
    for flow in ["a", "b", "c", "d", "e"] {
        let _ = level.send(flow, ms(10), Work::ONE);
    }
    assert!(level.queues.queues.len() <= 5);
    level.run(Duration::from_secs(1));
    assert!(level.queues.queues.is_empty());
}
