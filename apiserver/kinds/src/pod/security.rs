//! Rules for the security contexts of a pod and its containers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Scope;
use super::volume::local_path;
use crate::errors::Errors;
use crate::json::{flag, get, has, int, list, text};
use crate::path::Path;

const ID: &str = "must be between 0 and 2147483647, inclusive";
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
    profiles(context, path, errors);
    choice(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
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

/// The seccomp and AppArmor profiles of a context.
fn profiles(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, short) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        if has(context, field) {
            profile(get(context, field), field, short, &path.child(field), errors);
        }
    }
}

fn profile(profile: &Value, field: &str, short: &str, path: &Path<'_>, errors: &mut Errors) {
    let (kind, file_path) = (text(profile, "type"), path.child("localhostProfile"));
    match kind {
        "" => errors.required(&path.child("type"), format!("type is required when {field} is set")),
        _ if !PROFILE_TYPES.contains(&kind) => errors.unsupported(&path.child("type"), kind, PROFILE_TYPES),
        _ => {}
    }
    match (kind, get(profile, "localhostProfile").as_str()) {
        ("Localhost", None | Some("")) => {
            errors.required(&file_path, format!("must be set when {short} type is Localhost"));
        }
        ("Localhost", Some(file)) if short == "seccomp" => local_path(file, &file_path, errors),
        ("Localhost", Some(file)) if file.trim() != file => {
            errors.invalid(&file_path, file, "must not be padded with whitespace");
        }
        ("Localhost", Some(_)) | (_, None) => {}
        (_, Some(_)) if short == "seccomp" => {
            errors.invalid(&file_path, profile.clone(), "can only be set when seccomp type is Localhost");
        }
        (_, Some(file)) => errors.invalid(&file_path, file, "can only be set when AppArmor type is Localhost"),
    }
}

/// Rules for `securityContext` of a container.
pub(super) fn container(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let context = get(container, "securityContext");
    if context.is_null() {
        return;
    }
    ids(context, &["runAsUser", "runAsGroup"], path, errors);
    choice(context, "procMount", &["Default", "Unmasked"], path, errors);
    if scope.host_users && text(context, "procMount") == "Unmasked" {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        errors.invalid(&path.child("procMount"), "Unmasked", detail);
    }
    if get(context, "allowPrivilegeEscalation") == &Value::Bool(false) {
        if flag(context, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context.clone(), detail);
        }
        if list(get(context, "capabilities"), "add").iter().any(|one| one == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context.clone(), detail);
        }
    }
    profiles(context, path, errors);
}
