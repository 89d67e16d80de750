//! Where a volume's storage comes from.

use reeve_api::names;
use serde_json::{Map, Value};

use crate::errors::Errors;
use crate::json::{get, has, text};
use crate::meta::NameRule;
use crate::path::Path;
use crate::pod;

/// The sources in the order in which Kubernetes looks at them: the second and all that follow are refused.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Sources whose mounts take options.
const WITH_MOUNT_OPTIONS: &[&str] = &[
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

/// Whether the annotation with mount options may stand beside the source.
pub(super) fn takes_mount_options(spec: &Value) -> bool {
    WITH_MOUNT_OPTIONS.iter().any(|source| has(spec, source))
}

/// The sources of a spec and nothing else.
pub(super) fn only(spec: &Value) -> Value {
    let found = SOURCES.iter().filter(|source| has(spec, source));
    found.map(|source| ((*source).to_owned(), get(spec, source).clone())).collect::<Map<_, _>>().into()
}

/// Rules for the sources: exactly one, and sound.
pub(super) fn rules(spec: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut any = false;
    for kind in SOURCES.iter().filter(|kind| has(spec, kind)) {
        // Kubernetes' own names in its complaints; and one source may always stand beside another.
        let refused = if *kind == "cephfs" { "cephFS" } else { kind };
        if any && *kind != "flexVolume" {
            errors.forbidden(&path.child(refused), "may not specify more than 1 volume type");
            continue;
        }
        any = true;
        let shown = if *kind == "gcePersistentDisk" { "persistentDisk" } else { kind };
        source(kind, get(spec, kind), name, &path.child(shown), errors);
        if *kind == "local" && !has(spec, "nodeAffinity") {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if !any {
        errors.required(path, "must specify a volume type");
    }
}

fn source(kind: &str, source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "csi" => return csi(source, path, errors),
        "iscsi" => return iscsi(source, name, path, errors),
        "local" => return local(source, path, errors),
        _ => pod::volume_source(kind, source, true, path, errors),
    }
    match kind {
        "glusterfs" => {
            if let Some(namespace) = get(source, "endpointsNamespace").as_str() {
                let path = path.child("endpointsNamespace");
                if namespace.is_empty() {
                    let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.invalid(&path, namespace, detail);
                } else {
                    errors.invalid_each(&path, namespace, names::dns1123_label(namespace));
                }
            }
        }
        "cinder" | "storageos" => required(source, "secretRef", &["namespace"], path, errors),
        "azureFile" if get(source, "secretNamespace").as_str() == Some("") => {
            errors.required(&path.child("secretNamespace"), "");
        }
        _ => {}
    }
}

/// Fields of a reference that must not be empty.
fn required(source: &Value, reference: &str, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let path = path.child(reference);
    let reference = get(source, reference);
    for field in fields.iter().filter(|field| !reference.is_null() && text(reference, field).is_empty()) {
        errors.required(&path.child(field), "");
    }
}

fn local(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (folder, path) = (text(source, "path"), path.child("path"));
    if folder.is_empty() {
        errors.required(&path, "");
    } else if folder.split('/').any(|part| part == "..") {
        errors.invalid(&path, folder, "must not contain '..'");
    }
}

fn iscsi(source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    /// Most characters of the volume's name, a colon and the portal.
    const PORTAL_MAX: usize = 64;
    let portal = text(source, "targetPortal");
    if portal.is_empty() {
        errors.required(&path.child("targetPortal"), "");
    }
    if has(source, "initiatorName") && name.len() + 1 + portal.len() > PORTAL_MAX {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.invalid(&path.child("targetportal"), portal, detail);
    }
    pod::iscsi(source, "must be valid format", path, errors);
    required(source, "secretRef", &["name"], path, errors);
    pod::iscsi_initiator(source, "must be valid format", path, errors);
}

fn csi(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    pod::csi_driver(source, path, errors);
    if text(source, "volumeHandle").is_empty() {
        errors.required(&path.child("volumeHandle"), "");
    }
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        if has(source, field) {
            secret(get(source, field), &path.child(field), errors);
        }
    }
}

fn secret(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, rule) in
        [("name", names::dns1123_subdomain as NameRule), ("namespace", names::dns1123_label as NameRule)]
    {
        let (value, path) = (text(reference, field), path.child(field));
        if value.is_empty() {
            errors.required(&path, "");
        } else {
            errors.invalid_each(&path, value, rule(value));
        }
    }
}
