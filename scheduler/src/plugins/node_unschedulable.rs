//! Rejects nodes that are cordoned, unless the pod tolerates exactly that.

use k8s_openapi::api::core::v1::Taint;
use reeve_api::taints::tolerates;

use super::{ClusterEvent, Filter, Verdict};
use crate::pod::PodView;
use crate::snapshot::NodeView;

pub(super) const FILTER: Filter =
    Filter { name: "NodeUnschedulable", woken_by: &[ClusterEvent::NodeUnschedulableChanged], filter };

const REASON: &str = "node(s) were unschedulable";

fn filter(pod: &PodView, node: &NodeView<'_>) -> Verdict {
    if !node.unschedulable() {
        return Verdict::Fits;
    }
    let cordoned = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if pod.tolerations.iter().any(|toleration| tolerates(toleration, &cordoned)) {
        Verdict::Fits
    } else {
        Verdict::NeverHere(vec![REASON.into()])
    }
}
