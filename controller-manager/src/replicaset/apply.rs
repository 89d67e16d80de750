//! Creates and deletes the pods of a ReplicaSet.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use reeve_client::{EventRecorder, ObjectKey};

use super::plan::Failure;
use crate::expectations::Expectations;
use crate::requests::{is_namespace_terminating, is_not_found, message};

/// The first batch of creations. Each batch that succeeds is followed by one twice its size, so that a
/// namespace which refuses pods (a quota, say) hears of one, not of hundreds. Source: `slowStartBatch`.
const FIRST_BATCH: usize = 1;

/// What a round writes with.
pub(super) struct Hands<'h> {
    pub(super) pods: Api<Pod>,
    pub(super) events: &'h EventRecorder,
    pub(super) expectations: &'h Expectations,
    pub(super) key: &'h ObjectKey,
    pub(super) set: &'h ReplicaSet,
    /// What the pods say of their owner.
    pub(super) owner: OwnerReference,
    /// What events about the owner carry.
    pub(super) about: ObjectReference,
    /// Monotonic time.
    pub(super) now: Duration,
}

impl Hands<'_> {
    /// Creates `total` pods, in batches that double.
    pub(super) async fn create(&self, total: usize) -> Result<(), Failure> {
        self.expectations.expect_creations(self.key, total, self.now);
        let pod = pod_from_template(self.set, self.owner.clone());
        let (mut left, mut batch) = (total, FIRST_BATCH.min(total));
        while left > 0 {
            let results = join_all((0..batch).map(|_| self.create_one(&pod))).await;
            left -= batch;
            if let Some(failure) = results.into_iter().find_map(Result::err) {
                (0..left).for_each(|_| self.expectations.creation_observed(self.key));
                return Err(failure);
            }
            batch = (batch * 2).min(left);
        }
        Ok(())
    }

    async fn create_one(&self, pod: &Pod) -> Result<(), Failure> {
        match self.pods.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.events.normal(&self.about, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.creation_observed(self.key);
                if is_namespace_terminating(&error) {
                    return Ok(());
                }
                let message = message(&error);
                self.events.warning(&self.about, "FailedCreate", format!("Error creating: {message}"));
                Err(Failure { reason: "FailedCreate", message })
            }
        }
    }

    /// Deletes these pods, all at once.
    pub(super) async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        let uids = pods.iter().filter_map(|pod| pod.metadata.uid.clone());
        self.expectations.expect_deletions(self.key, uids, self.now);
        let results = join_all(pods.iter().map(|pod| self.delete_one(pod))).await;
        results.into_iter().collect()
    }

    async fn delete_one(&self, pod: &Pod) -> Result<(), Failure> {
        let (name, uid) = (pod.metadata.name.clone().unwrap_or_default(), pod.metadata.uid.clone().unwrap_or_default());
        let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.pods.delete(&name, &parameters).await {
            Ok(_) => {
                self.events.normal(&self.about, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_observed(self.key, &uid);
                if is_not_found(&error) {
                    return Ok(());
                }
                let message = message(&error);
                self.events.warning(&self.about, "FailedDelete", format!("Error deleting: {message}"));
                Err(Failure { reason: "FailedDelete", message })
            }
        }
    }
}

/// The pod that a ReplicaSet asks for.
pub(super) fn pod_from_template(set: &ReplicaSet, owner: OwnerReference) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
        namespace: set.metadata.namespace.clone(),
        labels: meta.labels,
        annotations: meta.annotations,
        finalizers: meta.finalizers,
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}
