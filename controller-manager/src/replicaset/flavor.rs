//! ReplicaSets and ReplicationControllers: the same controller for both. A ReplicationController is seen as the
//! ReplicaSet that it would be.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind that keeps a number of pods of one template.
pub(crate) trait Flavor:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Its status.
    type Status: Serialize + PartialEq + Default;

    /// How the controller is called in its work queue.
    const QUEUE: &'static str;

    /// How the controller calls itself in events.
    const REPORTER: &'static str;

    /// The ReplicaSet that it is or would be.
    fn as_set(&self) -> ReplicaSet;

    /// Its status, as that ReplicaSet has it.
    fn status_of(status: ReplicaSetStatus) -> Self::Status;

    /// The status it has.
    fn current(&self) -> Self::Status;
}

impl Flavor for ReplicaSet {
    type Status = ReplicaSetStatus;

    const QUEUE: &'static str = "replicaset";
    const REPORTER: &'static str = "replicaset-controller";

    fn as_set(&self) -> ReplicaSet {
        self.clone()
    }

    fn status_of(status: ReplicaSetStatus) -> ReplicaSetStatus {
        status
    }

    fn current(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }
}

impl Flavor for ReplicationController {
    type Status = ReplicationControllerStatus;

    const QUEUE: &'static str = "replicationcontroller";
    const REPORTER: &'static str = "replication-controller";

    fn as_set(&self) -> ReplicaSet {
        let spec = |spec: ReplicationControllerSpec| ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        };
        let status = |status: ReplicationControllerStatus| ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(set_condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        };
        ReplicaSet {
            metadata: self.metadata.clone(),
            spec: self.spec.clone().map(spec),
            status: self.status.clone().map(status),
        }
    }

    fn status_of(status: ReplicaSetStatus) -> ReplicationControllerStatus {
        ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(own_condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        }
    }

    fn current(&self) -> ReplicationControllerStatus {
        self.status.clone().unwrap_or_default()
    }
}

fn set_condition(own: ReplicationControllerCondition) -> k8s_openapi::api::apps::v1::ReplicaSetCondition {
    k8s_openapi::api::apps::v1::ReplicaSetCondition {
        last_transition_time: own.last_transition_time,
        message: own.message,
        reason: own.reason,
        status: own.status,
        type_: own.type_,
    }
}

fn own_condition(set: k8s_openapi::api::apps::v1::ReplicaSetCondition) -> ReplicationControllerCondition {
    ReplicationControllerCondition {
        last_transition_time: set.last_transition_time,
        message: set.message,
        reason: set.reason,
        status: set.status,
        type_: set.type_,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replication_controller_is_seen_as_the_replica_set_that_it_would_be() {
        let controller: ReplicationController = serde_json::from_value(json!({
            "metadata": { "name": "a" }, "spec": { "replicas": 3, "selector": { "app": "a" },
                "template": { "metadata": { "labels": { "app": "a" } } } },
            "status": { "replicas": 1, "conditions": [{ "type": "ReplicaFailure", "status": "True" }] },
        }))
        .unwrap();
        let set = controller.as_set();
        let spec = set.spec.unwrap();
        assert_eq!((spec.replicas, spec.selector.match_labels.unwrap()["app"].as_str()), (Some(3), "a"));
        let status = ReplicationController::status_of(set.status.unwrap());
        assert_eq!(status, controller.current());
    }
}
