//! The Node object: registered at start, kept alive by a Lease, updated when something changed.

mod lease;
pub(crate) mod machine;
pub(crate) mod status;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use reeve_client::Backoff;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::pod::context::NodeContext;
use status::{Facts, Pressure, labels, status};

/// An unchanged status is written this often. Source: kubelet `nodeStatusReportFrequency`.
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// How often memory, disk and processes are looked at. Source: kubelet `housekeeping` of its eviction manager.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a node that begins waits for its network before it says that it has none.
const NETWORK_WAIT: Duration = Duration::from_secs(5);

/// Registers the node and keeps it alive and its status current until the agent stops.
pub(crate) async fn keep(node: Arc<NodeContext>, port: u16) {
    register(&node, port).await;
    // Before the lease too: whoever sees it renewed takes what the status says for this agent's word.
    network_up(&node).await;
    node.component.spawn_vital("node lease", lease::renew(Arc::clone(&node)));
    report(node, port).await;
}

/// Creates the Node, or takes over the one there is.
async fn register(node: &NodeContext, port: u16) {
    let api: Api<Node> = Api::all(node.component.client.clone());
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(7), node.component.rng.clone());
    loop {
        match try_register(node, &api, port).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, node = node.config.node_name, "failed to register the node, trying again");
                tokio::time::sleep(backoff.delay()).await;
            }
        }
    }
}

async fn try_register(node: &NodeContext, api: &Api<Node>, port: u16) -> kube::Result<()> {
    let facts = facts(node, port).await;
    let name = &node.config.node_name;
    let mut fresh = Node::default();
    fresh.metadata.name = Some(name.clone());
    fresh.metadata.labels = Some(labels(&node.config));
    fresh.spec = Some(k8s_openapi::api::core::v1::NodeSpec::default());
    fresh.status = Some(status(&facts, None, node.now()));
    match api.create(&PostParams::default(), &fresh).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(refused)) if refused.code == 409 => {}
        Err(error) => return Err(error),
    }
    let patch = json!({ "metadata": { "labels": labels(&node.config) } });
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

async fn facts(node: &NodeContext, port: u16) -> Facts {
    let images = node.engine.list_images().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to list images");
        Vec::new()
    });
    let data_dir = node.config.data_dir.clone();
    let looked = tokio::task::spawn_blocking(move || (machine::system(), Pressure::look(&data_dir))).await;
    let (system, pressure) = looked.unwrap_or_default();
    Facts {
        config: node.config.clone(),
        capacity: node.capacity.clone(),
        system,
        pressure,
        images,
        runtime: node.engine.version(),
        features: node.engine.features(),
        port,
        network_ready: node.network.borrow().is_some(),
    }
}

/// Returns when the node network is up, or does not come soon. A node that begins again and says for that moment that
/// it is not ready has the node controller take all its pods, which run on, from their Services.
async fn network_up(node: &NodeContext) {
    let mut network = node.network.clone();
    if timeout(NETWORK_WAIT, network.wait_for(Option::is_some)).await.is_err() {
        tracing::warn!(node = node.config.node_name, "the node network is not up yet");
    }
}

/// Keeps the status current until the agent stops: at once when the network is ready or images changed, else
/// when a look at the machine finds something new.
async fn report(node: Arc<NodeContext>, port: u16) {
    let mut images_changed = node.images.clone();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut network = node.network.clone();
    let mut sent: Option<NodeStatus> = None;
    let mut sent_at = node.component.clock.monotonic();
    loop {
        let facts = facts(&node, port).await;
        let known = node.node.get("", &node.config.node_name);
        let before = sent.as_ref().or_else(|| known.as_ref().and_then(|node| node.status.as_ref()));
        let now = node.now();
        let fresh = status(&facts, before, now);
        let age = node.component.clock.monotonic().saturating_sub(sent_at);
        let changed = sent.as_ref().is_none_or(|sent| !status::same(sent, &fresh));
        if changed || age >= REPORT_EVERY {
            match write(&node, &fresh).await {
                Ok(()) => {
                    sent = Some(fresh);
                    sent_at = node.component.clock.monotonic();
                }
                Err(kube::Error::Api(refused)) if refused.code == 404 => register(&node, port).await,
                Err(error) => tracing::warn!(%error, "failed to write the node's status"),
            }
        }
        tokio::select! {
            _ = ticks.tick() => {}
            result = network.changed() => if result.is_err() { std::future::pending::<()>().await },
            result = images_changed.changed() => if result.is_err() { std::future::pending::<()>().await },
        }
    }
}

async fn write(node: &NodeContext, status: &NodeStatus) -> kube::Result<()> {
    let api: Api<Node> = Api::all(node.component.client.clone());
    let mut body = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    if let Some(fields) = body.as_object_mut() {
        // Merged by type, but this node's are all of them.
        let addresses = fields.remove("addresses").and_then(|list| list.as_array().cloned()).unwrap_or_default();
        let replaced = std::iter::once(json!({ "$patch": "replace" })).chain(addresses).collect();
        fields.insert("addresses".to_owned(), serde_json::Value::Array(replaced));
    }
    let patch = Patch::Strategic(json!({ "status": body }));
    api.patch_status(&node.config.node_name, &PatchParams::default(), &patch).await.map(drop)
}
