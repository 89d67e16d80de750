//! Rules for volumes that come over the network or from a driver.
//!
//! Reeve mounts none of them yet; what a pod says of them is checked as Kubernetes checks it, so that a manifest is
//! not refused later for what it said all along.

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::volume::{local_path, required};
use crate::errors::Errors;
use crate::json::{entries, flag, get, has, int, list, text};
use crate::meta;
use crate::path::Path;

/// Fields that must not be empty, in the order of Kubernetes' complaints.
const REQUIRED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

/// Most characters of the name of a CSI driver.
const DRIVER_MAX: usize = 63;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Rules for a source that Reeve cannot mount.
pub(super) fn rules(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some((_, fields)) = REQUIRED.iter().find(|(own, _)| *own == kind) {
        for field in *fields {
            if text(source, field).is_empty() && list(source, field).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
    }
    match kind {
        "gitRepo" => local_path(text(source, "directory"), &path.child("directory"), errors),
        "gcePersistentDisk" | "awsElasticBlockStore" => partition(source, "partition", 1, path, errors),
        "nfs" if !text(source, "path").starts_with('/') => {
            errors.invalid(&path.child("path"), text(source, "path"), "must be an absolute path");
        }
        "iscsi" => iscsi(source, path, errors),
        "quobyte" => quobyte(source, path, errors),
        "azureDisk" => azure_disk(source, path, errors),
        "flexVolume" => flex_options(source, path, errors),
        "storageos" => {
            for field in ["volumeName", "volumeNamespace"].into_iter().filter(|field| !text(source, field).is_empty()) {
                let name = text(source, field);
                errors.invalid_each(&path.child(field), name, names::dns1123_label(name));
            }
        }
        "flocker" => flocker(source, path, errors),
        "fc" => fibre_channel(source, path, errors),
        "csi" => csi(source, path, errors),
        "ephemeral" => claim_template(source, path, errors),
        _ => {}
    }
}

fn partition(source: &Value, field: &str, first: i64, path: &Path<'_>, errors: &mut Errors) {
    if let Some(number) = int(source, field).filter(|number| !(0..=255).contains(number)) {
        errors.invalid(&path.child(field), number, format!("must be between {first} and 255, inclusive"));
    }
}

fn iscsi(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    const FORMAT: &str = "must be valid format starting with iqn, eui, or naa";
    let starts_well = |name: &str| ["iqn", "eui", "naa"].iter().any(|start| name.starts_with(start));
    let name = text(source, "iqn");
    if !name.is_empty() && !starts_well(name) {
        errors.invalid(&path.child("iqn"), name, FORMAT);
    }
    partition(source, "lun", 0, path, errors);
    if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && !has(source, "secretRef") {
        errors.required(&path.child("secretRef"), "");
    }
    if let Some(name) = get(source, "initiatorName").as_str().filter(|name| !starts_well(name)) {
        errors.invalid(&path.child("initiatorname"), name, FORMAT);
    }
}

fn quobyte(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, here) = (text(source, "registry"), path.child("registry"));
    if registry.is_empty() {
        errors.required(&here, PAIRS);
    } else if text(source, "tenant").len() > 64 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(&path.child("tenant"), detail);
    } else {
        for _ in registry.split(',').filter(|pair| pair.matches(':').count() != 1) {
            errors.invalid(&here, registry, PAIRS);
        }
    }
    required(source, &["volume"], path, errors);
}

fn azure_disk(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, supported) in
        [("cachingMode", &["None", "ReadOnly", "ReadWrite"]), ("kind", &["Dedicated", "Managed", "Shared"])]
    {
        if let Some(value) = get(source, field).as_str().filter(|value| !supported.contains(value)) {
            errors.unsupported(&path.child(field), value, supported);
        }
    }
    let (disk, is_managed) = (text(source, "diskURI"), text(source, "kind") == "Managed");
    let (start, form) = if is_managed {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !disk.starts_with(start) {
        errors.unsupported(&path.child("diskURI"), disk, &[form]);
    }
}

fn flex_options(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("options");
    for (key, _) in entries(source, "options") {
        let domain = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            errors.invalid(&path.key(key), key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn flocker(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (name, id) = (text(source, "datasetName"), text(source, "datasetUUID"));
    if name.is_empty() && id.is_empty() {
        errors.required(path, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !id.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.invalid(path, "resource", detail);
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn fibre_channel(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (targets, ids) = (list(source, "targetWWNs"), list(source, "wwids"));
    let here = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        errors.required(&here, "must specify either targetWWNs or wwids, but not both");
    }
    if !targets.is_empty() && !ids.is_empty() {
        errors.invalid(&here, targets.to_vec(), "targetWWNs and wwids can not be specified simultaneously");
    }
    if !targets.is_empty() {
        if has(source, "lun") {
            partition(source, "lun", 0, path, errors);
        } else {
            errors.required(&path.child("lun"), "lun is required if targetWWNs is specified");
        }
    }
}

fn csi(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (driver, here) = (text(source, "driver"), path.child("driver"));
    if driver.is_empty() {
        errors.required(&here, "");
    } else {
        if driver.len() > DRIVER_MAX {
            errors.too_long(&here, DRIVER_MAX);
        }
        errors.invalid_each(&here, driver, names::dns1123_subdomain(&driver.to_lowercase()));
    }
    if has(source, "nodePublishSecretRef") {
        let name = text(get(source, "nodePublishSecretRef"), "name");
        if name.is_empty() {
            required(get(source, "nodePublishSecretRef"), &["name"], &path.child("nodePublishSecretRef"), errors);
        } else {
            errors.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
        }
    }
}

fn claim_template(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("volumeClaimTemplate");
    if !has(source, "volumeClaimTemplate") {
        return errors.required(&path, "");
    }
    let template = get(source, "volumeClaimTemplate");
    let (own, meta_path) = (get(template, "metadata"), path.child("metadata"));
    meta::annotations(own, &meta_path.child("annotations"), errors);
    meta::labels(get(own, "labels"), &meta_path.child("labels"), errors);
    for (field, _) in entries(template, "metadata").filter(|(field, _)| !["annotations", "labels"].contains(field)) {
        errors.forbidden(&meta_path.child(field), "cannot be set");
    }
    claim(get(template, "spec"), &path.child("spec"), errors);
}

fn claim(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (modes, modes_path) = (list(spec, "accessModes"), path.child("accessModes"));
    if modes.is_empty() {
        errors.required(&modes_path, "at least 1 access mode is required");
    }
    meta::label_selector(get(spec, "selector"), &path.child("selector"), errors);
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.unsupported(&modes_path, mode, ACCESS_MODES);
    }
    let single = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    let is_other = |mode: &Value| mode.as_str().is_some_and(|mode| ACCESS_MODES[..3].contains(&mode));
    if single && modes.iter().any(is_other) {
        errors.forbidden(&modes_path, "may not use ReadWriteOncePod with other access modes");
    }
    let storage_path = path.child("resources");
    let storage_path = storage_path.key("storage");
    let storage = get(get(get(spec, "resources"), "requests"), "storage");
    match Quantity::from_value(storage) {
        _ if storage.is_null() => errors.required(&storage_path, ""),
        Ok(amount) if amount.is_zero() || amount.is_negative() => {
            errors.invalid(&storage_path, amount.to_string(), "must be greater than zero");
        }
        _ => {}
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        errors.invalid_each(&path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if let Some(mode) = get(spec, "volumeMode").as_str().filter(|mode| !["Block", "Filesystem"].contains(mode)) {
        errors.unsupported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}
