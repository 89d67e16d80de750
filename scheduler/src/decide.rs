//! Chooses a node for a pod. Pure: the same snapshot, pod and tie-breaker give the same node.

use crate::FitError;
use crate::plugins::{FILTERS, SCORE_MAX, SCORES, Scale, Score, Verdict};
use crate::pod::PodView;
use crate::snapshot::{NodeView, Snapshot};

/// The best node for a pod; among equally good ones `tie_breaker` (any random number) decides.
///
/// # Errors
/// When no node passes all filters: with the reasons per node.
pub fn decide<'s>(pod: &PodView, snapshot: &'s Snapshot, tie_breaker: u64) -> Result<&'s str, FitError> {
    let mut rejections = FitError::new(snapshot.len(), pod.may_preempt);
    let fitting: Vec<NodeView<'s>> = snapshot.nodes().filter(|node| passes(pod, node, &mut rejections)).collect();
    match fitting.as_slice() {
        [] => Err(rejections),
        [only] => Ok(only.name()),
        several => Ok(best(pod, several, tie_breaker)),
    }
}

fn passes(pod: &PodView, node: &NodeView<'_>, rejections: &mut FitError) -> bool {
    for (index, filter) in FILTERS.iter().enumerate() {
        match (filter.filter)(pod, node) {
            Verdict::Fits => {}
            Verdict::Rejected(reasons) => {
                rejections.add(index, reasons, false);
                return false;
            }
            Verdict::NeverHere(reasons) => {
                rejections.add(index, reasons, true);
                return false;
            }
        }
    }
    true
}

fn best<'s>(pod: &PodView, nodes: &[NodeView<'s>], tie_breaker: u64) -> &'s str {
    let mut totals = vec![0_i64; nodes.len()];
    for plugin in SCORES.iter().filter(|plugin| (plugin.applies)(pod)) {
        for (total, score) in totals.iter_mut().zip(scaled(plugin, pod, nodes)) {
            *total = total.saturating_add(score.saturating_mul(plugin.weight));
        }
    }
    let highest = totals.iter().copied().max().unwrap_or(0);
    let winners = || nodes.iter().zip(&totals).filter(|(_, total)| **total == highest).map(|(node, _)| node.name());
    let count = u64::try_from(winners().count()).unwrap_or(1).max(1);
    let chosen = usize::try_from(tie_breaker % count).unwrap_or(0);
    winners().nth(chosen).unwrap_or_default()
}

fn scaled(plugin: &Score, pod: &PodView, nodes: &[NodeView<'_>]) -> Vec<i64> {
    let mut scores: Vec<i64> = nodes.iter().map(|node| (plugin.score)(pod, node)).collect();
    let highest = scores.iter().copied().max().unwrap_or(0);
    let share = |score: i64| if highest == 0 { 0 } else { score.saturating_mul(SCORE_MAX) / highest };
    match plugin.scale {
        Scale::Absolute => {}
        Scale::HighestIsBest => scores.iter_mut().for_each(|score| *score = share(*score)),
        Scale::LowestIsBest => scores.iter_mut().for_each(|score| *score = SCORE_MAX - share(*score)),
    }
    scores
}
