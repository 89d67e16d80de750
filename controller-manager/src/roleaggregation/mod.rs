//! ClusterRole aggregation: a ClusterRole with an `aggregationRule` has the rules of all ClusterRoles that its
//! selectors match.
//!
//! Source: Kubernetes' `pkg/controller/clusterroleaggregation`. ClusterRoles are many words that change seldom: watched
//! is only that they change, and then all are read.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use reeve_client::{Component, Informer, Next, WorkQueue, work};
use serde_json::json;

use crate::manager::Watches;
use crate::requests::is_not_found;
use plan::{Aggregated, plan};

/// Whose rules they are.
const MANAGER: &str = "clusterrole-aggregation-controller";

/// Watches ClusterRoles.
pub(crate) struct RoleAggregationController {
    component: Component,
    /// Whatever changes, all are looked at: one key.
    queue: Arc<WorkQueue<()>>,
}

/// Keeps of a ClusterRole that it is there.
pub(crate) fn trim(role: &mut PartialObjectMeta<ClusterRole>) {
    role.metadata.labels = None;
    role.metadata.annotations = None;
}

/// The watch, of metadata only.
pub(crate) type Roles = Informer<PartialObjectMeta<ClusterRole>>;

impl RoleAggregationController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<()>>::default();
        let added = Arc::clone(&queue);
        watches.cluster_roles.on_change(move |_| added.add(()));
        Self { component: component.clone(), queue }
    }

    pub(crate) async fn run(self) {
        work("clusterrole-aggregation", &self.queue, 1, |()| self.sync()).await;
    }

    /// Writes what can be written; `Err`: one that could not.
    async fn sync(&self) -> Result<Next, kube::Error> {
        let api: Api<ClusterRole> = Api::all(self.component.client.clone());
        let roles = api.list(&ListParams::default()).await?.items;
        let mut result = Ok(Next::Done);
        for aggregated in plan(&roles) {
            match apply(&api, &aggregated).await {
                Err(error) if !is_not_found(&error) => result = Err(error),
                _ => {}
            }
        }
        result
    }
}

async fn apply(api: &Api<ClusterRole>, aggregated: &Aggregated) -> kube::Result<()> {
    let mut role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": aggregated.name },
    });
    if !aggregated.rules.is_empty() {
        role["rules"] = json!(aggregated.rules);
    }
    api.patch(&aggregated.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(role)).await.map(drop)
}
