//! PersistentVolume: storage of the cluster that pods can claim.

mod sources;
mod table;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::{Value, json};

use crate::claim::{self, OLD_CLASS, VOLUME_MODES};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{
    at, copy_field, entries, get, has, items_mut, list, object_mut, remove, set, set_absent, set_default, text, text_at,
};
use crate::kind::{Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::pod;
use crate::shown;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short: &["pv"],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// Annotation for mount options, from before there was a field for them.
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// The kind.
pub(super) struct PersistentVolumes;

/// The rules for the source of a volume that stands elsewhere than in a PersistentVolume.
pub(in crate::kinds) fn inline_sources(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    sources::rules(spec, "", path, errors);
}

impl Kind for PersistentVolumes {
    wiring!(PersistentVolume, NAMES, table::COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        set_default(object_mut(object, "status"), "phase", "Pending");
        let spec = object_mut(object, "spec");
        set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
        set_absent(spec, "volumeMode", "Filesystem");
        pod::resources::round_up(spec, "capacity");
        pod::default_volume_sources(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        let now = text_at(object, &["metadata", "creationTimestamp"]).to_owned();
        let mut status = json!({"phase": "Pending"});
        if !now.is_empty() {
            set(&mut status, "lastPhaseTransitionTime", now);
        }
        set(object, "status", status);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(object, &mut errors);
        mount_options(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => copy_field(object, old, "status"),
            _ => {
                copy_field(object, old, "spec");
                let (status, was) = (object_mut(object, "status"), get(old, "status"));
                if text(status, "phase") == text(was, "phase") && !has(status, "lastPhaseTransitionTime") {
                    copy_field(status, was, "lastPhaseTransitionTime");
                }
            }
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part != Part::Main {
            META.update(object, old, &mut errors);
            return errors.into_vec();
        }
        META.create(object, &mut errors);
        spec_rules(object, &mut errors);
        mount_options(object, &mut errors);
        META.create(object, &mut errors);
        spec_rules(object, &mut errors);
        immutable(get(object, "spec"), get(old, "spec"), &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(object)
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::row(object, now)
    }
}

fn spec_rules(object: &Value, errors: &mut Errors) {
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    let (modes, modes_path) = (list(spec, "accessModes"), path.child("accessModes"));
    if modes.is_empty() {
        errors.required(&modes_path, "");
    }
    claim::access_modes(modes, &modes_path, errors);
    capacity(spec, &path.child("capacity"), errors);
    let (policy, policy_path) =
        (text(spec, "persistentVolumeReclaimPolicy"), path.child("persistentVolumeReclaimPolicy"));
    let policies = ["Delete", "Recycle", "Retain"];
    if !policy.is_empty() && !policies.contains(&policy) {
        errors.unsupported(&policy_path, policy, &policies);
    }
    if has(spec, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        let path = path.child("required");
        let required = at(spec, &["nodeAffinity", "required"]);
        if required.is_null() {
            errors.required(&path, "must specify required node constraints");
        } else {
            pod::node_selector(required, &path, errors);
        }
    }
    sources::rules(spec, text_at(object, &["metadata", "name"]), &path, errors);
    let host_path = at(spec, &["hostPath", "path"]).as_str();
    if policy == "Recycle" && host_path.is_some_and(is_root) {
        errors.forbidden(&policy_path, "may not be 'recycle' for a hostPath mount of '/'");
    }
    classes(spec, &path, errors);
}

fn capacity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let capacity = get(spec, "capacity");
    let count = entries(spec, "capacity").count();
    if count == 0 {
        errors.required(path, "");
    }
    if !has(capacity, "storage") || count > 1 {
        errors.unsupported_value(path, capacity.clone(), &["storage"]);
    }
    for (name, amount) in entries(spec, "capacity") {
        let (path, Ok(amount)) = (path.key(name), Quantity::from_value(amount)) else { continue };
        if amount.value() < 0 {
            errors.invalid(&path, amount.value(), "must be a valid resource quantity");
        }
        claim::positive(amount, &path, errors);
    }
}

/// Whether a path leads to `/`, dots and double slashes aside.
fn is_root(path: &str) -> bool {
    let mut depth: usize = 0;
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        depth = if part == ".." { depth.saturating_sub(1) } else { depth + 1 };
    }
    path.starts_with('/') && depth == 0
}

fn classes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        errors.invalid_each(&path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if let Some(mode) = get(spec, "volumeMode").as_str().filter(|mode| !VOLUME_MODES.contains(mode)) {
        errors.unsupported(&path.child("volumeMode"), mode, VOLUME_MODES);
    }
    if let Some(class) = get(spec, "volumeAttributesClassName").as_str() {
        let here = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.required(&here, "an empty string is disallowed");
        } else {
            errors.invalid_each(&here, class, names::dns1123_subdomain(class));
        }
        if !has(spec, "csi") {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

/// The annotation means something for volumes that are mounted by a file system's own tools only.
fn mount_options(object: &Value, errors: &mut Errors) {
    if has(at(object, &["metadata", "annotations"]), MOUNT_OPTIONS)
        && !sources::takes_mount_options(get(object, "spec"))
    {
        let path = Path::of("metadata");
        let path = path.child("annotations");
        errors.forbidden(&path.child(MOUNT_OPTIONS), "may not specify mount options for this volume type");
    }
}

/// What stays as it is once the volume is there.
fn immutable(spec: &Value, was: &Value, errors: &mut Errors) {
    let (mut now, before) = (sources::only(spec), sources::only(was));
    // The secret for growing the volume may come later.
    if has(&now, "csi") && has(&before, "csi") && !has(get(&before, "csi"), "controllerExpandSecretRef") {
        remove(object_mut(&mut now, "csi"), "controllerExpandSecretRef");
    }
    let path = Path::of("spec");
    if now != before {
        let difference = shown::difference("PersistentVolumeSource", &before, &now);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        errors.forbidden(&path.child("persistentvolumesource"), detail);
    }
    errors.immutable(&Path::of("volumeMode"), get(spec, "volumeMode"), get(was, "volumeMode"));
    if has(was, "nodeAffinity") {
        let newer = with_new_labels(get(was, "nodeAffinity"), get(spec, "nodeAffinity"));
        if newer != *get(spec, "nodeAffinity") {
            let shown = shown::internal("VolumeNodeAffinity", get(spec, "nodeAffinity"));
            let detail = "field is immutable, except for updating from beta label to GA";
            errors.invalid_object(&Path::of("nodeAffinity"), shown, detail);
        }
    }
    let field = "volumeAttributesClassName";
    if has(was, field) && !has(spec, field) {
        errors.forbidden(&path.child(field), "update from non-nil value to nil is forbidden");
    }
}

/// A node affinity with labels of nodes renamed to what they are called today, where `now` calls them so.
fn with_new_labels(was: &Value, now: &Value) -> Value {
    const RENAMED: [(&str, &str); 5] = [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ];
    let mut renamed = was.clone();
    let new_terms = list(get(now, "required"), "nodeSelectorTerms");
    for (term, new) in items_mut(object_mut(&mut renamed, "required"), "nodeSelectorTerms").zip(new_terms) {
        for (one, new) in items_mut(term, "matchExpressions").zip(list(new, "matchExpressions")) {
            if RENAMED.contains(&(text(one, "key"), text(new, "key"))) {
                copy_field(one, new, "key");
            }
        }
    }
    renamed
}

fn warnings(object: &Value) -> Vec<String> {
    const OLD_SOURCES: [(&str, &str, &str); 6] = [
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    let (spec, notes) = (get(object, "spec"), at(object, &["metadata", "annotations"]));
    let mut warnings = Vec::new();
    for (key, advice) in [
        (OLD_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ] {
        if has(notes, key) {
            warnings.push(format!("metadata.annotations[{key}]: {advice}"));
        }
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    let path = Path::of("spec");
    let path = path.child("nodeAffinity");
    let path = path.child("required");
    let path = path.child("nodeSelectorTerms");
    for (index, term) in list(at(spec, &["nodeAffinity", "required"]), "nodeSelectorTerms").iter().enumerate() {
        pod::old_node_labels(term, false, &path.index(index), &mut warnings);
    }
    for (_, shown, fate) in OLD_SOURCES.iter().filter(|(source, _, _)| has(spec, source)) {
        warnings.push(format!("spec.{shown}: {fate}"));
    }
    warnings
}
