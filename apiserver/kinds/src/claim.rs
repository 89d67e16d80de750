//! Claims for storage: the spec of a PersistentVolumeClaim, wherever it stands.
//!
//! Source: `ValidatePersistentVolumeClaimSpec` of `pkg/apis/core/validation` and `pkg/api/persistentvolumeclaim` of
//! Kubernetes v1.36. What is not here: the PersistentVolumeClaim kind itself (`kinds::core`).

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::json::{at, get, has, list, object_mut, set_absent, set_default, text};
use crate::meta;
use crate::path::Path;
use crate::pod::resources::round_up;

/// How a volume may be accessed.
pub(crate) const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What a volume is shown as to its containers.
pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// The annotation in which the storage class stood before there was a field for it.
pub(crate) const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Defaults of a claim that stands by itself or in `spec.volumeClaimTemplates`.
pub(crate) fn default(claim: &mut Value) {
    object_mut(claim, "metadata");
    let spec = object_mut(claim, "spec");
    default_spec(spec);
    let status = object_mut(claim, "status");
    set_default(status, "phase", "Pending");
    round_up(status, "capacity");
    round_up(status, "allocatedResources");
}

/// Defaults of a claim's spec.
pub(crate) fn default_spec(spec: &mut Value) {
    set_absent(spec, "volumeMode", "Filesystem");
    let resources = object_mut(spec, "resources");
    round_up(resources, "limits");
    round_up(resources, "requests");
}

/// Rules for a list of access modes.
pub(crate) fn access_modes(modes: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.unsupported(path, mode, ACCESS_MODES);
    }
    let single = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    let is_other = |mode: &Value| mode.as_str().is_some_and(|mode| ACCESS_MODES[..3].contains(&mode));
    if single && modes.iter().any(is_other) {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Rules for a claim's spec. `any_group`: the group of a data source is not looked at (it was accepted once).
pub(crate) fn spec_rules(spec: &Value, any_group: bool, path: &Path<'_>, errors: &mut Errors) {
    let (modes, modes_path) = (list(spec, "accessModes"), path.child("accessModes"));
    if modes.is_empty() {
        errors.required(&modes_path, "at least 1 access mode is required");
    }
    meta::label_selector(get(spec, "selector"), &path.child("selector"), errors);
    access_modes(modes, &modes_path, errors);
    storage(spec, path, errors);
    class(spec, "storageClassName", path, errors);
    if let Some(mode) = get(spec, "volumeMode").as_str().filter(|mode| !VOLUME_MODES.contains(mode)) {
        errors.unsupported(&path.child("volumeMode"), mode, VOLUME_MODES);
    }
    for field in ["dataSource", "dataSourceRef"].into_iter().filter(|field| has(spec, field)) {
        source(get(spec, field), any_group, &path.child(field), errors);
    }
    sources_agree(spec, path, errors);
    class(spec, "volumeAttributesClassName", path, errors);
}

fn storage(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("resources");
    let path = path.key("storage");
    let amount = at(spec, &["resources", "requests", "storage"]);
    match Quantity::from_value(amount) {
        _ if amount.is_null() => errors.required(&path, ""),
        Ok(amount) => positive(amount, &path, errors),
        Err(_) => {}
    }
}

/// An amount of storage is more than nothing.
pub(crate) fn positive(amount: Quantity, path: &Path<'_>, errors: &mut Errors) {
    if amount.is_zero() || amount.is_negative() {
        errors.invalid(path, amount.to_string(), "must be greater than zero");
    }
}

fn class(spec: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let class = text(spec, field);
    if !class.is_empty() {
        errors.invalid_each(&path.child(field), class, names::dns1123_subdomain(class));
    }
}

/// Rules for what a claim is filled from.
fn source(source: &Value, any_group: bool, path: &Path<'_>, errors: &mut Errors) {
    for field in ["name", "kind"].into_iter().filter(|field| text(source, field).is_empty()) {
        errors.required(&path.child(field), "");
    }
    let (group, kind, namespace) = (text(source, "apiGroup"), text(source, "kind"), text(source, "namespace"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        errors.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    if !group.is_empty() && !any_group {
        errors.invalid_each(&path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    if !namespace.is_empty() {
        errors.invalid_each(&path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
}

fn sources_agree(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (old, new) = (get(spec, "dataSource"), get(spec, "dataSourceRef"));
    if old.is_null() || new.is_null() {
        return;
    }
    // Kubernetes shows an empty object as the value.
    if !text(new, "namespace").is_empty() {
        errors.invalid(path, json!({}), "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|field| get(old, field) != get(new, field)) {
        errors.invalid(path, json!({}), "must match dataSourceRef");
    }
}

/// The warnings about a claim's spec.
pub(crate) fn warnings(spec: &Value, path: &Path<'_>) -> Vec<String> {
    let resources = path.child("resources");
    let mut warnings = Vec::new();
    for side in ["requests", "limits"] {
        let amount = at(spec, &["resources", side, "storage"]);
        if let Some(amount) = Quantity::from_value(amount).ok().filter(|amount| !amount.is_whole()) {
            let path = resources.child(side);
            let path = path.key("storage");
            warnings.push(format!("{path}: fractional byte value \"{amount}\" is invalid, must be an integer"));
        }
    }
    warnings
}

/// Access modes in short, always in the same order: `RWO,ROX`.
pub(crate) fn short_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let found = SHORT.iter().filter(|(long, _)| modes.iter().any(|mode| mode == long));
    found.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The storage class of a volume or claim: the old annotation counts first.
pub(crate) fn storage_class(object: &Value) -> &str {
    let old = get(at(object, &["metadata", "annotations"]), OLD_CLASS).as_str();
    old.unwrap_or_else(|| text(get(object, "spec"), "storageClassName"))
}
