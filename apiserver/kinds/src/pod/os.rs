//! Rules for what depends on the operating system and on namespaces shared with the host: Windows options, `os`,
//! `hostUsers`, the hostname.

use reeve_api::names;
use serde_json::Value;

use super::visit;
use crate::errors::Errors;
use crate::json::{flag, get, has, list, text};
use crate::path::Path;

/// Longest `hostnameOverride`: the kernel's limit.
const HOSTNAME_MAX: usize = 64;

const WINDOWS: &str = "cannot be set for a windows pod";

/// Fields of a pod that mean nothing on Windows: where they stand, and whether false counts as not set.
const NOT_ON_WINDOWS: &[(&str, bool, bool)] = &[
    ("appArmorProfile", true, false),
    ("seLinuxOptions", true, false),
    ("hostUsers", false, false),
    ("hostPID", false, true),
    ("hostIPC", false, true),
    ("seccompProfile", true, false),
    ("fsGroup", true, false),
    ("fsGroupChangePolicy", true, false),
    ("sysctls", true, false),
    ("shareProcessNamespace", false, false),
    ("runAsUser", true, false),
    ("runAsGroup", true, false),
    ("supplementalGroups", true, false),
    ("supplementalGroupsPolicy", true, false),
    ("seLinuxChangePolicy", true, false),
];

/// The same for a container's security context.
const NOT_IN_WINDOWS_CONTAINERS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Rules for `os` and for fields that the named system does not have.
pub(super) fn operating_system(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !has(spec, "os") {
        return;
    }
    let os = path.child("os");
    match text(get(spec, "os"), "name") {
        "" => errors.required(&os.child("name"), ""),
        "linux" => linux(spec, path, errors),
        "windows" => windows(spec, path, errors),
        other => errors.unsupported(&os, other, &["linux", "windows"]),
    }
}

fn linux(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "windows options cannot be set for a linux pod";
    if has(get(spec, "securityContext"), "windowsOptions") {
        errors.forbidden(&path.child("securityContext").child("windowsOptions"), DETAIL);
    }
    visit(spec, path, &mut |container, path| {
        if has(get(container, "securityContext"), "windowsOptions") {
            errors.forbidden(&path.child("securityContext").child("windowsOptions"), DETAIL);
        }
    });
}

fn windows(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (context, context_path) = (get(spec, "securityContext"), path.child("securityContext"));
    for (field, in_context, false_is_unset) in NOT_ON_WINDOWS {
        let (holder, path) = if *in_context { (context, &context_path) } else { (spec, path) };
        if has(holder, field) && (flag(holder, field) || !*false_is_unset) {
            errors.forbidden(&path.child(field), WINDOWS);
        }
    }
    visit(spec, path, &mut |container, path| {
        let (context, path) = (get(container, "securityContext"), path.child("securityContext"));
        for field in NOT_IN_WINDOWS_CONTAINERS.iter().filter(|field| has(context, field)) {
            errors.forbidden(&path.child(field), WINDOWS);
        }
    });
}

/// Whether a pod may have a user namespace of its own beside what else it shares with the host.
pub(super) fn host_users(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "when `hostUsers` is false";
    if get(spec, "hostUsers") != &Value::Bool(false) {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, field) {
            errors.forbidden(&path.child(shown), DETAIL);
        }
    }
    visit(spec, path, &mut |container, path| {
        if !list(container, "volumeDevices").is_empty() {
            errors.forbidden(&path.child("volumeDevices"), DETAIL);
        }
    });
}

/// Rules for `hostnameOverride`.
pub(super) fn hostname(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(name) = get(spec, "hostnameOverride").as_str() else { return };
    let path = path.child("hostnameOverride");
    for field in ["setHostnameAsFQDN", "hostNetwork"].into_iter().filter(|field| flag(spec, field)) {
        errors.forbidden(&path, format!("may not be specified when {field} is true"));
    }
    if name.len() > HOSTNAME_MAX {
        errors.too_long(&path, HOSTNAME_MAX);
    }
    errors.invalid_each(&path, name, names::dns1123_subdomain(name));
}

/// Containers that are processes of a Windows host: all of a pod or none.
pub(super) fn host_process(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let wish = |holder: &Value| get(get(get(holder, "securityContext"), "windowsOptions"), "hostProcess").as_bool();
    let (of_pod, mut all, mut host) = (wish(spec), 0, 0);
    visit(spec, path, &mut |container, path| {
        all += 1;
        let own = wish(container);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let path = path.child("securityContext");
            let path = path.child("windowsOptions");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&path.child("hostProcess"), own, detail);
        }
        host += usize::from(own.or(of_pod) == Some(true));
    });
    if host == 0 {
        return;
    }
    if host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", detail);
    }
    if !flag(spec, "hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, detail);
    }
}
