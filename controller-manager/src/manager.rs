//! Starts all controllers over shared watches.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Api;
use reeve_client::{Component, Index, Informer, InformerOptions, NeverSynced, TaskPanicked, wait_for_sync};
use tokio::sync::watch;
use tracing::warn;

use crate::deployment::DeploymentController;
use crate::disruption::DisruptionController;
use crate::endpoints::EndpointsController;
use crate::endpointslice::EndpointSliceController;
use crate::endpointslicemirroring::MirroringController;
use crate::garbage::{GarbageCollector, OnGone};
use crate::namespace::NamespaceController;
use crate::nodeipam::{NodeIpamController, RangeError};
use crate::nodelifecycle::NodeLifecycleController;
use crate::ownership::controller_of;
use crate::podgc::PodGarbageController;
use crate::pods;
use crate::replicaset::ReplicaSetController;
use crate::resourcequota::ResourceQuotaController;
use crate::roleaggregation::{self, RoleAggregationController, Roles};
use crate::rootca::{self, RootCaController};
use crate::serviceaccount::ServiceAccountController;
use crate::storageprotection::StorageProtectionController;
use crate::tokencleaner::{self, TokenCleaner};

/// Where nodes renew their leases.
const NODE_LEASES: &str = "kube-node-lease";

/// What the controllers have to know about the cluster.
#[derive(Debug, Clone)]
pub struct ControllerManagerConfig {
    /// The range that all pods' addresses come from.
    pub cluster_cidr: IpNet,
    /// Prefix length of each node's part of it. Kubernetes' default is 24 for IPv4 and 64 for IPv6.
    pub node_cidr_mask: u8,
    /// The cluster's CA certificate in PEM, as pods get it.
    pub ca_pem: String,
}

/// The controllers cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The configuration's fault.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Shut down while starting.
    #[error(transparent)]
    NeverSynced(#[from] NeverSynced),
    /// A bug in one of them.
    #[error(transparent)]
    Panicked(#[from] TaskPanicked),
}

/// One watch per kind, shared by all controllers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) pods: Informer<Pod>,
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) deployments: Informer<Deployment>,
    pub(crate) replication_controllers: Informer<ReplicationController>,
    pub(crate) budgets: Informer<PodDisruptionBudget>,
    pub(crate) quotas: Informer<ResourceQuota>,
    pub(crate) services: Informer<Service>,
    pub(crate) slices: Informer<EndpointSlice>,
    pub(crate) endpoints: Informer<Endpoints>,
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) nodes: Informer<Node>,
    /// Those of nodes only.
    pub(crate) leases: Informer<Lease>,
    pub(crate) service_accounts: Informer<ServiceAccount>,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) classes: Informer<VolumeAttributesClass>,
    /// ConfigMaps named `kube-root-ca.crt` only.
    pub(crate) root_cas: Informer<ConfigMap>,
    pub(crate) cluster_roles: Roles,
    /// Secrets of bootstrap tokens only.
    pub(crate) tokens: Informer<Secret>,
    /// Pods without a controller, by namespace.
    pub(crate) orphans: Index<String, Pod>,
    /// Pods by the node they are bound to.
    pub(crate) pods_by_node: Index<String, Pod>,
}

impl Watches {
    fn start(component: &Component) -> Self {
        let client = || component.client.clone();
        let pods = InformerOptions { trim: Some(pods::trim as fn(&mut Pod)), ..InformerOptions::default() };
        let pods = Informer::start(component, Api::all(client()), pods);
        let nodes = InformerOptions { trim: Some(trim_node as fn(&mut Node)), ..InformerOptions::default() };
        let root_cas =
            InformerOptions { fields: format!("metadata.name={}", rootca::NAME), ..InformerOptions::default() };
        let roles = InformerOptions { trim: Some(roleaggregation::trim as fn(&mut _)), ..InformerOptions::default() };
        let orphans = Index::new(&pods, |pod: &Pod| match controller_of(&pod.metadata) {
            Some(_) => Vec::new(),
            None => pod.metadata.namespace.clone().into_iter().collect(),
        });
        let pods_by_node = Index::new(&pods, |pod: &Pod| {
            Some(pods::node_name(pod).to_owned()).filter(|node| !node.is_empty()).into_iter().collect()
        });
        Self {
            pods,
            replica_sets: Informer::all(component),
            deployments: Informer::all(component),
            replication_controllers: Informer::all(component),
            budgets: Informer::all(component),
            quotas: Informer::all(component),
            services: Informer::all(component),
            slices: Informer::all(component),
            endpoints: Informer::all(component),
            namespaces: Informer::all(component),
            nodes: Informer::start(component, Api::all(client()), nodes),
            leases: Informer::start(component, Api::namespaced(client(), NODE_LEASES), InformerOptions::default()),
            service_accounts: Informer::all(component),
            claims: Informer::all(component),
            volumes: Informer::all(component),
            classes: Informer::all(component),
            root_cas: Informer::start(component, Api::all(client()), root_cas),
            cluster_roles: Informer::start(component, Api::all(client()), roles),
            tokens: tokencleaner::tokens(component),
            orphans,
            pods_by_node,
        }
    }

    fn synced(&self) -> Vec<watch::Receiver<bool>> {
        vec![
            self.pods.synced(),
            self.replica_sets.synced(),
            self.deployments.synced(),
            self.replication_controllers.synced(),
            self.budgets.synced(),
            self.quotas.synced(),
            self.services.synced(),
            self.slices.synced(),
            self.endpoints.synced(),
            self.namespaces.synced(),
            self.nodes.synced(),
            self.leases.synced(),
            self.service_accounts.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.classes.synced(),
            self.root_cas.synced(),
            self.cluster_roles.synced(),
            self.tokens.synced(),
        ]
    }
}

/// All controllers of a cluster.
pub struct ControllerManager {
    config: ControllerManagerConfig,
    component: Component,
}

impl ControllerManager {
    /// Nothing starts before [`ControllerManager::run`].
    #[must_use]
    pub fn new(config: ControllerManagerConfig, component: Component) -> Self {
        Self { config, component }
    }

    /// Runs all controllers until the component shuts down.
    ///
    /// # Errors
    /// When the configuration cannot be used, the component is shut down before all watches are complete, or a
    /// controller has panicked.
    pub async fn run(self) -> Result<(), ManagerError> {
        let (config, component) = (self.config, self.component);
        let watches = Watches::start(&component);
        let deployments = DeploymentController::new(&component, &watches);
        let replica_sets = ReplicaSetController::new(&component, &watches, &watches.replica_sets);
        let replication_controllers = ReplicaSetController::new(&component, &watches, &watches.replication_controllers);
        let disruption = DisruptionController::new(&component, &watches);
        let quotas = ResourceQuotaController::new(&component, &watches);
        let slices = EndpointSliceController::new(&component, &watches);
        let mirroring = MirroringController::new(&component, &watches);
        let endpoints = EndpointsController::new(&component, &watches);
        let namespaces = NamespaceController::new(&component, &watches);
        let nodes = NodeLifecycleController::new(&component, &watches);
        let ipam = NodeIpamController::try_new(&component, &watches, config.cluster_cidr, config.node_cidr_mask)?;
        let aggregation = RoleAggregationController::new(&component, &watches);
        let accounts = ServiceAccountController::new(&component, &watches);
        let root_ca = RootCaController::new(&component, &watches, config.ca_pem);
        let pod_garbage = PodGarbageController::new(&component, &watches);
        let storage = StorageProtectionController::new(&component, &watches);
        let tokens = TokenCleaner::new(&component, &watches);
        let (emptying, counting) = (namespaces.on_gone(), quotas.on_gone());
        let on_gone: OnGone = Arc::new(move |namespace| {
            emptying(namespace);
            counting(namespace);
        });
        let collecting = component.clone();
        component.spawn_vital("garbage collector", async move {
            let collector = GarbageCollector::start(&collecting, on_gone).await;
            if let Err(error) = collector.run().await {
                warn!(%error, "the garbage collector never ran");
            }
        });
        wait_for_sync(&component, &watches.synced()).await?;
        component.spawn_vital("deployment", deployments.run());
        component.spawn_vital("replicaset", replica_sets.run());
        component.spawn_vital("replicationcontroller", replication_controllers.run());
        component.spawn_vital("disruption", disruption.run());
        component.spawn_vital("resourcequota", quotas.run());
        component.spawn_vital("endpointslice", slices.run());
        component.spawn_vital("endpointslicemirroring", mirroring.run());
        component.spawn_vital("endpoints", endpoints.run());
        component.spawn_vital("namespace", namespaces.run());
        component.spawn_vital("nodelifecycle", nodes.run());
        component.spawn_vital("nodeipam", ipam.run());
        component.spawn_vital("clusterrole-aggregation", aggregation.run());
        component.spawn_vital("serviceaccount", accounts.run());
        component.spawn_vital("root-ca", root_ca.run());
        component.spawn_vital("podgc", pod_garbage.run());
        component.spawn_vital("storageprotection", storage.run());
        component.spawn_vital("token-cleaner", tokens.run());
        component.stopped().await;
        Ok(component.outcome()?)
    }
}

/// Keeps of a node what controllers read: images are most of it.
fn trim_node(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
        status.node_info = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
}
