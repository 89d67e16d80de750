//! Who was granted what on this node, and who waits for more. Pure.
//!
//! Source: kubelet `allocation.Manager`. A resize that does not fit is deferred: it is looked at again whenever
//! anything changes on the node, those that take nothing first, then by priority, quality of service and time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::admission::{Refusal, Room, admit, fits};
use super::allocation::Allocation;
use super::resize::PENDING;
use super::resources::{pod_request, qos_class};
use super::state::spec;

/// Why a resize is not granted: the condition `PodResizePending`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// `Deferred`.
    pub(crate) reason: String,
    /// In the words of admission.
    pub(crate) message: String,
    /// Of the spec that asks for it.
    pub(crate) generation: Option<i64>,
    /// Since when the reason holds.
    pub(crate) since: Timestamp,
    /// When it was looked at last with another outcome.
    pub(crate) probed: Timestamp,
}

/// What became of a pod's resize.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It has all that it wants now: to be kept, and carried out.
    Granted(Allocation),
    /// It waits; the admission's reason for the event, if that is new.
    Pending { told: Option<Refusal> },
}

#[derive(Debug)]
struct Line {
    /// As the API wants it.
    wanted: Arc<Pod>,
    granted: Allocation,
    /// `wanted` with what was granted.
    pod: Arc<Pod>,
    pending: Option<Pending>,
}

/// The accounts of the node, by UID of the pod.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<String, Line>);

/// What the node has, for those who decide.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) room: &'p Room,
    pub(crate) node: Option<&'p Node>,
}

impl Ledger {
    /// Takes a pod in that is new here, if it fits.
    pub(crate) fn admit(&mut self, pod: &Arc<Pod>, place: Place<'_>) -> Result<(), Refusal> {
        let uid = uid(pod);
        admit(pod, &self.others(&uid), place.node, place.room)?;
        self.0.insert(uid, Line::new(pod, Allocation::of(pod)));
        Ok(())
    }

    /// Takes in a pod that was here before, with what it was granted then.
    pub(crate) fn recall(&mut self, pod: &Arc<Pod>, granted: Option<Allocation>) {
        let mut line = Line::new(pod, granted.unwrap_or_else(|| Allocation::of(pod)));
        if line.is_satisfied() {
            line.pending = None;
        }
        self.0.insert(uid(pod), line);
    }

    /// Enters what has changed of the pods that are known, before anything is decided: whoever has left the API makes
    /// room for who comes at the same moment, for the scheduler counts on it.
    pub(crate) fn enter(&mut self, news: &BTreeMap<String, Option<Arc<Pod>>>) {
        for (uid, pod) in news {
            match pod {
                Some(pod) => self.update(pod),
                None => self.remove(uid),
            }
        }
    }

    fn update(&mut self, pod: &Arc<Pod>) {
        let Some(line) = self.0.get_mut(&uid(pod)) else { return };
        line.wanted = Arc::clone(pod);
        line.pod = line.granted.applied(pod);
        if line.is_satisfied() {
            line.pending = None;
        }
    }

    /// Nothing of a pod is left.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// The pod with what it was granted; as it is, where it is not known.
    pub(crate) fn granted(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.0.get(&uid(pod)).map_or_else(|| Arc::clone(pod), |line| Arc::clone(&line.pod))
    }

    /// The pod as the API wants it.
    pub(crate) fn wanted(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.0.get(uid).map(|line| &line.wanted)
    }

    /// Why a pod's resize waits.
    pub(crate) fn pending(&self, uid: &str) -> Option<&Pending> {
        self.0.get(uid)?.pending.as_ref()
    }

    /// Looks at every resize that is not granted, in order. Returns what has changed.
    pub(crate) fn review(&mut self, place: Place<'_>, now: Timestamp) -> Vec<(String, Verdict)> {
        let mut asking: Vec<&String> =
            self.0.iter().filter(|(_, line)| !line.is_satisfied() && line.is_active()).map(|(uid, _)| uid).collect();
        asking.sort_by_cached_key(|uid| self.0.get(*uid).map(rank));
        let asking: Vec<String> = asking.into_iter().cloned().collect();
        asking.into_iter().filter_map(|uid| Some((uid.clone(), self.decide(&uid, place, now)?))).collect()
    }

    fn decide(&mut self, uid: &str, place: Place<'_>, now: Timestamp) -> Option<Verdict> {
        let fits = fits(&self.0.get(uid)?.wanted, &self.others(uid), place.node, place.room);
        let line = self.0.get_mut(uid)?;
        match fits {
            Ok(()) => {
                line.granted = Allocation::of(&line.wanted);
                line.pod = Arc::clone(&line.wanted);
                line.pending = None;
                Some(Verdict::Granted(line.granted.clone()))
            }
            Err(refusal) => {
                let generation = line.wanted.metadata.generation;
                let before = line.pending.take();
                let is_known = before.as_ref().is_some_and(|before| before.generation == generation);
                let is_same = is_known && before.as_ref().is_some_and(|before| before.message == refusal.message);
                line.pending = Some(Pending {
                    reason: "Deferred".to_owned(),
                    message: refusal.message.clone(),
                    generation,
                    since: before.as_ref().map_or(now, |before| before.since),
                    probed: before.as_ref().filter(|_| is_same).map_or(now, |before| before.probed),
                });
                (!is_same).then(|| Verdict::Pending { told: (!is_known).then_some(refusal) })
            }
        }
    }

    /// What the other pods hold: a pod that has ended holds nothing.
    fn others(&self, uid: &str) -> Vec<&Pod> {
        let others = self.0.iter().filter(|(other, line)| *other != uid && line.is_active());
        others.map(|(_, line)| line.pod.as_ref()).collect()
    }
}

impl Line {
    fn new(pod: &Arc<Pod>, granted: Allocation) -> Self {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let told = conditions.into_iter().find(|condition| condition.type_ == PENDING);
        let pending = told.map(|told| {
            let since = told.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            Pending {
                reason: told.reason.clone().unwrap_or_default(),
                message: told.message.clone().unwrap_or_default(),
                generation: told.observed_generation,
                since,
                probed: told.last_probe_time.as_ref().map_or(since, |time| time.0),
            }
        });
        Self { wanted: Arc::clone(pod), pod: granted.applied(pod), granted, pending }
    }

    fn is_satisfied(&self) -> bool {
        Arc::ptr_eq(&self.wanted, &self.pod)
    }

    fn is_active(&self) -> bool {
        !is_over(&self.wanted)
    }
}

/// Smaller comes first. Source: kubelet `sortPendingResizes`.
fn rank(line: &Line) -> (bool, Reverse<i32>, bool, Option<Timestamp>) {
    let (wanted, has) = (spec(&line.wanted), spec(&line.pod));
    let grows = ["cpu", "memory"].iter().any(|name| pod_request(wanted, name) > pod_request(has, name));
    let since = line.pending.as_ref().map_or(Timestamp::MAX, |pending| pending.since);
    (grows, Reverse(wanted.priority.unwrap_or(0)), qos_class(wanted) != "Guaranteed", Some(since))
}

/// Whether a pod has ended for good.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use reeve_api::quantity::Quantity;

    use super::*;

    fn place() -> Place<'static> {
        static ROOM: LazyLock<Room> = LazyLock::new(|| Room {
            cpu: Quantity::from_milli(1000),
            memory: "1Gi".parse().unwrap(),
            pods: 9,
            huge_pages: BTreeMap::new(),
        });
        Place { room: &ROOM, node: None }
    }

    fn pod(uid: &str, cpu: &str, generation: i64) -> Arc<Pod> {
        with(uid, cpu, generation, serde_json::json!({}))
    }

    fn with(uid: &str, cpu: &str, generation: i64, more: serde_json::Value) -> Arc<Pod> {
        let resources = serde_json::json!({ "requests": { "cpu": cpu } });
        let mut spec = serde_json::json!({ "containers": [{ "name": "c", "resources": resources }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let pod = serde_json::json!({ "metadata": { "uid": uid, "generation": generation }, "spec": spec });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cpu(ledger: &Ledger, pod: &Arc<Pod>) -> i64 {
        pod_request(spec(&ledger.granted(pod)), "cpu").milli_value()
    }

    #[test]
    fn a_resize_that_fits_is_granted_and_one_that_does_not_waits_for_room() {
        let mut ledger = Ledger::default();
        let (a, b) = (pod("a", "500m", 1), pod("b", "400m", 1));
        ledger.admit(&a, place()).unwrap();
        ledger.admit(&b, place()).unwrap();
        assert!(ledger.review(place(), at(0)).is_empty(), "nobody wants anything");
        let larger = pod("a", "600m", 2);
        ledger.update(&larger);
        let verdicts = ledger.review(place(), at(1));
        assert_eq!(verdicts, [("a".to_owned(), Verdict::Granted(Allocation::of(&larger)))]);
        let too_large = pod("a", "700m", 3);
        ledger.update(&too_large);
        let refusal = Refusal {
            reason: "OutOfcpu".to_owned(),
            message: "Node didn't have enough resource: cpu, requested: 700, used: 400, capacity: 1000".to_owned(),
        };
        let pending = Verdict::Pending { told: Some(refusal) };
        assert_eq!(ledger.review(place(), at(2)), [("a".to_owned(), pending)]);
        assert_eq!(ledger.review(place(), at(3)), [], "nothing has changed, nothing is told");
        assert_eq!(ledger.pending("a").map(|pending| (pending.generation, pending.since)), Some((Some(3), at(2))));
        assert_eq!(cpu(&ledger, &too_large), 600, "it runs with what it has");
        assert!(ledger.admit(&pod("c", "100m", 1), place()).is_err(), "what was granted is taken, not what is wanted");
        ledger.remove("b");
        assert_eq!(ledger.review(place(), at(4)).len(), 1);
        assert_eq!((cpu(&ledger, &too_large), ledger.pending("a")), (700, None));
    }

    #[test]
    fn who_has_gone_makes_room_for_who_comes_at_the_same_moment() {
        let mut ledger = Ledger::default();
        ledger.admit(&pod("z", "800m", 1), place()).unwrap();
        let new = pod("a", "800m", 1);
        assert!(ledger.admit(&new, place()).is_err());
        ledger.enter(&BTreeMap::from([("a".to_owned(), Some(Arc::clone(&new))), ("z".to_owned(), None)]));
        assert_eq!(ledger.admit(&new, place()), Ok(()));
    }

    #[test]
    fn a_pending_resize_that_is_taken_back_is_forgotten() {
        let mut ledger = Ledger::default();
        ledger.admit(&pod("a", "500m", 1), place()).unwrap();
        ledger.update(&pod("a", "2", 2));
        assert_eq!(ledger.review(place(), at(1)).len(), 1);
        ledger.update(&pod("a", "500m", 3));
        assert_eq!(ledger.pending("a"), None);
        assert!(ledger.review(place(), at(2)).is_empty());
    }

    #[test]
    fn those_that_take_nothing_come_first_then_priority_then_quality_then_time() {
        let mut ledger = Ledger::default();
        let guaranteed = serde_json::json!({ "containers": [
            { "name": "c", "resources": { "limits": { "cpu": "200m", "memory": "1Mi" } } }] });
        let named = ["late", "early", "guaranteed", "important"];
        for uid in named {
            ledger.admit(&pod(uid, "100m", 1), place()).unwrap();
        }
        ledger.admit(&pod("shrinking", "500m", 1), place()).unwrap();
        ledger.update(&pod("early", "2", 2));
        ledger.review(place(), at(1));
        ledger.update(&pod("late", "2", 2));
        ledger.review(place(), at(2));
        ledger.update(&pod("early", "200m", 3));
        ledger.update(&pod("late", "200m", 3));
        ledger.update(&with("guaranteed", "0", 2, guaranteed));
        ledger.update(&with("important", "200m", 2, serde_json::json!({ "priority": 5 })));
        ledger.update(&pod("shrinking", "200m", 2));
        let order: Vec<_> = ledger.review(place(), at(3)).into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(order, ["shrinking", "important", "guaranteed", "early", "late"]);
    }

    #[test]
    fn a_later_agent_knows_what_was_granted_and_what_waits() {
        let mut wanted = Pod::clone(&pod("a", "2", 2));
        let condition = serde_json::json!({ "type": PENDING, "status": "True", "reason": "Deferred", "message": "m",
            "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z" });
        wanted.status = serde_json::from_value(serde_json::json!({ "conditions": [condition] })).unwrap();
        let wanted = Arc::new(wanted);
        let mut ledger = Ledger::default();
        ledger.recall(&wanted, Some(Allocation::of(&pod("a", "500m", 1))));
        assert_eq!(cpu(&ledger, &wanted), 500);
        let since = ledger.pending("a").unwrap().since;
        let verdicts = ledger.review(place(), at(9));
        assert_eq!(verdicts, [("a".to_owned(), Verdict::Pending { told: None })], "its event was told before");
        assert_eq!(ledger.pending("a").unwrap().since, since);
    }
}
