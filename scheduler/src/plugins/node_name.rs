//! Rejects all nodes but the one that the pod names.

use super::{Filter, Verdict};
use crate::pod::PodView;
use crate::snapshot::NodeView;

/// No event changes a node's name, so nothing but a new node helps.
pub(super) const FILTER: Filter = Filter { name: "NodeName", woken_by: &[], filter };

const REASON: &str = "node(s) didn't match the requested node name";

fn filter(pod: &PodView, node: &NodeView<'_>) -> Verdict {
    match &pod.node_name {
        Some(name) if name != node.name() => Verdict::NeverHere(vec![REASON.into()]),
        _ => Verdict::Fits,
    }
}
