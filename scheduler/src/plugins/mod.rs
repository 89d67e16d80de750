//! The rules for placing pods, one file each, under Kubernetes' names.
//!
//! A filter says whether a pod may run on a node, and if not why, and which change could alter that. A score
//! says how well. All are pure.

mod balanced_allocation;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod taint_toleration;

use std::borrow::Cow;

use crate::pod::PodView;
use crate::snapshot::NodeView;

/// Something happened that can make a pod fit which did not fit before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A node is there that was not.
    NodeAdded,
    /// `status.allocatable` changed.
    NodeAllocatableChanged,
    /// `metadata.labels` changed.
    NodeLabelsChanged,
    /// `spec.taints` changed.
    NodeTaintsChanged,
    /// `spec.unschedulable` changed.
    NodeUnschedulableChanged,
    /// A pod on a node is gone or has finished.
    PlacedPodRemoved,
    /// A pod on a node was resized and needs less.
    PlacedPodShrunk,
}

/// What a filter says about one pod and one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The pod may run there.
    Fits,
    /// Not now, because of what runs there. Reasons in Kubernetes' words.
    Rejected(Vec<Reason>),
    /// Not as long as the node is what it is, whatever runs there.
    NeverHere(Vec<Reason>),
}

/// Why a node was rejected, as it appears in `1 Insufficient cpu`.
pub type Reason = Cow<'static, str>;

/// A rule that nodes must satisfy.
#[derive(Debug)]
pub struct Filter {
    /// Kubernetes' name of the plugin.
    pub name: &'static str,
    /// The events after which a pod that this filter rejected is worth another try. A new node always is.
    pub woken_by: &'static [ClusterEvent],
    /// The rule.
    pub filter: fn(&PodView, &NodeView<'_>) -> Verdict,
}

/// In the order in which Kubernetes' default profile asks them; the first that rejects a node is the one reported.
pub static FILTERS: [Filter; 6] = [
    node_unschedulable::FILTER,
    node_name::FILTER,
    taint_toleration::FILTER,
    node_affinity::FILTER,
    node_ports::FILTER,
    node_resources_fit::FILTER,
];

/// A way to compare nodes that passed all filters.
#[derive(Debug)]
pub struct Score {
    /// Kubernetes' name of the plugin.
    pub name: &'static str,
    /// How much its 0 to 100 count in the sum.
    pub weight: i64,
    /// Whether it has anything to say about this pod; if not it is skipped for all nodes.
    pub applies: fn(&PodView) -> bool,
    /// The raw score of one node.
    pub score: fn(&PodView, &NodeView<'_>) -> i64,
    /// How the raw scores of all nodes become 0 to 100.
    pub scale: Scale,
}

/// From raw scores to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The raw scores are from 0 to 100 already.
    Absolute,
    /// The highest raw score becomes 100.
    HighestIsBest,
    /// The highest raw score becomes 0.
    LowestIsBest,
}

/// The scores with the weights of Kubernetes' default profile.
pub static SCORES: [Score; 4] =
    [taint_toleration::SCORE, node_affinity::SCORE, node_resources_fit::SCORE, balanced_allocation::SCORE];

/// The best score of one plugin, before its weight.
pub const SCORE_MAX: i64 = 100;

#[cfg(test)]
mod tests;
