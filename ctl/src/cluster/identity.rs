//! As whom each component of the process asks the API server. What each may do is the API server's table.

use reeve_apiserver::registry::UserInfo;

const AUTHENTICATED: &str = "system:authenticated";

/// The scheduler.
pub(crate) fn scheduler() -> UserInfo {
    UserInfo::new("system:kube-scheduler", &[AUTHENTICATED])
}

/// The controllers.
pub(crate) fn controller_manager() -> UserInfo {
    UserInfo::new("system:kube-controller-manager", &[AUTHENTICATED])
}

/// The proxy.
pub(crate) fn proxy() -> UserInfo {
    UserInfo::new("system:kube-proxy", &[AUTHENTICATED])
}

/// The agent of a node.
pub(crate) fn node(name: &str) -> UserInfo {
    UserInfo::new(format!("system:node:{name}"), &["system:nodes", AUTHENTICATED])
}

/// The cluster's own setting-up: objects that every cluster has.
pub(crate) fn admin() -> UserInfo {
    UserInfo::new("kubernetes-admin", &["system:masters", AUTHENTICATED])
}
