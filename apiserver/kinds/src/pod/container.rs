//! Rules for containers, init containers and ephemeral containers.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::Value;

use super::{Scope, env, handler, resources, security, volume};
use crate::errors::Errors;
use crate::json::{get, has, int, list, text};
use crate::path::Path;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// When an image is pulled.
pub(super) const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
/// What an ephemeral container may not have, in the order of the fields of Kubernetes' type.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];
/// What is said of rules without a policy.
const RULES_NEED_POLICY: &str = "must specify restartPolicy when restart rules are used";

/// Most rules for when a container is started again, and most exit codes of one.
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// Rules for all three lists of containers.
pub(super) fn all(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    regular(spec, scope, &path.child("containers"), errors);
    init(spec, scope, &path.child("initContainers"), errors);
    ephemeral(spec, scope, &path.child("ephemeralContainers"), errors);
}

fn regular(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let containers = list(spec, "containers");
    if containers.is_empty() {
        return errors.required(path, "");
    }
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let (path, name) = (path.index(index), text(container, "name"));
        common(container, scope, &path, errors);
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        handler::lifecycle(container, scope, &path.child("lifecycle"), errors);
        handler::probes(container, scope, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(containers, path, errors);
}

/// Since 1.35 a container may say what happens when it ends, whatever the pod says.
fn restart_policy(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rules = list(container, "restartPolicyRules");
    match get(container, "restartPolicy").as_str() {
        None if !rules.is_empty() => {
            errors.required(&path.child("restartPolicy"), RULES_NEED_POLICY);
        }
        Some(policy) if !["Always", "Never", "OnFailure"].contains(&policy) => {
            errors.unsupported(&path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
        }
        _ => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errors.too_many(&path, rules.len(), RESTART_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        let (path, action, actions) = (path.index(index), text(rule, "action"), &["Restart", "RestartAllContainers"]);
        if !actions.contains(&action) {
            errors.unsupported(&path.child("action"), action, actions);
        }
        let (codes, path) = (get(rule, "exitCodes"), path.child("exitCodes"));
        if codes.is_null() {
            errors.required(&path, "must be specified");
            continue;
        }
        if !["In", "NotIn"].contains(&text(codes, "operator")) {
            errors.unsupported(&path.child("operator"), text(codes, "operator"), &["In", "NotIn"]);
        }
        let count = list(codes, "values").len();
        if count > EXIT_CODES_MAX {
            errors.too_many(&path.child("values"), count, EXIT_CODES_MAX);
        }
    }
}

fn init(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: BTreeSet<_> = list(spec, "containers").iter().map(|container| text(container, "name")).collect();
    for (index, container) in list(spec, "initContainers").iter().enumerate() {
        let (here, name) = (path.index(index), text(container, "name"));
        common(container, scope, &here, errors);
        // Of rules without a policy nothing else is said.
        if has(container, "restartPolicy") || list(container, "restartPolicyRules").is_empty() {
            restart_policy(container, &here, errors);
        } else {
            errors.required(&here.child("restartPolicy"), RULES_NEED_POLICY);
        }
        if seen.contains(name) {
            errors.duplicate(&here.child("name"), name);
        } else if !name.is_empty() {
            seen.insert(name);
        }
        // Init containers run one after the other; Kubernetes gives all of them the first one's path here.
        host_ports(std::slice::from_ref(container), path, errors);
        if text(container, "restartPolicy") == "Always" {
            handler::lifecycle(container, scope, &here.child("lifecycle"), errors);
            handler::probes(container, scope, &here, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(container, field) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(&here.child(field), detail);
            }
        }
        let policies = here.child("resizePolicy");
        for (index, policy) in list(container, "resizePolicy").iter().enumerate() {
            if text(policy, "restartPolicy") == "RestartContainer" {
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.invalid(&policies.index(index).child("restartPolicy"), "RestartContainer", detail);
            }
        }
    }
}

fn ephemeral(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let others: BTreeSet<_> = list(spec, "containers")
        .iter()
        .chain(list(spec, "initContainers"))
        .map(|container| text(container, "name"))
        .collect();
    let mut seen = others.clone();
    for (index, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let (path, name) = (path.index(index), text(container, "name"));
        common(container, scope, &path, errors);
        image_has_no_space(container, &path, errors);
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        let is_set =
            |field: &&&str| get(container, field).as_object().map_or(has(container, field), |map| !map.is_empty());
        for field in NOT_EPHEMERAL.iter().filter(is_set) {
            errors.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
        }
        let mounts = path.child("volumeMounts");
        for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"].into_iter().filter(|field| has(mount, field)) {
                errors.forbidden(&mounts.index(index).child(field), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

/// What holds for every container.
fn common(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
    }
    if text(container, "image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    errors.one_of(
        &path.child("terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(container, &path.child("ports"), errors);
    env::env(container, &path.child("env"), errors);
    env::env_from(container, &path.child("envFrom"), errors);
    volume::mounts(container, &scope.volumes, path, errors);
    errors.one_of(&path.child("imagePullPolicy"), text(container, "imagePullPolicy"), PULL_POLICIES);
    let (own, own_path) = (get(container, "resources"), path.child("resources"));
    resources::requirements(own, resources::container_name, scope, &own_path, errors);
    resize_policy(container, scope, &path.child("resizePolicy"), errors);
    security::container(container, scope, &path.child("securityContext"), errors);
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let (path, name) = (path.index(index), text(port, "name"));
        if !name.is_empty() {
            let complaints = names::port_name(name);
            if !complaints.is_empty() {
                errors.invalid_each(&path.child("name"), name, complaints);
            } else if !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        if int(port, "containerPort").unwrap_or_default() == 0 {
            errors.required(&path.child("containerPort"), "");
        }
        for field in ["containerPort", "hostPort"] {
            if let Some(number) = int(port, field).filter(|number| *number != 0) {
                for detail in names::port_number(number) {
                    errors.invalid(&path.child(field), number, detail);
                }
            }
        }
        errors.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
    }
}

/// A port of the host can be given away once.
fn host_ports(containers: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = int(port, "hostPort").filter(|number| *number != 0) else { continue };
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&key) {
                errors.duplicate(&path.index(index).child("hostPort"), key);
            } else {
                seen.insert(key);
            }
        }
    }
}

fn resize_policy(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, rule) in list(container, "resizePolicy").iter().enumerate() {
        let (resource, policy) = (text(rule, "resourceName"), text(rule, "restartPolicy"));
        if !seen.insert(resource) {
            errors.duplicate(&path.index(index), resource);
        }
        errors.one_of(path, resource, &["cpu", "memory"]);
        errors.one_of(path, policy, &["NotRequired", "RestartContainer"]);
        if scope.restart_policy == "Never" && policy != "NotRequired" {
            errors.invalid(path, policy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// Asked of pods only: templates may hold placeholders.
pub(super) fn image_has_no_space(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let image = text(container, "image");
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}
