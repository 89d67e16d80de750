//! Deleting: at once, gracefully, or when the finalizers are gone; one object or a collection. What is done to an
//! object is decided in `deletion.rs`.

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use super::answer::{List, Object, Written};
use super::commit::{Outcome, Plan};
use super::deletion::{self, Decision};
use super::request::Request;
use super::resource::Resource;
use super::{Registry, encode, meta};
use crate::admission::{self, Attributes};
use crate::status::{self, ApiError};

/// How often a deletion is tried on newer and newer states.
const ATTEMPTS_MAX: u32 = 32;

/// How many objects of a collection are deleted at the same time.
const PARALLEL_MAX: usize = 32;

/// How an attempt went.
enum Attempt {
    Done(Written),
    /// The object has changed meanwhile; `None`: it is gone.
    Again(Option<Object>),
}

/// What admission is asked about a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Nothing: it has let the deletion through before.
    Before,
    /// The object that the request names.
    ForObject,
    /// An object of the collection that the request names.
    ForCollection,
}

impl Registry {
    pub(super) async fn delete_object(&self, request: &Request) -> Result<Written, ApiError> {
        if let Some(why) = request.resource.kind.undeletable(&request.name) {
            return Err(ApiError::forbidden(request.resource.names(), &request.name, why));
        }
        let warnings = deletion::warnings(request);
        request.warnings.add_all(&warnings);
        let mut written = self.delete_one(request, None, Asked::ForObject).await?;
        if !written.is_status {
            written.object = request.resource.shown(written.object).await?;
        }
        written.warnings = warnings;
        Ok(written)
    }

    /// As [`Registry::delete_object`], for what has passed admission already.
    pub(super) async fn delete_admitted(&self, request: &Request) -> Result<Written, ApiError> {
        self.delete_one(request, None, Asked::Before).await
    }

    /// Whether an answer to a deletion shows an object that others still hold.
    #[must_use]
    pub fn is_still_there(request: &Request, written: &Written) -> bool {
        if written.is_status {
            return false;
        }
        let object = written.object.value();
        meta::is_terminating(&object) && !deletion::is_complete(&request.resource, &object)
    }

    /// What the user is to be warned of before a deletion of an object or a collection.
    #[must_use]
    pub fn deletion_warnings(request: &Request) -> Vec<String> {
        deletion::warnings(request)
    }

    /// Deletes the object; with a uid only that one: another one of its name counts as not found.
    async fn delete_one(&self, request: &Request, uid: Option<&str>, asked: Asked) -> Result<Written, ApiError> {
        let names = request.resource.names();
        let mut request = request.clone();
        let mut current = self.current(&request).await?;
        for _ in 0..ATTEMPTS_MAX {
            if uid.is_some_and(|uid| uid != meta::text(&current.value(), "uid")) {
                return Err(ApiError::not_found(names, &request.name));
            }
            match self.try_delete(&mut request, &current, asked).await? {
                Attempt::Done(written) => return Ok(written),
                Attempt::Again(newer) => {
                    current = newer.ok_or_else(|| ApiError::not_found(names, &request.name))?;
                }
            }
        }
        Err(ApiError::modified(names, &request.name))
    }

    async fn try_delete(&self, request: &mut Request, current: &Object, asked: Asked) -> Result<Attempt, ApiError> {
        let object = encode::bare(current);
        deletion::check_preconditions(request, &object, &current.revision.to_string())?;
        let decision = deletion::plan(&request.resource, &object, &request.options, self.clock.now());
        if decision == Decision::Wait {
            return Ok(Attempt::Done(shown(current.clone())));
        }
        // Again for each newer state: it may be another object of that name, on another node.
        if asked != Asked::Before {
            let old = request.resource.shown(current.clone()).await?.value();
            let of_collection = asked == Asked::ForCollection;
            let mut attributes = Attributes { of_collection, ..Attributes::delete(request, &old) };
            admission::admit(self, &mut attributes).await?;
        }
        let (marked, removes) = match decision {
            Decision::Wait => return Ok(Attempt::Done(shown(current.clone()))),
            Decision::Remove => return self.remove(request, current, &object).await,
            Decision::Mark(marked) => (marked, false),
            Decision::MarkAndRemove(marked) => (marked, true),
        };
        if marked == object && !removes {
            return Ok(Attempt::Done(shown(current.clone())));
        }
        let seen = match self.write_raw(request, current.revision, &marked).await? {
            Ok(seen) => seen,
            Err(newer) => return Ok(Attempt::Again(newer)),
        };
        if !removes || request.options.dry_run {
            return Ok(Attempt::Done(shown(seen)));
        }
        // From here on it is our own mark that the client's version stands before.
        if let Some(version) = &mut request.options.preconditions.resource_version {
            *version = seen.revision.to_string();
        }
        match self.remove(request, &seen, &marked).await? {
            // Somebody else has removed what was marked.
            Attempt::Again(None) => Ok(Attempt::Done(shown(seen))),
            attempt => Ok(attempt),
        }
    }

    /// Removes the object with what it holds.
    async fn remove(&self, request: &Request, current: &Object, object: &Value) -> Result<Attempt, ApiError> {
        let done = |last| Ok(Attempt::Done(removed(&request.resource, last, object)));
        if request.options.dry_run {
            return done(current.clone());
        }
        let mut plan = Plan {
            key: request.resource.key(&request.namespace, &request.name),
            expect: current.revision,
            releases: self.services.held(&request.resource, object),
            ..Plan::default()
        };
        self.with_addresses(&mut plan, object);
        match plan.commit(&*self.kv, &request.resource.storage.figures.calls).await? {
            Outcome::Done(revision) => done(encode::sent(&encode::stored(object), revision)),
            Outcome::Changed(newer) => Ok(Attempt::Again(newer.map(|kv| encode::sent(&kv.value, kv.mod_revision)))),
            Outcome::Overtaken => Ok(Attempt::Again(Some(current.clone()))),
        }
    }

    /// Deletes what the selectors match and answers what it was before. The first complaint ends it; what has been
    /// deleted by then stays deleted.
    pub(super) async fn delete_matching(&self, request: &Request) -> Result<List, ApiError> {
        let list = self.list_objects(request).await?;
        let deletions = list.items.clone().into_iter().map(|object| self.delete_listed(request, object));
        // At the same time, so that they share the store's writes.
        futures::stream::iter(deletions).buffer_unordered(PARALLEL_MAX).try_collect::<()>().await?;
        Ok(list)
    }

    /// Deletes one object of a list; one that is gone or was replaced by a namesake meanwhile is passed over.
    async fn delete_listed(&self, request: &Request, object: Object) -> Result<(), ApiError> {
        let value = object.value();
        let mut one = request.clone();
        one.name = meta::text(&value, "name").to_owned();
        one.namespace = meta::text(&value, "namespace").to_owned();
        match self.delete_one(&one, Some(meta::text(&value, "uid")), Asked::ForCollection).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn shown(object: Object) -> Written {
    Written { object, created: false, is_status: false, warnings: Vec::new() }
}

fn removed(resource: &Resource, last: Object, object: &Value) -> Written {
    if deletion::is_answered_with_object(resource) {
        return shown(last);
    }
    let status = status::deleted(resource.names(), meta::text(object, "name"), meta::text(object, "uid"));
    let object = Object::whole(status.to_string(), last.revision);
    Written { object, created: false, is_status: true, warnings: Vec::new() }
}
