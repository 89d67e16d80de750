//! What the cache of one resource counts, for `/metrics`.

use std::sync::OnceLock;
use std::time::Duration;

use crate::http::{Counter, Histogram};

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct CacheFigures {
    /// How often everything was read anew.
    pub(crate) initializations: Counter,
    /// Changes that came from the store.
    pub(crate) received: Counter,
    /// Those of them that were handed on to the watchers.
    pub(crate) dispatched: Counter,
    /// Lists that were answered from here, and the objects in them.
    pub(crate) lists: Counter,
    pub(crate) returned: Counter,
    /// What was asked of the store.
    pub(crate) calls: StoreCalls,
}

/// What the store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreCall {
    Create,
    Update,
    Delete,
    List,
}

/// How long the store took, and how often it failed. What was never asked takes no room.
#[derive(Debug, Default)]
pub(crate) struct StoreCalls([OnceLock<(Histogram, Counter)>; 4]);

impl StoreCall {
    const ALL: [Self; 4] = [Self::Create, Self::Delete, Self::List, Self::Update];

    /// Kubernetes' name of it.
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Update => "update",
        }
    }
}

impl StoreCalls {
    /// Counts an answer of the store; one that says that something else stands there is no failure.
    pub(crate) fn answered(&self, call: StoreCall, took: Duration, is_failure: bool) {
        let Some(place) = StoreCall::ALL.iter().position(|own| *own == call).and_then(|at| self.0.get(at)) else {
            return;
        };
        let (times, failures) = place.get_or_init(|| (Histogram::of_requests(), Counter::default()));
        times.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        failures.add(u64::from(is_failure));
    }

    /// Name, times and failures of each call that was ever made, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Histogram, &Counter)> {
        let both = StoreCall::ALL.iter().zip(&self.0);
        both.filter_map(|(call, place)| place.get().map(|(times, failures)| (call.name(), times, failures)))
    }
}
