//! NodeRestriction: a node's identity changes its own Node, its own pods' status and its own lease, and takes the
//! tokens of its own pods; nothing else.
//!
//! What a node may see and which verbs it has is the authorizer's part; this looks at the objects. Source: Kubernetes,
//! "Admission controllers", section "NodeRestriction". Static pods are not served, so a node creates no pods at all.

use reeve_kinds::Part;
use serde_json::Value;

use super::forbidden;
use crate::auth;
use crate::registry::{Registry, Request, Subresource, meta};
use crate::status::ApiError;

/// Only this namespace holds the leases of nodes.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Labels in this namespace say where sensitive pods may run: a node may not give itself one.
const PROTECTED_NAMESPACE: &str = "node-restriction.kubernetes.io";

/// The only labels of Kubernetes' own namespaces that a node sets on itself, and namespaces that are all its own.
const NODE_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const NODE_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The node that asks; `None` when somebody else does.
fn node(request: &Request) -> Option<&str> {
    auth::node_of(&request.user)
}

fn refuse(request: &Request, object: &Value, why: &str) -> Result<(), ApiError> {
    Err(forbidden(request, object, why))
}

pub(super) fn admit_create(request: &Request, object: &Value) -> Result<(), ApiError> {
    let Some(node) = node(request) else { return Ok(()) };
    let resource = &request.resource;
    if resource.is("", "nodes") {
        own_node(request, object, node, meta::text(object, "name"))?;
        labels(request, object, &Value::Null, &format!("node \"{node}\" is not allowed to set the following labels: "))
    } else if resource.is("coordination.k8s.io", "leases") {
        own_lease(request, object, node, meta::text(object, "name"))
    } else if resource.is("", "pods") {
        // A pod of its own making would let a node ask for any service account's token.
        refuse(request, object, &format!("node \"{node}\" can not create pods"))
    } else {
        Ok(())
    }
}

pub(super) fn admit_update(request: &Request, object: &Value, old: &Value) -> Result<(), ApiError> {
    let Some(node) = node(request) else { return Ok(()) };
    let resource = &request.resource;
    if resource.is("", "nodes") {
        own_node(request, object, node, &request.name)?;
        if object["spec"]["taints"] != old["spec"]["taints"] {
            return refuse(request, object, &format!("node \"{node}\" is not allowed to modify taints"));
        }
        // The garbage collector would delete the node for it.
        if meta::get(object, "ownerReferences") != meta::get(old, "ownerReferences") {
            return refuse(request, object, &format!("node \"{node}\" is not allowed to modify ownerReferences"));
        }
        labels(request, object, old, "is not allowed to modify labels: ")
    } else if resource.is("coordination.k8s.io", "leases") {
        own_lease(request, object, node, &request.name)
    } else if resource.is("", "pods") {
        if request.subresource != Subresource::Part(Part::Status) {
            return refuse(
                request,
                object,
                &format!("unexpected operation \"UPDATE\", node \"{node}\" can only create and delete mirror pods"),
            );
        }
        own_pod(request, old, node, "update pod status for")?;
        if meta::get(object, "labels") != meta::get(old, "labels") {
            return refuse(request, object, &format!("node \"{node}\" cannot update labels through pod status"));
        }
        Ok(())
    } else {
        Ok(())
    }
}

pub(super) fn admit_delete(request: &Request, object: &Value) -> Result<(), ApiError> {
    let Some(node) = node(request) else { return Ok(()) };
    let resource = &request.resource;
    if resource.is("", "nodes") {
        own_node(request, object, node, &request.name)
    } else if resource.is("coordination.k8s.io", "leases") {
        own_lease(request, object, node, &request.name)
    } else if resource.is("", "pods") {
        own_pod(request, object, node, "delete")
    } else {
        Ok(())
    }
}

/// A node evicts its own pods only.
pub(super) fn admit_eviction(registry: &Registry, request: &Request, eviction: &Value) -> Result<(), ApiError> {
    let Some(node) = node(request) else { return Ok(()) };
    let pods = registry.core("pods").ok_or_else(ApiError::no_such_path)?;
    let pod = registry.peek(&pods, &request.namespace, &request.name);
    let pod = pod.ok_or_else(|| ApiError::not_found(pods.names(), &request.name))?.value();
    if pod["spec"]["nodeName"] == node {
        return Ok(());
    }
    refuse(request, eviction, &format!("node \"{node}\" can only evict pods with spec.nodeName set to itself"))
}

/// Before a token is made; `request` names the service account, `spec` is the token request's as it was sent.
pub(super) fn admit_token(registry: &Registry, request: &Request, spec: &Value) -> Result<(), ApiError> {
    let Some(node) = node(request) else { return Ok(()) };
    let refuse = |why: &str| Err(ApiError::forbidden(request.resource.names(), &request.name, why));
    let bound = &spec["boundObjectRef"];
    let name = bound["name"].as_str().unwrap_or_default();
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound["uid"].as_str().unwrap_or_default();
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pods = registry.core("pods").ok_or_else(ApiError::no_such_path)?;
    let pod = registry.peek(&pods, &request.namespace, name);
    let pod = pod.ok_or_else(|| ApiError::not_found(pods.names(), name))?.value();
    if meta::text(&pod, "uid") != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    audience(&pod, spec).or_else(|why| refuse(&why))
}

/// A token for an audience that the pod does not ask for would let the node speak to others in the pod's name.
fn audience(pod: &Value, spec: &Value) -> Result<(), String> {
    let audience = match spec["audiences"].as_array().map(Vec::as_slice).unwrap_or_default() {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    let found = sources.any(|source| {
        let token = &source["serviceAccountToken"];
        token.is_object() && token["audience"].as_str().unwrap_or_default() == audience
    });
    if found { Ok(()) } else { Err(format!("audience \"{audience}\" not found in pod spec volume")) }
}

fn own_node(request: &Request, object: &Value, node: &str, name: &str) -> Result<(), ApiError> {
    if name == node {
        return Ok(());
    }
    refuse(request, object, &format!("node \"{node}\" is not allowed to modify node \"{name}\""))
}

fn own_lease(request: &Request, object: &Value, node: &str, name: &str) -> Result<(), ApiError> {
    if request.namespace != LEASE_NAMESPACE {
        return refuse(
            request,
            object,
            &format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"),
        );
    }
    if name == node {
        return Ok(());
    }
    refuse(request, object, "can only access node lease with the same name as the requesting node")
}

fn own_pod(request: &Request, pod: &Value, node: &str, verb: &str) -> Result<(), ApiError> {
    if pod["spec"]["nodeName"] == node {
        return Ok(());
    }
    refuse(request, pod, &format!("node \"{node}\" can only {verb} pods with spec.nodeName set to itself"))
}

fn labels(request: &Request, object: &Value, old: &Value, refusal: &str) -> Result<(), ApiError> {
    let (new, former) = (meta::get(object, "labels"), &old["metadata"]["labels"]);
    let keys = [new, former].into_iter().filter_map(Value::as_object).flat_map(|labels| labels.keys());
    let mut changed: Vec<&str> =
        keys.map(String::as_str).filter(|key| is_protected(key) && new.get(*key) != former.get(*key)).collect();
    changed.sort_unstable();
    changed.dedup();
    if changed.is_empty() {
        return Ok(());
    }
    refuse(request, object, &format!("{refusal}{}", changed.join(", ")))
}

/// Whether a node may not set, change or remove the label on itself.
fn is_protected(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let is_in =
        |domain: &str| namespace.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if is_in(PROTECTED_NAMESPACE) {
        return true;
    }
    let is_kubernetes = is_in("kubernetes.io") || is_in("k8s.io");
    is_kubernetes && !NODE_LABELS.contains(&key) && !NODE_NAMESPACES.into_iter().any(is_in)
}
