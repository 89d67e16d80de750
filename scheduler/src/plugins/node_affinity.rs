//! Rejects nodes that do not match the pod's node selector and required node affinity; prefers those that
//! match the preferred one.

use super::{ClusterEvent, Filter, Scale, Score, Verdict};
use crate::pod::PodView;
use crate::snapshot::NodeView;

pub(super) const FILTER: Filter = Filter { name: "NodeAffinity", woken_by: &[ClusterEvent::NodeLabelsChanged], filter };

pub(super) const SCORE: Score = Score {
    name: "NodeAffinity",
    weight: 2,
    applies: |pod| !pod.placement.preferred.is_empty(),
    score,
    scale: Scale::HighestIsBest,
};

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

fn filter(pod: &PodView, node: &NodeView<'_>) -> Verdict {
    let placement = &pod.placement;
    let selected = placement.selector.iter().all(|(key, value)| node.label(key) == Some(value.as_str()));
    let matches_one_term =
        |terms: &Vec<crate::pod::Term>| terms.iter().any(|term| term.matches(node.name(), |key| node.label(key)));
    if selected && placement.required.as_ref().is_none_or(matches_one_term) {
        Verdict::Fits
    } else {
        Verdict::NeverHere(vec![REASON.into()])
    }
}

fn score(pod: &PodView, node: &NodeView<'_>) -> i64 {
    let matching = pod.placement.preferred.iter().filter(|(_, term)| term.matches(node.name(), |key| node.label(key)));
    matching.map(|(weight, _)| *weight).sum()
}
