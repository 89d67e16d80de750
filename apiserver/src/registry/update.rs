//! Changing an object: replace, status, finalize, and the loop that patches and scales share.

use reeve_kinds::Part;
use reeve_kinds::field::FieldError;
use reeve_store::Revision;
use serde_json::Value;

use super::answer::{Object, Written};
use super::commit::{Outcome, Plan};
use super::request::{Body, Request, Subresource};
use super::services::Allocation;
use super::{Registry, accept, attribution, encode, managed, meta};
use crate::admission::{self, Attributes, resource_quota};
use crate::status::ApiError;

/// How often a change is tried on newer and newer states before the client is told of the conflict.
const ATTEMPTS_MAX: u32 = 32;

/// What an edit makes of the current state.
pub(super) struct Edited {
    /// The wanted state. Its resourceVersion and uid, where set, must be the current ones.
    pub(super) object: Value,
    /// Texts for the `Warning` header.
    pub(super) warnings: Vec<String>,
    /// Whether a missing resourceVersion is fine although the kind demands one.
    pub(super) unconditional: bool,
    /// Who manages what then, where the edit has decided that itself.
    pub(super) managed: Option<Value>,
    /// What admission is shown in place of the object, for a subresource with a body of its own.
    pub(super) shown: Option<Shown>,
}

/// Brings a subresource's body into the object.
type Put = Box<dyn Fn(&Value, &mut Value) -> Result<(), ApiError> + Send + Sync>;

/// A subresource's own body, as admission sees it.
pub(super) struct Shown {
    /// Its group, version and kind.
    pub(super) kind: (&'static str, &'static str, &'static str),
    /// As it is.
    pub(super) old: Value,
    /// As it is to be.
    pub(super) new: Value,
    /// Brings what admission made of it into the object.
    pub(super) put: Put,
}

impl Registry {
    pub(super) async fn update_object(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        let kind = &*request.resource.kind;
        let mut accepted = accept::whole(kind, body, request.options.field_validation)?;
        // What is wrong with the fields is told of a refused object too.
        request.warnings.add_all(&accepted.warnings);
        meta::check_namespace(&mut accepted.object, request)?;
        if meta::text(&accepted.object, "name").is_empty() {
            let name = &request.name;
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        meta::check_name(&mut accepted.object, request)?;
        let may_create = kind.create_on_update() && request.subresource == Subresource::None;
        if may_create && self.current(request).await.is_err_and(|error| error.is_not_found()) {
            if let Some(refusal) = &request.options.create_refusal {
                return Err(ApiError::clone(refusal));
            }
            meta::set(&mut accepted.object, "resourceVersion", Value::Null);
            let mut written = self.create_object(request, Body::from(accepted.object)).await?;
            written.warnings.splice(0..0, accepted.warnings);
            return Ok(written);
        }
        let edit = |_: &Value| {
            let (object, warnings) = (accepted.object.clone(), accepted.warnings.clone());
            let unconditional = kind.unconditional_update();
            Ok(Edited { object, warnings, unconditional, managed: None, shown: None })
        };
        self.change(request, edit).await
    }

    /// The object as it is now, with its resourceVersion.
    pub(super) async fn current(&self, request: &Request) -> Result<Object, ApiError> {
        self.cache.fresh().await?;
        let key = self.cache_key(request, &request.name);
        let found = request.resource.storage.get(key.as_bytes());
        found.ok_or_else(|| ApiError::not_found(request.resource.names(), &request.name))
    }

    /// As [`Registry::current`], in the version of the request.
    pub(super) async fn current_shown(&self, request: &Request) -> Result<Object, ApiError> {
        request.resource.shown(self.current(request).await?).await
    }

    /// Reads, edits, checks and writes; again on the newer state while others are faster. An edit that carries
    /// a resourceVersion fails on the second round by itself.
    pub(super) async fn change(
        &self,
        request: &Request,
        edit: impl Fn(&Value) -> Result<Edited, ApiError>,
    ) -> Result<Written, ApiError> {
        let names = request.resource.names();
        let mut current = self.current_shown(request).await?;
        for _ in 0..ATTEMPTS_MAX {
            let mut old = current.value();
            let mut edited = edit(&old)?;
            meta::check_uid(&edited.object, &old, names, request.options.dry_run)?;
            meta::check_version(&edited.object, &old, names, edited.unconditional)?;
            meta::set(&mut old, "resourceVersion", Value::Null);
            let mut plan = Plan { expect: current.revision, ..Plan::default() };
            let new = self.settle(request, &mut edited, &mut old, &mut plan).await?;
            plan.taken = resource_quota::take(self, &Attributes::update(request, Value::Null, &old), &new)?;
            let mut warnings = edited.warnings;
            if request.subresource == Subresource::None {
                warnings.extend(request.resource.kind.warnings(&new, Some(&old)));
            }
            match self.write_change(request, &current, &old, new, plan).await? {
                Attempt::Done(object) => return Ok(Written { object, created: false, is_status: false, warnings }),
                Attempt::Again(newer) => current = request.resource.shown(newer).await?,
            }
        }
        Err(ApiError::modified(names, &request.name))
    }

    /// Defaults, managers, admission and rules: from the wanted state to the one that is stored. `plan` says which
    /// revision it starts from; neither state has a resourceVersion before and after.
    async fn settle(
        &self,
        request: &Request,
        edited: &mut Edited,
        old: &mut Value,
        plan: &mut Plan,
    ) -> Result<Value, ApiError> {
        let resource = &request.resource;
        let mut object = std::mem::take(&mut edited.object);
        let stated = meta::get(&object, "resourceVersion").clone();
        let sent = managed::take(&mut object);
        let decided = edited.managed.take();
        let managers = |object: &Value, old: &Value| {
            decided.clone().unwrap_or_else(|| managed::of_changed(request, object, old, &sent, self.clock.now()))
        };
        meta::carry_over(&mut object, old);
        let part = if let Subresource::Part(part) = request.subresource { part } else { Part::Main };
        let is_finalize = request.subresource == Subresource::Finalize;
        if !is_finalize {
            resource.kind.default(&mut object);
        }
        let early = (!managed::is_narrow(part)).then(|| managers(&object, old));
        meta::set(&mut object, "managedFields", early.clone().unwrap_or_default());
        meta::set(&mut object, "resourceVersion", stated);
        self.mutate_change(request, edited, (&mut object, old), plan.expect).await?;
        resource.kind.shape().null_empty(&mut object);
        self.check_grant(request, &object, Some(old)).await?;
        if is_finalize {
            object = finalize(&object, old);
        } else {
            resource.kind.prepare_update(part, &mut object, old);
            attribution::complete_changed(request, part, &mut object, old, self.clock.now());
        }
        let managers_now = early.unwrap_or_else(|| managers(&object, old));
        meta::set(&mut object, "managedFields", managers_now);
        if resource.is("", "services") && part == Part::Main {
            let service = Allocation { old: Some(old), dry_run: request.options.dry_run, rng: &*self.rng };
            self.services.allocate(&self.cache, &mut object, service, plan)?;
        }
        let mut errors: Vec<FieldError> = Vec::new();
        if !is_finalize {
            errors.extend(reeve_kinds::common_changes(&*resource.kind, &object, old));
            errors.extend(resource.kind.validate_update(part, &object, old));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource.names(), &request.name, &errors));
        }
        self.validate_change(request, edited, (&mut object, old), plan.expect).await?;
        Ok(object)
    }

    /// The mutating phase of admission: on the object, or on the body that its subresource has.
    async fn mutate_change(
        &self,
        request: &Request,
        edited: &mut Edited,
        (new, old): (&mut Value, &mut Value),
        revision: Revision,
    ) -> Result<(), ApiError> {
        if let Some(shown) = &mut edited.shown {
            let attributes = Attributes::update(request, std::mem::take(&mut shown.new), &shown.old);
            let mut attributes = attributes.of_kind(Subresource::Scale.name(), shown.kind);
            admission::mutate(self, &mut attributes).await?;
            shown.new = std::mem::take(&mut attributes.object);
            (shown.put)(&shown.new, new)?;
        } else {
            meta::set(old, "resourceVersion", revision.to_string());
            let mut attributes = Attributes::update(request, std::mem::take(new), old);
            admission::mutate(self, &mut attributes).await?;
            *new = attributes.object;
            meta::set(old, "resourceVersion", Value::Null);
            meta::check_namespace(new, request)?;
            meta::check_name(new, request)?;
        }
        // What an update cannot change, admission cannot change either.
        meta::carry_over(new, old);
        Ok(())
    }

    /// The validating phase of admission, which sees both states with the resourceVersion there is.
    async fn validate_change(
        &self,
        request: &Request,
        edited: &Edited,
        (new, old): (&mut Value, &mut Value),
        revision: Revision,
    ) -> Result<(), ApiError> {
        if let Some(shown) = &edited.shown {
            let attributes = Attributes::update(request, shown.new.clone(), &shown.old);
            return admission::validate(self, &attributes.of_kind(Subresource::Scale.name(), shown.kind)).await;
        }
        for object in [&mut *new, &mut *old] {
            meta::set(object, "resourceVersion", revision.to_string());
        }
        let attributes = Attributes::update(request, std::mem::take(new), old);
        admission::validate(self, &attributes).await?;
        *new = attributes.object;
        for object in [new, old] {
            meta::set(object, "resourceVersion", Value::Null);
        }
        Ok(())
    }

    async fn write_change(
        &self,
        request: &Request,
        current: &Object,
        old: &Value,
        new: Value,
        mut plan: Plan,
    ) -> Result<Attempt, ApiError> {
        let gone = super::deletion::is_complete(&request.resource, &new);
        if !gone && (new == *old || managed::differ_in_times_only(old, &new)) {
            return Ok(Attempt::Done(current.clone()));
        }
        let texts = request.resource.to_store(&new).await?;
        if request.options.dry_run {
            return Ok(Attempt::Done(texts.sent(current.revision)));
        }
        plan.key = request.resource.key(&request.namespace, &request.name);
        if gone {
            plan.claims.clear();
            plan.taken.clear();
            plan.releases = self.services.held(&request.resource, old);
        } else {
            plan.value = Some(texts.stored.clone());
        }
        self.with_addresses(&mut plan, old);
        match plan.commit(&*self.kv, &request.resource.storage.figures.calls).await? {
            // What is gone with this change is shown in the version that it was changed in.
            Outcome::Done(_) if gone => Ok(Attempt::Done(texts.sent(current.revision))),
            Outcome::Done(revision) => Ok(Attempt::Done(texts.sent(revision))),
            Outcome::Changed(None) => Err(ApiError::not_found(request.resource.names(), &request.name)),
            Outcome::Changed(Some(kv)) => {
                let newer = encode::sent(&kv.value, kv.mod_revision);
                Ok(Attempt::Again(request.resource.storage.ingested(newer)))
            }
            Outcome::Overtaken => {
                self.cache.fresh().await?;
                Ok(Attempt::Again(current.clone()))
            }
        }
    }

    /// Writes a stored state as it is, past defaults, admission and conversion: for the server's own changes (marks of
    /// deletion, bindings). `None` when the object has changed meanwhile.
    pub(super) async fn write_raw(
        &self,
        request: &Request,
        expect: Revision,
        object: &Value,
    ) -> Result<Result<Object, Option<Object>>, ApiError> {
        let text = encode::stored(object);
        if request.options.dry_run {
            return Ok(Ok(encode::sent(&text, expect)));
        }
        let key = request.resource.key(&request.namespace, &request.name);
        let plan = Plan { key, value: Some(text.clone()), expect, ..Plan::default() };
        Ok(match plan.commit(&*self.kv, &request.resource.storage.figures.calls).await? {
            Outcome::Done(revision) => Ok(encode::sent(&text, revision)),
            Outcome::Changed(newer) => Err(newer.map(|kv| encode::sent(&kv.value, kv.mod_revision))),
            Outcome::Overtaken => Err(None),
        })
    }
}

enum Attempt {
    Done(Object),
    Again(Object),
}

/// `namespaces/NAME/finalize` changes `spec.finalizers` and nothing else.
fn finalize(object: &Value, old: &Value) -> Value {
    let mut new = old.clone();
    let finalizers = object["spec"]["finalizers"].clone();
    if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
        if finalizers.as_array().is_none_or(Vec::is_empty) {
            spec.remove("finalizers");
        } else {
            spec.insert("finalizers".to_owned(), finalizers);
        }
    }
    new
}
