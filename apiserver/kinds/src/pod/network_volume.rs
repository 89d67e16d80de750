//! Rules for volumes that come over the network or from a driver.
//!
//! Reeve mounts none of them yet; what a pod says of them is checked as Kubernetes checks it, so that a manifest is
//! not refused later for what it said all along.

use reeve_api::names;
use serde_json::Value;

use super::volume::{local_path, required};
use crate::claim;
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
    ("iscsi", &["targetPortal"]),
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
        "iscsi" => {
            const FORMAT: &str = "must be valid format starting with iqn, eui, or naa";
            iscsi(source, FORMAT, path, errors);
            iscsi_initiator(source, FORMAT, path, errors);
        }
        "quobyte" => quobyte(source, path, errors),
        "azureDisk" => azure_disk(source, path, errors),
        "flexVolume" => flex_options(source, path, errors),
        "cinder" => secret_name(source, path, errors),
        "storageos" => {
            for field in ["volumeName", "volumeNamespace"].into_iter().filter(|field| !text(source, field).is_empty()) {
                let name = text(source, field);
                errors.invalid_each(&path.child(field), name, names::dns1123_label(name));
            }
            secret_name(source, path, errors);
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

/// A reference to a secret has a name.
fn secret_name(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    if has(source, "secretRef") {
        required(get(source, "secretRef"), &["name"], &path.child("secretRef"), errors);
    }
}

/// Rules for an iSCSI target but for its portal; `unknown` is said of a name of no known kind.
pub(crate) fn iscsi(source: &Value, unknown: &str, path: &Path<'_>, errors: &mut Errors) {
    let name = text(source, "iqn");
    if name.is_empty() {
        errors.required(&path.child("iqn"), "");
    } else {
        iscsi_name(name, unknown, &path.child("iqn"), errors);
    }
    partition(source, "lun", 0, path, errors);
    if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && !has(source, "secretRef") {
        errors.required(&path.child("secretRef"), "");
    }
}

/// Rules for the name with which a node turns to an iSCSI target.
pub(crate) fn iscsi_initiator(source: &Value, unknown: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(name) = get(source, "initiatorName").as_str() {
        iscsi_name(name, unknown, &path.child("initiatorname"), errors);
    }
}

fn iscsi_name(name: &str, unknown: &str, path: &Path<'_>, errors: &mut Errors) {
    let is_hex = |rest: &str, len: usize| {
        let mut letters = rest.chars();
        letters.next().is_some() && letters.clone().count() == len && letters.all(|one| one.is_ascii_alphanumeric())
    };
    let is_sound = match name.get(..3) {
        Some("iqn") => name.match_indices("iqn.").any(|(start, _)| is_qualified(&name[start + 4..])),
        Some("eui") => is_hex(&name[3..], 16),
        Some("naa") => is_hex(&name[3..], 32),
        _ => return errors.invalid(path, name, unknown),
    };
    if !is_sound {
        errors.invalid(path, name, "must be valid format");
    }
}

/// `2001-04.com.example:disk`: when a domain was taken, the domain, and a name in it.
fn is_qualified(rest: &str) -> bool {
    let date: Vec<_> = rest.bytes().take(8).collect();
    let is_date = date.len() == 8
        && date.iter().enumerate().all(|(place, byte)| match place {
            4 => *byte == b'-',
            7 => *byte == b'.',
            _ => byte.is_ascii_digit(),
        });
    let Some((domain, name)) = rest.get(8..).and_then(|rest| rest.split_once(':')).filter(|_| is_date) else {
        return false;
    };
    let is_domain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
    let is_odd = |letter: char| ",;*&$|\t\n\x0c\r ".contains(letter);
    !domain.is_empty() && domain.chars().all(is_domain) && !name.is_empty() && !name.contains(is_odd)
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

/// Rules for the name of a CSI driver.
pub(crate) fn csi_driver(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (driver, here) = (text(source, "driver"), path.child("driver"));
    if driver.is_empty() {
        return errors.required(&here, "");
    }
    if driver.len() > DRIVER_MAX {
        errors.too_long(&here, DRIVER_MAX);
    }
    for complaint in names::dns1123_subdomain(&driver.to_lowercase()) {
        errors.invalid(&here, driver, complaint);
    }
}

fn csi(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    csi_driver(source, path, errors);
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
        // The name that the field has in Go, with a small first letter.
        let field = if field == "uid" { "uID" } else { field };
        errors.forbidden(&meta_path.child(field), "cannot be set");
    }
    claim::spec_rules(get(template, "spec"), false, &path.child("spec"), errors);
}
