//! The parts of a pod that have subresources of their own: what each keeps of a request, and what it lets change.
//!
//! `ephemeralcontainers` adds containers, `resize` changes what containers may use. Source: the strategies of pods,
//! ValidatePodEphemeralContainersUpdate and ValidatePodResize of Kubernetes.

use serde_json::{Map, Value};

use super::rules;
use crate::errors::Errors;
use crate::json::{copy_field, get, has, list, object_mut, remove, set, text, text_at};
use crate::path::Path;
use crate::{pod, shown};

/// What of the metadata only the main resource changes.
const MAIN_METADATA: [&str; 6] =
    ["annotations", "deletionTimestamp", "finalizers", "generation", "labels", "ownerReferences"];

/// Pods that the node made by itself, from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn keep_metadata(object: &mut Value, old: &Value) {
    let metadata = object_mut(object, "metadata");
    for field in MAIN_METADATA {
        copy_field(metadata, get(old, "metadata"), field);
    }
}

/// Keeps of a request only the ephemeral containers.
pub(super) fn keep_ephemeral(object: &mut Value, old: &Value) {
    let wanted = get(get(object, "spec"), "ephemeralContainers").clone();
    for field in ["spec", "status"] {
        copy_field(object, old, field);
    }
    keep_metadata(object, old);
    let spec = object_mut(object, "spec");
    if wanted.is_null() {
        remove(spec, "ephemeralContainers");
    } else {
        set(spec, "ephemeralContainers", wanted);
    }
}

/// Keeps of a request only what containers may use. Containers that come, go or change places are left for the
/// rules to complain of.
pub(super) fn keep_resources(object: &mut Value, old: &Value) {
    let (spec, was) = (get(object, "spec"), get(old, "spec"));
    let lists = ["containers", "initContainers"];
    if lists.iter().any(|name| list(spec, name).len() != list(was, name).len()) {
        return;
    }
    let merged = lists.map(|name| merged(list(spec, name), list(was, name)));
    let of_pod = get(spec, "resources").clone();
    for field in ["spec", "status"] {
        copy_field(object, old, field);
    }
    keep_metadata(object, old);
    let spec = object_mut(object, "spec");
    for (name, containers) in lists.into_iter().zip(merged).filter(|(_, containers)| !containers.is_empty()) {
        set(spec, name, containers);
    }
    if of_pod.is_null() {
        remove(spec, "resources");
    } else {
        set(spec, "resources", of_pod);
    }
}

fn merged(new: &[Value], old: &[Value]) -> Vec<Value> {
    if new.iter().zip(old).any(|(new, old)| text(new, "name") != text(old, "name")) {
        return new.to_vec();
    }
    let one = |(new, old): (&Value, &Value)| {
        let mut container = old.clone();
        for field in ["resizePolicy", "resources"] {
            copy_field(&mut container, new, field);
        }
        container
    };
    new.iter().zip(old).map(one).collect()
}

fn is_mirror(pod: &Value) -> bool {
    has(get(get(pod, "metadata"), "annotations"), MIRROR)
}

/// Rules for a change of the ephemeral containers: they only come.
pub(super) fn ephemeral_update(object: &Value, old: &Value, errors: &mut Errors) {
    if is_mirror(old) {
        *errors = Errors::default();
        return errors.forbidden(&Path::of(""), "static pods do not support ephemeral containers");
    }
    rules::whole(object, errors);
    let path = Path::of("spec");
    let path = path.child("ephemeralContainers");
    let now = list(get(object, "spec"), "ephemeralContainers");
    for was in list(get(old, "spec"), "ephemeralContainers") {
        let name = text(was, "name");
        match now.iter().rfind(|one| text(one, "name") == name) {
            None => errors.forbidden(&path, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(one) if one != was => {
                let difference = shown::difference("EphemeralContainer", was, one);
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n{difference}");
                errors.forbidden(&path, detail);
            }
            Some(_) => {}
        }
    }
}

/// Rules for a change of what containers may use.
pub(super) fn resize(object: &Value, old: &Value, errors: &mut Errors) {
    let refusal = if is_mirror(old) {
        Some("static pods cannot be resized")
    } else {
        (text_at(old, &["spec", "os", "name"]) == "windows").then_some("windows pods cannot be resized")
    };
    if let Some(refusal) = refusal {
        *errors = Errors::default();
        return errors.forbidden(&Path::of(""), refusal);
    }
    rules::whole(object, errors);
    let (spec, was, path) = (get(object, "spec"), get(old, "spec"), Path::of("spec"));
    let class = match text_at(old, &["status", "qosClass"]) {
        "" => pod::qos_class(was),
        class => class,
    };
    if class != pod::qos_class(spec) {
        let shown = text_at(object, &["status", "qosClass"]);
        errors.invalid(&path, shown, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_resizable(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    let before = errors.count();
    let mut masked = spec.clone();
    pod_level(spec, was, &mut masked, &path, errors);
    if !has_same_containers(spec, was, &path, errors) {
        return;
    }
    for kind in ["initContainers", "containers"] {
        for (index, (new, old)) in list(spec, kind).iter().zip(list(was, kind)).enumerate() {
            nothing_removed(new, old, &path.child(kind).index(index).child("resources"), errors);
        }
    }
    mask_containers(&mut masked, was, &path, errors);
    if errors.count() == before && plain(&masked) != plain(was) {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

/// Whether the node says of a running container what it may use: then it can change it.
fn is_resizable(pod: &Value) -> bool {
    let running = list(get(pod, "status"), "containerStatuses").iter().find(|one| has(get(one, "state"), "running"));
    running.is_none_or(|one| has(one, "resources"))
}

/// Whether a list of amounts lacks one that was there.
fn is_removed(new: &Value, old: &Value, field: &str) -> bool {
    let names = |amounts: &Value| -> Vec<String> {
        get(amounts, field).as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    names(old).iter().any(|name| !names(new).contains(name))
}

fn nothing_removed(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, what) in [("requests", "resource requests"), ("limits", "resource limits")] {
        if is_removed(get(new, "resources"), get(old, "resources"), field) {
            errors.forbidden(&path.child(field), format!("{what} cannot be removed"));
        }
    }
}

fn is_set(resources: &Value) -> bool {
    ["requests", "limits"].iter().any(|field| get(resources, field).as_object().is_some_and(|map| !map.is_empty()))
}

fn pod_level(spec: &Value, was: &Value, masked: &mut Value, path: &Path<'_>, errors: &mut Errors) {
    let (new, old) = (get(spec, "resources"), get(was, "resources"));
    if !is_set(new) && !is_set(old) {
        return;
    }
    if !old.is_null() && new.is_null() {
        return errors.forbidden(&path.child("resources"), "pod-level resources cannot be removed");
    }
    for (field, what) in [("requests", "resource requests"), ("limits", "resource limits")] {
        if is_removed(new, old, field) {
            let path = path.child("resources");
            errors.forbidden(&path.child(field), format!("pod-level {what} cannot be removed"));
        }
    }
    if !new.is_null() {
        let mut resources = new.clone();
        mask_amounts(&mut resources, old);
        set(masked, "resources", resources);
    }
    // Of a pod that had none, nothing may be left.
    let left = plain(get(masked, "resources"));
    let is_nothing = old.is_null() && left.as_object().is_some_and(Map::is_empty);
    if left != plain(old) && !is_nothing {
        errors.forbidden(path, "only cpu and memory resources are mutable at pod-level");
    }
}

fn has_same_containers(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) -> bool {
    let before = errors.count();
    for kind in ["containers", "initContainers"] {
        let (new, old, path) = (list(spec, kind), list(was, kind), path.child(kind));
        if new.len() != old.len() {
            errors.forbidden(&path, format!("{kind} may not be added or removed on resize"));
            continue;
        }
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            if text(new, "name") != text(old, "name") {
                let detail = format!("{kind} may not be renamed or reordered on resize");
                errors.forbidden(&path.index(index).child("name"), detail);
            }
        }
    }
    errors.count() == before
}

/// Makes processor and memory what they were, and complains of what differs still.
fn mask_containers(masked: &mut Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    for kind in ["containers", "initContainers"] {
        let mut containers = list(masked, kind).to_vec();
        for (index, (container, old)) in containers.iter_mut().zip(list(was, kind)).enumerate() {
            let is_changed = plain(container) != plain(old);
            mask_container(container, old);
            let is_init = kind == "initContainers";
            let own = path.child(kind);
            let own = own.index(index);
            if plain(container) != plain(old) {
                match is_init {
                    true => errors
                        .forbidden(&own, "only cpu and memory resources for init or sidecar containers are mutable"),
                    false => errors.forbidden(path, "only cpu and memory resources are mutable"),
                }
            }
            if is_init && is_changed && text(container, "restartPolicy") != "Always" {
                let restarts = |policy: &&Value| text(policy, "restartPolicy") == "RestartContainer";
                for _ in list(container, "resizePolicy").iter().filter(restarts) {
                    let detail =
                        "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                    errors.forbidden(&own, detail);
                }
            }
        }
        if !containers.is_empty() {
            set(masked, kind, containers);
        }
    }
}

/// What is left of the resources are their amounts: claims do not survive a resize.
fn mask_container(container: &mut Value, old: &Value) {
    let mut resources = get(container, "resources").clone();
    if let Some(fields) = resources.as_object_mut() {
        fields.retain(|field, _| ["limits", "requests"].contains(&field.as_str()));
    } else {
        resources = Value::Object(Map::new());
    }
    mask_amounts(&mut resources, get(old, "resources"));
    set(container, "resources", resources);
}

fn mask_amounts(resources: &mut Value, old: &Value) {
    for field in ["limits", "requests"] {
        let mut amounts = get(resources, field).as_object().cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            match get(old, field).get(name) {
                Some(was) => amounts.insert(name.to_owned(), was.clone()),
                None => amounts.remove(name),
            };
        }
        set(resources, field, amounts);
    }
}

/// Without what is empty: whether it is there makes no difference.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| (name.clone(), plain(value)));
            let is_there = |value: &Value| {
                !value.is_null()
                    && !value.as_object().is_some_and(Map::is_empty)
                    && !value.as_array().is_some_and(Vec::is_empty)
            };
            Value::Object(fields.filter(|(_, value)| is_there(value)).collect())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}
