//! What a deletion does to an object: pure decisions, no store.
//!
//! Source of the rules: Kubernetes' `registry/generic/registry` (Store.Delete), `registry/rest` (BeforeDelete), the
//! storage of namespaces and the strategies of the single kinds.

use jiff::{SignedDuration, Timestamp};
use reeve_kinds::Names;
use serde_json::{Value, json};

use super::meta;
use super::request::{Options, Propagation, Request};
use super::resource::Resource;
use crate::custom;
use crate::status::ApiError;

/// The garbage collector removes the owner references of the dependents, then this finalizer.
const ORPHAN: &str = "orphan";

/// The garbage collector deletes the dependents, then removes this finalizer.
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose deletion answers with the object rather than with a `Status`; an empty name stands for the whole
/// group. Source: `ReturnDeletedObject` of the registries.
const ANSWERED_WITH_OBJECT: [(&str, &str); 14] = [
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
    ("resource.k8s.io", ""),
];

/// Kinds whose dependents stay when the request does not say what becomes of them.
const ORPHANING: [(&str, &str); 2] = [("", "replicationcontrollers"), ("batch", "jobs")];

/// Kinds that never have dependents.
const CHILDLESS: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// Its time is running already, or others hold it: the request changes nothing.
    Wait,
    /// It is marked (time, grace period, finalizers) and stays until others have done their part.
    Mark(Value),
    /// It is marked, for everybody to see, and removed.
    MarkAndRemove(Value),
    /// It is removed.
    Remove,
}

/// What the grace period makes of a deletion.
enum Grace {
    /// The kind knows none, or it is over.
    None,
    /// It runs already and is not shortened.
    Running,
    /// It begins or is shortened; so many seconds were asked for.
    Set(i64),
}

fn is_one_of(resource: &Resource, kinds: &[(&str, &str)]) -> bool {
    let group = kinds.iter().any(|(group, plural)| plural.is_empty() && *group == resource.names().group);
    group || kinds.iter().any(|(group, plural)| resource.is(group, plural))
}

/// Whether the answer to a deletion that is complete shows the object's last state.
pub(super) fn is_answered_with_object(resource: &Resource) -> bool {
    is_one_of(resource, &ANSWERED_WITH_OBJECT)
}

/// Whether nothing holds an object that is being deleted any more.
pub(super) fn is_complete(resource: &Resource, object: &Value) -> bool {
    meta::is_terminating(object)
        && meta::texts(object, "finalizers").is_empty()
        && grace_of(object) == 0
        && !is_held_by_spec(resource, object)
}

/// A namespace is also held by `spec.finalizers`.
fn is_held_by_spec(resource: &Resource, object: &Value) -> bool {
    resource.is("", "namespaces") && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

fn grace_of(object: &Value) -> i64 {
    meta::get(object, "deletionGracePeriodSeconds").as_i64().unwrap_or(0)
}

/// What the user is to be warned of before a deletion.
pub(super) fn warnings(request: &Request) -> Vec<String> {
    let is_silent = request.options.propagation.is_none() && request.options.orphan_dependents.is_none();
    let warning = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                   remove them or set propagationPolicy=Orphan to suppress this warning";
    (is_silent && request.resource.is("batch", "jobs")).then(|| warning.to_owned()).into_iter().collect()
}

/// The object must be the one, and in the version, that the request names.
pub(super) fn check_preconditions(request: &Request, object: &Value, version: &str) -> Result<(), ApiError> {
    let names = request.resource.names();
    let (wanted, name) = (&request.options.preconditions, &request.name);
    let uid = wanted.uid.as_deref().filter(|uid| *uid != meta::text(object, "uid"));
    let stale = wanted.resource_version.as_deref().filter(|wanted| *wanted != version);
    if request.resource.is("", "namespaces") {
        return match (uid, stale) {
            (Some(uid), _) => Err(precondition_failed(names, name, "UID", uid, meta::text(object, "uid"))),
            (None, Some(stale)) => Err(precondition_failed(names, name, "ResourceVersion", stale, version)),
            (None, None) => Ok(()),
        };
    }
    let why = match (uid, stale) {
        (Some(uid), _) => format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            meta::text(object, "uid")
        ),
        (None, Some(stale)) => format!(
            "the ResourceVersion in the precondition ({stale}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        ),
        (None, None) => return Ok(()),
    };
    Err(ApiError::conflict_of_kind(names, name, &why))
}

/// The words of namespaces.
fn precondition_failed(names: &Names, name: &str, what: &str, asked: &str, there: &str) -> ApiError {
    let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {there}");
    ApiError::conflict(names, name, &why)
}

/// Decides what a deletion does.
pub(super) fn plan(resource: &Resource, object: &Value, options: &Options, now: Timestamp) -> Decision {
    if resource.is("", "namespaces") {
        return plan_namespace(resource, object, options, now);
    }
    let (group, plural) = custom::DEFINITIONS;
    if resource.is(group, plural) && !meta::is_terminating(object) {
        return Decision::Mark(custom::status::marked(object, now));
    }
    let mut marked = object.clone();
    let grace = match set_grace(resource, object, &mut marked, options, now) {
        Grace::Running => return Decision::Wait,
        Grace::Set(seconds) => Some(seconds),
        Grace::None => None,
    };
    let before = meta::texts(object, "finalizers");
    let after = finalizers(resource, &before, options);
    set_finalizers(&mut marked, &before, &after);
    match grace {
        None if after.is_empty() => Decision::Remove,
        None => {
            mark(&mut marked, now);
            Decision::Mark(marked)
        }
        Some(0) if after.is_empty() => Decision::MarkAndRemove(marked),
        Some(_) => Decision::Mark(marked),
    }
}

/// A namespace is marked once; after that its finalizers are others' concern.
fn plan_namespace(resource: &Resource, object: &Value, options: &Options, now: Timestamp) -> Decision {
    if meta::is_terminating(object) {
        if is_held_by_spec(resource, object) {
            return Decision::Wait;
        }
        let (before, mut marked) = (meta::texts(object, "finalizers"), object.clone());
        let after = finalizers(resource, &before, options);
        if after.is_empty() {
            return Decision::Remove;
        }
        set_finalizers(&mut marked, &before, &after);
        mark(&mut marked, now);
        return Decision::Mark(marked);
    }
    let mut marked = object.clone();
    meta::set(&mut marked, "deletionTimestamp", meta::time(now));
    if let Some(fields) = marked.as_object_mut() {
        let status = fields.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("phase".to_owned(), "Terminating".into());
        }
    }
    let before = meta::texts(object, "finalizers");
    // Of a namespace `orphanDependents: false` asks for more than of other kinds.
    let foreground = Options { propagation: Some(Propagation::Foreground), ..Options::default() };
    let options = if options.orphan_dependents == Some(false) { &foreground } else { options };
    let after = finalizers(resource, &before, options);
    set_finalizers(&mut marked, &before, &after);
    Decision::Mark(marked)
}

/// Sets or shortens the grace period of kinds that have one.
fn set_grace(resource: &Resource, object: &Value, marked: &mut Value, options: &Options, now: Timestamp) -> Grace {
    let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let Some(period) = resource.kind.deletion_grace(object, asked) else { return Grace::None };
    if !meta::is_terminating(object) {
        next_generation(marked);
        meta::set(marked, "deletionTimestamp", meta::time(later(now, period)));
        meta::set(marked, "deletionGracePeriodSeconds", period);
        return Grace::Set(period);
    }
    let there = match grace_of(object) {
        0 => return Grace::None,
        there if there < 0 => 1,
        there => there,
    };
    let Some(asked) = asked.filter(|asked| *asked < there) else { return Grace::Running };
    let end = meta::text(object, "deletionTimestamp").parse::<Timestamp>().unwrap_or(now);
    let end = later(end, asked - there);
    // What is left may be over already; then it is the shortest that there is, unless none was asked for.
    let (end, period) = if end < now { (now, asked.min(1)) } else { (end, asked) };
    meta::set(marked, "deletionTimestamp", meta::time(end));
    meta::set(marked, "deletionGracePeriodSeconds", period);
    Grace::Set(asked)
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// Marks an object that only its finalizers hold.
fn mark(object: &mut Value, now: Timestamp) {
    if !meta::is_terminating(object) {
        next_generation(object);
    }
    let end = meta::text(object, "deletionTimestamp").parse::<Timestamp>();
    if end.is_ok_and(|end| end <= now) {
        // The time it was asked for first stays.
    } else {
        meta::set(object, "deletionTimestamp", meta::time(now));
    }
    meta::set(object, "deletionGracePeriodSeconds", 0);
}

fn next_generation(object: &mut Value) {
    if let Some(generation) = meta::get(object, "generation").as_i64().filter(|generation| *generation > 0) {
        meta::set(object, "generation", generation.saturating_add(1));
    }
}

/// The finalizers after what is to become of the dependents has been taken into account.
fn finalizers<'o>(resource: &Resource, there: &[&'o str], options: &Options) -> Vec<&'o str> {
    let mut list: Vec<&str> = there.iter().copied().filter(|one| ![ORPHAN, FOREGROUND].contains(one)).collect();
    let stated = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) => Some(Propagation::Orphan),
        (Some(false), _) => Some(Propagation::Background),
        (None, stated) => stated,
    };
    // What the object carries counts when the request says nothing, and then what the kind does by itself.
    let carried = || {
        there.iter().find_map(|one| match *one {
            ORPHAN => Some(Propagation::Orphan),
            FOREGROUND => Some(Propagation::Foreground),
            _ => None,
        })
    };
    let by_default = || is_one_of(resource, &ORPHANING).then_some(Propagation::Orphan);
    match stated.or_else(carried).or_else(by_default) {
        _ if is_one_of(resource, &CHILDLESS) => {}
        Some(Propagation::Orphan) => list.push(ORPHAN),
        Some(Propagation::Foreground) => list.push(FOREGROUND),
        Some(Propagation::Background) | None => {}
    }
    list
}

/// Another order of the same finalizers is no change.
fn set_finalizers(object: &mut Value, before: &[&str], after: &[&str]) {
    if before.iter().any(|one| !after.contains(one)) || after.iter().any(|one| !before.contains(one)) {
        meta::set(object, "finalizers", if after.is_empty() { Value::Null } else { json!(after) });
    }
}
