//! Carries out a round of a Deployment.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use reeve_api::patch::create_two_way_json;
use reeve_client::EventRecorder;
use serde_json::{Value, json};

use super::annotations::REVISION;
use super::plan::{Plan, Update, equal_ignoring_hash};
use super::rollout::spec_replicas;
use super::status::{Wanted, with_new_set};
use crate::ownership::controller_of;
use crate::requests::{is_namespace_terminating, is_not_found, message};

/// Why a round failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("replica set {name} cannot be created")]
    Create {
        name: String,
        #[source]
        source: kube::Error,
    },
    /// Another template has the same hash: the next name is built with a higher collision count.
    #[error("the name {name} is taken by a replica set of another template")]
    Collision { name: String },
    #[error("replica set {name} cannot be changed")]
    Update {
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("the status cannot be written")]
    Status(#[source] kube::Error),
}

/// What a round writes with.
pub(super) struct Hands<'h> {
    pub(super) deployments: Api<Deployment>,
    pub(super) sets: Api<ReplicaSet>,
    pub(super) events: &'h EventRecorder,
    pub(super) about: ObjectReference,
    pub(super) deployment: &'h Deployment,
    pub(super) now: jiff::Timestamp,
}

impl Hands<'_> {
    pub(super) async fn apply(&self, plan: Plan) -> Result<(), ApplyError> {
        if let Some(set) = &plan.create {
            self.create(set, &plan.status).await?;
        }
        for update in &plan.update {
            self.update(update).await?;
        }
        for set in &plan.delete {
            self.delete(set).await?;
        }
        self.write(&plan.status, plan.revision.as_deref()).await
    }

    async fn create(&self, set: &ReplicaSet, status: &DeploymentStatus) -> Result<(), ApplyError> {
        let name = set.metadata.name.clone().unwrap_or_default();
        match self.sets.create(&PostParams::default(), set).await {
            Ok(_) => {
                let replicas = spec_replicas(set);
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.events.normal(&self.about, "ScalingReplicaSet", message);
                }
                Ok(())
            }
            Err(kube::Error::Api(error)) if error.is_already_exists() => self.resolve_collision(set, name).await,
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(source) => {
                let mut failed = status.clone();
                let condition = Wanted::create_failed(&name, &message(&source));
                with_new_set(self.deployment, &mut failed, condition, self.now);
                self.write(&failed, None).await?;
                Err(ApplyError::Create { name, source })
            }
        }
    }

    /// The name exists: as our own work that the watch has not shown yet, or for another template.
    async fn resolve_collision(&self, set: &ReplicaSet, name: String) -> Result<(), ApplyError> {
        let live = self.sets.get_opt(&name).await;
        let live = live.map_err(|source| ApplyError::Create { name: name.clone(), source })?;
        let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let is_ours = live.is_some_and(|live| {
            let controller = controller_of(&live.metadata).map(|owner| owner.uid.clone());
            controller == self.deployment.metadata.uid && equal_ignoring_hash(&template(&live), &template(set))
        });
        if is_ours {
            return Ok(());
        }
        let mut status = self.deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        self.write(&status, None).await?;
        Err(ApplyError::Collision { name })
    }

    /// The resourceVersion makes sure that the size was decided on the ReplicaSet as it is.
    async fn update(&self, update: &Update) -> Result<(), ApplyError> {
        let set = &update.set;
        let name = set.metadata.name.clone().unwrap_or_default();
        let old = set.metadata.annotations.clone().unwrap_or_default();
        let annotations = create_two_way_json(&json!(old), &json!(update.annotations));
        let mut patch = json!({
            "metadata": { "resourceVersion": set.metadata.resource_version, "annotations": annotations },
            "spec": { "replicas": update.replicas },
        });
        if let Some(seconds) = update.min_ready_seconds {
            patch["spec"]["minReadySeconds"] = seconds.into();
        }
        let answer = self.sets.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        answer.map_err(|source| ApplyError::Update { name: name.clone(), source })?;
        let before = spec_replicas(set);
        if before != update.replicas {
            let direction = if update.replicas > before { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {before} to {}", update.replicas);
            self.events.normal(&self.about, "ScalingReplicaSet", message);
        }
        Ok(())
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<(), ApplyError> {
        let name = set.metadata.name.clone().unwrap_or_default();
        let preconditions = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.sets.delete(&name, &parameters).await {
            Err(error) if !is_not_found(&error) => Err(ApplyError::Update { name, source: error }),
            _ => Ok(()),
        }
    }

    /// Status and revision in one request, as Kubernetes' controller does; a server whose status endpoint keeps
    /// annotations to itself gets the revision in a second one.
    async fn write(&self, status: &DeploymentStatus, revision: Option<&str>) -> Result<(), ApplyError> {
        let old = self.deployment.status.clone().unwrap_or_default();
        if *status == old && revision.is_none() {
            return Ok(());
        }
        let to_value = |status: &DeploymentStatus| serde_json::to_value(status).map_err(kube::Error::SerdeError);
        let (old, new) = (to_value(&old).map_err(ApplyError::Status)?, to_value(status).map_err(ApplyError::Status)?);
        let mut patch =
            json!({ "metadata": { "uid": self.deployment.metadata.uid }, "status": create_two_way_json(&old, &new) });
        let annotate = |patch: &mut Value| {
            if let Some(revision) = revision {
                patch["metadata"]["annotations"] = json!({ REVISION: revision });
            }
        };
        annotate(&mut patch);
        let name = self.deployment.metadata.name.clone().unwrap_or_default();
        let written = self.deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let written = written.map_err(ApplyError::Status)?;
        let shown = written.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
        if revision.is_some() && shown.map(String::as_str) != revision {
            let mut patch = json!({ "metadata": { "uid": self.deployment.metadata.uid } });
            annotate(&mut patch);
            let answer = self.deployments.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            answer.map_err(ApplyError::Status)?;
        }
        Ok(())
    }
}
