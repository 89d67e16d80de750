//! A level at work: its queues behind a lock that is held for a microsecond, and the places that requests hold in it.
//!
//! Whoever holds a [`Seat`] counts, waiting or running, until he drops it: an answer, a panic, a timeout and a client
//! that goes away are all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use reeve_api::clock::SharedClock;
use tokio::sync::{Notify, oneshot};

use super::demand::Demand;
use super::dropped::Dropped;
use super::figures::{FlowFigures, NO_SEAT, QUEUE_FULL, ReadWrite, TIME_OUT, micros};
use super::objects::{Distinguisher, Shape};
use super::queues::{Arrival, Guest, Id, Queues, Refusal};
use super::shares::{Claim, Limits};
use super::work::Work;
use super::{Asked, What};

/// What all levels share.
pub(super) struct Common {
    pub(super) clock: SharedClock,
    /// Told when a level that is to go has become empty.
    pub(super) drained: Notify,
    pub(super) read_write: Mutex<ReadWrite>,
}

impl Common {
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// One more or fewer that runs (0) or waits (1).
    fn count(&self, now: Duration, phase: usize, is_write: bool, change: f64) {
        let mut all = self.read_write.lock().unwrap_or_else(PoisonError::into_inner);
        all.phases[phase][usize::from(is_write)].add(now, change);
    }
}

/// A priority level.
pub(super) struct Level {
    pub(super) name: String,
    pub(super) common: Arc<Common>,
    /// It is not wanted any more and goes when it is empty.
    pub(super) quiescing: AtomicBool,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) queues: Queues<Waiter>,
    dropped: Dropped,
    pub(super) demand: Demand,
    /// Seats it may use now; `None` before they were given out.
    pub(super) seats: Option<u32>,
    pub(super) wish: f64,
    /// When somebody looks after seats that come free by themselves.
    alarm: Option<Duration>,
}

/// A request as its level knows it.
pub(super) struct Waiter {
    pub(super) flow: Arc<Flow>,
    pub(super) details: Details,
    wake: Option<oneshot::Sender<()>>,
}

impl Guest for Waiter {
    fn had_to_wait_for_seats(&self) {
        self.flow.figures.stuck.add(1);
    }
}

/// The requests of a schema.
pub(super) struct Flow {
    /// The schema's name.
    pub(super) name: String,
    pub(super) level: Arc<Level>,
    pub(super) distinguisher: Distinguisher,
    /// Whether the level has more queues than one.
    pub(super) has_queues: bool,
    pub(super) is_exempt: bool,
    /// Most seats that one request may take; 0: no limit of the level's own.
    pub(super) seats_max: u32,
    pub(super) schema_uid: HeaderValue,
    pub(super) level_uid: HeaderValue,
    pub(super) figures: Arc<FlowFigures>,
}

/// What is told of a request where somebody asks who is there: its texts in one.
#[derive(Debug)]
pub(super) struct Details {
    text: Box<str>,
    ends: [u32; 8],
}

impl Details {
    /// User, verb, path, namespace, name, version, resource, subresource.
    pub(super) fn of(asked: &Asked<'_>) -> Self {
        let (group, version, resource, subresource, namespace, name) = match asked.what {
            What::Resource { group, version, resource, subresource, namespace, name } => {
                (group, version, resource, subresource, namespace, name)
            }
            What::Path => Default::default(),
        };
        let slash = if group.is_empty() { "" } else { "/" };
        let parts: [&[&str]; 8] = [
            &[&asked.user.name],
            &[asked.verb],
            &[asked.path],
            &[namespace],
            &[name],
            &[group, slash, version],
            &[resource],
            &[subresource],
        ];
        let mut text = String::with_capacity(parts.iter().copied().flatten().map(|part| part.len()).sum());
        let ends = parts.map(|parts| {
            parts.iter().for_each(|part| text.push_str(part));
            u32::try_from(text.len()).unwrap_or(u32::MAX)
        });
        Self { text: text.into(), ends }
    }

    pub(super) fn texts(&self) -> [&str; 8] {
        let mut begin = 0;
        self.ends.map(|end| {
            let end = end as usize;
            let text = self.text.get(begin..end).unwrap_or_default();
            begin = end;
            text
        })
    }

    pub(super) fn distinguisher(&self, of: Distinguisher) -> &str {
        let [user, _, _, namespace, ..] = self.texts();
        match of {
            Distinguisher::None => "",
            Distinguisher::User => user,
            Distinguisher::Namespace => namespace,
        }
    }
}

/// A request's place in its level. Dropping it makes room.
pub(crate) struct Seat {
    flow: Arc<Flow>,
    id: Id,
    arrived: Duration,
    began: Option<Duration>,
    is_watch: bool,
    is_write: bool,
}

/// A request on its way in.
pub(super) struct Entrant {
    pub(super) flow: Arc<Flow>,
    pub(super) work: Work,
    pub(super) hash: u64,
    pub(super) details: Details,
    pub(super) is_watch: bool,
    pub(super) is_write: bool,
}

/// What a level says to one who enters.
pub(super) enum Entrance {
    /// Runs.
    Open(Seat),
    /// Waits until he is told.
    Queue(Seat, oneshot::Receiver<()>),
    /// Goes, and may come back after so many seconds.
    Closed(u64),
}

impl Level {
    pub(super) fn new(name: String, common: Arc<Common>) -> Self {
        let now = common.now();
        let state = State {
            queues: Queues::new(now),
            dropped: Dropped::default(),
            demand: Demand::default(),
            seats: None,
            wish: 0.0,
            alarm: None,
        };
        Self { name, common, quiescing: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in, puts it in a queue or sends it away.
    pub(super) fn enter(self: &Arc<Self>, entrant: Entrant) -> Entrance {
        let Entrant { flow, work, hash, details, is_watch, is_write } = entrant;
        let now = self.common.now();
        let mut seat = Seat { flow: Arc::clone(&flow), id: 0, arrived: now, began: None, is_watch, is_write };
        let waiter = Waiter { flow, details, wake: None };
        let mut state = self.state();
        match state.queues.arrive(now, work, hash, waiter) {
            Arrival::Runs(id) => {
                drop(state);
                seat.id = id;
                if seat.flow.has_queues {
                    seat.flow.figures.queue_length.observe(1);
                }
                seat.begin(now);
                Entrance::Open(seat)
            }
            Arrival::Waits(id) => {
                seat.id = id;
                let (wake, woken) = oneshot::channel();
                let entry = state.queues.entries.get_mut(&id);
                let place = entry.map(|entry| {
                    entry.guest.wake = Some(wake);
                    entry.queue
                });
                let queue = place.flatten().and_then(|number| state.queues.queues.get(&number));
                seat.flow.figures.queue_length.observe(queue.map_or(0, |queue| queue.waiting.len() as u64));
                self.dispatch(state, now);
                self.common.count(now, 1, is_write, 1.0);
                Entrance::Queue(seat, woken)
            }
            Arrival::Refused(why) => {
                let wait = state.dropped.note(now.as_secs());
                drop(state);
                let reason = if why == Refusal::NoSeat { NO_SEAT } else { QUEUE_FULL };
                seat.flow.figures.rejected[reason].add(1);
                seat.flow.figures.waited[0].observe(0);
                // Nothing was taken: nothing is to be given back.
                seat.id = Id::MAX;
                Entrance::Closed(wait)
            }
        }
    }

    /// How long one who has waited in vain is to stay away, in seconds.
    pub(super) fn refuse(&self) -> u64 {
        let now = self.common.now();
        self.state().dropped.note(now.as_secs())
    }

    /// Wakes those whose turn it is.
    fn dispatch(self: &Arc<Self>, mut state: MutexGuard<'_, State>, now: Duration) {
        for id in state.queues.dispatch(now) {
            let wake = state.queues.entries.get_mut(&id).and_then(|entry| entry.guest.wake.take());
            // One that has just gone gives its place back itself, as soon as it gets the lock.
            let _ = wake.map(|wake| wake.send(()));
        }
        let release = state.queues.next_release().filter(|at| state.alarm.is_none_or(|alarm| *at < alarm));
        if let Some(at) = release {
            state.alarm = Some(at);
            let level = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(at.saturating_sub(now)).await;
                let (mut state, now) = (level.state(), level.common.now());
                if state.alarm == Some(at) {
                    state.alarm = None;
                }
                level.dispatch(state, now);
            });
        }
    }

    fn leave(self: &Arc<Self>, id: Id, now: Duration) -> bool {
        let mut state = self.state();
        let had_waited = state.queues.leave(now, id);
        let is_idle = state.queues.is_idle();
        self.dispatch(state, now);
        if is_idle && self.quiescing.load(Ordering::Relaxed) {
            self.common.drained.notify_one();
        }
        had_waited
    }

    /// What the level asks for, by what it has needed since the last time.
    pub(super) fn claim(&self, now: Duration, is_exempt: bool, limits: Limits) -> Claim {
        let mut state = self.state();
        let measured = state.queues.figures.integral.take(now);
        state.demand.update(measured);
        let claim = Claim { is_exempt, limits, peak: state.demand.peak, smoothed: state.demand.smoothed };
        state.wish = claim.wish();
        claim
    }

    /// Gives the level its seats. `told`: what ratios are to.
    pub(super) fn configure(self: &Arc<Self>, now: Duration, shape: Shape, seats: u32, told: u32) {
        let mut state = self.state();
        state.seats = Some(seats);
        state.queues.configure(now, shape, seats.into(), told);
        self.dispatch(state, now);
    }
}

impl Seat {
    fn begin(&mut self, now: Duration) {
        self.began = Some(now);
        self.flow.figures.dispatched.add(1);
        if !self.flow.is_exempt {
            self.flow.figures.waited[1].observe(micros(now.saturating_sub(self.arrived)));
        }
        self.flow.level.common.count(now, 0, self.is_write, 1.0);
    }

    /// It has been told that it is its turn.
    pub(super) fn called(&mut self) {
        let now = self.flow.level.common.now();
        self.flow.level.common.count(now, 1, self.is_write, -1.0);
        self.begin(now);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.id == Id::MAX {
            return;
        }
        let now = self.flow.level.common.now();
        let had_waited = self.flow.level.leave(self.id, now);
        let (common, figures) = (&self.flow.level.common, &self.flow.figures);
        if let Some(began) = self.began {
            common.count(now, 0, self.is_write, -1.0);
            figures.ran[usize::from(self.is_watch)].observe(micros(now.saturating_sub(began)));
        } else {
            common.count(now, 1, self.is_write, -1.0);
            figures.waited[0].observe(micros(now.saturating_sub(self.arrived)));
            if had_waited {
                figures.rejected[TIME_OUT].add(1);
            }
        }
    }
}
