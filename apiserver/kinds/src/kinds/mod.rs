//! The built-in kinds, in the order of discovery.

mod config_map;
mod deployment;
mod lease;
mod namespace;
mod pods;
mod replica_set;
mod secret;
mod service_account;
mod workload;

use crate::kind::Kind;

/// Every built-in kind, in the order of discovery: core group first, then the groups by name, resources by name.
#[must_use]
pub fn builtin() -> &'static [&'static dyn Kind] {
    &[
        &config_map::ConfigMaps,
        &namespace::Namespaces,
        &pods::Pods,
        &secret::Secrets,
        &service_account::ServiceAccounts,
        &deployment::Deployments,
        &replica_set::ReplicaSets,
        &lease::Leases,
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
