//! Why a pod fits nowhere, in Kubernetes' words.

use std::collections::BTreeMap;
use std::fmt;

use crate::plugins::{ClusterEvent, FILTERS, Reason};

/// The rejections of all nodes for one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitError {
    nodes: usize,
    reasons: BTreeMap<Reason, usize>,
    /// Nodes that the pod could never run on, whatever left them.
    never: usize,
    may_preempt: bool,
    rejected_by: [bool; FILTERS.len()],
}

impl FitError {
    pub(crate) fn new(nodes: usize, may_preempt: bool) -> Self {
        Self { nodes, reasons: BTreeMap::new(), never: 0, may_preempt, rejected_by: [false; FILTERS.len()] }
    }

    /// Counts one rejected node.
    pub(crate) fn add(&mut self, filter_index: usize, reasons: Vec<Reason>, never: bool) {
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.never += usize::from(never);
        if let Some(rejected) = self.rejected_by.get_mut(filter_index) {
            *rejected = true;
        }
    }

    /// Whether the pod is worth another try after `event`.
    #[must_use]
    pub fn is_woken_by(&self, event: ClusterEvent) -> bool {
        let rejecting = FILTERS.iter().zip(self.rejected_by).filter(|(_, rejected)| *rejected);
        event == ClusterEvent::NodeAdded || rejecting.into_iter().any(|(filter, _)| filter.woken_by.contains(&event))
    }

    /// `1 Insufficient cpu, 2 node(s) were unschedulable`: sorted as texts, as Kubernetes does.
    fn counted<'r>(reasons: impl Iterator<Item = (usize, &'r str)>) -> String {
        let mut texts: Vec<String> = reasons.map(|(count, reason)| format!("{count} {reason}")).collect();
        texts.sort();
        texts.join(", ")
    }

    fn preemption(&self) -> String {
        if !self.may_preempt {
            return "not eligible due to preemptionPolicy=Never.".to_owned();
        }
        let outcomes = [
            (self.nodes - self.never, "No preemption victims found for incoming pod"),
            (self.never, "Preemption is not helpful for scheduling"),
        ];
        let counted = Self::counted(outcomes.into_iter().filter(|(count, _)| *count > 0));
        format!("0/{} nodes are available: {counted}.", self.nodes)
    }
}

/// `0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: …`
impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let reasons = Self::counted(self.reasons.iter().map(|(reason, count)| (*count, reason.as_ref())));
        write!(f, "0/{} nodes are available: {reasons}. preemption: {}", self.nodes, self.preemption())
    }
}

impl std::error::Error for FitError {}
