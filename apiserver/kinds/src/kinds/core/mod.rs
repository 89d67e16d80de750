//! The core group.

pub(super) mod component_status;
mod config_map;
pub(super) mod endpoints;
pub(super) mod event;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume_claim;
mod persistent_volumes;
mod pod_template;
mod pods;
mod replication_controller;
mod resource_quota;
mod secret;
mod service_account;
mod services;

use std::sync::Arc;

use crate::kind::Kind;

pub(in crate::kinds) use persistent_volumes::inline_sources;
pub use services::service_address_rules;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(config_map::ConfigMaps),
        Arc::new(endpoints::EndpointsKind),
        Arc::new(event::Events),
        Arc::new(limit_range::LimitRanges),
        Arc::new(namespace::Namespaces),
        Arc::new(node::Nodes),
        Arc::new(persistent_volume_claim::PersistentVolumeClaims),
        Arc::new(persistent_volumes::PersistentVolumes),
        Arc::new(pods::Pods),
        Arc::new(pod_template::PodTemplates),
        Arc::new(replication_controller::ReplicationControllers),
        Arc::new(resource_quota::ResourceQuotas),
        Arc::new(secret::Secrets),
        Arc::new(service_account::ServiceAccounts),
        Arc::new(services::Services),
    ]
}
