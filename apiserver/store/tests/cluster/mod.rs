//! Several members of one store in one process, on a network in memory that loses, repeats, delays, reorders and cuts.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_api::clock::{Clock, SharedClock};
use reeve_api::rng::{RngExt as _, SharedRng};
use reeve_store::{Inbox, Parcel, Peer, Transport};

/// What the network does to messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Of a thousand messages so many are lost.
    pub(crate) lost: u64,
    /// And so many come twice.
    pub(crate) repeated: u64,
    /// Each takes up to this long: they overtake each other.
    pub(crate) delay: Duration,
}

/// Carries messages between members. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network {
    rng: SharedRng,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    weather: Weather,
    inboxes: BTreeMap<u64, (u64, Inbox)>,
    /// Which process of each member counts: what an older one still sends is lost.
    processes: BTreeMap<u64, u64>,
    /// Nothing goes from the first to the second.
    cuts: BTreeSet<(u64, u64)>,
    /// Whom each member was told of.
    told: BTreeMap<u64, Vec<Peer>>,
    /// Bytes of all that was handed in.
    carried: usize,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    pub(crate) fn new(rng: SharedRng) -> Self {
        Self { rng, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transport of the next process of a member; what the one before still sends or should get is lost.
    pub(crate) fn transport(&self, id: u64) -> Arc<dyn Transport> {
        let mut state = self.lock();
        let process = state.processes.entry(id).or_default();
        *process += 1;
        let process = *process;
        state.inboxes.remove(&id);
        Arc::new(Wire { network: self.clone(), id, process })
    }

    /// From now on the member hears.
    pub(crate) fn plug_in(&self, id: u64, inbox: Inbox) {
        let mut state = self.lock();
        let process = state.processes.get(&id).copied().unwrap_or(0);
        state.inboxes.insert(id, (process, inbox));
    }

    /// The member's process is gone.
    pub(crate) fn unplug(&self, id: u64) {
        drop(self.transport(id));
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.lock().cuts.insert((from, to));
    }

    /// Nothing goes to or from a member.
    pub(crate) fn isolate(&self, id: u64, others: impl IntoIterator<Item = u64>) {
        for other in others.into_iter().filter(|other| *other != id) {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// All that was cut is whole again.
    pub(crate) fn mend(&self) {
        self.lock().cuts.clear();
    }

    /// Whom a member was told of last.
    pub(crate) fn told(&self, id: u64) -> Vec<Peer> {
        self.lock().told.get(&id).cloned().unwrap_or_default()
    }

    fn deliver(&self, process: u64, parcel: &Parcel) {
        let (delays, weather) = {
            let state = self.lock();
            let weather = state.weather;
            let gone = state.processes.get(&parcel.from) != Some(&process);
            if gone || state.cuts.contains(&(parcel.from, parcel.to)) || self.rng.below(1000) < weather.lost {
                return;
            }
            let copies = if self.rng.below(1000) < weather.repeated { 2 } else { 1 };
            let micros = u64::try_from(weather.delay.as_micros()).unwrap_or(0);
            let delays: Vec<_> = (0..copies).map(|_| Duration::from_micros(self.rng.below(micros + 1))).collect();
            (delays, weather)
        };
        for delay in delays {
            let (network, parcel) = (self.clone(), parcel.clone());
            tokio::spawn(async move {
                if weather.delay > Duration::ZERO {
                    tokio::time::sleep(delay).await;
                }
                let inbox = {
                    let state = network.lock();
                    let cut = state.cuts.contains(&(parcel.from, parcel.to));
                    state.inboxes.get(&parcel.to).filter(|_| !cut).map(|(_, inbox)| inbox.clone())
                };
                if let Some(inbox) = inbox {
                    let _ = inbox.receive(parcel).await; // a member that is gone or has removed the sender
                }
            });
        }
    }
}

/// One process's end of the network.
#[derive(Debug)]
struct Wire {
    network: Network,
    id: u64,
    process: u64,
}

impl Transport for Wire {
    fn send(&self, parcel: Parcel) {
        assert_eq!(parcel.from, self.id, "who sends says so");
        self.network.lock().carried += parcel.message.len();
        self.network.deliver(self.process, &parcel);
    }

    fn set_peers(&self, peers: Vec<Peer>) {
        self.network.lock().told.insert(self.id, peers);
    }
}

/// The runtime's own time, which a paused runtime moves on by itself.
#[derive(Debug)]
pub(crate) struct RuntimeClock(tokio::time::Instant);

impl RuntimeClock {
    pub(crate) fn shared() -> SharedClock {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Members 1 to `n`, as founders are told of each other.
pub(crate) fn founders(n: u64) -> Vec<Peer> {
    (1..=n).map(|id| Peer { id, address: address(id) }).collect()
}

pub(crate) fn address(id: u64) -> String {
    format!("member-{id}:2380")
}
