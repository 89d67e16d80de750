//! Rules for annotations that mean something for a pod: its deletion cost, mirror pods, and the security profiles of
//! old, which must agree with the fields that replaced them.

use serde_json::Value;

use super::visit;
use super::volume::local_path;
use crate::errors::Errors;
use crate::json::{entries, get, has, text};
use crate::path::Path;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const MIRROR: &str = "kubernetes.io/config.mirror";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Rules for the annotations of a pod or template; `spec` is its pod spec.
pub(crate) fn rules(meta: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let all = get(meta, "annotations");
    if let Some(value) = get(all, MIRROR).as_str()
        && text(spec, "nodeName").is_empty()
    {
        errors.invalid(&path.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(cost) = get(all, DELETION_COST).as_str().filter(|cost| !is_cost(cost)) {
        errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
    for (key, value) in entries(meta, "annotations") {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(value.as_str().unwrap_or_default(), &path.child(key), errors);
        }
    }
    for (key, value) in entries(meta, "annotations") {
        if let Some(container) = key.strip_prefix(APPARMOR_CONTAINER) {
            apparmor(container, value.as_str().unwrap_or_default(), spec, &path.key(key), errors);
        }
    }
}

/// A 32-bit number without a plus sign or leading zeros.
fn is_cost(text: &str) -> bool {
    let begins_well =
        text == "0" || text.starts_with('-') || text.starts_with(|first: char| ('1'..='9').contains(&first));
    begins_well && text.parse::<i32>().is_ok()
}

fn seccomp(profile: &str, path: &Path<'_>, errors: &mut Errors) {
    if ["runtime/default", "docker/default", "unconfined"].contains(&profile) {
        return;
    }
    match profile.strip_prefix("localhost/") {
        Some(file) => local_path(file, path, errors),
        None => errors.invalid(path, profile, "must be a valid seccomp profile"),
    }
}

fn apparmor(container: &str, profile: &str, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut found = false;
    visit(spec, &Path::of("spec"), &mut |one, _| found |= text(one, "name") == container);
    if !found {
        errors.invalid(path, container, "container not found");
    }
    if !["", "runtime/default", "unconfined"].contains(&profile) && !profile.starts_with("localhost/") {
        errors.invalid(path, profile, format!("invalid AppArmor profile name: {profile:?}"));
    }
}

/// Where annotations and fields both name a profile they must name the same one.
pub(crate) fn match_fields(meta: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let note = |key: &str| get(get(meta, "annotations"), key).as_str();
    let (of_pod, of_pod_path) = (get(spec, "securityContext"), path.child("securityContext"));
    if let Some(note) = note(SECCOMP_POD) {
        same(note, get(of_pod, "seccompProfile"), "seccomp", &of_pod_path.child("seccompProfile"), errors);
    }
    visit(spec, path, &mut |container, path| {
        let (context, path) = (get(container, "securityContext"), path.child("securityContext"));
        if let Some(note) = note(&format!("{SECCOMP_CONTAINER}{}", text(container, "name"))) {
            same(note, get(context, "seccompProfile"), "seccomp", &path.child("seccompProfile"), errors);
        }
    });
    if text(get(spec, "os"), "name") == "windows" {
        return;
    }
    visit(spec, path, &mut |container, path| {
        let (context, path) = (get(container, "securityContext"), path.child("securityContext"));
        let holder = if has(context, "appArmorProfile") { context } else { of_pod };
        if let Some(note) = note(&format!("{APPARMOR_CONTAINER}{}", text(container, "name"))) {
            same(note, get(holder, "appArmorProfile"), "apparmor", &path.child("appArmorProfile"), errors);
        }
    });
}

fn same(note: &str, profile: &Value, what: &str, path: &Path<'_>, errors: &mut Errors) {
    let types_agree = match text(profile, "type") {
        "Unconfined" => note == "unconfined",
        "RuntimeDefault" => note == "runtime/default" || (what == "seccomp" && note == "docker/default"),
        "Localhost" => match note.strip_prefix("localhost/") {
            Some(file) if get(profile, "localhostProfile").as_str() != Some(file) => {
                let detail = format!("{what} profile in annotation and field must match");
                return errors.forbidden(&path.child("localhostProfile"), detail);
            }
            file => file.is_some(),
        },
        _ => true,
    };
    if !types_agree {
        errors.forbidden(&path.child("type"), format!("{what} type in annotation and field must match"));
    }
}

/// Annotations that say how a pod came to be stay as they are.
pub(crate) fn changes(meta: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (now, before) = (get(meta, "annotations"), get(was, "annotations"));
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APPARMOR_CONTAINER) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, _) in entries(was, "annotations").filter(|(key, value)| get(now, key) != *value) {
        if let Some(what) = fixed(key) {
            errors.forbidden(&path.key(key), format!("may not remove or update {what}"));
        }
    }
    for (key, _) in entries(meta, "annotations").filter(|(key, _)| !has(before, key)) {
        if let Some(what) = fixed(key) {
            errors.forbidden(&path.key(key), format!("may not add {what}"));
        }
    }
}
