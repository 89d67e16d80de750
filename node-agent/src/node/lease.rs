//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every 10 seconds.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio::time::{MissedTickBehavior, interval};

use crate::pod::context::NodeContext;

/// Namespace of all nodes' leases.
const NAMESPACE: &str = "kube-node-lease";
/// How long others believe in the node. Source: kubelet `nodeLeaseDurationSeconds`.
const DURATION_SECONDS: i32 = 40;
/// A quarter of that. Source: kubelet `nodeLeaseRenewIntervalFraction`.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Delay after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Renews the lease until the agent stops.
pub(crate) async fn renew(node: Arc<NodeContext>) {
    let api: Api<Lease> = Api::namespaced(node.component.client.clone(), NAMESPACE);
    let mut ticks = interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held: Option<Lease> = None;
    loop {
        ticks.tick().await;
        while let Err(error) = renew_once(&node, &api, &mut held).await {
            tracing::warn!(%error, "failed to renew the node's lease, trying again");
            held = None;
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// One renewal: an update of the lease as it was last seen, else of the one in the API, else a new one.
async fn renew_once(node: &NodeContext, api: &Api<Lease>, held: &mut Option<Lease>) -> kube::Result<()> {
    let name = &node.config.node_name;
    let known = match held.take() {
        Some(lease) => Some(lease),
        None => api.get_opt(name).await?,
    };
    let lease = renewed(node, known.clone());
    let written = match known {
        Some(_) => api.replace(name, &PostParams::default(), &lease).await?,
        None => api.create(&PostParams::default(), &lease).await?,
    };
    *held = Some(written);
    Ok(())
}

fn renewed(node: &NodeContext, known: Option<Lease>) -> Lease {
    let name = node.config.node_name.clone();
    let uid = node.node.get("", &name).and_then(|node| node.metadata.uid.clone());
    let owner = uid.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid,
        ..OwnerReference::default()
    });
    let mut lease = known.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Lease::default()
    });
    if let Some(owner) = owner {
        lease.metadata.owner_references = Some(vec![owner]);
    }
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(name),
        lease_duration_seconds: Some(DURATION_SECONDS),
        renew_time: Some(MicroTime(node.now())),
        ..LeaseSpec::default()
    });
    lease
}
