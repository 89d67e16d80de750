//! Rules for the volumes of a pod and for where containers mount them.

use std::collections::{BTreeMap, BTreeSet};

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::env;
use crate::errors::Errors;
use crate::json::{flag, get, has, int, list, text};
use crate::path::Path;

/// Fields of the pod that a file of a volume may show.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Rules for `volumes`; gives the volumes by name.
pub(super) fn volumes<'v>(spec: &'v Value, path: &Path<'_>, errors: &mut Errors) -> BTreeMap<&'v str, &'v Value> {
    let mut found = BTreeMap::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let (path, name) = (path.index(index), text(volume, "name"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        if found.contains_key(name) {
            errors.duplicate(&path.child("name"), name);
        }
        sources(volume, &path, errors);
        found.insert(name, volume);
    }
    found
}

fn sources(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    for (kind, one) in volume.as_object().into_iter().flatten().filter(|(kind, _)| *kind != "name") {
        count += 1;
        let path = path.child(kind);
        if count > 1 {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        source(kind, one, &path, errors);
    }
    if count == 0 {
        errors.required(path, "must specify a volume type");
    }
}

fn source(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
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
        "projected" => projected(source, path, errors),
        "persistentVolumeClaim" => required(source, &["claimName"], path, errors),
        "csi" => required(source, &["driver"], path, errors),
        "image" => required(source, &["reference"], path, errors),
        "nfs" => {
            required(source, &["server", "path"], path, errors);
            let file = text(source, "path");
            if !file.is_empty() && !file.starts_with('/') {
                errors.invalid(&path.child("path"), file, "must be an absolute path");
            }
        }
        "ephemeral" if !has(source, "volumeClaimTemplate") => {
            errors.required(&path.child("volumeClaimTemplate"), "");
        }
        _ => {}
    }
}

fn required(source: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
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

fn no_backsteps(file: &str, path: &Path<'_>, errors: &mut Errors) {
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
fn local_unreserved_path(file: &str, path: &Path<'_>, errors: &mut Errors) {
    local_path(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

fn mode(source: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
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

fn items(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("items");
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = path.index(index);
        required(item, &["key", "path"], &path, errors);
        local_unreserved_path(text(item, "path"), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
    }
}

fn downward_files(source: &Value, path: &Path<'_>, errors: &mut Errors) {
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

fn projected(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    let (path, mut taken) = (path.child("sources"), BTreeSet::new());
    for (index, one) in list(source, "sources").iter().enumerate() {
        let (path, mut count) = (path.index(index), 0);
        for (kind, part) in one.as_object().into_iter().flatten() {
            let path = path.child(kind);
            count += 1;
            if count > 1 {
                errors.forbidden(&path, "may not specify more than 1 volume type per source");
            }
            projection(kind, part, &path, errors);
            let files = list(part, "items").iter().map(|item| text(item, "path"));
            for file in files.chain(Some(text(part, "path"))).filter(|file| !file.is_empty()) {
                if !taken.insert(file) {
                    errors.invalid(&path, file, "conflicting duplicate paths");
                }
            }
        }
        if count == 0 {
            errors.required(&path, "must specify a volume type");
        }
    }
}

fn projection(kind: &str, part: &Value, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "secret" | "configMap" => {
            required(part, &["name"], path, errors);
            items(part, path, errors);
        }
        "downwardAPI" => downward_files(part, path, errors),
        "serviceAccountToken" => {
            let (seconds, expiry) =
                (int(part, "expirationSeconds").unwrap_or_default(), path.child("expirationSeconds"));
            if seconds < 600 {
                errors.invalid(&expiry, seconds, "may not specify a duration less than 10 minutes");
            } else if seconds > 1 << 32 {
                errors.invalid(&expiry, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            required(part, &["path"], path, errors);
            local_unreserved_path(text(part, "path"), &path.child("path"), errors);
        }
        _ => {}
    }
}

/// Rules for `volumeMounts` and `volumeDevices` of a container.
pub(super) fn mounts(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path<'_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    let here = path.child("volumeMounts");
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
        mount_options(mount, container, &path, &here, errors);
    }
    devices(container, volumes, &path.child("volumeDevices"), errors);
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
    match get(mount, "mountPropagation").as_str() {
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
        }
        Some(other) => errors.unsupported(&recursive_path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path<'_>, errors: &mut Errors) {
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        let (path, name) = (path.index(index), text(device, "name"));
        required(device, &["name", "devicePath"], &path, errors);
        match volumes.get(name) {
            None => errors.not_found(&path.child("name"), name),
            Some(volume) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&path.child("name"), name, detail);
            }
            Some(_) => {}
        }
    }
}
