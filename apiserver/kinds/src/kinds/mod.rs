//! The built-in kinds, in the order of discovery.

mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod lease;
mod namespace;
mod node;
mod pods;
mod replica_set;
mod secret;
mod service_account;
mod services;
mod workload;

use crate::kind::Kind;

/// Every built-in kind, in the order of discovery: core group first, then the groups by name, resources by name.
#[must_use]
pub fn builtin() -> &'static [&'static dyn Kind] {
    &[
        &config_map::ConfigMaps,
        &endpoints::EndpointsKind,
        &event::Events,
        &namespace::Namespaces,
        &node::Nodes,
        &pods::Pods,
        &secret::Secrets,
        &service_account::ServiceAccounts,
        &services::Services,
        &deployment::Deployments,
        &replica_set::ReplicaSets,
        &lease::Leases,
        &endpoint_slice::EndpointSlices,
    ]
}

/// The shape of a kind's objects, made once.
macro_rules! shape_of {
    ($type:ty) => {{
        static SHAPE: std::sync::OnceLock<&'static crate::shape::Shape> = std::sync::OnceLock::new();
        SHAPE.get_or_init(crate::shape::of::<$type>)
    }};
}
pub(crate) use shape_of;
