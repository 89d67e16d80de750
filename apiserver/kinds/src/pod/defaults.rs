//! What a user may leave out of a pod spec.

use reeve_api::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::level;
use crate::json::{
    copy_field, flag, get, has, int, items_mut, object_mut, set, set_default, set_default_number, some_mut, text,
};

/// The lists of containers in a pod spec.
pub(super) const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Defaults of the object with `metadata` and `spec` in a controller's `spec.template`.
pub(crate) fn default_template(template: &mut Value) {
    object_mut(template, "metadata");
    default_spec(object_mut(template, "spec"));
}

/// Defaults of a pod: those of its spec and those that only a real pod gets.
pub(crate) fn default_pod(pod: &mut Value) {
    let spec = object_mut(pod, "spec");
    default_spec(spec);
    set_default(spec, "enableServiceLinks", true);
    let host_network = flag(spec, "hostNetwork");
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(object_mut(container, "resources"));
            for port in items_mut(container, "ports").filter(|_| host_network) {
                if let Some(number) = int(port, "containerPort") {
                    set_default_number(port, "hostPort", number);
                }
            }
        }
    }
    level::default(spec);
}

/// What has a limit and no request requests its limit.
fn requests_from_limits(resources: &mut Value) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = object_mut(resources, "requests");
    for (name, limit) in limits {
        set_default(requests, &name, limit);
    }
}

/// Defaults of a pod spec, wherever it stands.
pub(crate) fn default_spec(spec: &mut Value) {
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            default_container(container);
        }
    }
    round_up(spec, "overhead");
    if let Some(resources) = some_mut(spec, "resources") {
        round_up(resources, "limits");
        round_up(resources, "requests");
    }
}

/// The old name of the field always shows what the new one says.
fn service_account(spec: &mut Value) {
    if text(spec, "serviceAccountName").is_empty() {
        let old = text(spec, "serviceAccount").to_owned();
        if !old.is_empty() {
            set(spec, "serviceAccountName", old);
        }
    } else {
        let own = spec.clone();
        set(spec, "serviceAccount", text(&own, "serviceAccountName"));
    }
}

fn default_container(container: &mut Value) {
    if text(container, "imagePullPolicy").is_empty() {
        let policy = pull_policy(text(container, "image"));
        set(container, "imagePullPolicy", policy);
    }
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    for port in items_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
    }
    for env in items_mut(container, "env") {
        if let Some(field) = some_mut(env, "valueFrom").and_then(|from| some_mut(from, "fieldRef")) {
            set_default(field, "apiVersion", "v1");
        }
        if let Some(resource) = some_mut(env, "valueFrom").and_then(|from| some_mut(from, "resourceFieldRef")) {
            set_default(resource, "divisor", "0");
        }
    }
    let resources = object_mut(container, "resources");
    round_up(resources, "limits");
    round_up(resources, "requests");
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = some_mut(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = some_mut(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = some_mut(lifecycle, hook) {
                default_http(handler);
            }
        }
    }
}

/// `Always` for the tag `latest`, which is also what a name without tag and digest means.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

/// Amounts of resources are kept in whole thousandths.
fn round_up(object: &mut Value, field: &str) {
    for amount in object.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Ok(quantity) = Quantity::from_value(amount)
            && !quantity.is_whole_milli()
        {
            *amount = quantity.round_up_to_milli().to_string().into();
        }
    }
}

fn default_probe(probe: &mut Value) {
    for (field, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        set_default_number(probe, field, default);
    }
    default_http(probe);
    if let Some(grpc) = some_mut(probe, "grpc")
        && !has(grpc, "service")
    {
        set(grpc, "service", "");
    }
}

fn default_http(handler: &mut Value) {
    if let Some(http) = some_mut(handler, "httpGet") {
        set_default(http, "path", "/");
        set_default(http, "scheme", "HTTP");
    }
}

fn default_volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |map| map.keys().filter(|key| *key != "name").count());
    if sources == 0 {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = some_mut(volume, source) {
            set_default(source, "defaultMode", 0o644);
            default_downward_items(source);
        }
    }
    if let Some(host) = some_mut(volume, "hostPath")
        && !has(host, "type")
    {
        set(host, "type", "");
    }
    if let Some(image) = some_mut(volume, "image")
        && text(image, "pullPolicy").is_empty()
    {
        let policy = pull_policy(text(image, "reference"));
        set(image, "pullPolicy", policy);
    }
    if let Some(projected) = some_mut(volume, "projected") {
        for source in items_mut(projected, "sources") {
            if let Some(token) = some_mut(source, "serviceAccountToken") {
                set_default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = some_mut(source, "downwardAPI") {
                default_downward_items(downward);
            }
        }
    }
    default_network_volumes(volume);
}

fn default_downward_items(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(field) = some_mut(item, "fieldRef") {
            set_default(field, "apiVersion", "v1");
        }
        if let Some(resource) = some_mut(item, "resourceFieldRef") {
            set_default(resource, "divisor", "0");
        }
    }
}

/// Defaults of sources from the network: a pod that names them is stored as Kubernetes stores it.
fn default_network_volumes(volume: &mut Value) {
    if let Some(iscsi) = some_mut(volume, "iscsi") {
        set_default(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = some_mut(volume, "rbd") {
        set_default(rbd, "pool", "rbd");
        set_default(rbd, "user", "admin");
        set_default(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(azure) = some_mut(volume, "azureDisk") {
        set_default(azure, "cachingMode", "ReadWrite");
        set_default(azure, "kind", "Shared");
        set_default(azure, "fsType", "ext4");
        if !has(azure, "readOnly") {
            set(azure, "readOnly", false);
        }
    }
    if let Some(claim) = some_mut(volume, "ephemeral").and_then(|source| some_mut(source, "volumeClaimTemplate")) {
        set_default(object_mut(claim, "spec"), "volumeMode", "Filesystem");
    }
}

/// Takes what a status update may not change from the stored pod.
pub(crate) fn keep_for_status(pod: &mut Value, old: &Value) {
    copy_field(pod, old, "spec");
    let owners = get(old, "metadata").clone();
    copy_field(object_mut(pod, "metadata"), &owners, "ownerReferences");
}
