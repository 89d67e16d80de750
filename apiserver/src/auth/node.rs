//! The Node authorizer: a node reads what concerns it and writes what is its own.
//!
//! Source: Kubernetes, "Using Node Authorization", and KEP-4601 (reads of nodes and pods by selector). Which object of
//! a permitted sort a write is about is checked by the admission rule NodeRestriction.

use reeve_api::selector::FieldSelector;

use super::authorizer::{Attributes, Decision, Target};
use super::graph::{NodeGraph, Related};
use super::{NODE_PREFIX, NODES};
use crate::registry::UserInfo;

const READ: [&str; 3] = ["get", "list", "watch"];
const CHANGE: [&str; 2] = ["update", "patch"];
const WRITE: [&str; 3] = ["create", "update", "patch"];

/// The only namespace that holds leases of nodes.
const LEASES: &str = "kube-node-lease";

/// The node that a user is.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty() && user.in_group(NODES))
}

/// What is asked, by a node, of a resource.
struct Question<'q> {
    node: &'q str,
    verb: &'q str,
    subresource: &'q str,
    namespace: &'q str,
    name: &'q str,
    fields: &'q str,
}

/// What a node may do.
pub(super) fn decide(graph: &NodeGraph, node: &str, asked: &Attributes<'_>) -> Decision {
    let Target::Resource { group, resource, subresource, namespace, name, field_selector } = asked.target else {
        return Decision::silent();
    };
    let question = Question { node, verb: asked.verb, subresource, namespace, name, fields: field_selector };
    match (group, resource) {
        ("", "secrets") => question.read_related(graph, Related::Secret),
        ("", "configmaps") => question.read_related(graph, Related::ConfigMap),
        ("", "serviceaccounts") => question.token(graph),
        ("", "nodes") => question.nodes(),
        ("", "pods") => question.pods(graph),
        ("coordination.k8s.io", "leases") => question.lease(),
        ("", "events") | ("events.k8s.io", "events") => Decision::when(question.is_plain(&WRITE)),
        ("", "services") | ("node.k8s.io", "runtimeclasses") => Decision::when(question.is_plain(&READ)),
        _ => Decision::silent(),
    }
}

impl Question<'_> {
    fn is_plain(&self, verbs: &[&str]) -> bool {
        self.subresource.is_empty() && verbs.contains(&self.verb)
    }

    /// Single Secrets and ConfigMaps that pods of the node refer to, also as a list or watch of the one name.
    fn read_related(&self, graph: &NodeGraph, related: Related) -> Decision {
        if !READ.contains(&self.verb) {
            Decision::refuse("can only read resources of this type")
        } else if !self.subresource.is_empty() {
            Decision::refuse("cannot read subresource")
        } else if self.namespace.is_empty() {
            Decision::refuse("can only read namespaced object of this type")
        } else {
            self.related(graph, related)
        }
    }

    fn related(&self, graph: &NodeGraph, related: Related) -> Decision {
        if self.name.is_empty() {
            return Decision::refuse("No Object name found");
        }
        if graph.relates(self.node, related, self.namespace, self.name) {
            return Decision::Allowed;
        }
        Decision::refuse(format!("no relationship found between node '{}' and this object", self.node))
    }

    fn token(&self, graph: &NodeGraph) -> Decision {
        if self.verb != "create" || self.name.is_empty() {
            Decision::refuse("can only create tokens for individual service accounts")
        } else if self.subresource != "token" {
            Decision::refuse("can only create token subresource of serviceaccount")
        } else {
            self.related(graph, Related::ServiceAccount)
        }
    }

    fn nodes(&self) -> Decision {
        let node = self.node;
        match self.subresource {
            "" if WRITE.contains(&self.verb) => Decision::Allowed,
            "" if READ.contains(&self.verb) => match self.name {
                name if name == node => Decision::Allowed,
                "" => Decision::refuse(format!("node '{node}' cannot read all nodes, only its own Node object")),
                name => Decision::refuse(format!("node '{node}' cannot read '{name}', only its own Node object")),
            },
            "status" => Decision::when(CHANGE.contains(&self.verb)),
            _ => Decision::silent(),
        }
    }

    /// Creating pods is for mirrors of static pods, which are not served.
    fn pods(&self, graph: &NodeGraph) -> Decision {
        match (self.subresource, self.verb) {
            ("", "get") => self.related(graph, Related::Pod),
            ("", "list" | "watch") if self.selects_own_pods() => Decision::Allowed,
            ("", "list" | "watch") if !self.name.is_empty() => self.related(graph, Related::Pod),
            ("", "list" | "watch") => Decision::refuse("can only list/watch pods with spec.nodeName field selector"),
            ("", "delete") | ("status", "update" | "patch") | ("eviction", "create") => Decision::Allowed,
            _ => Decision::silent(),
        }
    }

    /// Read as it will be read when the request is served, escapes included; what cannot be read selects nothing.
    fn selects_own_pods(&self) -> bool {
        let fields = FieldSelector::parse(self.fields).unwrap_or_default();
        fields.exact("spec.nodeName") == Some(self.node)
    }

    fn lease(&self) -> Decision {
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            Decision::refuse("can only get, create, update, patch, or delete a node lease")
        } else if self.namespace != LEASES {
            Decision::refuse(format!("can only access leases in the \"{LEASES}\" system namespace"))
        } else if self.verb != "create" && self.name != self.node {
            Decision::refuse("can only access node lease with the same name as the requesting node")
        } else {
            Decision::Allowed
        }
    }
}
