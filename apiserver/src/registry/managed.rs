//! Who manages which field: the hooks that creates, updates, patches and applies share.
//!
//! The book itself is kept by [`reeve_kinds::managed`]; here is when it is opened: after defaults and before the kind
//! resets what the request may not change, as in Kubernetes. What a part of an object resets nobody manages by it.

use jiff::Timestamp;
use reeve_kinds::Part;
use reeve_kinds::managed::{self, ApplyError, Context, Managed, Set};
use reeve_kinds::shape::Shape;
use serde_json::{Value, json};
use tracing::warn;

use super::request::{Body, FieldValidation, Request, Subresource};
use super::update::Edited;
use super::{Registry, TransientPart, meta};
use crate::decode;
use crate::status::{ApiError, Cause, Details};

/// Kinds whose status is written without touching `metadata`.
const STATUS_KEEPS_METADATA: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("apiregistration.k8s.io", "apiservices"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("networking.k8s.io", "servicecidrs"),
    ("resource.k8s.io", "resourceclaims"),
    ("storage.k8s.io", "volumeattachments"),
];

/// What a write of this part does not change, whatever it says.
fn reset(request: &Request) -> Set {
    let resource = &request.resource;
    let names = resource.names();
    let (spec, status): (&[&str], &[&str]) = (&["spec"], &["status"]);
    let is_csr = resource.is("certificates.k8s.io", "certificatesigningrequests");
    match request.subresource {
        Subresource::Part(Part::Status) => match (names.group, names.plural) {
            ("", "pods") => Set::of(&[spec, &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]),
            ("apps", "deployments") => Set::of(&[spec, &["metadata", "labels"]]),
            _ if is_csr => Set::of(&[spec, &["status", "conditions"]]),
            own if STATUS_KEEPS_METADATA.contains(&own) => Set::of(&[spec, &["metadata"]]),
            _ if *resource.kind.shape() == Shape::Any => Set::of(&[spec, &["metadata"]]),
            _ => Set::of(&[spec]),
        },
        Subresource::Part(Part::Approval) => Set::of(&[spec, &["status", "certificate"]]),
        Subresource::Finalize => Set::of(&[status]),
        Subresource::None if is_csr => Set::of(&[spec, status]),
        Subresource::None if resource.kind.parts().contains(&Part::Status) => Set::of(&[status]),
        _ => Set::default(),
    }
}

/// Whether a part can change so little that what it leaves as it was is only known once the kind has put it back.
pub(super) fn is_narrow(part: Part) -> bool {
    matches!(part, Part::EphemeralContainers | Part::Resize)
}

/// The name under which the writer is known.
pub(super) fn manager(request: &Request) -> &str {
    let options = &request.options;
    if options.field_manager.is_empty() { &options.client } else { &options.field_manager }
}

fn with_context<R>(request: &Request, now: Timestamp, run: impl FnOnce(&Context<'_>) -> R) -> R {
    let names = request.resource.names();
    let (api_version, now, reset) = (names.api_version(), meta::time(now), reset(request));
    run(&Context {
        api_version: &api_version,
        kind: names.kind,
        subresource: request.subresource.name(),
        schema: request.resource.kind.merge_schema(),
        reset: &reset,
        versions: &request.resource.versions(),
        now: &now,
    })
}

/// Takes `metadata.managedFields` out of an object; null when it has none.
pub(super) fn take(object: &mut Value) -> Value {
    let taken = meta::fields(object).and_then(|metadata| metadata.remove("managedFields"));
    taken.unwrap_or(Value::Null)
}

/// Who manages what of a new object. `sent` is what the client says of it.
pub(super) fn of_new(request: &Request, object: &Value, sent: &Value, now: Timestamp) -> Value {
    with_context(request, now, |context| {
        let before = managed::before(&Value::Null, sent, context.subresource);
        let update = |()| managed::update(context, None, object, before, manager(request));
        encode(check_fit(request, object).and_then(update))
    })
}

/// Who manages what of a body of which nothing is stored.
pub(super) fn of_body(request: &Request, part: TransientPart, object: &Value, sent: &Value, now: Timestamp) -> Value {
    let names = part.kind.names();
    let (api_version, now, reset) = (names.api_version(), meta::time(now), Set::default());
    let context = Context {
        api_version: &api_version,
        kind: names.kind,
        subresource: part.subresource,
        schema: part.kind.merge_schema(),
        reset: &reset,
        versions: &managed::OneVersion,
        now: &now,
    };
    let before = managed::before(&Value::Null, sent, context.subresource);
    encode(managed::update(&context, None, object, before, manager(request)))
}

/// Who manages what after an update. `sent` is what the client says of it.
pub(super) fn of_changed(request: &Request, object: &Value, old: &Value, sent: &Value, now: Timestamp) -> Value {
    with_context(request, now, |context| {
        let before = managed::before(meta::get(old, "managedFields"), sent, context.subresource);
        let update = |()| managed::update(context, Some(old), object, before, manager(request));
        encode(check_fit(request, object).and_then(|()| check_fit(request, old)).and_then(update))
    })
}

/// Objects of built-in kinds fit their schema since they were decoded; custom resources are only judged later, without
/// what this write does not change.
fn check_fit(request: &Request, object: &Value) -> Result<(), managed::Misfits> {
    let kind = &request.resource.kind;
    if *kind.shape() == Shape::Any { managed::validate(kind.merge_schema(), object, true) } else { Ok(()) }
}

/// Nobody manages an object that does not fit its schema; as in Kubernetes, that is no reason to refuse it.
fn encode(outcome: Result<Managed, managed::Misfits>) -> Value {
    outcome.map(Managed::encode).unwrap_or_else(|why| {
        warn!(%why, "The managers of an object's fields are not known.");
        Value::Null
    })
}

/// Whether two states differ in nothing but the times at which managers last wrote.
pub(super) fn differ_in_times_only(old: &Value, new: &Value) -> bool {
    let entries = |object: &'_ Value| meta::get(object, "managedFields").as_array().cloned().unwrap_or_default();
    let (mut before, mut after) = (entries(old), entries(new));
    if before.is_empty() || before.len() != after.len() {
        return false;
    }
    for entry in before.iter_mut().chain(&mut after) {
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
    }
    before == after && same_but_managers(old, new)
}

fn same_but_managers(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    old.len() == new.len()
        && old.iter().all(|(key, value)| match (key.as_str(), value, new.get(key)) {
            ("metadata", Value::Object(old), Some(Value::Object(new))) => {
                old.len() == new.len()
                    && old.iter().all(|(key, value)| key == "managedFields" || new.get(key) == Some(value))
            }
            (_, value, other) => other == Some(value),
        })
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::BadRequest(why) => Self::bad_request(why),
            ApplyError::Unfit(why) => Self::unknown(why),
            ApplyError::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|conflict| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: conflict.message(),
                    field: conflict.field(),
                });
                let details = Details { causes: causes.collect(), ..Details::default() };
                let message = managed::conflict_message(&conflicts);
                Self { details: Some(Box::new(details)), ..Self::new(409, "Conflict", message) }
            }
        }
    }
}

/// What an apply makes of an object; `None`: of one that does not exist. The object is of its kind's form.
pub(super) fn applied(
    request: &Request,
    config: &Body,
    current: Option<&Value>,
    now: Timestamp,
) -> Result<Edited, ApiError> {
    let names = request.resource.names();
    let mut live = current
        .cloned()
        .unwrap_or_else(|| json!({ "apiVersion": names.api_version(), "kind": names.kind, "metadata": {} }));
    let managers = take(&mut live);
    let applied = with_context(request, now, |context| apply(context, request, config, &live, &managers))?;
    let mut object = applied.object;
    request.resource.kind.conform_applied(&mut object).map_err(|why| {
        let shown = managed::shown_object(&config.value);
        ApiError::unknown(format!("failed to convert new object ({shown}) to proper version: {why}"))
    })?;
    let warnings = judge(config, request.options.field_validation)?;
    if current.is_none() && !meta::text(&object, "uid").is_empty() {
        let uid = meta::text(&object, "uid");
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(ApiError::conflict(names, &request.name, &why));
    }
    meta::check_namespace(&mut object, request)?;
    if meta::text(&object, "name").is_empty() {
        return Err(meta::undeterminable(&request.name));
    }
    meta::check_name(&mut object, request)?;
    Ok(Edited { object, warnings, unconditional: true, managed: Some(applied.managed.encode()), shown: None })
}

/// Applies a configuration to an object whose managers are given.
pub(super) fn apply(
    context: &Context<'_>,
    request: &Request,
    config: &Body,
    live: &Value,
    managers: &Value,
) -> Result<managed::Applied, ApiError> {
    let managers = Managed::stored(managers)
        .map_err(|why| ApiError::unknown(format!("failed to decode managed fields: {why}")))?;
    let asked = managed::Request {
        config: &config.value,
        manager: &request.options.field_manager,
        force: request.options.force == Some(true),
    };
    Ok(managed::apply(context, live, managers, asked)?)
}

/// Fields that stand twice in the configuration.
pub(super) fn judge(config: &Body, validation: FieldValidation) -> Result<Vec<String>, ApiError> {
    let complaints = &config.complaints;
    match validation {
        FieldValidation::Warn => Ok(complaints.clone()),
        FieldValidation::Strict if !complaints.is_empty() => {
            let text = decode::yaml_errors(complaints);
            Err(ApiError::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {text}")))
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

impl Registry {
    /// Applies a configuration; an object that does not exist is made.
    pub(super) async fn apply_object(
        &self,
        request: &Request,
        config: &Body,
    ) -> Result<super::answer::Written, ApiError> {
        /// How often it is tried while others delete and create the object.
        const ATTEMPTS_MAX: u32 = 8;
        for _ in 0..ATTEMPTS_MAX {
            let edit = |current: &Value| applied(request, config, Some(current), self.clock.now());
            match self.change(request, edit).await {
                Err(error) if error.is_not_found() && request.subresource == Subresource::None => {}
                answer => return answer,
            }
            let new = applied(request, config, None, self.clock.now())?;
            if let Some(refusal) = &request.options.create_refusal {
                return Err((**refusal).clone());
            }
            match self.create_edited(request, new).await {
                Err(error) if error.is_already_exists() => {}
                answer => return answer,
            }
        }
        Err(ApiError::modified(request.resource.names(), &request.name))
    }
}
