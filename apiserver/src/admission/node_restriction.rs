//! NodeRestriction: a node's identity changes its own Node, its own pods' status and its own lease, nothing else.
//!
//! What a node may see and which verbs it has is the authorizer's part; this looks at the objects.

use serde_json::Value;

use super::forbidden;
use crate::registry::{Request, Subresource, meta};
use crate::status::ApiError;

/// The group of all nodes, and how their users are called.
const GROUP: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";

/// Only this namespace holds the leases of nodes.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Labels with this prefix say where sensitive pods may run: a node may not give itself one.
const PROTECTED_LABELS: &str = "node-restriction.kubernetes.io/";

/// The node that asks; `None` when somebody else does.
fn node(request: &Request) -> Option<&str> {
    request.user.name.strip_prefix(USER_PREFIX).filter(|_| request.user.in_group(GROUP))
}

fn refuse(request: &Request, object: &Value, why: &str) -> Result<(), ApiError> {
    Err(forbidden(request, object, why))
}

pub(super) fn admit_create(request: &Request, object: &Value) -> Result<(), ApiError> {
    let Some(node) = node(request) else { return Ok(()) };
    let resource = &request.resource;
    if resource.is("", "nodes") {
        own_node(request, object, node, meta::text(object, "name"))?;
        labels(request, object, &Value::Null, node)
    } else if resource.is("coordination.k8s.io", "leases") {
        own_lease(request, object, node, meta::text(object, "name"))
    } else if resource.is("", "pods") {
        let why = format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{node}\" can only create mirror pods"
        );
        if meta::get(object, "annotations").get("kubernetes.io/config.mirror").is_none() {
            return refuse(request, object, &why);
        }
        own_pod(request, object, node, "create")
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
        labels(request, object, old, node)
    } else if resource.is("coordination.k8s.io", "leases") {
        own_lease(request, object, node, &request.name)
    } else if resource.is("", "pods") {
        if request.subresource != Subresource::Status {
            return refuse(
                request,
                object,
                &format!("unexpected operation \"UPDATE\", node \"{node}\" can only create and delete mirror pods"),
            );
        }
        own_pod(request, old, node, "update pod status for")
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

fn labels(request: &Request, object: &Value, old: &Value, node: &str) -> Result<(), ApiError> {
    let (new, former) = (meta::get(object, "labels"), &old["metadata"]["labels"]);
    let keys = [new, former].into_iter().filter_map(Value::as_object).flat_map(|labels| labels.keys());
    let mut changed: Vec<&str> = keys
        .map(String::as_str)
        .filter(|key| key.starts_with(PROTECTED_LABELS) && new.get(*key) != former.get(*key))
        .collect();
    changed.sort_unstable();
    changed.dedup();
    if changed.is_empty() {
        return Ok(());
    }
    refuse(request, object, &format!("is not allowed to modify labels: {}, node \"{node}\"", changed.join(", ")))
}
