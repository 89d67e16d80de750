//! Creating an object.

use reeve_api::rng::RngExt as _;
use serde_json::Value;

use super::answer::Written;
use super::commit::{Outcome, Plan};
use super::request::{Body, Request};
use super::services::Allocation;
use super::update::Edited;
use super::{Registry, accept, attribution, encode, managed, meta};
use crate::admission::{self, Attributes, resource_quota};
use crate::status::ApiError;

/// How often a generated name is drawn, and how often a decision is made again that others have overtaken.
const ATTEMPTS_MAX: u32 = 8;

/// How often what an object costs is taken again from quotas that others have taken from meanwhile: of so many
/// creations at the same time in a namespace with a quota, the last one still gets through.
const TAKE_ATTEMPTS_MAX: u32 = 256;

/// Length of the random part of a generated name.
const SUFFIX_LEN: usize = 5;

/// Longest `generateName` that is used in full, so that the name fits a label value.
const PREFIX_LEN_MAX: usize = 58;

impl Registry {
    pub(super) async fn create_object(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        let kind = &*request.resource.kind;
        let accepted = accept::whole(kind, body, request.options.field_validation)?;
        // What is wrong with the fields is told of a refused object too.
        request.warnings.add_all(&accepted.warnings);
        let mut object = accepted.object;
        let sent = managed::take(&mut object);
        if let Some(why) = kind.refuses_creation() {
            return Err(ApiError::forbidden(request.resource.names(), meta::text(&object, "name"), why));
        }
        meta::check_namespace(&mut object, request)?;
        if !request.name.is_empty() {
            meta::check_name(&mut object, request)?;
        }
        let version = meta::text(&object, "resourceVersion").to_owned();
        meta::wipe(&mut object);
        set_version(&mut object, version);
        kind.default(&mut object);
        let managed = managed::of_new(request, &object, &sent, self.clock.now());
        self.create_managed(request, object, managed, accepted.warnings).await
    }

    /// Creates what an apply has made of nothing.
    pub(super) async fn create_edited(&self, request: &Request, new: Edited) -> Result<Written, ApiError> {
        let mut object = new.object;
        meta::wipe(&mut object);
        request.resource.kind.default(&mut object);
        self.create_managed(request, object, new.managed.unwrap_or_default(), new.warnings).await
    }

    /// Creates an object that has its defaults and whose managers are known.
    async fn create_managed(
        &self,
        request: &Request,
        mut object: Value,
        managed: Value,
        warnings: Vec<String>,
    ) -> Result<Written, ApiError> {
        meta::set(&mut object, "managedFields", managed.clone());
        let mut attributes = Attributes::create(request, object);
        admission::mutate(self, &mut attributes).await?;
        let mut object = std::mem::take(&mut attributes.object);
        request.resource.kind.shape().null_empty(&mut object);
        meta::check_namespace(&mut object, request)?;
        self.check_grant(request, &object, None).await?;
        let version = meta::text(&object, "resourceVersion").to_owned();
        meta::begin(&mut object, self.rng.uuid(), self.clock.now());
        set_version(&mut object, version);
        request.resource.kind.prepare_create(&mut object);
        attribution::complete_new(request, &mut object, self.clock.now());
        meta::set(&mut object, "managedFields", managed);
        let mut written = self.create_prepared(attributes, &object).await?;
        written.warnings.splice(0..0, warnings);
        Ok(written)
    }

    /// Decides and writes, again while others overtake the decision.
    async fn create_prepared(&self, mut attributes: Attributes<'_>, prepared: &Value) -> Result<Written, ApiError> {
        let request = attributes.request;
        let names = request.resource.names();
        let generated = meta::text(prepared, "name").is_empty() && !meta::text(prepared, "generateName").is_empty();
        let mut last_name = String::new();
        for _ in 0..ATTEMPTS_MAX {
            attributes.object = prepared.clone();
            let mut plan = Plan { guards: admission::guards(self, &attributes).await?, ..Plan::default() };
            let mut object = std::mem::take(&mut attributes.object);
            if generated {
                meta::set(&mut object, "name", self.generate_name(meta::text(prepared, "generateName")));
                // Some defaults and labels hold the name.
                request.resource.kind.default(&mut object);
                request.resource.kind.prepare_create(&mut object);
            }
            last_name = meta::text(&object, "name").to_owned();
            self.finish_create(&mut attributes, &mut object, &mut plan).await?;
            let warnings = request.resource.kind.warnings(&object, None);
            // They are told even when there is such an object already.
            request.warnings.add_all(&warnings);
            if request.options.dry_run {
                resource_quota::take(self, &Attributes::create(request, Value::Null), &object)?;
                match self.dry_create(request, &last_name, &object, warnings).await {
                    Err(error) if generated && error.is_already_exists() => continue,
                    answer => return answer,
                }
            }
            check_unversioned(&mut object)?;
            let texts = request.resource.to_store(&object).await?;
            self.with_addresses(&mut plan, &object);
            plan.key = request.resource.key(&request.namespace, &last_name);
            plan.value = Some(texts.stored.clone());
            match self.commit_and_take(request, &object, plan).await? {
                Outcome::Done(revision) => {
                    let object = texts.sent(revision);
                    return Ok(Written { object, created: true, is_status: false, warnings });
                }
                Outcome::Changed(there) if !generated => {
                    let there = there.map(|kv| encode::sent(&kv.value, kv.mod_revision).value());
                    return Err(taken(names, &last_name, there.as_ref()));
                }
                Outcome::Changed(_) => {}
                Outcome::Overtaken => self.cache.fresh().await?,
            }
        }
        if generated {
            return Err(ApiError::generated_name_taken(names, &last_name));
        }
        Err(ApiError::conflict(
            names,
            &last_name,
            "the namespace or an allocation changed while the object was created",
        ))
    }

    /// The kind's own rules, the claims on what there is only once, then the validating phase of admission.
    async fn finish_create(
        &self,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        plan: &mut Plan,
    ) -> Result<(), ApiError> {
        let resource = &attributes.request.resource;
        if resource.is("", "services") {
            self.cache.fresh().await?;
            let service = Allocation { old: None, dry_run: attributes.request.options.dry_run, rng: &*self.rng };
            self.services.allocate(&self.cache, object, service, plan)?;
        }
        let errors = resource.kind.validate_create(object);
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource.names(), meta::text(object, "name"), &errors));
        }
        attributes.object = std::mem::take(object);
        admission::validate(self, attributes).await?;
        *object = std::mem::take(&mut attributes.object);
        Ok(())
    }

    /// Writes, and takes what the object costs from the quotas of its namespace; again while only they have changed.
    async fn commit_and_take(&self, request: &Request, object: &Value, plan: Plan) -> Result<Outcome, ApiError> {
        let attributes = Attributes::create(request, Value::Null);
        for _ in 0..TAKE_ATTEMPTS_MAX {
            let taken = resource_quota::take(self, &attributes, object)?;
            if taken.is_empty() {
                return plan.commit(&*self.kv, &request.resource.storage.figures.calls).await;
            }
            let outcome = Plan { taken: taken.clone(), ..plan.clone() }
                .commit(&*self.kv, &request.resource.storage.figures.calls)
                .await?;
            if !matches!(outcome, Outcome::Overtaken) {
                return Ok(outcome);
            }
            self.cache.fresh().await?;
            if resource_quota::take(self, &attributes, object)? == taken {
                // Something else has changed.
                return Ok(Outcome::Overtaken);
            }
        }
        Ok(Outcome::Overtaken)
    }

    async fn dry_create(
        &self,
        request: &Request,
        name: &str,
        object: &Value,
        warnings: Vec<String>,
    ) -> Result<Written, ApiError> {
        self.cache.fresh().await?;
        let key = self.cache_key(request, name);
        if let Some(there) = request.resource.storage.get(key.as_bytes()) {
            return Err(taken(request.resource.names(), name, Some(&there.value())));
        }
        Ok(Written { object: encode::unwritten(object), created: true, is_status: false, warnings })
    }

    fn generate_name(&self, prefix: &str) -> String {
        let cut = prefix.char_indices().nth(PREFIX_LEN_MAX).map_or(prefix.len(), |(at, _)| at);
        format!("{}{}", &prefix[..cut], self.rng.suffix(SUFFIX_LEN))
    }
}

/// Carries the version that a client has given to a new object, for admission and for what would store it.
fn set_version(object: &mut Value, version: String) {
    if !version.is_empty() {
        meta::set(object, "resourceVersion", version);
    }
}

/// Only what stores an object looks at its version, when everything else has been found right; what is no number there
/// is dropped.
fn check_unversioned(object: &mut Value) -> Result<(), ApiError> {
    let version = meta::text(object, "resourceVersion").parse::<u64>().unwrap_or_default();
    if version != 0 {
        return Err(ApiError::unknown("resourceVersion should not be set on objects to be created"));
    }
    meta::set(object, "resourceVersion", Value::Null);
    Ok(())
}

/// There is an object of that name; of one that is going it is said.
fn taken(names: &reeve_kinds::Names, name: &str, there: Option<&Value>) -> ApiError {
    let mut error = ApiError::already_exists(names, name);
    if there.is_some_and(meta::is_terminating) {
        error.message = format!("object is being deleted: {}", error.message);
    }
    error
}
