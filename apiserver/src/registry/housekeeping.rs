//! What is done from time to time: old history and old events are dropped, so that the store stays small.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reeve_store::{Compare, KeyRange, KvError, Op, Revision, Txn};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::warn;

use super::Registry;
use super::answer::Object;

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(150);

/// How long history is kept at least; an interval more at most. Clients count upon what a Kubernetes API server keeps:
/// no less than its compaction interval of five minutes, and less than twice that.
pub const HISTORY: Duration = Duration::from_secs(300);

/// How long events are kept: Kubernetes' `--event-ttl`.
const EVENT_TTL: SignedDuration = SignedDuration::from_hours(1);

/// Most events deleted in one transaction: each is a comparison and a step.
const BATCH_LEN_MAX: usize = reeve_store::TXN_OPS_MAX / 2;

/// Starts the task; it ends when the registry is stopped.
pub(super) fn spawn(registry: &Arc<Registry>, history: Duration) {
    let (stop, registry) = (registry.cache.stop.clone(), Arc::downgrade(registry));
    let history = History::of(history);
    tokio::spawn(async move { stop.run_until_cancelled(run(registry, history)).await });
}

async fn run(registry: Weak<Registry>, mut history: History) {
    let mut rounds = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(registry) = registry.upgrade() else { return };
        registry.expire_events().await;
        registry.cache.rest();
        let Some(compact_to) = history.pass(registry.cache.revision()) else { continue };
        match registry.kv.compact(compact_to).await {
            // Nothing has happened since the last round, or the store has gone further by itself.
            Ok(()) | Err(KvError::Compacted { .. }) => {}
            Err(error) => {
                warn!(%error, revision = %compact_to, "Old history could not be dropped; trying again later.")
            }
        }
    }
}

/// Where the store was at the last rounds.
struct History {
    rounds: VecDeque<Revision>,
    /// How many of them are kept.
    kept: usize,
}

impl History {
    /// That keeps so much.
    fn of(age: Duration) -> Self {
        let intervals = age.as_secs().div_ceil(INTERVAL.as_secs());
        Self { rounds: VecDeque::new(), kept: usize::try_from(intervals).unwrap_or(usize::MAX).max(1) }
    }

    /// The round at `now`: what may be dropped is what was before the rounds that are kept.
    fn pass(&mut self, now: Revision) -> Option<Revision> {
        self.rounds.push_back(now);
        if self.rounds.len() > self.kept { self.rounds.pop_front() } else { None }
    }
}

impl Registry {
    /// Deletes the events that nobody has renewed for an hour.
    pub(super) async fn expire_events(&self) {
        let Some(events) = self.core("events") else { return };
        let now = self.clock.now();
        let snapshot = events.storage.snapshot();
        let prefix = events.prefix().clone();
        // There may be very many, and each is parsed: not on the async threads.
        let find = move || -> Vec<_> {
            let expired = snapshot.objects.iter().filter(|(_, object)| is_expired(object, now));
            expired.map(|(key, object)| ([&prefix[..], &key[..]].concat(), object.revision)).collect()
        };
        let old = match tokio::task::spawn_blocking(find).await {
            Ok(old) => old,
            Err(error) => return warn!(%error, "Old events could not be looked for; trying again later."),
        };
        for batch in old.chunks(BATCH_LEN_MAX) {
            let mut txn = Txn::default();
            for (key, revision) in batch {
                txn.compare.push(Compare::ModRevision { key: key.clone().into(), equals: *revision });
                txn.then.push(Op::Delete(KeyRange::Key(key.clone().into())));
            }
            // An event that was renewed meanwhile keeps its batch until the next round.
            if let Err(error) = self.kv.txn(txn).await {
                warn!(%error, "Old events could not be deleted; trying again later.");
                return;
            }
        }
    }
}

/// The part of an event that says how old it is; the rest is passed over unread.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    metadata: Created,
    last_timestamp: Option<String>,
    event_time: Option<String>,
    series: Option<Series>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    creation_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    last_observed_time: Option<String>,
}

/// Whether the newest of the event's times lies too far back.
fn is_expired(event: &Object, now: Timestamp) -> bool {
    let Ok(times) = serde_json::from_slice::<Times>(event.text()) else { return false };
    let last_observed = times.series.and_then(|series| series.last_observed_time);
    let times = [times.metadata.creation_timestamp, times.last_timestamp, times.event_time, last_observed];
    let newest = times.iter().flatten().filter_map(|time| time.parse::<Timestamp>().ok()).max();
    newest.is_some_and(|newest| now.duration_since(newest) > EVENT_TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_kept_for_five_minutes_and_dropped_before_ten() {
        let mut history = History::of(HISTORY);
        let dropped: Vec<_> = [3, 8, 9, 9, 14].into_iter().map(|now| history.pass(Revision(now))).collect();
        assert_eq!(dropped, [None, None, Some(Revision(3)), Some(Revision(8)), Some(Revision(9))]);
        assert_eq!(INTERVAL * 2, HISTORY);
        assert_eq!(History::of(Duration::from_secs(3600)).kept, 24);
        assert_eq!(History::of(Duration::from_secs(3601)).kept, 25);
    }
}
