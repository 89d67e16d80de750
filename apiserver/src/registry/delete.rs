//! Deleting: at once, gracefully, or when the finalizers are gone.

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::answer::{List, Object, Written};
use super::commit::{Outcome, Plan};
use super::request::{Options, Propagation, Request};
use super::resource::Resource;
use super::{Registry, encode, meta};
use crate::admission;
use crate::status::{self, ApiError};

/// How often a deletion is tried on newer and newer states.
const ATTEMPTS_MAX: u32 = 32;

/// How many objects of a collection are deleted at the same time.
const PARALLEL_MAX: usize = 32;

/// The garbage collector removes the owner references of the dependents, then this finalizer.
const ORPHAN: &str = "orphan";

/// The garbage collector deletes the dependents, then removes this finalizer.
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose deletion answers with the object rather than with a `Status`, as in Kubernetes.
const ANSWERED_WITH_OBJECT: [&str; 3] = ["pods", "services", "serviceaccounts"];

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
enum Decision {
    /// It is on its way already: nothing changes.
    Wait,
    /// It is marked (time, grace period, finalizers) and stays until others have done their part.
    Mark(Value),
    /// It is removed.
    Remove,
}

/// Whether nothing holds an object that is being deleted any more.
pub(super) fn is_complete(resource: &Resource, object: &Value) -> bool {
    meta::is_terminating(object)
        && meta::texts(object, "finalizers").is_empty()
        && meta::get(object, "deletionGracePeriodSeconds").as_i64().unwrap_or(0) == 0
        && !held_by_spec(resource, object)
}

/// A namespace is also held by `spec.finalizers`.
fn held_by_spec(resource: &Resource, object: &Value) -> bool {
    resource.is("", "namespaces") && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// Decides what a deletion does. `grace` is what the kind says of the wanted grace period.
fn plan_delete(resource: &Resource, object: &Value, options: &Options, now: Timestamp) -> Decision {
    let finalizers = finalizers(object, options.propagation);
    if meta::is_terminating(object) {
        return plan_again(resource, object, options, &finalizers);
    }
    let grace = resource.kind.deletion_grace(object, options.grace_period_seconds);
    let held = !finalizers.is_empty() || held_by_spec(resource, object);
    if !held && grace.unwrap_or(0) <= 0 {
        return Decision::Remove;
    }
    let mut marked = object.clone();
    let seconds = grace.unwrap_or(0).max(0);
    meta::set(&mut marked, "deletionTimestamp", meta::time(later(now, seconds)));
    meta::set(
        &mut marked,
        "deletionGracePeriodSeconds",
        if resource.is("", "namespaces") { Value::Null } else { seconds.into() },
    );
    meta::set(&mut marked, "finalizers", if finalizers.is_empty() { Value::Null } else { json!(finalizers) });
    if let Some(generation) = meta::get(&marked, "generation").as_i64() {
        meta::set(&mut marked, "generation", generation.saturating_add(1));
    }
    if resource.is("", "namespaces")
        && let Some(status) = marked.get_mut("status").and_then(Value::as_object_mut)
    {
        status.insert("phase".to_owned(), "Terminating".into());
    }
    Decision::Mark(marked)
}

/// A deletion of what is already being deleted may shorten the grace period, and removes what nothing holds. When no
/// grace period runs, the propagation policy may still change.
fn plan_again(resource: &Resource, object: &Value, options: &Options, finalizers: &[&str]) -> Decision {
    let free = finalizers.is_empty() && !held_by_spec(resource, object);
    let there = meta::get(object, "deletionGracePeriodSeconds").as_i64().unwrap_or(0);
    if there <= 0 {
        return match finalizers != meta::texts(object, "finalizers") {
            _ if free => Decision::Remove,
            true => {
                let mut marked = object.clone();
                meta::set(&mut marked, "finalizers", json!(finalizers));
                Decision::Mark(marked)
            }
            false => Decision::Wait,
        };
    }
    let asked = resource.kind.deletion_grace(object, options.grace_period_seconds);
    let wanted = options.grace_period_seconds.and(asked).unwrap_or(there).max(0);
    let free = free && meta::texts(object, "finalizers").is_empty();
    if free && (wanted == 0 || resource.kind.deletion_grace(object, None).is_none()) {
        return Decision::Remove;
    }
    if wanted >= there {
        return Decision::Wait;
    }
    let mut marked = object.clone();
    if let Ok(deadline) = meta::text(object, "deletionTimestamp").parse::<Timestamp>() {
        meta::set(&mut marked, "deletionTimestamp", meta::time(later(deadline, wanted - there)));
    }
    meta::set(&mut marked, "deletionGracePeriodSeconds", wanted);
    Decision::Mark(marked)
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// The finalizers after the propagation policy has been taken into account; without one those there are hold.
fn finalizers(object: &Value, propagation: Option<Propagation>) -> Vec<&str> {
    let mut list = meta::texts(object, "finalizers");
    let wanted = match propagation {
        None => return list,
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
    };
    list.retain(|one| ![ORPHAN, FOREGROUND].contains(one) || Some(*one) == wanted);
    if let Some(wanted) = wanted.filter(|wanted| !list.contains(wanted)) {
        list.push(wanted);
    }
    list
}

impl Registry {
    pub(super) async fn delete_object(&self, request: &Request) -> Result<Written, ApiError> {
        let resource = &request.resource;
        let mut current = self.current(request).await?;
        for _ in 0..ATTEMPTS_MAX {
            let object = encode::bare(&current);
            // Again for each newer state: it may be another object of that name, on another node.
            admission::admit_delete(self, request, &object)?;
            check_preconditions(request, &current, &object)?;
            let newer = match plan_delete(resource, &object, &request.options, self.clock.now()) {
                Decision::Wait => return Ok(shown(current)),
                Decision::Mark(marked) => match self.write_raw(request, current.revision, &marked).await? {
                    Ok(marked) => return Ok(shown(marked)),
                    Err(newer) => newer,
                },
                Decision::Remove => match self.remove(request, &current, &object).await? {
                    Ok(last) => return Ok(removed(resource, last, &object)),
                    Err(newer) => newer,
                },
            };
            current = newer.ok_or_else(|| ApiError::not_found(resource.names(), &request.name))?;
        }
        Err(ApiError::modified(resource.names(), &request.name))
    }

    /// Removes the object with what it holds; `Err` with the newer state when it has changed meanwhile.
    async fn remove(
        &self,
        request: &Request,
        current: &Object,
        object: &Value,
    ) -> Result<Result<Object, Option<Object>>, ApiError> {
        if request.options.dry_run {
            return Ok(Ok(current.clone()));
        }
        let plan = Plan {
            key: request.resource.key(&request.namespace, &request.name),
            expect: current.revision,
            releases: self.services.held(&request.resource, object),
            ..Plan::default()
        };
        Ok(match plan.commit(&*self.kv).await? {
            Outcome::Done(revision) => Ok(encode::sent(&encode::stored(object), revision)),
            Outcome::Changed(newer) => Err(newer.map(|kv| encode::sent(&kv.value, kv.mod_revision))),
            Outcome::Overtaken => Err(Some(current.clone())),
        })
    }

    pub(super) async fn delete_matching(&self, request: &Request) -> Result<List, ApiError> {
        let mut list = self.list_objects(request).await?;
        let deletions = list.items.into_iter().map(|object| self.delete_listed(request, object));
        // At the same time, so that they share the store's writes.
        list.items = futures::stream::iter(deletions).buffered(PARALLEL_MAX).try_collect().await?;
        Ok(list)
    }

    /// Deletes one object of a list; one that is gone or was replaced by a namesake meanwhile is passed over.
    async fn delete_listed(&self, request: &Request, object: Object) -> Result<Object, ApiError> {
        let value = object.value();
        let mut one = request.clone();
        one.name = meta::text(&value, "name").to_owned();
        one.namespace = meta::text(&value, "namespace").to_owned();
        one.options.preconditions.uid.get_or_insert_with(|| meta::text(&value, "uid").to_owned());
        match self.delete_object(&one).await {
            Ok(written) if !written.is_status => Ok(written.object),
            Ok(_) => Ok(object),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(object),
            Err(error) => Err(error),
        }
    }
}

fn check_preconditions(request: &Request, current: &Object, object: &Value) -> Result<(), ApiError> {
    let names = request.resource.names();
    let wanted = &request.options.preconditions;
    if let Some(uid) = wanted.uid.as_deref().filter(|uid| *uid != meta::text(object, "uid")) {
        return Err(meta::uid_mismatch(names, &request.name, uid, meta::text(object, "uid")));
    }
    let there = current.revision.to_string();
    if let Some(version) = wanted.resource_version.as_deref().filter(|version| **version != there) {
        return Err(meta::version_mismatch(names, &request.name, version, &there));
    }
    Ok(())
}

fn shown(object: Object) -> Written {
    Written { object, created: false, is_status: false, warnings: Vec::new() }
}

fn removed(resource: &Resource, last: Object, object: &Value) -> Written {
    let names = resource.names();
    if names.group.is_empty() && ANSWERED_WITH_OBJECT.contains(&names.plural) {
        return shown(last);
    }
    let status = status::deleted(names, meta::text(object, "name"), meta::text(object, "uid"));
    let object = Object { json: status.to_string().into(), revision: last.revision };
    Written { object, created: false, is_status: true, warnings: Vec::new() }
}
