//! Prefers nodes whose CPU and memory would be used to a similar degree.

use super::{SCORE_MAX, Scale, Score};
use crate::pod::PodView;
use crate::snapshot::NodeView;

pub(super) const SCORE: Score =
    Score { name: "NodeResourcesBalancedAllocation", weight: 1, applies, score, scale: Scale::Absolute };

/// A pod that asks for neither CPU nor memory unbalances nothing.
fn applies(pod: &PodView) -> bool {
    pod.requests.amounts.milli_cpu > 0 || pod.requests.amounts.memory > 0
}

/// 100 minus the standard deviation of the two used shares, in per cent. Integers in per mille: no rounding
/// depends on the machine.
fn score(pod: &PodView, node: &NodeView<'_>) -> i64 {
    let (wanted, held, offered) = (&pod.requests.amounts, node.requested(), &node.allocatable.amounts);
    let cpu = used_per_mille(wanted.milli_cpu.saturating_add(held.milli_cpu), offered.milli_cpu);
    let memory = used_per_mille(wanted.memory.saturating_add(held.memory), offered.memory);
    match (cpu, memory) {
        (Some(cpu), Some(memory)) => SCORE_MAX - (cpu - memory).abs() / 2 / 10,
        _ => SCORE_MAX,
    }
}

fn used_per_mille(requested: i64, offered: i64) -> Option<i64> {
    if offered == 0 {
        return None;
    }
    i64::try_from(i128::from(requested) * 1000 / i128::from(offered)).ok().map(|share| share.min(1000))
}
