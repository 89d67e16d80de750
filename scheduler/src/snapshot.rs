//! What the scheduler knows of the nodes, in columns, kept up to date change by change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::plugins::ClusterEvent;
use crate::pod::{HostPort, PodView};
use crate::resources::{Amounts, Resources};

/// All nodes and what is placed on them. The columns have one entry per node, in the same order.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<Arc<Node>>,
    allocatable: Vec<Resources>,
    requested: Vec<Requested>,
    row_of: HashMap<String, usize>,
    /// Every pod on a node by uid, also of nodes that are not (or no longer) known.
    placed: HashMap<Arc<str>, Placed>,
}

#[derive(Debug, Default)]
struct Requested {
    amounts: Amounts,
    scoring: Amounts,
    scalars: BTreeMap<String, i64>,
    /// How many pods hold each port; more than one only if somebody bound past the scheduler.
    ports: HashMap<HostPort, u32>,
}

#[derive(Debug)]
struct Placed {
    node_name: String,
    pod: Arc<PodView>,
}

/// One node in the columns.
#[derive(Debug, Clone, Copy)]
pub struct NodeView<'s> {
    node: &'s Node,
    /// What the node offers to pods.
    pub allocatable: &'s Resources,
    requested: &'s Requested,
}

impl<'s> NodeView<'s> {
    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &'s str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of one label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&'s str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// `spec.taints`.
    #[must_use]
    pub fn taints(&self) -> &'s [Taint] {
        taints(self.node)
    }

    /// `spec.unschedulable`.
    #[must_use]
    pub fn unschedulable(&self) -> bool {
        unschedulable(self.node)
    }

    /// What the pods on the node have asked for.
    #[must_use]
    pub fn requested(&self) -> &'s Amounts {
        &self.requested.amounts
    }

    /// The same with defaults for those that asked for nothing.
    #[must_use]
    pub fn requested_for_scoring(&self) -> &'s Amounts {
        &self.requested.scoring
    }

    /// What the pods on the node have asked for of an extended resource.
    #[must_use]
    pub fn requested_scalar(&self, name: &str) -> i64 {
        self.requested.scalars.get(name).copied().unwrap_or(0)
    }

    /// Whether a port is taken, on the same address or because one of the two wants all addresses.
    #[must_use]
    pub fn port_is_taken(&self, wanted: &HostPort) -> bool {
        let clashes = |held: &HostPort| {
            held.port == wanted.port
                && held.protocol == wanted.protocol
                && (held.ip == wanted.ip || held.ip == "0.0.0.0" || wanted.ip == "0.0.0.0")
        };
        self.requested.ports.keys().any(clashes)
    }
}

impl Snapshot {
    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes, in the order of the columns.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        let columns = self.nodes.iter().zip(&self.allocatable).zip(&self.requested);
        columns.map(|((node, allocatable), requested)| NodeView { node, allocatable, requested })
    }

    /// Takes over a new or changed node; returns what could make waiting pods fit now.
    pub fn put_node(&mut self, node: Arc<Node>) -> Vec<ClusterEvent> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let allocatable = Resources::parse(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        let Some(row) = self.row_of.get(&name).copied() else {
            let mut requested = Requested::default();
            self.placed
                .values()
                .filter(|placed| placed.node_name == name)
                .for_each(|placed| requested.add(&placed.pod));
            self.row_of.insert(name, self.nodes.len());
            self.nodes.push(node);
            self.allocatable.push(allocatable);
            self.requested.push(requested);
            return vec![ClusterEvent::NodeAdded];
        };
        let (Some(old), Some(old_allocatable)) = (self.nodes.get_mut(row), self.allocatable.get_mut(row)) else {
            return Vec::new();
        };
        let old = std::mem::replace(old, node);
        let old_allocatable = std::mem::replace(old_allocatable, allocatable);
        self.changes_since(row, &old, &old_allocatable)
    }

    /// Forgets a node; the pods on it stay known until they are gone themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(row) = self.row_of.remove(name) else { return };
        self.nodes.swap_remove(row);
        self.allocatable.swap_remove(row);
        self.requested.swap_remove(row);
        if let Some(moved) = self.nodes.get(row) {
            self.row_of.insert(moved.metadata.name.clone().unwrap_or_default(), row);
        }
    }

    /// Counts a pod on a node: because the API says so, or because it is about to be bound there.
    /// Says whether it needs less now than it did.
    pub fn place(&mut self, node_name: &str, pod: Arc<PodView>) -> bool {
        let before = self.placed.get(&pod.uid).map(|placed| placed.pod.requests.amounts);
        let shrinks = before.is_some_and(|before| {
            let now = &pod.requests.amounts;
            now.milli_cpu < before.milli_cpu || now.memory < before.memory
        });
        self.remove_pod(&pod.uid);
        if let Some(requested) = self.requested_on(node_name) {
            requested.add(&pod);
        }
        self.placed.insert(Arc::clone(&pod.uid), Placed { node_name: node_name.to_owned(), pod });
        shrinks
    }

    /// Forgets a pod that is gone, finished or was not bound after all; whether it was on a node.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.placed.remove(uid) else { return false };
        if let Some(requested) = self.requested_on(&placed.node_name) {
            requested.sub(&placed.pod);
        }
        true
    }

    /// Whether the pod is counted on some node, bound or about to be.
    #[must_use]
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    fn requested_on(&mut self, node_name: &str) -> Option<&mut Requested> {
        let row = self.row_of.get(node_name)?;
        self.requested.get_mut(*row)
    }

    fn changes_since(&self, row: usize, old: &Node, old_allocatable: &Resources) -> Vec<ClusterEvent> {
        let (Some(new), Some(allocatable)) = (self.nodes.get(row), self.allocatable.get(row)) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        if allocatable != old_allocatable {
            events.push(ClusterEvent::NodeAllocatableChanged);
        }
        if new.metadata.labels != old.metadata.labels {
            events.push(ClusterEvent::NodeLabelsChanged);
        }
        if taints(new) != taints(old) {
            events.push(ClusterEvent::NodeTaintsChanged);
        }
        if unschedulable(new) != unschedulable(old) {
            events.push(ClusterEvent::NodeUnschedulableChanged);
        }
        events
    }
}

impl Requested {
    fn add(&mut self, pod: &PodView) {
        self.amounts.add(&pod.requests.amounts);
        self.scoring.add(&pod.scoring);
        for (name, amount) in &pod.requests.scalars {
            let sum = self.scalars.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
        for port in &pod.host_ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
    }

    fn sub(&mut self, pod: &PodView) {
        self.amounts.sub(&pod.requests.amounts);
        self.scoring.sub(&pod.scoring);
        for (name, amount) in &pod.requests.scalars {
            if let Some(sum) = self.scalars.get_mut(name) {
                *sum = sum.saturating_sub(*amount);
            }
        }
        for port in &pod.host_ports {
            if let Some(holders) = self.ports.get_mut(port) {
                *holders = holders.saturating_sub(1);
                if *holders == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}
