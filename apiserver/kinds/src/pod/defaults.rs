//! What a user may leave out of a pod spec.

use serde_json::{Value, json};

use super::level;
use super::resources::round_up;
use crate::claim;
use crate::json::{
    copy_field, flag, get, has, int, items_mut, object_mut, remove, set, set_absent, set_default, set_default_number,
    some_mut, text,
};

/// Longest name of an image, without tag and digest.
const IMAGE_NAME_MAX: usize = 255;

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
    // A negative time was once accepted; it has meant one second ever since.
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        set(spec, "terminationGracePeriodSeconds", 1);
    }
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

/// As [`drop_disabled`], of a template.
pub(crate) fn drop_disabled_of_template(template: &mut Value) {
    if let Some(spec) = some_mut(template, "spec") {
        drop_disabled(spec);
    }
}

/// Takes away what Kubernetes drops as long as the feature it belongs to is off: it would have no effect.
pub(crate) fn drop_disabled(spec: &mut Value) {
    remove(spec, "schedulingGroup");
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            drop_stop_signal(container);
        }
    }
    for volume in items_mut(spec, "volumes") {
        let Some(projected) = some_mut(volume, "projected") else { continue };
        for source in items_mut(projected, "sources") {
            remove(source, "clusterTrustBundle");
            remove(source, "podCertificate");
        }
    }
}

/// The signal goes, and with it a lifecycle that says nothing else.
fn drop_stop_signal(container: &mut Value) {
    let Some(lifecycle) = some_mut(container, "lifecycle") else { return };
    if has(lifecycle, "stopSignal") {
        remove(lifecycle, "stopSignal");
        if lifecycle.as_object().is_some_and(serde_json::Map::is_empty) {
            remove(container, "lifecycle");
        }
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

/// `Always` for the tag `latest`, which is also what a name without tag and digest means. What is no name of an
/// image has no tag.
fn pull_policy(image: &str) -> &'static str {
    if !is_reference(image) {
        return "IfNotPresent";
    }
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

/// Whether a text has the form `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
fn is_reference(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (folders, last) = name.rsplit_once('/').map_or(("", name), |(folders, last)| (folders, last));
    let (last, tag) = last.split_once(':').map_or((last, None), |(last, tag)| (last, Some(tag)));
    let is_word = |text: &str, more: &str| {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
        !text.is_empty() && text.chars().all(fits)
    };
    let is_part = |part: &str| {
        let edge = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        is_word(part, "._-") && part.starts_with(edge) && part.ends_with(edge) && !part.contains(char::is_uppercase)
    };
    let mut parts: Vec<&str> = folders.split('/').filter(|_| !folders.is_empty()).collect();
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    if parts.first().is_some_and(|first| is_host(first)) {
        let host = parts.remove(0);
        if !is_word(host, ".-:[]") {
            return false;
        }
    }
    name.len() <= IMAGE_NAME_MAX
        && parts.into_iter().chain([last]).all(is_part)
        && tag.is_none_or(|tag| is_word(tag, "._-") && !tag.starts_with(['.', '-']))
        && digest
            .is_none_or(|digest| digest.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32 && is_word(hex, "")))
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
    default_volume_sources(volume);
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

/// Defaults of the sources that a pod's volume and a PersistentVolume can have.
pub(crate) fn default_volume_sources(volume: &mut Value) {
    if let Some(host) = some_mut(volume, "hostPath")
        && !has(host, "type")
    {
        set(host, "type", "");
    }
    if let Some(iscsi) = some_mut(volume, "iscsi") {
        set_default(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = some_mut(volume, "rbd") {
        set_default(rbd, "pool", "rbd");
        set_default(rbd, "user", "admin");
        set_default(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(scale_io) = some_mut(volume, "scaleIO") {
        set_default(scale_io, "storageMode", "ThinProvisioned");
        set_default(scale_io, "fsType", "xfs");
    }
    if let Some(azure) = some_mut(volume, "azureDisk") {
        set_absent(azure, "cachingMode", "ReadWrite");
        set_absent(azure, "kind", "Shared");
        set_absent(azure, "fsType", "ext4");
        if !has(azure, "readOnly") {
            set(azure, "readOnly", false);
        }
    }
    if let Some(claim) = some_mut(volume, "ephemeral").and_then(|source| some_mut(source, "volumeClaimTemplate")) {
        claim::default_spec(object_mut(claim, "spec"));
    }
}

/// Takes what a status update may not change from the stored pod.
pub(crate) fn keep_for_status(pod: &mut Value, old: &Value) {
    copy_field(pod, old, "spec");
    let owners = get(old, "metadata").clone();
    copy_field(object_mut(pod, "metadata"), &owners, "ownerReferences");
}
