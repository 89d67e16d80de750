//! Rules for the volumes of a pod and for where containers mount them.

use std::collections::{BTreeMap, BTreeSet};

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::{container::PULL_POLICIES, env, network_volume, projection};
use crate::errors::Errors;
use crate::json::{flag, get, has, int, list, text};
use crate::path::Path;

/// Fields of the pod that a file of a volume may show.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The sources in the order in which Kubernetes looks at them: the second and all that follow are refused.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Rules for `volumes`; gives the sound ones by name. `pod` is the pod's name, empty in a template.
pub(super) fn volumes<'v>(
    spec: &'v Value,
    pod: Option<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) -> BTreeMap<&'v str, &'v Value> {
    let mut found = BTreeMap::new();
    let all = list(spec, "volumes");
    for (index, volume) in all.iter().enumerate() {
        let (path, name, before) = (path.index(index), text(volume, "name"), errors.count());
        sources(volume, pod, &path, errors);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        if found.contains_key(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if errors.count() == before {
            found.insert(name, volume);
        }
        let claim = text(get(volume, "persistentVolumeClaim"), "claimName");
        let is_made_here = |other: &&Value| {
            has(other, "ephemeral") && pod.is_some_and(|pod| format!("{pod}-{}", text(other, "name")) == claim)
        };
        if has(volume, "persistentVolumeClaim") && all.iter().any(|other| is_made_here(&other)) {
            let path = path.child("persistentVolumeClaim");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&path.child("claimName"), claim, detail);
        }
    }
    found
}

fn sources(volume: &Value, pod: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    let mut found = SOURCES.iter().filter(|kind| has(volume, kind));
    let Some(first) = found.next() else {
        return errors.required(path, "must specify a volume type");
    };
    // Kubernetes' own name for this one in its complaints.
    let shown = if *first == "gcePersistentDisk" { "persistentDisk" } else { first };
    source(first, get(volume, first), pod.is_some(), &path.child(shown), errors);
    let (name, pod) = (text(volume, "name"), pod.unwrap_or_default());
    if *first == "ephemeral" && !name.is_empty() && !pod.is_empty() {
        let claim = format!("{pod}-{name}");
        for complaint in names::dns1123_subdomain(&claim) {
            errors.invalid(&path.child("name"), name, format!("PVC name \"{claim}\": {complaint}"));
        }
    }
    for kind in found {
        let shown = match *kind {
            "cephfs" => "cephFS",
            "downwardAPI" => "downwarAPI",
            kind => kind,
        };
        errors.forbidden(&path.child(shown), "may not specify more than 1 volume type");
    }
}

/// Rules for one source of a volume.
pub(crate) fn source(kind: &str, source: &Value, is_pod: bool, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            let limit = Quantity::from_value(get(source, "sizeLimit")).unwrap_or_default();
            if limit.is_negative() {
                errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => host_path(source, path, errors),
        "secret" => keyed_files(source, "secretName", path, errors),
        "configMap" => keyed_files(source, "name", path, errors),
        "downwardAPI" => {
            mode(source, "defaultMode", path, errors);
            downward_files(source, path, errors);
        }
        "projected" => projection::rules(source, path, errors),
        "image" => {
            if is_pod {
                required(source, &["reference"], path, errors);
            }
            errors.one_of(&path.child("pullPolicy"), text(source, "pullPolicy"), PULL_POLICIES);
        }
        _ => network_volume::rules(kind, source, path, errors),
    }
}

pub(super) fn required(source: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for field in fields.iter().filter(|field| text(source, field).is_empty()) {
        errors.required(&path.child(field), "");
    }
}

fn host_path(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let file = text(source, "path");
    if file.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    no_backsteps(file, &path.child("path"), errors);
    let kind = text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.unsupported(&path.child("type"), kind, HOST_PATH_TYPES);
    }
}

pub(super) fn no_backsteps(file: &str, path: &Path<'_>, errors: &mut Errors) {
    if file.split('/').any(|part| part == "..") {
        errors.invalid(path, file, "must not contain '..'");
    }
}

/// A path inside a volume.
pub(super) fn local_path(file: &str, path: &Path<'_>, errors: &mut Errors) {
    if file.starts_with('/') {
        errors.invalid(path, file, "must be a relative path");
    }
    no_backsteps(file, path, errors);
}

/// A path inside a volume whose hidden `..` names are the agent's own.
pub(super) fn local_unreserved_path(file: &str, path: &Path<'_>, errors: &mut Errors) {
    local_path(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

pub(super) fn mode(source: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(bits) = int(source, field).filter(|bits| !(0..=0o777).contains(bits)) {
        errors.invalid(&path.child(field), bits, MODE);
    }
}

/// A ConfigMap or Secret as files.
fn keyed_files(source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    required(source, &[name], path, errors);
    mode(source, "defaultMode", path, errors);
    items(source, path, errors);
}

pub(super) fn items(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("items");
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = path.index(index);
        required(item, &["key", "path"], &path, errors);
        local_unreserved_path(text(item, "path"), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
    }
}

pub(super) fn downward_files(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    for file in list(source, "items") {
        required(file, &["path"], path, errors);
        local_unreserved_path(text(file, "path"), &path.child("path"), errors);
        match (has(file, "fieldRef"), has(file, "resourceFieldRef")) {
            (true, both) => {
                env::field_ref(get(file, "fieldRef"), FILE_FIELDS, &path.child("fieldRef"), errors);
                if both {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.invalid(path, "resource", detail);
                }
            }
            (false, true) => {
                env::resource_ref(get(file, "resourceFieldRef"), true, &path.child("resourceFieldRef"), errors);
            }
            (false, false) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(file, "mode", path, errors);
    }
}

/// Rules for `volumeMounts` and `volumeDevices` of a container.
pub(super) fn mounts(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path<'_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    let here = path.child("volumeMounts");
    let devices = list(container, "volumeDevices");
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let (path, name, point) = (here.index(index), text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !volumes.contains_key(name) {
            errors.not_found(&path.child("name"), name);
        }
        if point.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if !taken.insert(point) {
            errors.invalid(&path.child("mountPath"), point, "must be unique");
        }
        if devices.iter().any(|device| text(device, "name") == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| text(device, "devicePath") == point) {
            errors.invalid(&path.child("mountPath"), point, "must not already exist as a path in volumeDevices");
        }
        mount_options(mount, container, &path, &here, errors);
    }
    block_devices(container, volumes, &path.child("volumeDevices"), errors);
}

fn mount_options(mount: &Value, container: &Value, path: &Path<'_>, list_path: &Path<'_>, errors: &mut Errors) {
    let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !sub.is_empty() {
        local_path(sub, &list_path.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&path.child("subPathExpr"), expression, detail);
        }
        local_path(expression, &list_path.child("subPathExpr"), errors);
    }
    let propagation_path = list_path.child("mountPropagation");
    let propagation = get(mount, "mountPropagation").as_str();
    match propagation {
        None | Some("None" | "HostToContainer") => {}
        Some("Bidirectional") => {
            if !flag(get(container, "securityContext"), "privileged") {
                let detail = "Bidirectional mount propagation is available only to privileged containers";
                errors.forbidden(&propagation_path, detail);
            }
        }
        Some(other) => {
            errors.unsupported(&propagation_path, other, &["Bidirectional", "HostToContainer", "None"]);
        }
    }
    let recursive_path = list_path.child("recursiveReadOnly");
    match get(mount, "recursiveReadOnly").as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                errors.forbidden(&recursive_path, "may only be specified when readOnly is true");
            }
            if propagation.is_some_and(|propagation| propagation != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(&recursive_path, detail);
            }
        }
        Some(other) => errors.unsupported(&recursive_path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn block_devices(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path<'_>, errors: &mut Errors) {
    let (mut seen_names, mut seen_paths) = (BTreeSet::new(), BTreeSet::new());
    let mounts = list(container, "volumeMounts");
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        let (path, name, file) = (path.index(index), text(device, "name"), text(device, "devicePath"));
        required(device, &["name"], &path, errors);
        let (name_path, file_path) = (path.child("name"), path.child("devicePath"));
        if !name.is_empty() && !seen_names.insert(name) {
            errors.invalid(&name_path, name, "must be unique");
        }
        match volumes.get(name) {
            None => errors.not_found(&name_path, name),
            Some(volume) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name_path, name, detail);
            }
            Some(_) => {}
        }
        required(device, &["devicePath"], &path, errors);
        if seen_paths.contains(file) {
            errors.invalid(&file_path, file, "must be unique");
        }
        if file.split('/').any(|part| part == "..") {
            errors.invalid(&file_path, file, "can not contain backsteps ('..')");
        } else {
            seen_paths.insert(file);
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            errors.invalid(&name_path, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == file) {
            errors.invalid(&file_path, file, "must not already exist as a path in volumeMounts");
        }
    }
}
