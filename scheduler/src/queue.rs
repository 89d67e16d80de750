//! The pods that wait for a node: the next one to try, those that have to wait a while, those that fit nowhere.
//!
//! Pure: time is an argument. Order and delays are those of kube-scheduler's `PriorityQueue`. The length is
//! bounded by the number of pods the API server holds.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::FitError;
use crate::plugins::ClusterEvent;
use crate::pod::PodView;

/// Delay after the first failed attempt and the longest one. Source: kube-scheduler's `podInitialBackoffSeconds`
/// and `podMaxBackoffSeconds`.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A pod that fits nowhere is tried again after this long even if no event speaks for it: the last resort
/// against an event that we fail to understand. Source: `podMaxInUnschedulablePodsDuration`.
const LAST_RESORT: Duration = Duration::from_secs(300);

type Uid = Arc<str>;

/// All waiting pods, each in exactly one state.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Uid, Waiting>,
    /// Highest priority first, then first come first served.
    active: BTreeSet<(Reverse<i32>, u64, Uid)>,
    /// When each delayed pod becomes active.
    delayed: BTreeSet<(Duration, Uid)>,
    sequence: u64,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodView>,
    attempts: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Can be tried now. Left by being taken.
    Active { sequence: u64 },
    /// Becomes active at `until`. With an error it fits nowhere, and an event may wake it from `not_before` on.
    Delayed { until: Duration, not_before: Duration, error: Option<FitError> },
    /// Taken. Left by [`Queue::failed`], [`Queue::retry`] or [`Queue::remove`].
    Taken,
}

impl Queue {
    /// Takes in a new pod, or a new version of a known one. A pod that fitted nowhere and changed gets another try.
    pub fn put(&mut self, pod: Arc<PodView>) {
        let uid = Arc::clone(&pod.uid);
        let Some(waiting) = self.pods.get_mut(&uid) else {
            self.pods.insert(Arc::clone(&uid), Waiting { pod, attempts: 0, state: State::Taken });
            return self.activate(&uid);
        };
        if *waiting.pod == *pod {
            return;
        }
        let reorder = waiting.pod.priority != pod.priority && matches!(waiting.state, State::Active { .. });
        if reorder {
            self.leave_state(&uid);
        }
        if let Some(waiting) = self.pods.get_mut(&uid) {
            waiting.pod = pod;
        }
        if reorder {
            self.activate(&uid);
        } else {
            self.wake(&uid);
        }
    }

    /// Forgets a pod: it is bound, gone, or no longer ours.
    pub fn remove(&mut self, uid: &str) {
        self.leave_state(uid);
        self.pods.remove(uid);
    }

    /// The next pod to try. [`Queue::failed`], [`Queue::retry`] or [`Queue::remove`] must follow.
    pub fn take(&mut self, now: Duration) -> Option<Arc<PodView>> {
        while let Some(uid) = self.delayed.first().filter(|(until, _)| *until <= now).map(|(_, uid)| Arc::clone(uid)) {
            self.leave_state(&uid);
            self.activate(&uid);
        }
        let (_, _, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.state = State::Taken;
        waiting.attempts = waiting.attempts.saturating_add(1);
        Some(Arc::clone(&waiting.pod))
    }

    /// A taken pod fits nowhere: it waits for an event that could change that.
    pub fn failed(&mut self, uid: &str, error: FitError, now: Duration) {
        self.delay(uid, now + LAST_RESORT, now, Some(error));
    }

    /// A taken pod could not be bound: it comes again after its back-off.
    pub fn retry(&mut self, uid: &str, now: Duration) {
        self.delay(uid, now, now, None);
    }

    /// Wakes the pods that could fit after this event.
    pub fn on_event(&mut self, event: ClusterEvent) {
        let woken: Vec<Uid> = self
            .pods
            .iter()
            .filter(|(_, waiting)| waiting.is_woken_by(event))
            .map(|(uid, _)| Arc::clone(uid))
            .collect();
        for uid in woken {
            self.wake(&uid);
        }
    }

    /// Wakes one pod that fits nowhere, whatever has happened.
    pub fn reconsider(&mut self, uid: &str) {
        self.wake(uid);
    }

    /// When the next delayed pod becomes active.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.delayed.first().map(|(until, _)| *until)
    }

    /// Whether the pod was taken and nobody has said what became of it.
    #[must_use]
    pub fn is_taken(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|waiting| matches!(waiting.state, State::Taken))
    }

    /// How many pods wait, taken ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    // Delayed (fits nowhere) => Delayed (until its back-off is over, which may be now)
    fn wake(&mut self, uid: &str) {
        let Some(Waiting { state: State::Delayed { not_before, error: Some(_), .. }, .. }) = self.pods.get(uid) else {
            return;
        };
        let not_before = *not_before;
        self.leave_state(uid);
        self.enter_delayed(uid, not_before, not_before, None);
    }

    // Taken => Delayed
    fn delay(&mut self, uid: &str, until: Duration, now: Duration, error: Option<FitError>) {
        let Some(waiting) = self.pods.get(uid).filter(|waiting| matches!(waiting.state, State::Taken)) else { return };
        let not_before = now + backoff(waiting.attempts);
        self.enter_delayed(uid, until.max(not_before), not_before, error);
    }

    fn enter_delayed(&mut self, uid: &str, until: Duration, not_before: Duration, error: Option<FitError>) {
        let Some((key, waiting)) =
            self.pods.get_key_value(uid).map(|(key, _)| Arc::clone(key)).zip(self.pods.get_mut(uid))
        else {
            return;
        };
        waiting.state = State::Delayed { until, not_before, error };
        self.delayed.insert((until, key));
    }

    fn activate(&mut self, uid: &Uid) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        self.sequence += 1;
        waiting.state = State::Active { sequence: self.sequence };
        self.active.insert((Reverse(waiting.pod.priority), self.sequence, Arc::clone(uid)));
    }

    fn leave_state(&mut self, uid: &str) {
        let Some((key, waiting)) = self.pods.get_key_value(uid) else { return };
        match waiting.state {
            State::Active { sequence } => {
                self.active.remove(&(Reverse(waiting.pod.priority), sequence, Arc::clone(key)));
            }
            State::Delayed { until, .. } => {
                self.delayed.remove(&(until, Arc::clone(key)));
            }
            State::Taken => {}
        }
    }
}

impl Waiting {
    fn is_woken_by(&self, event: ClusterEvent) -> bool {
        matches!(&self.state, State::Delayed { error: Some(error), .. } if error.is_woken_by(event))
    }
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(10);
    BACKOFF_INITIAL.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<PodView> {
        let pod = json!({ "metadata": { "namespace": "default", "name": name, "uid": name },
            "spec": { "containers": [{ "name": "c" }], "priority": priority } });
        Arc::new(PodView::of(&serde_json::from_value(pod).unwrap()).unwrap())
    }

    fn short_of_cpu() -> FitError {
        let mut error = FitError::new(1, true);
        error.add(5, vec!["Insufficient cpu".into()], false);
        error
    }

    fn take(queue: &mut Queue, at_seconds: u64) -> Option<String> {
        queue.take(Duration::from_secs(at_seconds)).map(|pod| pod.uid.to_string())
    }

    #[test]
    fn important_pods_come_first_then_those_who_came_first() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("high", 10)] {
            queue.put(pod(name, priority));
        }
        let order: Vec<_> = (0..4).map(|_| take(&mut queue, 0)).collect();
        assert_eq!(order, [Some("high".into()), Some("a".into()), Some("b".into()), None]);
    }

    #[test]
    fn a_pod_that_fits_nowhere_waits_for_an_event_that_matters() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0));
        take(&mut queue, 0).unwrap();
        queue.failed("a", short_of_cpu(), Duration::ZERO);
        queue.on_event(ClusterEvent::NodeLabelsChanged);
        assert_eq!(take(&mut queue, 200), None);
        queue.on_event(ClusterEvent::PlacedPodRemoved);
        assert_eq!(take(&mut queue, 200).as_deref(), Some("a"));
    }

    #[test]
    fn a_woken_pod_still_waits_for_its_back_off() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0));
        for (at, wait) in [(0, 1), (100, 2), (200, 4), (300, 8), (400, 10), (500, 10)] {
            assert_eq!(take(&mut queue, at).as_deref(), Some("a"), "at {at}");
            queue.failed("a", short_of_cpu(), Duration::from_secs(at));
            queue.on_event(ClusterEvent::NodeAdded);
            assert_eq!(queue.next_due(), Some(Duration::from_secs(at + wait)));
            assert_eq!(take(&mut queue, at + wait - 1), None);
        }
    }

    #[test]
    fn a_pod_that_is_to_be_reconsidered_comes_after_its_back_off_without_any_event() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0));
        take(&mut queue, 0).unwrap();
        queue.failed("a", short_of_cpu(), Duration::ZERO);
        queue.reconsider("a");
        queue.reconsider("nobody");
        assert_eq!(take(&mut queue, 0), None);
        assert_eq!(take(&mut queue, 1).as_deref(), Some("a"));
    }

    #[test]
    fn an_unschedulable_pod_is_tried_again_as_a_last_resort() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0));
        take(&mut queue, 0);
        queue.failed("a", short_of_cpu(), Duration::ZERO);
        assert_eq!(take(&mut queue, 299), None);
        assert_eq!(take(&mut queue, 300).as_deref(), Some("a"));
    }

    #[test]
    fn a_changed_pod_is_tried_again_and_an_unchanged_one_is_not() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0));
        take(&mut queue, 0);
        queue.failed("a", short_of_cpu(), Duration::ZERO);
        queue.put(pod("a", 0));
        assert_eq!(take(&mut queue, 10), None);
        queue.put(pod("a", 7));
        assert_eq!(take(&mut queue, 10).as_deref(), Some("a"));
    }

    #[test]
    fn a_pod_that_could_not_be_bound_comes_again_by_itself_and_a_removed_one_never() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0));
        take(&mut queue, 0);
        queue.retry("a", Duration::ZERO);
        assert_eq!(take(&mut queue, 1).as_deref(), Some("a"));
        queue.retry("a", Duration::from_secs(1));
        queue.remove("a");
        assert_eq!(take(&mut queue, 1000), None);
        assert!(queue.is_empty());
    }
}
