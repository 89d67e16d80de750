//! Rejects nodes that have not enough left of what the pod requests; prefers those with most left
//! (strategy `LeastAllocated`).

use super::{ClusterEvent, Filter, Reason, SCORE_MAX, Scale, Score, Verdict};
use crate::pod::PodView;
use crate::snapshot::NodeView;

pub(super) const FILTER: Filter = Filter {
    name: "NodeResourcesFit",
    woken_by: &[ClusterEvent::NodeAllocatableChanged, ClusterEvent::PlacedPodRemoved, ClusterEvent::PlacedPodShrunk],
    filter,
};

pub(super) const SCORE: Score =
    Score { name: "NodeResourcesFit", weight: 1, applies: |_| true, score: least_allocated, scale: Scale::Absolute };

fn filter(pod: &PodView, node: &NodeView<'_>) -> Verdict {
    let (wanted, held, offered) = (&pod.requests.amounts, node.requested(), &node.allocatable.amounts);
    let mut shortage = Shortage::default();
    shortage.check("Too many pods", wanted.pods, held.pods, offered.pods);
    shortage.check("Insufficient cpu", wanted.milli_cpu, held.milli_cpu, offered.milli_cpu);
    shortage.check("Insufficient memory", wanted.memory, held.memory, offered.memory);
    shortage.check("Insufficient ephemeral-storage", wanted.storage, held.storage, offered.storage);
    for (name, wanted) in &pod.requests.scalars {
        let offered = node.allocatable.scalars.get(name).copied().unwrap_or(0);
        shortage.check_named(name, *wanted, node.requested_scalar(name), offered);
    }
    shortage.verdict()
}

/// What is missing on a node, and whether it would be missing on the empty node too.
#[derive(Default)]
struct Shortage {
    reasons: Vec<Reason>,
    never: bool,
}

impl Shortage {
    fn check(&mut self, reason: &'static str, wanted: i64, held: i64, offered: i64) {
        if is_short(wanted, held, offered) {
            self.reasons.push(reason.into());
            self.never |= wanted > offered;
        }
    }

    fn check_named(&mut self, name: &str, wanted: i64, held: i64, offered: i64) {
        if is_short(wanted, held, offered) {
            self.reasons.push(format!("Insufficient {name}").into());
            self.never |= wanted > offered;
        }
    }

    fn verdict(self) -> Verdict {
        match (self.reasons.is_empty(), self.never) {
            (true, _) => Verdict::Fits,
            (false, false) => Verdict::Rejected(self.reasons),
            (false, true) => Verdict::NeverHere(self.reasons),
        }
    }
}

/// A pod that wants nothing of a resource fits even where that resource is overcommitted.
fn is_short(wanted: i64, held: i64, offered: i64) -> bool {
    wanted > 0 && wanted > offered.saturating_sub(held)
}

/// The share of CPU and of memory that stays free with the pod on the node, averaged.
fn least_allocated(pod: &PodView, node: &NodeView<'_>) -> i64 {
    let (wanted, held, offered) = (&pod.scoring, node.requested_for_scoring(), &node.allocatable.amounts);
    let shares = [
        free_share(wanted.milli_cpu.saturating_add(held.milli_cpu), offered.milli_cpu),
        free_share(wanted.memory.saturating_add(held.memory), offered.memory),
    ];
    let known: Vec<i64> = shares.into_iter().flatten().collect();
    if known.is_empty() { 0 } else { known.iter().sum::<i64>() / i64::try_from(known.len()).unwrap_or(1) }
}

fn free_share(requested: i64, offered: i64) -> Option<i64> {
    match offered {
        0 => None,
        _ if requested > offered => Some(0),
        _ => i64::try_from(i128::from(offered - requested) * i128::from(SCORE_MAX) / i128::from(offered)).ok(),
    }
}
