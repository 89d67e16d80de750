//! Who asks, and what they may do.
//!
//! Authentication turns a client certificate (`certificate`), a service-account token (`token`; pages send it with
//! `web_socket`) or the headers of a front proxy (`front_proxy`) into a `UserInfo`; authorization ([`Authorizer`])
//! answers yes or no (`modes`): for nodes (`node`) by what their pods refer to (`graph`), for everybody by roles and
//! bindings (`rbac`), and for the components of this process by fixed rules besides (`components`). Nothing is allowed
//! by default. What is not here: rules about the content of a write, such as whose status a node changes (that is
//! admission).

mod authenticator;
mod authorizer;
pub(crate) mod certificate;
mod components;
pub(crate) mod front_proxy;
pub(crate) mod graph;
pub(crate) mod impersonate;
mod modes;
mod node;
pub(crate) mod rbac;
pub(crate) mod token;
pub(crate) mod web_socket;

pub(crate) use authenticator::{Authenticator, Credentials};
pub(crate) use authorizer::verbs;
pub use authorizer::{Attributes, Authorizer, Decision, Grant, KnownRule, KnownRules, Target};
pub(crate) use graph::NodeGraph;
pub(crate) use modes::{Counted, Modes};
pub(crate) use node::{is_node, node_of};
pub(crate) use rbac::Rbac;
pub use token::TokenKeyError;

use crate::registry::UserInfo;

/// Group of everybody whose identity was proven.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody else.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of those who may do everything.
pub const MASTERS: &str = "system:masters";
/// Group of all nodes.
pub const NODES: &str = "system:nodes";
/// What the user names of nodes begin with; the node's name follows.
pub(crate) const NODE_PREFIX: &str = "system:node:";
/// Name of whoever shows no credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// The user that stands for requests without credentials.
#[must_use]
pub(crate) fn anonymous() -> UserInfo {
    UserInfo::new(ANONYMOUS, &[UNAUTHENTICATED])
}

/// The user, also in the group of those who are authenticated.
#[must_use]
pub(crate) fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}
