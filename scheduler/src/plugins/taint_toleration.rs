//! Rejects nodes whose taints the pod does not tolerate; prefers nodes with few untolerated soft taints.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use reeve_api::taints::tolerates;

use super::{ClusterEvent, Filter, Scale, Score, Verdict};
use crate::pod::PodView;
use crate::snapshot::NodeView;

pub(super) const FILTER: Filter =
    Filter { name: "TaintToleration", woken_by: &[ClusterEvent::NodeTaintsChanged], filter };

pub(super) const SCORE: Score =
    Score { name: "TaintToleration", weight: 3, applies: |_| true, score, scale: Scale::LowestIsBest };

const REASON: &str = "node(s) had untolerated taint(s)";

fn filter(pod: &PodView, node: &NodeView<'_>) -> Verdict {
    let hard = node.taints().iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    match untolerated(&pod.tolerations, hard).next() {
        None => Verdict::Fits,
        Some(_) => Verdict::NeverHere(vec![REASON.into()]),
    }
}

fn score(pod: &PodView, node: &NodeView<'_>) -> i64 {
    let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
    i64::try_from(untolerated(&pod.tolerations, soft).count()).unwrap_or(i64::MAX)
}

fn untolerated<'t>(
    tolerations: &'t [Toleration],
    taints: impl Iterator<Item = &'t Taint> + 't,
) -> impl Iterator<Item = &'t Taint> + 't {
    taints.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
