//! The core group.

mod config_map;
pub(super) mod endpoints;
mod event;
mod namespace;
mod node;
mod pods;
mod secret;
mod service_account;
mod services;

use std::sync::Arc;

use crate::kind::Kind;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(config_map::ConfigMaps),
        Arc::new(endpoints::EndpointsKind),
        Arc::new(event::Events),
        Arc::new(namespace::Namespaces),
        Arc::new(node::Nodes),
        Arc::new(pods::Pods),
        Arc::new(secret::Secrets),
        Arc::new(service_account::ServiceAccounts),
        Arc::new(services::Services),
    ]
}
