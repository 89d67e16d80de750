//! Rules for the security contexts of a pod and its containers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Scope;
use super::volume::local_path;
use super::windows;
use crate::errors::Errors;
use crate::json::{flag, get, int, list, text};
use crate::path::Path;
use crate::shown;

const ID: &str = "must be between 0 and 2147483647, inclusive";
/// Longest path of a profile: `PATH_MAX` without its end.
const PROFILE_PATH_MAX: usize = 4095;
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// Rules for `securityContext` of a pod.
pub(super) fn pod(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let context = get(spec, "securityContext");
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path, errors);
    let groups = path.child("supplementalGroups");
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        id(group.as_i64(), &groups.index(index), errors);
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, detail);
    }
    sysctls(spec, &path.child("sysctls"), errors);
    choice(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errors);
    seccomp(context, path, errors);
    windows::options(context, path, errors);
    app_armor(context, path, errors);
    choice(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
    // Mounting with a label is off in Kubernetes v1.36 unless asked for.
    choice(context, "seLinuxChangePolicy", &["Recursive"], path, errors);
}

fn choice(context: &Value, field: &str, allowed: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = get(context, field).as_str().filter(|value| !allowed.contains(value)) {
        errors.unsupported(&path.child(field), value, allowed);
    }
}

fn ids(context: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for field in fields {
        id(int(context, field), &path.child(field), errors);
    }
}

fn id(id: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(id) = id.filter(|id| i32::try_from(*id).is_err() || *id < 0) {
        errors.invalid(path, id, ID);
    }
}

fn sysctls(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, sysctl) in list(get(spec, "securityContext"), "sysctls").iter().enumerate() {
        let (name, path) = (text(sysctl, "name"), path.index(index));
        let path = path.child("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(&path, name, detail);
        } else if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        if flag(spec, "hostNetwork") && name.starts_with("net.") {
            errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start));
        if flag(spec, "hostIPC") && (ipc || name == "kernel.sem") {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let segment = |part: &str| {
        let bytes = part.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| edge(Some(byte)) || *byte == b'-' || *byte == b'_')
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn seccomp(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    let profile = get(context, "seccompProfile");
    if profile.is_null() {
        return;
    }
    let path = path.child("seccompProfile");
    let (kind, file_path) = (text(profile, "type"), path.child("localhostProfile"));
    match kind {
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        _ if !PROFILE_TYPES.contains(&kind) => errors.unsupported(&path.child("type"), kind, PROFILE_TYPES),
        _ => {}
    }
    match (kind, get(profile, "localhostProfile").as_str()) {
        ("Localhost", None) => errors.required(&file_path, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => local_path(file, &file_path, errors),
        (_, Some(file)) => {
            let shown = [("Type", Value::from(kind).to_string()), ("LocalhostProfile", Value::from(file).to_string())];
            errors.invalid_object(&file_path, shown::object(&shown), "can only be set when seccomp type is Localhost");
        }
        (_, None) => {}
    }
}

fn app_armor(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    let profile = get(context, "appArmorProfile");
    if profile.is_null() {
        return;
    }
    let path = path.child("appArmorProfile");
    let (file, file_path) = (get(profile, "localhostProfile").as_str(), path.child("localhostProfile"));
    match (text(profile, "type"), file) {
        ("Localhost", None | Some("")) => errors.required(&file_path, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(file)) => {
            if file.trim() != file {
                errors.invalid(&file_path, file, "must not be padded with whitespace");
            }
            if file.len() > PROFILE_PATH_MAX {
                errors.too_long(&file_path, PROFILE_PATH_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            errors.invalid(&file_path, file, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => errors.unsupported(&path.child("type"), other, PROFILE_TYPES),
    }
}

/// Rules for `securityContext` of a container.
pub(super) fn container(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let context = get(container, "securityContext");
    if context.is_null() {
        return;
    }
    ids(context, &["runAsUser", "runAsGroup"], path, errors);
    // Empty is a value here, and a wrong one.
    if let Some(mount) = get(context, "procMount").as_str().filter(|mount| !["Default", "Unmasked"].contains(mount)) {
        errors.unsupported(&path.child("procMount"), mount, &["Default", "Unmasked"]);
    }
    if scope.host_users && text(context, "procMount") == "Unmasked" {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        errors.invalid(&path.child("procMount"), "Unmasked", detail);
    }
    seccomp(context, path, errors);
    if get(context, "allowPrivilegeEscalation") == &Value::Bool(false) {
        if flag(context, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid_object(path, internal(context), detail);
        }
        for _ in list(get(context, "capabilities"), "add").iter().filter(|one| *one == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid_object(path, internal(context), detail);
        }
    }
    windows::options(context, path, errors);
    app_armor(context, path, errors);
}

/// A security context as Kubernetes shows it in complaints: all fields of its internal type, in that type's order.
fn internal(context: &Value) -> String {
    let field = |name| get(context, name).to_string();
    let nested = |own, inner: &[(&str, &str)]| shown::fields(get(context, own), inner);
    let profile = [("Type", "type"), ("LocalhostProfile", "localhostProfile")];
    shown::object(&[
        ("Capabilities", nested("capabilities", &[("Add", "add"), ("Drop", "drop")])),
        ("Privileged", field("privileged")),
        (
            "SELinuxOptions",
            nested("seLinuxOptions", &[("User", "user"), ("Role", "role"), ("Type", "type"), ("Level", "level")]),
        ),
        (
            "WindowsOptions",
            nested(
                "windowsOptions",
                &[
                    ("GMSACredentialSpecName", "gmsaCredentialSpecName"),
                    ("GMSACredentialSpec", "gmsaCredentialSpec"),
                    ("RunAsUserName", "runAsUserName"),
                    ("HostProcess", "hostProcess"),
                ],
            ),
        ),
        ("RunAsUser", field("runAsUser")),
        ("RunAsGroup", field("runAsGroup")),
        ("RunAsNonRoot", field("runAsNonRoot")),
        ("ReadOnlyRootFilesystem", field("readOnlyRootFilesystem")),
        ("AllowPrivilegeEscalation", field("allowPrivilegeEscalation")),
        ("ProcMount", field("procMount")),
        ("SeccompProfile", nested("seccompProfile", &profile)),
        ("AppArmorProfile", nested("appArmorProfile", &profile)),
    ])
}
