//! Node IPAM: every node gets a part of the cluster's pod range (`spec.podCIDR`).

mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _};
use reeve_client::{Change, Component, EventRecorder, Next, WorkQueue, work};
use serde_json::json;

use crate::manager::Watches;
use crate::requests::is_not_found;
use plan::Ranges;

pub use plan::RangeError;

/// One node after the other: two rounds at once could give out the same range.
const PARALLEL: usize = 1;

/// Watches nodes.
pub(crate) struct NodeIpamController {
    component: Component,
    watches: Watches,
    events: EventRecorder,
    queue: Arc<WorkQueue<String>>,
    ranges: Mutex<Ranges>,
    /// Given out, but perhaps not yet shown by the watch; by node.
    given: Arc<Mutex<HashMap<String, IpNet>>>,
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("the cluster's pod range is used up")]
    Exhausted,
    #[error(transparent)]
    Request(#[from] kube::Error),
}

impl NodeIpamController {
    pub(crate) fn try_new(
        component: &Component,
        watches: &Watches,
        cluster: IpNet,
        mask: u8,
    ) -> Result<Self, RangeError> {
        let ranges = Mutex::new(Ranges::try_new(cluster, mask)?);
        let queue = Arc::<WorkQueue<String>>::default();
        let given: Arc<Mutex<HashMap<String, IpNet>>> = Arc::default();
        let (added, forgotten) = (Arc::clone(&queue), Arc::clone(&given));
        watches.nodes.on_change(move |change| {
            let name = change.object().metadata.name.clone().unwrap_or_default();
            match change {
                Change::Removed(_) => drop(forgotten.lock().unwrap_or_else(PoisonError::into_inner).remove(&name)),
                Change::Updated { old, new } if pod_ranges(old).is_empty() == pod_ranges(new).is_empty() => {}
                _ => added.add(name),
            }
        });
        let events = EventRecorder::start(component, "cidrAllocator", None);
        Ok(Self { component: component.clone(), watches: watches.clone(), events, queue, ranges, given })
    }

    pub(crate) async fn run(self) {
        work("nodeipam", &self.queue, PARALLEL, |name| self.sync(name)).await;
    }

    async fn sync(&self, name: String) -> Result<Next, SyncError> {
        let Some(node) = self.watches.nodes.store().get("", &name) else { return Ok(Next::Done) };
        if !pod_ranges(&node).is_empty() {
            return Ok(Next::Done);
        }
        let Some(range) = self.allocate(&name) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.events.normal(&node.object_ref(&()), "CIDRNotAvailable", message);
            return Err(SyncError::Exhausted);
        };
        let text = range.to_string();
        let patch =
            json!({ "metadata": { "uid": node.metadata.uid }, "spec": { "podCIDR": text, "podCIDRs": [text] } });
        let api: Api<Node> = Api::all(self.component.client.clone());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(Next::Done),
            Err(error) => {
                self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                if is_not_found(&error) { Ok(Next::Done) } else { Err(error.into()) }
            }
        }
    }

    fn allocate(&self, name: &str) -> Option<IpNet> {
        let nodes = self.watches.nodes.store().list();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: HashSet<IpNet> =
            nodes.iter().flat_map(|node| pod_ranges(node)).chain(given.values().copied()).collect();
        let range = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).allocate(&taken)?;
        given.insert(name.to_owned(), range);
        Some(range)
    }
}

/// The ranges that a node has.
fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|text| text.parse().ok()).collect()
}
