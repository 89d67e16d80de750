//! The queues of a level, and who of them is next: fair queuing for requests. Pure: time and requests are handed in.
//!
//! Each queue has a virtual clock: what its requests have cost so far. The request whose queue would be the least ahead
//! after it, is next. The virtual time `r` goes as fast as seats are used, divided by the queues that have something to
//! do, so that a queue that was empty begins where the others are, neither ahead nor behind. What a request costs is
//! guessed when it begins and corrected when it has ended. Source: KEP-1040, section "Fair Queuing for Server
//! Requests", and the documentation of the package `queueset` of Kubernetes v1.36.
//!
//! Queues exist as long as they have requests: however many a level may have, they cost nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use super::deal::{HAND_MAX, deal};
use super::figures::LevelFigures;
use super::objects::Shape;
use super::work::Work;

/// Seats times time, in 10 ns of one seat.
pub(super) type SeatTime = i128;

/// A second of one seat.
pub(super) const SEAT_SECOND: SeatTime = 100_000_000;

/// How long a request is guessed to take.
const GUESS: Duration = Duration::from_millis(3);

/// So many seats for so long.
pub(super) fn seat_time(seats: u64, time: Duration) -> SeatTime {
    let nanos = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
    i128::from(seats).saturating_mul(nanos) / 10
}

/// A request's number within its level.
pub(super) type Id = u64;

/// What the level keeps of a request for others.
pub(super) trait Guest {
    /// It was its turn, but there were too few seats for it.
    fn had_to_wait_for_seats(&self) {}
}

/// Why a request is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No seat, and the level has no queues.
    NoSeat,
    /// No seat, and its queue is full.
    QueueFull,
}

/// What becomes of a request that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It runs.
    Runs(Id),
    /// It waits; [`Queues::dispatch`] says when it runs.
    Waits(Id),
    /// It goes.
    Refused(Refusal),
}

/// What a request is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// In its queue, since the virtual time of its arrival.
    Waiting { arrived_r: SeatTime },
    /// On its seats.
    Running { since: Duration },
    /// Answered; its seats are kept until then, for the work that follows.
    Lingering { until: Duration },
}

/// A request in a level.
#[derive(Debug)]
pub(super) struct Entry<G> {
    pub(super) guest: G,
    pub(super) work: Work,
    pub(super) arrived: Duration,
    pub(super) phase: Phase,
    /// `None` where there are no queues.
    pub(super) queue: Option<u32>,
}

/// A queue with something to do.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Id>,
    /// The virtual time at which its next request begins.
    pub(super) next_r: SeatTime,
    pub(super) running: usize,
    pub(super) seats_in_use: u64,
    pub(super) initial_seats: u64,
    pub(super) max_seats: u64,
    pub(super) work: SeatTime,
}

impl Queue {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }

    fn add(&mut self, work: &Work, sign: i64) {
        self.initial_seats = self.initial_seats.saturating_add_signed(sign * i64::from(work.initial_seats));
        self.max_seats = self.max_seats.saturating_add_signed(sign * i64::from(work.max_seats()));
        self.work += SeatTime::from(sign) * total(work);
    }
}

/// How requests have fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) cancelled: u64,
}

/// Virtual times at the last choice between queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) r: SeatTime,
    pub(super) start: SeatTime,
    pub(super) starts: (SeatTime, SeatTime),
    pub(super) discounted: (SeatTime, SeatTime),
}

/// All requests of a level.
#[derive(Debug)]
pub(super) struct Queues<G> {
    shape: Shape,
    /// Seats that may be in use at once.
    limit: u64,
    pub(super) queues: BTreeMap<u32, Queue>,
    pub(super) entries: BTreeMap<Id, Entry<G>>,
    next_id: Id,
    pub(super) r: SeatTime,
    synced: Duration,
    /// The queue that was served last.
    robin: u32,
    enqueued: u64,
    pub(super) waiting: usize,
    pub(super) running: usize,
    pub(super) seats_in_use: u64,
    pub(super) seats_waiting: u64,
    active: u64,
    lingering: BTreeMap<(Duration, Id), ()>,
    pub(super) counts: Counts,
    pub(super) choice: Option<Choice>,
    pub(super) figures: LevelFigures,
}

/// What a request is guessed to cost in all.
fn total(work: &Work) -> SeatTime {
    seat_time(work.initial_seats.into(), GUESS) + seat_time(work.final_seats.into(), work.linger)
}

impl<G: Guest> Queues<G> {
    /// A level without requests and without seats: see [`Queues::configure`].
    pub(super) fn new(now: Duration) -> Self {
        Self {
            shape: Shape::Reject,
            limit: 0,
            queues: BTreeMap::new(),
            entries: BTreeMap::new(),
            next_id: 0,
            r: 0,
            synced: now,
            robin: 0,
            enqueued: 0,
            waiting: 0,
            running: 0,
            seats_in_use: 0,
            seats_waiting: 0,
            active: 0,
            lingering: BTreeMap::new(),
            counts: Counts::default(),
            choice: None,
            figures: LevelFigures::new(now),
        }
    }

    /// Changes how the level treats requests. [`Queues::dispatch`] follows. Requests in queues that are too many now
    /// stay where they are until it is their turn.
    pub(super) fn configure(&mut self, now: Duration, shape: Shape, limit: u64, seats_told: u32) {
        self.sync(now);
        (self.shape, self.limit) = (shape, limit);
        let places = match shape {
            Shape::Queue { queues, length, .. } => u64::from(queues) * length as u64,
            _ => 1,
        };
        self.figures.set_limits(now, places, seats_told);
    }

    /// Whether nobody waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }

    /// When seats come free although no request ends, if anybody waits for them.
    pub(super) fn next_release(&self) -> Option<Duration> {
        let next = self.lingering.first_key_value().map(|((until, _), ())| *until);
        next.filter(|_| self.waiting > 0)
    }

    /// Moves the virtual time to now, and gives back seats whose time is over.
    fn sync(&mut self, now: Duration) {
        while let Some((&(until, id), ())) = self.lingering.first_key_value()
            && until <= now
        {
            self.advance(until);
            self.lingering.pop_first();
            if let Some(entry) = self.entries.remove(&id) {
                self.give_back(until, &entry);
            }
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.synced);
        self.synced = self.synced.max(now);
        if self.active > 0 {
            let asked = (self.seats_in_use + self.seats_waiting).min(self.limit);
            self.r += seat_time(asked, passed) / SeatTime::from(self.active);
        }
    }

    fn fits(&self, seats: u64) -> bool {
        match self.shape {
            Shape::Exempt => true,
            // More than there are at all: it runs alone.
            _ if seats > self.limit => self.running == 0,
            _ => self.seats_in_use + seats <= self.limit,
        }
    }

    /// Takes a request in, or refuses it. [`Queues::dispatch`] follows when it waits.
    pub(super) fn arrive(&mut self, now: Duration, work: Work, hash: u64, guest: G) -> Arrival {
        self.sync(now);
        let seats = u64::from(work.max_seats());
        let Shape::Queue { queues, hand, length } = self.shape else {
            if !self.fits(seats) {
                self.counts.rejected += 1;
                return Arrival::Refused(Refusal::NoSeat);
            }
            let id = self.insert(now, work, guest, None);
            self.begin(now, id);
            return Arrival::Runs(id);
        };
        let number = self.choose(hash, queues, hand);
        let waiting_there = self.queues.get(&number).map_or(0, |queue| queue.waiting.len());
        let is_free = self.waiting == 0 && self.seats_in_use < self.limit && self.fits(seats);
        // Kubernetes lets the queue grow while seats are free that are too few for whoever is next.
        if !is_free && waiting_there >= length {
            self.counts.rejected += 1;
            return Arrival::Refused(Refusal::QueueFull);
        }
        let id = self.insert(now, work, guest, Some(number));
        let r = self.r;
        let queue = self.queues.entry(number).or_default();
        if !queue.is_active() {
            queue.next_r = r;
            self.active += 1;
        }
        if queue.waiting.is_empty() {
            // A queue does not save up what it has not used.
            queue.next_r = queue.next_r.max(r);
        }
        if is_free {
            self.robin = number;
            self.note_choice(number);
            self.begin(now, id);
            return Arrival::Runs(id);
        }
        queue.waiting.push_back(id);
        queue.add(&work, 1);
        self.waiting += 1;
        self.seats_waiting += seats;
        self.told(now);
        Arrival::Waits(id)
    }

    fn insert(&mut self, now: Duration, work: Work, guest: G, queue: Option<u32>) -> Id {
        let id = self.next_id;
        self.next_id += 1;
        let phase = Phase::Waiting { arrived_r: self.r };
        self.entries.insert(id, Entry { guest, work, arrived: now, phase, queue });
        id
    }

    /// Of the flow's queues the one with the least work; those that are looked at first change from request to request.
    fn choose(&mut self, hash: u64, queues: u32, hand: u32) -> u32 {
        let mut dealt = [0; HAND_MAX];
        let size = deal(hash, queues, hand, &mut dealt);
        let hand = &dealt[..size];
        let offset = usize::try_from(self.enqueued % size.max(1) as u64).unwrap_or(0);
        self.enqueued += 1;
        if self.waiting == 0 {
            return hand.get(offset).copied().unwrap_or(0);
        }
        let work = |number: &u32| self.queues.get(number).map_or(0, |queue| queue.work);
        hand.iter().cycle().skip(offset).take(size).min_by_key(|number| work(number)).copied().unwrap_or(0)
    }

    /// The request, which waits in no queue any more, is on its seats.
    fn begin(&mut self, now: Duration, id: Id) {
        let limit = self.limit;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.phase = Phase::Running { since: now };
        if entry.queue.is_some() && u64::from(entry.work.final_seats) > limit {
            entry.work.narrow(u32::try_from(limit).unwrap_or(u32::MAX));
        }
        let seats = u64::from(entry.work.max_seats());
        if let Some(queue) = entry.queue.and_then(|number| self.queues.get_mut(&number)) {
            queue.running += 1;
            queue.seats_in_use += seats;
            queue.next_r += total(&entry.work);
        }
        self.running += 1;
        self.counts.dispatched += 1;
        self.seats_in_use += seats;
        self.told(now);
        if let Some(number) = self.entries.get(&id).and_then(|entry| entry.queue) {
            self.bound(number);
        }
    }

    /// Lets as many run as there are seats for, in their order; who they are. Those that are woken too late must
    /// [`Queues::leave`].
    pub(super) fn dispatch(&mut self, now: Duration) -> Vec<Id> {
        self.sync(now);
        let mut begun = Vec::new();
        while self.waiting > 0 && (self.seats_in_use < self.limit || self.shape == Shape::Exempt) {
            let Some(number) = self.next_queue() else { break };
            let Some(id) = self.queues.get(&number).and_then(|queue| queue.waiting.front().copied()) else { break };
            let Some(entry) = self.entries.get(&id) else { break };
            if !self.fits(entry.work.max_seats().into()) {
                entry.guest.had_to_wait_for_seats();
                break;
            }
            self.robin = number;
            self.note_choice(number);
            self.take_out(id);
            self.begin(now, id);
            begun.push(id);
        }
        begun
    }

    /// The queue that would be the least ahead after its next request; among equals the next one in turn.
    fn next_queue(&self) -> Option<u32> {
        let behind = self.queues.range((Bound::Excluded(self.robin), Bound::Unbounded));
        let all = behind.chain(self.queues.range(..=self.robin));
        let finish = |queue: &Queue| {
            let first = self.entries.get(queue.waiting.front()?)?;
            Some(queue.next_r + total(&first.work))
        };
        all.filter_map(|(number, queue)| Some((finish(queue)?, *number)))
            .min_by_key(|(finish, _)| *finish)
            .map(|it| it.1)
    }

    fn note_choice(&mut self, number: u32) {
        let start = self.queues.get(&number).map_or(0, |queue| queue.next_r);
        let mut choice = Choice { r: self.r, start, starts: (start, start), discounted: (start, start) };
        if self.waiting > 0 {
            for queue in self.queues.values().filter(|queue| !queue.waiting.is_empty()) {
                let discounted = queue.next_r - seat_time(queue.seats_in_use, GUESS);
                choice.starts = (choice.starts.0.min(queue.next_r), choice.starts.1.max(queue.next_r));
                choice.discounted = (choice.discounted.0.min(discounted), choice.discounted.1.max(discounted));
            }
        }
        self.choice = Some(choice);
    }

    /// Takes a waiting request out of its queue.
    fn take_out(&mut self, id: Id) {
        let Some(Entry { work, queue: Some(number), .. }) = self.entries.get(&id) else { return };
        let Some(queue) = self.queues.get_mut(number) else { return };
        queue.waiting.retain(|waiting| *waiting != id);
        queue.add(work, -1);
        self.waiting -= 1;
        self.seats_waiting = self.seats_waiting.saturating_sub(work.max_seats().into());
    }

    /// A request that waits goes, one that runs has ended. [`Queues::dispatch`] follows. Whether it had waited.
    pub(super) fn leave(&mut self, now: Duration, id: Id) -> bool {
        self.sync(now);
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let (number, work) = (entry.queue, entry.work);
        match entry.phase {
            Phase::Lingering { .. } => return false,
            Phase::Waiting { .. } => {
                self.take_out(id);
                self.entries.remove(&id);
                self.counts.rejected += 1;
                self.counts.cancelled += 1;
                self.told(now);
                number.into_iter().for_each(|number| self.settle(number, true));
                return true;
            }
            Phase::Running { since } => {
                let until = now.saturating_add(work.linger);
                entry.phase = Phase::Lingering { until };
                self.running -= 1;
                let took = seat_time(work.initial_seats.into(), now.saturating_sub(since));
                let guessed = seat_time(work.initial_seats.into(), GUESS);
                if let Some(queue) = number.and_then(|number| self.queues.get_mut(&number)) {
                    queue.running -= 1;
                    queue.next_r -= guessed - took;
                }
                number.into_iter().for_each(|number| self.settle(number, true));
                if work.linger.is_zero() {
                    let entry = self.entries.remove(&id);
                    entry.into_iter().for_each(|entry| self.give_back(now, &entry));
                } else {
                    self.lingering.insert((until, id), ());
                    self.told(now);
                }
            }
        }
        false
    }

    fn give_back(&mut self, now: Duration, entry: &Entry<G>) {
        let seats = u64::from(entry.work.max_seats());
        self.seats_in_use = self.seats_in_use.saturating_sub(seats);
        if let Some(number) = entry.queue {
            if let Some(queue) = self.queues.get_mut(&number) {
                queue.seats_in_use = queue.seats_in_use.saturating_sub(seats);
            }
            self.settle(number, false);
        }
        self.told(now);
    }

    /// What is to be seen to when a queue has lost a request; `was_active`: it counted as having something to do.
    fn settle(&mut self, number: u32, was_active: bool) {
        self.bound(number);
        let Some(queue) = self.queues.get(&number) else { return };
        if was_active && !queue.is_active() {
            self.active -= 1;
        }
        if !queue.is_active() && queue.seats_in_use == 0 {
            self.queues.remove(&number);
        }
    }

    /// A request does not begin before it came, in virtual time either.
    fn bound(&mut self, number: u32) {
        let Some(queue) = self.queues.get_mut(&number) else { return };
        let first = queue.waiting.front().and_then(|id| self.entries.get(id));
        if let Some(Entry { phase: Phase::Waiting { arrived_r }, .. }) = first {
            queue.next_r = queue.next_r.max(*arrived_r);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "numbers of requests")]
    fn told(&mut self, now: Duration) {
        let (waiting, running) = (self.waiting as f64, self.running as f64);
        self.figures.note(now, waiting, running, self.seats_in_use as f64, self.seats_waiting as f64);
    }
}
