//! NodeRestriction: a node's identity changes its own Node, its own pods' status and its own lease, and takes the
//! tokens of its own pods; nothing else.
//!
//! What a node may see and which verbs it has is the authorizer's part; this looks at the objects. Source: Kubernetes,
//! "Admission controllers", section "NodeRestriction". Static pods are not served, so a node creates no pods at all.

use serde_json::Value;

use super::{Attributes, Operation, certificates, forbidden};
use crate::auth;
use crate::registry::{Registry, meta};
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

/// The annotation of a pod that stands for one that a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Who signs certificates of nodes.
const NODE_SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

pub(super) fn admit(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    // Somebody else's requests are no concern of this rule.
    if !auth::is_node(&attributes.request.user) {
        return Ok(());
    }
    let Some(node) = auth::node_of(&attributes.request.user) else {
        let name = &attributes.request.user.name;
        return refuse(attributes, &format!("could not determine node from user {name:?}"));
    };
    let resource = &attributes.request.resource;
    if resource.is("", "nodes") {
        admit_node(attributes, node)
    } else if resource.is("coordination.k8s.io", "leases") {
        admit_lease(attributes, node)
    } else if resource.is("", "pods") {
        admit_pod(registry, attributes, node)
    } else if resource.is("", "serviceaccounts") && attributes.subresource == "token" {
        admit_token(registry, attributes, node)
    } else if resource.is("", "persistentvolumeclaims") {
        admit_claim(attributes, node)
    } else if resource.is("storage.k8s.io", "csinodes") {
        match attributes.name() == node {
            true => Ok(()),
            false => refuse(attributes, "can only access CSINode with the same name as the requesting node"),
        }
    } else if resource.is("resource.k8s.io", "resourceslices") {
        admit_slice(attributes, node)
    } else if resource.is("certificates.k8s.io", "certificatesigningrequests") {
        admit_certificate(attributes, node)
    } else {
        Ok(())
    }
}

/// A node tells of a claim how far its volume has grown, and nothing else.
fn admit_claim(attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    const FIELDS: [&str; 4] = ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];
    if attributes.subresource != "status" {
        return refuse(attributes, "may only update PVC status");
    }
    let (Operation::Update, Some(old)) = (attributes.operation, attributes.old) else {
        return refuse(attributes, &format!("unexpected operation {:?}", attributes.operation.name()));
    };
    let rest = |claim: &Value| {
        let mut rest = claim.clone();
        let status = rest.get_mut("status").and_then(Value::as_object_mut);
        status.into_iter().for_each(|status| status.retain(|field, _| !FIELDS.contains(&field.as_str())));
        let metadata = rest.get_mut("metadata").and_then(Value::as_object_mut);
        let own = |field: &str| ["managedFields", "resourceVersion"].contains(&field);
        metadata.into_iter().for_each(|metadata| metadata.retain(|field, _| !own(field)));
        rest
    };
    if rest(&attributes.object) == rest(old) {
        return Ok(());
    }
    let what = "is not allowed to update fields other than status.quantity and status.conditions";
    refuse(attributes, &format!("node \"{node}\" {what}"))
}

fn admit_slice(attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    let (slice, verb) = match attributes.operation {
        Operation::Create => (&attributes.object, "create"),
        Operation::Delete => (attributes.old.unwrap_or(&Value::Null), "delete"),
        _ => return Ok(()),
    };
    if slice["spec"]["nodeName"] == node {
        return Ok(());
    }
    refuse(attributes, &format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

/// A certificate that makes a node is for the node itself.
fn admit_certificate(attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    let spec = &attributes.object["spec"];
    let signer = spec["signerName"].as_str().unwrap_or_default();
    if attributes.operation != Operation::Create || !NODE_SIGNERS.contains(&signer) {
        return Ok(());
    }
    match certificates::common_name(spec) {
        Err(why) => refuse(attributes, &format!("unable to parse csr: {why}")),
        Ok(name) if name == format!("system:node:{node}") => Ok(()),
        Ok(_) => refuse(attributes, &format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

fn refuse(attributes: &Attributes<'_>, why: &str) -> Result<(), ApiError> {
    Err(forbidden(attributes, why))
}

fn admit_node(attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    let name = attributes.name();
    if name != node {
        return refuse(attributes, &format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let (object, old) = (&attributes.object, attributes.old.unwrap_or(&Value::Null));
    match attributes.operation {
        Operation::Create => {
            let why = format!("node \"{node}\" is not allowed to set the following labels: ");
            labels(attributes, &Value::Null, &why)
        }
        Operation::Update if object["spec"]["taints"] != old["spec"]["taints"] => {
            refuse(attributes, &format!("node \"{node}\" is not allowed to modify taints"))
        }
        // The garbage collector would delete the node for it.
        Operation::Update if meta::get(object, "ownerReferences") != meta::get(old, "ownerReferences") => {
            refuse(attributes, &format!("node \"{node}\" is not allowed to modify ownerReferences"))
        }
        Operation::Update => labels(attributes, old, "is not allowed to modify labels: "),
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

fn admit_pod(registry: &Registry, attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    let old = attributes.old.unwrap_or(&Value::Null);
    match (attributes.operation, attributes.subresource) {
        // A pod of its own making would let a node ask for any service account's token.
        (Operation::Create, "") if meta::get(&attributes.object, "annotations").get(MIRROR).is_some() => {
            refuse(attributes, &format!("node \"{node}\" can not create pods"))
        }
        (Operation::Create, "") => {
            let why = format!("pod does not have {MIRROR:?} annotation, node \"{node}\" can only create mirror pods");
            refuse(attributes, &why)
        }
        (Operation::Create, "eviction") => admit_eviction(registry, attributes, node),
        (Operation::Delete, "") => own_pod(attributes, old, node, "delete"),
        (Operation::Update, "status") => {
            own_pod(attributes, old, node, "update pod status for")?;
            if meta::get(&attributes.object, "labels") != meta::get(old, "labels") {
                let why = format!("node \"{node}\" cannot update labels through pod status");
                return refuse(attributes, &why);
            }
            claims(attributes, old, node)
        }
        (operation, "") => refuse(
            attributes,
            &format!(
                "unexpected operation {:?}, node \"{node}\" can only create and delete mirror pods",
                operation.name()
            ),
        ),
        (_, other) => refuse(
            attributes,
            &format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"),
        ),
    }
}

/// Which claims a pod has is no node's to say: what they name, the node may read.
fn claims(attributes: &Attributes<'_>, old: &Value, node: &str) -> Result<(), ApiError> {
    let all = |pod: &Value| -> Vec<(Value, Value)> {
        let claims = pod["status"]["resourceClaimStatuses"].as_array().into_iter().flatten();
        claims.map(|claim| (claim["name"].clone(), claim["resourceClaimName"].clone())).collect()
    };
    if all(&attributes.object) != all(old) {
        return refuse(attributes, &format!("node \"{node}\" cannot update resource claim statues"));
    }
    let extended = |pod: &Value| pod["status"]["extendedResourceClaimStatus"].clone();
    if extended(&attributes.object) != extended(old) {
        return refuse(attributes, &format!("node \"{node}\" cannot update extended resource claim status"));
    }
    Ok(())
}

/// A node evicts its own pods only.
fn admit_eviction(registry: &Registry, attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    let request = attributes.request;
    let pods = registry.core("pods").ok_or_else(ApiError::no_such_path)?;
    let pod = registry.peek(&pods, &request.namespace, &request.name);
    let pod = pod.ok_or_else(|| ApiError::not_found(pods.names(), &request.name))?.value();
    if pod["spec"]["nodeName"] == node {
        return Ok(());
    }
    refuse(attributes, &format!("node {node} can only evict pods with spec.nodeName set to itself"))
}

/// Before a token is made; the request names the service account, the object is the token request as it was sent.
fn admit_token(registry: &Registry, attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    let request = attributes.request;
    let spec = &attributes.object["spec"];
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

fn admit_lease(attributes: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    if attributes.request.namespace != LEASE_NAMESPACE {
        return refuse(attributes, &format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"));
    }
    if attributes.name() == node {
        return Ok(());
    }
    refuse(attributes, "can only access node lease with the same name as the requesting node")
}

fn own_pod(attributes: &Attributes<'_>, pod: &Value, node: &str, verb: &str) -> Result<(), ApiError> {
    if pod["spec"]["nodeName"] == node {
        return Ok(());
    }
    refuse(attributes, &format!("node \"{node}\" can only {verb} pods with spec.nodeName set to itself"))
}

fn labels(attributes: &Attributes<'_>, old: &Value, refusal: &str) -> Result<(), ApiError> {
    let (new, former) = (meta::get(&attributes.object, "labels"), &old["metadata"]["labels"]);
    let keys = [new, former].into_iter().filter_map(Value::as_object).flat_map(|labels| labels.keys());
    let mut changed: Vec<&str> =
        keys.map(String::as_str).filter(|key| is_protected(key) && new.get(*key) != former.get(*key)).collect();
    changed.sort_unstable();
    changed.dedup();
    if changed.is_empty() {
        return Ok(());
    }
    refuse(attributes, &format!("{refusal}{}", changed.join(", ")))
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
