//! Who may hold connections: everybody else's are safe from strangers.
//!
//! A connection is a stranger's until it has shown a client certificate or a request with a valid token. Strangers
//! share a part of all connections, and those of one source a part of that. Where the room is full the oldest
//! stranger goes, never the newcomer (who may be about to prove himself) and never a connection that is proven.
//! What is not here: limits within a connection (`server.rs`) and on requests (`http`).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// How many connections strangers may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// All of them together.
    all: usize,
    /// Those of one source: an IPv4 address, or an IPv6 network of 64 bits, which one machine has to itself.
    source: usize,
}

impl Room {
    /// A quarter of all connections, and a quarter of that for one source.
    pub(crate) fn of(connections_max: usize) -> Self {
        Self { all: (connections_max / 4).max(1), source: (connections_max / 16).max(1) }
    }
}

/// Counts the strangers. One per server.
#[derive(Debug)]
pub(crate) struct Gate {
    room: Room,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By order of arrival.
    strangers: BTreeMap<u64, Stranger>,
    /// How many of them each source has; no zeros.
    sources: HashMap<IpAddr, usize>,
    arrivals: u64,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    sent_away: CancellationToken,
}

/// A connection's place. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    number: u64,
    /// Cancelled when a stranger has to make room.
    pub(crate) sent_away: CancellationToken,
    /// Cancelled when the connection is a stranger's no more.
    pub(crate) proven: CancellationToken,
}

impl Gate {
    pub(crate) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, state: Mutex::default() })
    }

    /// Lets a connection in, as a stranger; sends another one away when there is no room.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Arc<Place> {
        let source = source_of(address);
        let mut state = self.state();
        if state.sources.get(&source).is_some_and(|count| *count >= self.room.source) {
            state.send_away(|stranger| stranger.source == source);
        }
        if state.strangers.len() >= self.room.all {
            state.send_away(|_| true);
        }
        state.arrivals += 1;
        let number = state.arrivals;
        let sent_away = CancellationToken::new();
        state.strangers.insert(number, Stranger { source, sent_away: sent_away.clone() });
        *state.sources.entry(source).or_default() += 1;
        Arc::new(Place { gate: Arc::clone(self), number, sent_away, proven: CancellationToken::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends the oldest of these strangers away.
    fn send_away(&mut self, which: impl Fn(&Stranger) -> bool) {
        let oldest = self.strangers.iter().find(|(_, stranger)| which(stranger)).map(|(number, _)| *number);
        if let Some(stranger) = oldest.and_then(|number| self.remove(number)) {
            stranger.sent_away.cancel();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(count) = self.sources.get_mut(&stranger.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&stranger.source);
            }
        }
        Some(stranger)
    }
}

impl Place {
    /// The connection has proven who it is for. Later calls change nothing.
    pub(crate) fn prove(&self) {
        if !self.proven.is_cancelled() {
            self.gate.state().remove(self.number);
            self.proven.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.state().remove(self.number);
    }
}

fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(gate: &Arc<Gate>, address: &str) -> Arc<Place> {
        gate.enter(address.parse().unwrap())
    }

    fn gone(places: &[Arc<Place>]) -> Vec<bool> {
        places.iter().map(|place| place.sent_away.is_cancelled()).collect()
    }

    #[test]
    fn a_source_that_is_full_loses_its_oldest_stranger_and_no_other_does() {
        let gate = Gate::new(Room { all: 10, source: 2 });
        let other = from(&gate, "10.0.0.9");
        let own: Vec<_> = (0..4).map(|_| from(&gate, "10.0.0.1")).collect();
        assert_eq!(gone(&own), [true, true, false, false]);
        assert!(!other.sent_away.is_cancelled());
    }

    #[test]
    fn a_full_house_loses_its_oldest_stranger_whoever_comes() {
        let gate = Gate::new(Room { all: 3, source: 3 });
        let places: Vec<_> = (1..=5).map(|source| from(&gate, &format!("10.0.0.{source}"))).collect();
        assert_eq!(gone(&places), [true, true, false, false, false]);
    }

    #[test]
    fn who_has_proven_himself_is_never_sent_away_and_takes_no_strangers_place() {
        let gate = Gate::new(Room { all: 2, source: 2 });
        let known: Vec<_> = (0..5).map(|_| from(&gate, "10.0.0.1")).inspect(|place| place.prove()).collect();
        let strangers: Vec<_> = (0..3).map(|_| from(&gate, "10.0.0.1")).collect();
        assert_eq!(gone(&known), [false; 5]);
        assert_eq!(gone(&strangers), [true, false, false]);
        known[0].prove();
        drop((known, strangers));
        assert!(gate.state().strangers.is_empty() && gate.state().sources.is_empty());
    }

    #[test]
    fn all_addresses_of_a_machine_are_one_source() {
        let gate = Gate::new(Room { all: 10, source: 1 });
        let places = ["2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1", "::ffff:10.0.0.1", "10.0.0.1"];
        let places: Vec<_> = places.into_iter().map(|address| from(&gate, address)).collect();
        assert_eq!(gone(&places), [true, false, false, true, false]);
        assert_eq!(Room::of(10_000), Room { all: 2500, source: 625 });
    }
}
