//! Starts all controllers over shared watches.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use reeve_client::{Component, Index, Informer, InformerOptions, NeverSynced, wait_for_sync};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::deployment::DeploymentController;
use crate::ownership::controller_of;
use crate::pods;
use crate::replicaset::ReplicaSetController;

/// What the controllers have to know about the cluster.
#[derive(Debug, Clone)]
pub struct ControllerManagerConfig {}

/// One watch per kind, shared by all controllers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) pods: Informer<Pod>,
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) deployments: Informer<Deployment>,
    /// Pods without a controller, by namespace.
    pub(crate) orphans: Index<String, Pod>,
}

/// All controllers of a cluster.
pub struct ControllerManager {
    config: ControllerManagerConfig,
    component: Component,
}
