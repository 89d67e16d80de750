//! A queue of keys that have to be looked at: each key once, and by one worker at a time.
//!
//! The same rules as client-go's `workqueue`: a key added twice is handed out once; a key added while it is
//! being worked on is handed out again afterwards; a key that failed comes back after a growing delay.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Delay after the first failure of a key, and the longest one. Source: client-go's default rate limiter.
const RETRY_INITIAL: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);

/// The longest delay; a key that was to wait longer is looked at again then. Delays come from users (seconds of a
/// toleration), and a time beyond what the clock can say would be a panic.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// A de-duplicating queue with delays. Its length is bounded by the number of different keys.
///
/// Anybody may add; one task at a time waits in [`WorkQueue::next`] (that is [`crate::work`]).
#[derive(Debug)]
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<T> {
    /// Handed out in this order. Holds only keys of `dirty` that are not in `working`.
    ready: VecDeque<T>,
    dirty: HashSet<T>,
    working: HashSet<T>,
    /// Keys to be added later, by time; the number tells keys of one moment apart.
    delayed: BTreeMap<(Instant, u64), T>,
    delayed_until: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
}

impl<T> Default for WorkQueue<T> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            delayed_until: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<T: Clone + Eq + Hash + Debug> WorkQueue<T> {
    /// Adds a key, to be handed out as soon as possible.
    pub fn add(&self, key: T) {
        self.lock().add(key);
        self.wake.notify_one();
    }

    /// Adds a key after a delay. Of several delays for one key the shortest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.lock().delay(key, Instant::now() + delay.min(DELAY_MAX));
        self.wake.notify_one();
    }

    /// Adds a key that failed after a delay that doubles with every failure; [`WorkQueue::forget`] starts over.
    pub fn add_rate_limited(&self, key: T) {
        self.lock().delay_failed(key, Instant::now());
        self.wake.notify_one();
    }

    /// How often in a row the key has failed.
    pub fn failures(&self, key: &T) -> u32 {
        self.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Forgets the failures of a key: it succeeded, or is gone.
    pub fn forget(&self, key: &T) {
        self.lock().failures.remove(key);
    }

    /// The next key to work on; waits until there is one. [`WorkQueue::done`] must follow.
    pub async fn next(&self) -> T {
        loop {
            let (key, due) = self.lock().take(Instant::now());
            if let Some(key) = key {
                return key;
            }
            // `notify_one` stores a permit, so an addition between here and the wait is not lost.
            match due {
                Some(due) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// To be called when the work on a key from [`WorkQueue::next`] has ended, well or badly.
    pub fn done(&self, key: &T) {
        self.lock().done(key);
        self.wake.notify_one();
    }

    /// How many keys wait to be handed out now.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether no key waits to be handed out now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) {
        if let Some(slot) = self.delayed_until.remove(&key) {
            self.delayed.remove(&slot);
        }
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: T, until: Instant) {
        if let Some(slot) = self.delayed_until.get(&key) {
            if slot.0 <= until {
                return;
            }
            self.delayed.remove(slot);
        }
        self.sequence += 1;
        let slot = (until, self.sequence);
        self.delayed.insert(slot, key.clone());
        self.delayed_until.insert(key, slot);
    }

    fn delay_failed(&mut self, key: T, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = RETRY_INITIAL.saturating_mul(1_u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(RETRY_MAX);
        *failures = failures.saturating_add(1).min(31);
        self.delay(key, now + delay);
    }

    /// The next ready key, or else the time at which the next delayed key becomes ready.
    fn take(&mut self, now: Instant) -> (Option<T>, Option<Instant>) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.get().clone();
            self.add(key);
        }
        let Some(key) = self.ready.pop_front() else {
            return (None, self.delayed.first_key_value().map(|(slot, _)| slot.0));
        };
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        (Some(key), None)
    }

    fn done(&mut self, key: &T) {
        self.working.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A queue whose time is moved by hand.
    struct Script {
        queue: WorkQueue<&'static str>,
        now: Instant,
    }

    impl Script {
        fn new() -> Self {
            Self { queue: WorkQueue::default(), now: Instant::now() }
        }

        fn take(&self) -> Option<&'static str> {
            self.queue.lock().take(self.now).0
        }

        fn due(&self) -> Option<Duration> {
            self.queue.lock().take(self.now).1.map(|due| due - self.now)
        }

        fn delay(&self, key: &'static str, delay: Duration) {
            self.queue.lock().delay(key, self.now + delay);
        }

        fn fail(&self, key: &'static str) -> Duration {
            self.queue.lock().delay_failed(key, self.now);
            self.due().expect("a failed key comes again")
        }
    }

    #[test]
    fn a_delay_without_end_harms_nobody() {
        let script = Script::new();
        script.queue.add_after("a", Duration::MAX);
        assert_eq!(script.take(), None);
        script.queue.add("a");
        assert_eq!(script.take(), Some("a"));
    }

    #[test]
    fn a_key_added_twice_is_handed_out_once() {
        let script = Script::new();
        for key in ["a", "a", "b"] {
            script.queue.add(key);
        }
        assert_eq!([script.take(), script.take(), script.take()], [Some("a"), Some("b"), None]);
    }

    #[test]
    fn a_key_is_never_worked_on_twice_at_once_but_again_when_it_changed_meanwhile() {
        let script = Script::new();
        script.queue.add("a");
        assert_eq!(script.take(), Some("a"));
        script.queue.add("a");
        assert_eq!(script.take(), None);
        script.queue.done(&"a");
        assert_eq!(script.take(), Some("a"));
        script.queue.done(&"a");
        assert_eq!(script.take(), None);
    }

    #[test]
    fn failures_double_the_delay_up_to_the_maximum_until_forgotten() {
        let mut script = Script::new();
        for expected in [5, 10, 20, 40] {
            assert_eq!(script.fail("a"), MS(expected));
            script.now += MS(expected);
            assert_eq!(script.take(), Some("a"));
            script.queue.done(&"a");
        }
        for _ in 0..60 {
            let delay = script.fail("a");
            assert!(delay <= RETRY_MAX);
            script.now += delay;
            assert_eq!(script.take(), Some("a"));
            script.queue.done(&"a");
        }
        assert_eq!(script.fail("a"), RETRY_MAX);
        script.queue.add("a");
        script.queue.forget(&"a");
        assert_eq!(script.take(), Some("a"));
        assert_eq!(script.fail("a"), MS(5));
    }

    #[test]
    fn the_shortest_delay_counts_and_an_immediate_addition_replaces_it() {
        let mut script = Script::new();
        for delay in [100, 20, 500] {
            script.delay("a", MS(delay));
        }
        assert_eq!(script.due(), Some(MS(20)));
        script.now += MS(20);
        assert_eq!(script.take(), Some("a"));
        script.queue.done(&"a");
        assert_eq!(script.due(), None);
        script.delay("a", MS(100));
        script.queue.add("a");
        assert_eq!(script.take(), Some("a"));
        script.queue.done(&"a");
        assert_eq!(script.due(), None);
    }

    #[tokio::test]
    async fn an_idle_waiter_is_woken_by_an_earlier_delay() {
        let queue = std::sync::Arc::new(WorkQueue::default());
        queue.add_after("late", Duration::from_secs(1000));
        let waiter = tokio::spawn({
            let queue = std::sync::Arc::clone(&queue);
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.add_after("early", MS(5));
        assert_eq!(waiter.await.unwrap(), "early");
    }
}
