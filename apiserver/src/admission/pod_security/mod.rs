//! PodSecurity: pods keep to the level that their namespace's labels ask for.
//!
//! `pod-security.kubernetes.io/enforce` refuses pods, `…/warn` warns (of workloads' templates too), `…/audit` would
//! stand in an audit log; each has a `…-version`. What the levels forbid is in [`checks`], which label means what in
//! [`policy`]. Nobody is exempt: Kubernetes' default configuration.
//!
//! Source: `k8s.io/pod-security-admission`.

mod checks;
mod policy;
mod report;
mod rules;

use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::Registry;
use crate::status::ApiError;
use policy::{Level, LevelVersion, Policy};

/// Subresources of pods that change nothing this is about.
const IGNORED_PARTS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Most pods of a namespace that are looked at when its level changes; Kubernetes' number.
const PODS_MAX: usize = 3000;

/// Kinds with a pod template, and where it stands.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "replicationcontrollers", "/spec/template"),
    ("", "podtemplates", "/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

/// Refuses what the namespace's level forbids, and warns.
pub(super) async fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    if !matches!(attributes.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let resource = &attributes.request.resource;
    if resource.is("", "namespaces") {
        return if attributes.subresource.is_empty() { namespace(registry, attributes) } else { Ok(()) };
    }
    if resource.is("", "pods") {
        return if IGNORED_PARTS.contains(&attributes.subresource) { Ok(()) } else { pod(registry, attributes).await };
    }
    let template = TEMPLATES.iter().find(|(group, plural, _)| resource.is(group, plural));
    let Some((.., place)) = template.filter(|_| attributes.subresource.is_empty()) else { return Ok(()) };
    let Some(template) = attributes.object.pointer(place).filter(|template| template.is_object()) else {
        return Ok(());
    };
    let policy = policy_of(registry, attributes).await?;
    if policy.warn.level != Level::Privileged {
        warn(attributes, policy.warn, template);
    }
    Ok(())
}

async fn policy_of(registry: &Registry, attributes: &Attributes<'_>) -> Result<Policy, ApiError> {
    let name = &attributes.request.namespace;
    let namespaces = registry.core("namespaces").ok_or_else(ApiError::no_such_path)?;
    let mut found = registry.peek(&namespaces, "", name);
    if found.is_none() {
        registry.fresh().await?;
        found = registry.peek(&namespaces, "", name);
    }
    // A namespace that is not there is refused elsewhere.
    Ok(found.map_or_else(Policy::default, |namespace| Policy::of(&namespace.value()).0))
}

async fn pod(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let policy = policy_of(registry, attributes).await?;
    let pod = &attributes.object;
    if policy.is_privileged() || attributes.old.is_some_and(|old| !is_significant(pod, old)) {
        return Ok(());
    }
    let violations = checks::evaluate(policy.enforce, pod);
    if !violations.is_empty() {
        let why = format!("violates PodSecurity {:?}: {}", policy.enforce.to_string(), report::detail(&violations));
        return Err(ApiError::forbidden(attributes.request.resource.names(), attributes.name(), &why));
    }
    warn(attributes, policy.warn, pod);
    Ok(())
}

fn warn(attributes: &Attributes<'_>, asked: LevelVersion, pod: &Value) {
    let violations = checks::evaluate(asked, pod);
    if !violations.is_empty() {
        let detail = report::detail(&violations);
        attributes.request.warnings.add(format!("would violate PodSecurity {:?}: {detail}", asked.to_string()));
    }
}

/// Whether a change may change what is allowed: of a pod that runs only images and new ephemeral containers can.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let list = |of: &Value, name: &str| of["spec"][name].as_array().cloned().unwrap_or_default();
    for name in ["containers", "initContainers"] {
        let (new, old) = (list(pod, name), list(old, name));
        let changed = new.iter().zip(&old).any(|(new, old)| new["image"] != old["image"]);
        if new.len() != old.len() || changed {
            return true;
        }
    }
    let before = list(old, "ephemeralContainers");
    list(pod, "ephemeralContainers").iter().any(|new| {
        let old = before.iter().find(|old| old["name"] == new["name"]);
        old.is_none_or(|old| old["image"] != new["image"])
    })
}

fn namespace(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let (policy, errors) = Policy::of(&attributes.object);
    let refusal = || Err(ApiError::invalid(attributes.request.resource.names(), attributes.name(), &errors));
    let Some(old) = attributes.old else { return if errors.is_empty() { Ok(()) } else { refusal() } };
    let (old_policy, old_errors) = Policy::of(old);
    if !errors.is_empty() && errors != old_errors {
        return refusal();
    }
    let (new, old) = (policy.enforce, old_policy.enforce);
    let is_relaxed = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || is_relaxed {
        return Ok(());
    }
    let Some(pods) = registry.core("pods") else { return Ok(()) };
    let pods: Vec<Value> = registry.peek_all(&pods, attributes.name()).into_iter().map(|pod| pod.value()).collect();
    for text in report::of_namespace(attributes.name(), new, &pods, PODS_MAX) {
        attributes.request.warnings.add(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_images_and_new_ephemeral_containers_are_looked_at_again() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
        let mut new = pod.clone();
        new["metadata"] = json!({"labels": {"a": "b"}});
        assert!(!is_significant(&new, &pod));
        new["spec"]["containers"][0]["image"] = json!("y");
        assert!(is_significant(&new, &pod));
        let mut new = pod.clone();
        new["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "x"}]);
        assert!(is_significant(&new, &pod));
        assert!(!is_significant(&new, &new.clone()));
    }
}
