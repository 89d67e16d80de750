//! Rejects nodes on which another pod holds a host port that the pod wants.

use super::{ClusterEvent, Filter, Verdict};
use crate::pod::PodView;
use crate::snapshot::NodeView;

pub(super) const FILTER: Filter = Filter { name: "NodePorts", woken_by: &[ClusterEvent::PlacedPodRemoved], filter };

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

fn filter(pod: &PodView, node: &NodeView<'_>) -> Verdict {
    if pod.host_ports.iter().any(|port| node.port_is_taken(port)) {
        Verdict::Rejected(vec![REASON.into()])
    } else {
        Verdict::Fits
    }
}
