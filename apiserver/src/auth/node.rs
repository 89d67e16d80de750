//! The Node authorizer: a node reads what concerns it and writes what is its own.
//!
//! Source: Kubernetes, "Using Node Authorization", and KEP-4601 (reads of nodes and pods by selector). Which object of
//! a permitted sort a write is about is checked by the admission rule NodeRestriction.

use std::sync::LazyLock;

use reeve_api::selector::FieldSelector;

use super::authorizer::{Attributes, Decision, Target};
use super::graph::{NodeGraph, Related};
use super::rbac::Rule;
use super::{NODE_PREFIX, NODES};
use crate::registry::UserInfo;

const READ: [&str; 3] = ["get", "list", "watch"];
const CHANGE: [&str; 2] = ["update", "patch"];
const WRITE: [&str; 3] = ["create", "update", "patch"];
const OWN: [&str; 5] = ["get", "create", "update", "patch", "delete"];

/// The only namespace that holds leases of nodes.
const LEASES: &str = "kube-node-lease";

/// What every node may do with what is not told apart: the rules of the ClusterRole `system:node`, which nobody has.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules = reeve_kinds::bootstrap::node_rules();
    rules.iter().filter_map(|rule| Rule::of(&serde_json::from_value(rule.clone()).ok()?)).collect()
});

/// The node that a user is.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty() && user.in_group(NODES))
}

/// Whether a user is a node, be it one without a name.
pub(crate) fn is_node(user: &UserInfo) -> bool {
    user.name.starts_with(NODE_PREFIX) && user.in_group(NODES)
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

/// What a node may do; of others nothing is said.
pub(super) fn decide(graph: &NodeGraph, asked: &Attributes<'_>) -> Decision {
    if !is_node(asked.user) {
        return Decision::silent();
    }
    let Some(node) = node_of(asked.user) else {
        return Decision::refuse(format!("unknown node for user {:?}", asked.user.name));
    };
    let Target::Resource { group, resource, subresource, namespace, name, field_selector } = asked.target else {
        return Decision::silent();
    };
    let question = Question { node, verb: asked.verb, subresource, namespace, name, fields: field_selector };
    match (group, resource) {
        ("", "secrets") => question.read_related(graph, Related::Secret),
        ("", "configmaps") => question.read_related(graph, Related::ConfigMap),
        ("", "serviceaccounts") if (asked.verb, subresource) == ("get", "") => {
            question.read_related(graph, Related::ServiceAccount)
        }
        ("", "serviceaccounts") => question.token(graph),
        ("", "persistentvolumeclaims") if subresource == "status" => question.claim_status(graph),
        ("", "persistentvolumeclaims") => question.get_related(graph, Related::Claim),
        ("", "persistentvolumes") => question.get_related(graph, Related::Volume),
        ("resource.k8s.io", "resourceclaims") => question.get_related(graph, Related::ResourceClaim),
        ("storage.k8s.io", "volumeattachments") => question.get_related(graph, Related::Attachment),
        ("storage.k8s.io", "csinodes") => question.csi_node(),
        ("resource.k8s.io", "resourceslices") => question.slice(graph),
        ("", "nodes") => question.nodes(),
        ("", "pods") => question.pods(graph),
        ("coordination.k8s.io", "leases") => question.lease(),
        _ => Decision::when(RULES.iter().any(|rule| rule.allows(asked))),
    }
}

impl Question<'_> {
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

    /// Single objects that concern the node.
    fn get_related(&self, graph: &NodeGraph, related: Related) -> Decision {
        if self.verb != "get" {
            Decision::refuse("can only get individual resources of this type")
        } else if !self.subresource.is_empty() {
            Decision::refuse("cannot get subresource")
        } else {
            self.related(graph, related)
        }
    }

    fn claim_status(&self, graph: &NodeGraph) -> Decision {
        if !CHANGE.contains(&self.verb) {
            return Decision::refuse("can only get/update/patch this type");
        }
        self.related(graph, Related::Claim)
    }

    fn related(&self, graph: &NodeGraph, related: Related) -> Decision {
        if self.name.is_empty() {
            return Decision::refuse("No Object name found");
        }
        if graph.relates(self.node, related, self.namespace, self.name) {
            return Decision::allow();
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
            "" if WRITE.contains(&self.verb) => Decision::allow(),
            "" if READ.contains(&self.verb) => match self.name {
                name if name == node => Decision::allow(),
                "" => Decision::refuse(format!("node '{node}' cannot read all nodes, only its own Node object")),
                name => Decision::refuse(format!("node '{node}' cannot read '{name}', only its own Node object")),
            },
            "status" => Decision::when(CHANGE.contains(&self.verb)),
            _ => Decision::silent(),
        }
    }

    /// Which pods a node may create or delete is NodeRestriction's matter.
    fn pods(&self, graph: &NodeGraph) -> Decision {
        match (self.subresource, self.verb) {
            ("", "get") => self.get_related(graph, Related::Pod),
            ("", "list" | "watch") if self.selects("spec.nodeName") => Decision::allow(),
            ("", "list" | "watch") if !self.name.is_empty() => self.related(graph, Related::Pod),
            ("", "list" | "watch") => Decision::refuse("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Decision::allow(),
            _ => Decision::silent(),
        }
    }

    /// Read as it will be read when the request is served, escapes included; what cannot be read selects nothing.
    fn selects(&self, field: &str) -> bool {
        let fields = FieldSelector::parse(self.fields).unwrap_or_default();
        fields.exact(field) == Some(self.node)
    }

    fn lease(&self) -> Decision {
        if !OWN.contains(&self.verb) {
            Decision::refuse("can only get, create, update, patch, or delete a node lease")
        } else if self.namespace != LEASES {
            Decision::refuse(format!("can only access leases in the \"{LEASES}\" system namespace"))
        } else if self.verb != "create" && self.name != self.node {
            Decision::refuse("can only access node lease with the same name as the requesting node")
        } else {
            Decision::allow()
        }
    }

    fn csi_node(&self) -> Decision {
        if !OWN.contains(&self.verb) {
            Decision::refuse("can only get, create, update, patch, or delete a CSINode")
        } else if !self.subresource.is_empty() {
            Decision::refuse("cannot authorize CSINode subresources")
        } else if self.verb != "create" && self.name != self.node {
            Decision::refuse("can only access CSINode with the same name as the requesting node")
        } else {
            Decision::allow()
        }
    }

    /// Whose slice is created is NodeRestriction's matter.
    fn slice(&self, graph: &NodeGraph) -> Decision {
        if !self.subresource.is_empty() {
            return Decision::refuse("cannot authorize ResourceSlice subresources");
        }
        match self.verb {
            "create" => Decision::allow(),
            "get" | "update" | "patch" | "delete" => self.related(graph, Related::Slice),
            "watch" | "list" | "deletecollection" if self.selects("spec.nodeName") => Decision::allow(),
            "watch" | "list" | "deletecollection" => {
                Decision::refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => Decision::refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }
}
