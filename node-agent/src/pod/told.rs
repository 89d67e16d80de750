//! What the API was told of a pod, and whether it still says so. Pure.
//!
//! The agent is the one who knows: what others write over its word (the node controller over `Ready`, while the node
//! was silent) is put right as soon as the watch brings it. Source: kubelet `needsReconcile`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::backoff::after;
use super::ledger::is_over;
use super::status::owned;

/// Shortest time from one correction to the next, should somebody else insist.
/// Source: kubelet `syncPeriod` of its status manager.
const CORRECTION_PAUSE: Duration = Duration::from_secs(10);

/// What one pod's agent and the API know of each other.
#[derive(Debug)]
pub(crate) struct Told {
    /// The agent's last word: the API has taken it, or never will.
    word: PodStatus,
    /// What the API made of it. Compared with `present`, which comes from there too, and not with the word: that one
    /// has fractions of seconds, and whatever else the API may write differently.
    answer: PodStatus,
    /// What the API has now.
    present: PodStatus,
    /// It has a pod that has ended, whatever the agent says.
    over: bool,
    /// Resource version of `present`. What the watch brings may be older than the answer to a write.
    version: u64,
    /// When the last correction was sent.
    corrected: Option<Timestamp>,
}

impl Told {
    /// Begins with what an earlier agent, or nobody, has said.
    pub(crate) fn new(pod: &Pod) -> Self {
        let present = comparable(pod);
        Self {
            word: owned(&pod.status.clone().unwrap_or_default()),
            answer: present.clone(),
            present,
            over: is_over(pod),
            version: version(pod),
            corrected: None,
        }
    }

    /// The last word.
    pub(crate) fn word(&self) -> &PodStatus {
        &self.word
    }

    /// What the API has now.
    pub(crate) fn present(&self) -> &PodStatus {
        &self.present
    }

    /// The watch has brought a version of the pod.
    pub(crate) fn saw(&mut self, pod: &Pod) {
        if version(pod) > self.version {
            self.show(pod);
        }
    }

    fn show(&mut self, pod: &Pod) {
        self.present = comparable(pod);
        self.over = is_over(pod);
        self.version = version(pod);
    }

    /// The API has taken a word; `pod` is its answer.
    pub(crate) fn taken(&mut self, word: PodStatus, pod: &Pod) {
        self.word = word;
        self.answer = comparable(pod);
        if version(pod) >= self.version {
            self.show(pod);
        }
    }

    /// The API will never take a word: nothing is left to be said until there is another one.
    pub(crate) fn refused(&mut self, word: PodStatus) {
        self.word = word;
        self.answer.clone_from(&self.present);
    }

    /// When `status` is to be written; `None` where the API has it.
    pub(crate) fn due(&self, status: &PodStatus, now: Timestamp) -> Option<Timestamp> {
        if self.word != *status {
            return Some(now);
        }
        self.is_overwritten().then(|| self.corrected.map_or(now, |last| after(last, CORRECTION_PAUSE)))
    }

    /// A write begins, which corrects whatever there is to correct.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        if self.is_overwritten() {
            self.corrected = Some(now);
        }
    }

    /// Whether somebody else has written over the last word. A pod that somebody has declared over is not brought back.
    fn is_overwritten(&self) -> bool {
        let ends_it = self.over && !matches!(self.word.phase.as_deref(), Some("Failed" | "Succeeded"));
        self.present != self.answer && !ends_it
    }
}

/// What the API says about the things that the agent owns, without what nobody is corrected for: times of conditions
/// and their order.
fn comparable(pod: &Pod) -> PodStatus {
    let mut status = owned(&pod.status.clone().unwrap_or_default());
    for condition in status.conditions.iter_mut().flatten() {
        (condition.last_transition_time, condition.last_probe_time) = (None, None);
    }
    if let Some(conditions) = &mut status.conditions {
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }
    status
}

/// Zero where there is none: then it is no news.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pod whose status was written by the agent, but for `Ready`.
    fn pod(version: u64, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "resourceVersion": version.to_string() },
            "status": { "phase": "Running", "conditions": [
                { "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": "ContainersReady", "status": "True" },
            ] },
        }))
        .unwrap()
    }

    fn status(pod: &Pod) -> PodStatus {
        pod.status.clone().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The agent said at version 5 that the pod is ready.
    fn told() -> (Told, PodStatus) {
        let mut told = Told::new(&pod(3, "False"));
        let word = status(&pod(5, "True"));
        assert_eq!(told.due(&word, at(0)), Some(at(0)), "it is another word");
        told.begin(at(0));
        told.taken(word.clone(), &pod(5, "True"));
        assert_eq!(told.due(&word, at(0)), None);
        (told, word)
    }

    #[test]
    fn what_somebody_else_wrote_is_corrected_at_once_and_then_no_more_often_than_the_kubelet_looks() {
        let (mut told, word) = told();
        told.saw(&pod(6, "False"));
        assert_eq!(told.due(&word, at(1)), Some(at(1)));
        told.begin(at(1));
        told.taken(word.clone(), &pod(7, "True"));
        assert_eq!(told.due(&word, at(1)), None);
        told.saw(&pod(8, "False"));
        assert_eq!(told.due(&word, at(2)), Some(at(11)), "whoever insists does not make the agent write as often");
        let other = PodStatus { phase: Some("Succeeded".to_owned()), ..word };
        assert_eq!(told.due(&other, at(2)), Some(at(2)), "what is new waits for nothing");
    }

    #[test]
    fn what_the_watch_brings_late_is_no_correction() {
        let (mut told, word) = told();
        told.saw(&pod(4, "False"));
        told.saw(&pod(5, "True"));
        assert_eq!(told.due(&word, at(1)), None, "both were there before the last word, or are it");
        let next = PodStatus { message: Some("m".to_owned()), ..word };
        let mut answer = pod(9, "True");
        answer.status = Some(next.clone());
        told.saw(&answer);
        told.taken(next.clone(), &answer);
        assert_eq!(told.due(&next, at(1)), None, "the watch was faster than the answer");
        let mut later = pod(11, "False");
        told.saw(&later);
        later.metadata.resource_version = Some("10".to_owned());
        later.status = Some(next.clone());
        told.taken(next.clone(), &later);
        assert_eq!(told.due(&next, at(1)), Some(at(1)), "somebody wrote after what is answered only now");
    }

    #[test]
    fn others_may_say_what_is_theirs_and_set_times() {
        let (mut told, word) = told();
        let mut seen = pod(6, "True");
        let status = seen.status.as_mut().unwrap();
        status.nominated_node_name = Some("n".to_owned());
        let conditions = status.conditions.as_mut().unwrap();
        conditions.reverse();
        conditions.iter_mut().for_each(|condition| condition.last_transition_time = None);
        conditions.push(serde_json::from_value(json!({ "type": "example.com/gate", "status": "True" })).unwrap());
        told.saw(&seen);
        assert_eq!(told.due(&word, at(1)), None);
        seen.metadata.resource_version = Some("7".to_owned());
        seen.status.as_mut().unwrap().conditions.as_mut().unwrap().retain(|condition| condition.type_ != "Ready");
        told.saw(&seen);
        assert_eq!(told.due(&word, at(1)), Some(at(1)), "what is the agent's may not be taken away either");
    }

    #[test]
    fn a_pod_that_somebody_declared_over_is_not_brought_back_but_one_that_has_ended_stays_so() {
        let (mut told, word) = told();
        let mut over = pod(6, "False");
        over.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        told.saw(&over);
        assert_eq!(told.due(&word, at(1)), None);
        let mut told = Told::new(&over);
        told.saw(&pod(7, "False"));
        assert_eq!(told.due(&status(&over), at(1)), Some(at(1)));
    }

    #[test]
    fn a_word_that_is_refused_is_not_said_again() {
        let (mut told, word) = told();
        told.saw(&pod(6, "False"));
        told.refused(word.clone());
        assert_eq!(told.due(&word, at(1)), None);
    }
}
