//! Which requests a webhook, a policy or a binding is about: by rules, selectors and `matchPolicy`.
//!
//! A rule may name another version of the resource than the request does (`matchPolicy: Equivalent`); then the request
//! is shown in that version: see [`super::versions`]. Source: `plugin/webhook/predicates`, `plugin/policy/matching`.

use std::sync::Arc;

use reeve_api::selector::LabelSelector;
use reeve_kinds::Names;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Object, Registry, Resource, meta};
use crate::status::ApiError;

/// What somebody is about.
#[derive(Debug)]
pub(super) struct Criteria {
    /// `Err` says what is wrong with the selector.
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Whether rules mean all versions of a resource.
    is_equivalent: bool,
    /// Whether no rule at all means every request.
    is_about_all: bool,
}

/// How a request is one of those somebody is about.
#[derive(Debug, Clone)]
pub(super) enum Match {
    /// It is not.
    No,
    /// As it was made.
    AsIs,
    /// In the version that this resource has.
    As(Arc<Resource>),
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    /// Of the objects; empty means all.
    names: Vec<String>,
}

/// The texts of a list.
pub(super) fn texts(owner: &Value, field: &str) -> Vec<String> {
    owner[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// No selector selects all, as the empty one does.
fn selector(owner: &Value, field: &str) -> Result<LabelSelector, String> {
    match &owner[field] {
        Value::Null => Ok(LabelSelector::everything()),
        stated => LabelSelector::from_value(stated).map_err(|error| error.to_string()),
    }
}

fn rules(owner: &Value, field: &str) -> Vec<Rule> {
    let rule = |rule: &Value| Rule {
        operations: texts(rule, "operations"),
        groups: texts(rule, "apiGroups"),
        versions: texts(rule, "apiVersions"),
        resources: texts(rule, "resources"),
        scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        names: texts(rule, "resourceNames"),
    };
    owner[field].as_array().into_iter().flatten().map(rule).collect()
}

fn has(all: &[String], one: &str) -> bool {
    all.iter().any(|own| own == "*" || own == one)
}

impl Rule {
    /// Whether the rule is about the request, had it been made of the resource `names`.
    fn matches(&self, attributes: &Attributes<'_>, names: &Names) -> bool {
        let resource = self.resources.iter().any(|own| {
            let (resource, part) = own.split_once('/').unwrap_or((own, ""));
            (resource == "*" || resource == names.plural) && (part == "*" || part == attributes.subresource)
        });
        // A Namespace carries its own name as its namespace, and lies in none all the same.
        let is_namespace = names.group.is_empty() && names.plural == "namespaces";
        let in_namespace = !is_namespace && !attributes.namespace().is_empty();
        let scope = match self.scope.as_str() {
            "*" => true,
            "Namespaced" => in_namespace,
            "Cluster" => !in_namespace,
            _ => false,
        };
        resource
            && scope
            && has(&self.operations, attributes.operation.name())
            && has(&self.groups, names.group)
            && has(&self.versions, names.version)
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name()))
    }
}

impl Criteria {
    /// Those of a webhook.
    pub(super) fn of_webhook(hook: &Value) -> Self {
        Self { rules: rules(hook, "rules"), is_about_all: false, ..Self::of_resources(hook) }
    }

    /// Those in `matchConstraints` of a policy or `matchResources` of a binding.
    pub(super) fn of_resources(resources: &Value) -> Self {
        Self {
            namespaces: selector(resources, "namespaceSelector"),
            objects: selector(resources, "objectSelector"),
            rules: rules(resources, "resourceRules"),
            excluded: rules(resources, "excludeResourceRules"),
            is_equivalent: resources["matchPolicy"] == "Equivalent",
            is_about_all: true,
        }
    }

    /// Whether and how the request is one of these.
    ///
    /// # Errors
    /// When the rules are about it, but a selector cannot be judged.
    pub(super) async fn find(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<Match, ApiError> {
        let found = match self.rules.as_slice() {
            [] if self.is_about_all => Match::AsIs,
            rules => self.find_rule(rules, registry, attributes),
        };
        if matches!(found, Match::No) || !matches!(self.find_rule(&self.excluded, registry, attributes), Match::No) {
            return Ok(Match::No);
        }
        let objects = self.objects.as_ref().map(|wanted| selects_object(wanted, attributes));
        if objects == Ok(false) || !self.selects_namespace(registry, attributes).await? {
            return Ok(Match::No);
        }
        objects.map(|_| found).map_err(ApiError::internal)
    }

    fn find_rule(&self, rules: &[Rule], registry: &Registry, attributes: &Attributes<'_>) -> Match {
        let own = &attributes.request.resource;
        if rules.iter().any(|rule| rule.matches(attributes, own.names())) {
            return Match::AsIs;
        }
        if !self.is_equivalent || rules.is_empty() {
            return Match::No;
        }
        let resources = registry.resources();
        let others: Vec<_> =
            resources.siblings(own).filter(|other| other.has(attributes.request.subresource)).collect();
        let named = |rule: &Rule| others.iter().find(|other| rule.matches(attributes, other.names()));
        rules.iter().find_map(named).map_or(Match::No, |other| Match::As(Arc::clone(other)))
    }

    async fn selects_namespace(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
        let is_namespace = attributes.request.resource.is("", "namespaces");
        let name = attributes.namespace();
        // What lies in no namespace is never exempt.
        if name.is_empty() && !is_namespace {
            return Ok(true);
        }
        let wanted = self.namespaces.as_ref().map_err(ApiError::internal)?;
        if wanted.is_everything() {
            return Ok(true);
        }
        let is_written = matches!(attributes.operation, Operation::Create | Operation::Update);
        if is_namespace && attributes.subresource.is_empty() && is_written {
            return Ok(wanted.matches_value(meta::get(&attributes.object, "labels")));
        }
        let found = namespace(registry, name).await?;
        Ok(wanted.matches_value(meta::get(&found.value(), "labels")))
    }
}

/// What carries no labels is not selected (options of a connection).
fn selects_object(wanted: &LabelSelector, attributes: &Attributes<'_>) -> bool {
    let selects = |object: &Value| {
        object.get("metadata").is_some_and(Value::is_object) && wanted.matches_value(meta::get(object, "labels"))
    };
    wanted.is_everything() || selects(&attributes.object) || attributes.old.is_some_and(selects)
}

/// A namespace by name, also one that was made just now.
///
/// # Errors
/// When there is none.
pub(super) async fn namespace(registry: &Registry, name: &str) -> Result<Object, ApiError> {
    let namespaces = registry.core("namespaces").ok_or_else(ApiError::no_such_path)?;
    if let Some(found) = registry.peek(&namespaces, "", name) {
        return Ok(found);
    }
    registry.fresh().await?;
    registry.peek(&namespaces, "", name).ok_or_else(|| ApiError::not_found(namespaces.names(), name))
}
