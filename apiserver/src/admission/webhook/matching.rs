//! Which webhooks are asked about a request.

use serde_json::Value;

use super::config::{Hook, Rule};
use crate::admission::{Attributes, Operation};
use crate::registry::{Registry, meta};
use crate::status::ApiError;

/// Whether the webhook is to be asked. An error is the request's: whether the webhook is meant cannot be told.
pub(super) async fn is_asked(registry: &Registry, hook: &Hook, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
    // A selector that cannot be judged matters only when the rules match.
    let namespace = match hook.namespaces.as_ref() {
        Ok(selector) if selector.is_everything() => Ok(true),
        Ok(selector) => namespace_labels(registry, attributes).await.map(|labels| match labels {
            Some(labels) => selector.matches_value(&labels),
            // What lies in no namespace is never exempt.
            None => true,
        }),
        Err(why) => Err(ApiError::internal(why)),
    };
    if matches!(namespace, Ok(false)) || !objects_match(hook, attributes) {
        return Ok(false);
    }
    if !hook.rules.iter().any(|rule| matches(rule, attributes)) {
        return Ok(false);
    }
    namespace?;
    hook.objects.as_ref().map_err(ApiError::internal)?;
    Ok(true)
}

/// A selector that is broken counts as matching until the rules have been looked at.
fn objects_match(hook: &Hook, attributes: &Attributes<'_>) -> bool {
    let Ok(selector) = &hook.objects else { return true };
    let one = |object: &Value| object.is_object() && selector.matches_value(meta::get(object, "labels"));
    selector.is_everything() || one(&attributes.object) || attributes.old.is_some_and(one)
}

/// The labels of the request's namespace; `None` for what lies in none.
async fn namespace_labels(registry: &Registry, attributes: &Attributes<'_>) -> Result<Option<Value>, ApiError> {
    let is_namespace = attributes.request.resource.is("", "namespaces");
    if is_namespace
        && attributes.subresource.is_empty()
        && matches!(attributes.operation, Operation::Create | Operation::Update)
    {
        return Ok(Some(meta::get(&attributes.object, "labels").clone()));
    }
    let name = attributes.namespace();
    if name.is_empty() && !is_namespace {
        return Ok(None);
    }
    let namespaces = registry.core("namespaces").ok_or_else(ApiError::no_such_path)?;
    let mut found = registry.peek(&namespaces, "", name);
    if found.is_none() {
        registry.fresh().await?;
        found = registry.peek(&namespaces, "", name);
    }
    let found = found.ok_or_else(|| ApiError::not_found(namespaces.names(), name))?;
    Ok(Some(meta::get(&found.value(), "labels").clone()))
}

/// Whether a rule is about the request.
fn matches(rule: &Rule, attributes: &Attributes<'_>) -> bool {
    let resource = attributes.request.resource.names();
    // A Namespace carries its own name as its namespace, and lies in none all the same.
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    let in_namespace = !is_namespace && !attributes.namespace().is_empty();
    let scope = match rule.scope.as_str() {
        "" | "*" => true,
        "Namespaced" => in_namespace,
        "Cluster" => !in_namespace,
        _ => false,
    };
    scope
        && named(&rule.operations, attributes.operation.name())
        && named(&rule.groups, resource.group)
        && named(&rule.versions, resource.version)
        && rule.resources.iter().any(|one| {
            let (name, part) = one.split_once('/').unwrap_or((one, ""));
            (name == "*" || name == resource.plural) && (part == "*" || part == attributes.subresource)
        })
}

fn named(all: &[String], wanted: &str) -> bool {
    all.iter().any(|one| one == "*" || one == wanted)
}
