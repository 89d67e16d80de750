//! What a controller has asked for and not yet seen in its watch.
//!
//! Without this a controller would act twice on the same old view. Expectations are set before the requests
//! leave, because their events can overtake the answers. Source: `ControllerExpectations`.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_client::ObjectKey;

/// After this time expectations are given up: an event was missed. Source: `ExpectationsTimeout`.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Open expectations of all objects of one controller, shared between its rounds and its watch.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    open: Mutex<HashMap<ObjectKey, Open>>,
}

#[derive(Debug)]
struct Open {
    creations: usize,
    deletions: HashSet<String>,
    since: Duration,
}

impl Expectations {
    /// `count` creations are about to be requested. `now` is monotonic.
    pub(crate) fn expect_creations(&self, key: &ObjectKey, count: usize, now: Duration) {
        let open = Open { creations: count, deletions: HashSet::new(), since: now };
        self.lock().insert(key.clone(), open);
    }

    /// The objects with these uids are about to be deleted.
    pub(crate) fn expect_deletions(&self, key: &ObjectKey, uids: impl IntoIterator<Item = String>, now: Duration) {
        let open = Open { creations: 0, deletions: uids.into_iter().collect(), since: now };
        self.lock().insert(key.clone(), open);
    }

    /// A creation was seen, or failed.
    pub(crate) fn creation_observed(&self, key: &ObjectKey) {
        if let Some(open) = self.lock().get_mut(key) {
            open.creations = open.creations.saturating_sub(1);
        }
    }

    /// A deletion was seen (or at least its beginning), or failed.
    pub(crate) fn deletion_observed(&self, key: &ObjectKey, uid: &str) {
        if let Some(open) = self.lock().get_mut(key) {
            open.deletions.remove(uid);
        }
    }

    /// How long the controller must keep its hands still; `None` if everything it asked for was seen.
    pub(crate) fn pending(&self, key: &ObjectKey, now: Duration) -> Option<Duration> {
        let mut all = self.lock();
        let open = all.get(key)?;
        let left = (open.since + TIMEOUT).saturating_sub(now);
        if (open.creations == 0 && open.deletions.is_empty()) || left.is_zero() {
            all.remove(key);
            return None;
        }
        Some(left)
    }

    /// The object is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_more_is_done_until_everything_asked_for_was_seen() {
        let (expectations, key, now) = (Expectations::default(), ObjectKey::new("default", "web"), Duration::ZERO);
        expectations.expect_creations(&key, 2, now);
        expectations.creation_observed(&key);
        assert!(expectations.pending(&key, now).is_some());
        expectations.creation_observed(&key);
        assert!(expectations.pending(&key, now).is_none());
        expectations.expect_deletions(&key, ["u1".to_owned(), "u2".to_owned()], now);
        expectations.deletion_observed(&key, "u1");
        expectations.deletion_observed(&key, "u1");
        assert!(expectations.pending(&key, now).is_some());
        expectations.deletion_observed(&key, "u2");
        assert!(expectations.pending(&key, now).is_none());
    }

    #[test]
    fn an_expectation_is_given_up_in_the_end() {
        let (expectations, key) = (Expectations::default(), ObjectKey::new("default", "web"));
        expectations.expect_creations(&key, 1, Duration::ZERO);
        assert_eq!(expectations.pending(&key, Duration::from_secs(299)), Some(Duration::from_secs(1)));
        assert_eq!(expectations.pending(&key, Duration::from_secs(300)), None);
    }
}
