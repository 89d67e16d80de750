//! Rules for the environment of a container, and for references to fields and resources of the pod.

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::visit;
use super::volume::no_backsteps;
use crate::errors::Errors;
use crate::json::{get, has, list, text};
use crate::path::Path;

/// Fields that an environment variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Resources that an environment variable or a file may show.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const MEMORY_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Rules for `env`.
pub(super) fn env(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let (path, name) = (path.index(index), text(variable, "name"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_each(&path.child("name"), name, names::env_name(name));
        }
        if has(variable, "valueFrom") {
            value_from(variable, &path.child("valueFrom"), errors);
        }
    }
}

fn value_from(variable: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (from, mut sources) = (get(variable, "valueFrom"), 0);
    let mut source = |name: &'static str| {
        let found = Some(get(from, name)).filter(|source| !source.is_null());
        sources += usize::from(found.is_some());
        found
    };
    if let Some(field) = source("fieldRef") {
        field_ref(field, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = source("resourceFieldRef") {
        resource_ref(resource, false, &path.child("resourceFieldRef"), errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(key) = source(name) {
            key_ref(key, &path.child(name), errors);
        }
    }
    if let Some(file) = source("fileKeyRef") {
        file_ref(file, &path.child("fileKeyRef"), errors);
    }
    if sources == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if !text(variable, "value").is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_ref(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (name, key) = (text(source, "name"), text(source, "key"));
    errors.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.invalid_each(&path.child("key"), key, names::config_key(key));
    }
}

/// A variable from a file that an init container has written.
fn file_ref(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (key, volume, file) = (text(source, "key"), text(source, "volumeName"), text(source, "path"));
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.invalid_each(&path.child("key"), key, names::env_name(key));
    }
    if volume.is_empty() {
        errors.required(&path.child("volumeName"), "");
    } else {
        errors.invalid_each(&path.child("volumeName"), volume, names::dns1123_label(volume));
    }
    if file.is_empty() {
        errors.required(&path.child("path"), "");
    } else {
        no_backsteps(file, &path.child("path"), errors);
    }
}

/// Files of variables lie in volumes of kind `emptyDir`.
pub(super) fn file_ref_volumes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let volumes = list(spec, "volumes");
    visit(spec, path, &mut |container, path| {
        let path = path.child("env");
        for (index, variable) in list(container, "env").iter().enumerate() {
            let source = get(get(variable, "valueFrom"), "fileKeyRef");
            if source.is_null() {
                continue;
            }
            let (path, name) = (path.index(index), text(source, "volumeName"));
            let path = path.child("valueFrom");
            let path = path.child("fileKeyRef");
            let path = path.child("volumeName");
            match volumes.iter().rfind(|volume| text(volume, "name") == name) {
                None => errors.not_found(&path, name),
                Some(volume) if !has(volume, "emptyDir") => {
                    errors.invalid(&path, name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
}

/// A reference to a field of the pod; `fields` are those allowed besides single labels and annotations.
pub(super) fn field_ref(source: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for field in ["apiVersion", "fieldPath"] {
        if text(source, field).is_empty() {
            return errors.required(&path.child(field), "");
        }
    }
    let (field, version) = (text(source, "fieldPath"), text(source, "apiVersion"));
    let mut refuse = |why: String| {
        errors.invalid(&path.child("fieldPath"), field, format!("error converting fieldPath: {why}"));
    };
    if version != "v1" {
        refuse(format!("unsupported pod version: {version}"));
    } else if let Some((start, key)) = field.strip_suffix("']").and_then(|field| field.split_once("['")) {
        match start {
            "metadata.annotations" => {
                errors.invalid_each(path, &key.to_lowercase(), names::qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => errors.invalid_each(path, key, names::qualified_name(key)),
            _ => refuse(format!("field label does not support subscript: {field}")),
        }
    } else if !is_pod_field(field) {
        refuse(format!("field label not supported: {field}"));
    } else if !fields.contains(&field) {
        errors.unsupported(&path.child("fieldPath"), field, fields);
    }
}

/// Fields of a pod that Kubernetes' downward API knows at all.
fn is_pod_field(field: &str) -> bool {
    let others =
        ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
    others.contains(&field) || ENV_FIELDS.contains(&field)
}

/// A reference to a request or limit of a container.
pub(super) fn resource_ref(source: &Value, in_volume: bool, path: &Path<'_>, errors: &mut Errors) {
    let resource = text(source, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && text(source, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.unsupported(&path.child("resource"), resource, RESOURCES);
    }
    let divisor = Quantity::from_value(get(source, "divisor")).unwrap_or_default();
    if divisor.is_zero() {
        return;
    }
    let text = divisor.to_string();
    let complaint = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" if text != "1m" && text != "1" => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        name @ ("memory" | "ephemeral-storage") if !MEMORY_DIVISORS.contains(&text.as_str()) => {
            let name = if name == "memory" { "memory" } else { "local ephemeral storage" };
            format!("only divisor's values {} are supported with the {name} resource", MEMORY_DIVISORS.join(", "))
        }
        name if name.starts_with("hugepages-") && !MEMORY_DIVISORS.contains(&text.as_str()) => {
            format!("only divisor's values {} are supported with the hugepages resource", MEMORY_DIVISORS.join(", "))
        }
        _ => return,
    };
    errors.invalid(&path.child("divisor"), resource, complaint);
}

/// Rules for `envFrom`.
pub(super) fn env_from(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, source) in list(container, "envFrom").iter().enumerate() {
        let here = path.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.invalid_each(&here.child("prefix"), prefix, names::env_name(prefix));
        }
        let mut count = 0;
        for field in ["configMapRef", "secretRef"].into_iter().filter(|field| has(source, field)) {
            count += 1;
            let (name, path) = (text(get(source, field), "name"), here.child(field));
            if name.is_empty() {
                errors.required(&path.child("name"), "");
            } else {
                errors.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
            }
        }
        match count {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}
