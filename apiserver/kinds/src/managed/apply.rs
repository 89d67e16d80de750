//! Server-side apply: the configuration is merged into the object, what the manager no longer applies goes, and what
//! others manage is only taken from them when that is forced.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::compare::{compare, compare_merged};
use super::conflict::{self, Conflict};
use super::entry::{Entry, Managed, ManagerId, Operation};
use super::fields::{field_set, remove, with_named_fields};
use super::merge::merge;
use super::schema::MergeSchema;
use super::set::Set;
use super::update::{ByVersion, Context, never_managed, take_over, track};
use super::validate::validate;
use crate::json::go_escaped;

/// Manager of what was in an object before its first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Where client-side apply keeps what it applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager whose applies take over from client-side apply.
const KUBECTL: &str = "kubectl";

/// Largest annotations of an object, keys and values together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Why an apply is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// The request makes no sense (400).
    BadRequest(String),
    /// What Kubernetes passes on as an error without a reason (500).
    Unfit(String),
    /// Others manage what would be changed (409); never empty.
    Conflicts(Vec<Conflict>),
}

/// What an apply makes of an object.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The object; without managed fields.
    pub object: Value,
    /// Who manages what now.
    pub managed: Managed,
}

/// What is applied, and how.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The configuration as it came.
    pub config: &'r Value,
    /// Who applies.
    pub manager: &'r str,
    /// Whether fields are taken from other managers.
    pub force: bool,
}

/// Applies. `live` is the object as it is, or an empty one of the kind; without managed fields, which are `managed`.
///
/// # Errors
/// Why the configuration cannot be applied.
pub fn apply(
    context: &Context<'_>,
    live: &Value,
    managed: Managed,
    request: Request<'_>,
) -> Result<Applied, ApplyError> {
    check(context, request.config)?;
    let outcome = apply_tracked(context, live, managed.clone(), request);
    let mut applied = match outcome {
        Err(ApplyError::Conflicts(conflicts)) if request.manager == KUBECTL => {
            let allowed = applied_by_client(context, live).ok_or(ApplyError::Conflicts(conflicts.clone()))?;
            if !conflict::fields(&conflicts).difference(&allowed).is_empty() {
                let rest = conflicts.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect();
                return Err(ApplyError::Conflicts(rest));
            }
            apply_tracked(context, live, managed, Request { force: true, ..request })?
        }
        outcome => outcome?,
    };
    if request.manager == KUBECTL {
        refresh_last_applied(&mut applied.object, request.config);
    }
    Ok(applied)
}

/// `apps/v1, Kind=Deployment`; core kinds begin with the slash.
fn shown_kind(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

fn text_of<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn check(context: &Context<'_>, config: &Value) -> Result<(), ApplyError> {
    let (version, kind) = (text_of(config, "apiVersion"), text_of(config, "kind"));
    if version != context.api_version || kind != context.kind {
        return Err(ApplyError::BadRequest(format!("invalid object type: {}", shown_kind(version, kind))));
    }
    if config.pointer("/metadata/managedFields").is_some_and(Value::is_array) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    Ok(())
}

/// The object and its kind as they stand in errors.
#[must_use]
pub fn shown_object(object: &Value) -> String {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let kind = shown_kind(text_of(object, "apiVersion"), text_of(object, "kind"));
    format!("{}/{}; {kind}", text_of(metadata, "namespace"), text_of(metadata, "name"))
}

fn apply_tracked(
    context: &Context<'_>,
    live: &Value,
    mut managed: Managed,
    request: Request<'_>,
) -> Result<Applied, ApplyError> {
    let unfit = |step: &str, why: &dyn std::fmt::Display| ApplyError::Unfit(format!("{step}: {why}"));
    let exists = !text_of(live.get("metadata").unwrap_or(&Value::Null), "uid").is_empty();
    if managed.entries.is_empty() && exists {
        managed = track(context, None, live, managed, BEFORE_FIRST_APPLY)
            .map_err(|why| unfit("failed to create manager for existing fields", &why))?;
    }
    let config = request.config;
    validate(context.schema, config, false)
        .map_err(|why| unfit(&format!("failed to create typed patch object ({})", shown_object(config)), &why))?;
    validate(context.schema, live, true)
        .map_err(|why| unfit(&format!("failed to create typed live object ({})", shown_object(live)), &why))?;
    let merged = merge(context.schema, live, config).map_err(|why| unfit("failed to merge config", &why))?;
    let own = context.id(request.manager, Operation::Apply);
    let last = managed.get(&own).cloned();
    let set = field_set(context.schema, config).recursive_difference(context.reset);
    let time = last.as_ref().and_then(|last| last.time.clone());
    managed.put(Entry::new(own.clone(), context.api_version, set, time));
    let object = match &last {
        Some(last) => prune(context, merged, &managed, last),
        None => merged,
    };
    let found =
        compare_merged(context.schema, live, &object).map_err(|why| unfit("failed to compare objects", &why))?;
    let found = found.without(context.reset);
    let found = vec![(context.api_version.to_owned(), found)];
    let mut versions = ByVersion { context, live: Some(live), new: &object, is_merged: true, found };
    let conflicts = take_over(&mut versions, &mut managed, &own, request.force)
        .map_err(|why| unfit("failed to compare objects", &why))?;
    if !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    finish(context, &mut managed, &own, super::element::equal(live, &object));
    Ok(Applied { object, managed })
}

/// Nobody manages what makes the object the one it is; an apply that changes nothing leaves no time behind.
fn finish(context: &Context<'_>, managed: &mut Managed, own: &ManagerId, unchanged: bool) {
    if let Some(entry) = managed.get_mut(own) {
        let set = entry.set().difference(never_managed());
        entry.put(set);
        if !unchanged {
            entry.time = Some(context.now.to_owned());
        }
    }
    managed.drop_empty();
}

/// The merged object without what the manager applied last time, does not apply this time, and nobody else manages.
fn prune(context: &Context<'_>, merged: Value, managed: &Managed, last: &Entry) -> Value {
    let last_set = last.set();
    if last_set.is_empty() {
        return merged;
    }
    let Some((schema, converted)) = convert(context, &merged, &last.version) else { return merged };
    let named = |schema: &dyn MergeSchema, set: &Set| with_named_fields(Some(schema), set);
    let pruned = remove(schema, &converted, &named(schema, &last_set));
    let converted = converted.into_owned();
    let Some(mut pruned) = add_back_owned(context, &converted, pruned, managed, &last.version) else { return merged };
    // What the manager did not apply last time was not its to take away.
    if let Some((_, back)) = convert(context, &pruned, &last.version) {
        let (kept, all) = (named(schema, &field_set(schema, &back)), named(schema, &field_set(schema, &converted)));
        let gone = all.difference(&kept).intersection(&named(schema, &last_set));
        pruned = remove(schema, &converted, &gone);
    }
    match convert(context, &pruned, context.api_version) {
        Some((_, object)) => object.into_owned(),
        None => pruned,
    }
}

/// Puts back what was pruned and somebody manages, version by version; the pruned version first.
fn add_back_owned(
    context: &Context<'_>,
    merged: &Value,
    mut pruned: Value,
    managed: &Managed,
    first: &str,
) -> Option<Value> {
    let mut owned: Vec<(String, Set)> = Vec::new();
    for entry in &managed.entries {
        match owned.iter_mut().find(|(version, _)| *version == entry.version) {
            Some((_, set)) => *set = set.union(&entry.set()),
            None => owned.push((entry.version.clone(), entry.set())),
        }
    }
    owned.sort_by_key(|(version, _)| version != first);
    for (version, set) in owned {
        let Some((schema, whole)) = convert(context, merged, &version) else { continue };
        let (_, rest) = convert(context, &pruned, &version)?;
        let named = |set: &Set| with_named_fields(Some(schema), set);
        let keep = named(&field_set(schema, &rest)).union(&named(&set));
        pruned = remove(schema, &whole, &named(&field_set(schema, &whole)).difference(&keep));
    }
    Some(pruned)
}

/// An object in a version, with that version's schema; `None` when there is no such version.
fn convert<'v, 'c>(
    context: &'c Context<'_>,
    object: &'v Value,
    version: &str,
) -> Option<(&'c dyn MergeSchema, Cow<'v, Value>)> {
    let schema = if version == context.api_version { context.schema } else { context.versions.schema(version)? };
    if text_of(object, "apiVersion") == version {
        return Some((schema, Cow::Borrowed(object)));
    }
    Some((schema, Cow::Owned(context.versions.convert(object, version)?)))
}

/// What client-side apply says to have applied and what still is as it left it.
fn applied_by_client(context: &Context<'_>, live: &Value) -> Option<Set> {
    let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str().filter(|text| !text.is_empty())?;
    let last: Value = serde_json::from_str(text).ok()?;
    if text_of(&last, "apiVersion") != context.api_version || text_of(&last, "kind") != context.kind {
        return None;
    }
    validate(context.schema, live, false).ok()?;
    validate(context.schema, &last, false).ok()?;
    let found = compare(context.schema, &last, live).ok()?;
    let set = field_set(context.schema, &last);
    Some(set.difference(&found.modified).difference(&found.added).difference(&found.removed))
}

/// Keeps the annotation of client-side apply true, where there is one: both ways may then be mixed.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    if text_of(&json!(annotations), LAST_APPLIED).is_empty() {
        return;
    }
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    // With the line break that Kubernetes' encoder ends with.
    annotations.insert(LAST_APPLIED.to_owned(), format!("{}\n", go_escaped(&config.to_string())).into());
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATIONS_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}
