//! `metadata` of objects: what every kind has in common when it is created, changed and deleted.

use jiff::Timestamp;
use reeve_kinds::Names;
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Map, Value};

use super::request::Request;
use crate::status::ApiError;

/// What only the server writes.
const SERVER_OWNED: [&str; 5] =
    ["creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "selfLink", "uid"];

/// A field of `metadata`; null when absent.
pub(crate) fn get<'o>(object: &'o Value, field: &str) -> &'o Value {
    &object["metadata"][field]
}

/// A text field of `metadata`; empty when absent.
pub(crate) fn text<'o>(object: &'o Value, field: &str) -> &'o str {
    get(object, field).as_str().unwrap_or_default()
}

/// Sets a field of `metadata`, or removes it with null.
pub(crate) fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    let value = value.into();
    if let Some(metadata) = fields(object) {
        if value.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(field.to_owned(), value);
        }
    }
}

/// `metadata` itself, made if it is missing.
pub(crate) fn fields(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

/// The texts of a list in `metadata`.
pub(crate) fn texts<'o>(object: &'o Value, field: &str) -> Vec<&'o str> {
    get(object, field).as_array().map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// Drops owner references that are there already. Gives the warning that belongs to it, in Kubernetes' words; a
/// patch has words of its own for `when` that was found.
pub(crate) fn drop_repeated_owners(object: &mut Value, when: &str) -> Option<String> {
    let owners = fields(object)?.get_mut("ownerReferences")?.as_array_mut()?;
    let (mut kept, mut repeated): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for owner in std::mem::take(owners) {
        if kept.contains(&owner) {
            repeated.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    (!repeated.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            repeated.join(", ")
        )
    })
}

/// RFC 3339 with whole seconds, as Kubernetes writes times.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether the object is being deleted.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !get(object, "deletionTimestamp").is_null()
}

/// Brings the namespace of the path into the object and checks that the object says nothing else.
pub(crate) fn check_namespace(object: &mut Value, request: &Request) -> Result<(), ApiError> {
    let own = text(object, "namespace").to_owned();
    if !request.resource.names().namespaced {
        // What lies in no namespace loses one without a word.
        set(object, "namespace", Value::Null);
        return Ok(());
    }
    if request.namespace.is_empty() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    if !own.is_empty() && own != request.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    set(object, "namespace", request.namespace.as_str());
    Ok(())
}

/// The object has no name.
pub(crate) fn undeterminable(name: &str) -> ApiError {
    let why = "was undeterminable: name must be provided";
    ApiError::bad_request(format!("the name of the object ({name} based on URL) {why}"))
}

/// Checks that the object of an update is the one of the path.
pub(crate) fn check_name(object: &mut Value, request: &Request) -> Result<(), ApiError> {
    let own = text(object, "name").to_owned();
    if own.is_empty() {
        set(object, "name", request.name.as_str());
    } else if own != request.name {
        let (own, wanted) = (&own, &request.name);
        return Err(ApiError::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({wanted})"
        )));
    }
    Ok(())
}

/// Takes out of a new object what only the server writes.
pub(crate) fn wipe(object: &mut Value) {
    if let Some(metadata) = fields(object) {
        for field in SERVER_OWNED.iter().chain(&["resourceVersion"]) {
            metadata.remove(*field);
        }
    }
}

/// Gives a new object identity and time of birth, whatever admission wrote there.
pub(crate) fn begin(object: &mut Value, uid: String, now: Timestamp) {
    if let Some(metadata) = fields(object) {
        for field in SERVER_OWNED.iter().chain(&["resourceVersion"]) {
            metadata.remove(*field);
        }
    }
    set(object, "uid", uid);
    set(object, "creationTimestamp", time(now));
}

/// Takes over from the former state what an update cannot change. An attempt to make the object one that is being
/// deleted, or to change how long that takes, stays: the rules for changes refuse it.
pub(crate) fn carry_over(object: &mut Value, old: &Value) {
    for field in ["creationTimestamp", "generation", "uid"] {
        set(object, field, get(old, field).clone());
    }
    if !get(old, "deletionTimestamp").is_null() {
        set(object, "deletionTimestamp", get(old, "deletionTimestamp").clone());
    }
    if get(object, "deletionGracePeriodSeconds").is_null() {
        set(object, "deletionGracePeriodSeconds", get(old, "deletionGracePeriodSeconds").clone());
    }
    set(object, "resourceVersion", Value::Null);
}

/// The version an update is for must be the one there is.
pub(crate) fn check_version(
    object: &Value,
    current: &Value,
    names: &Names,
    unconditional: bool,
) -> Result<(), ApiError> {
    let (asked, there) = (text(object, "resourceVersion"), text(current, "resourceVersion"));
    let name = text(current, "name");
    if asked.is_empty() || asked == "0" {
        if unconditional {
            return Ok(());
        }
        let error = FieldError::new(
            FieldErrorKind::Invalid,
            "metadata.resourceVersion",
            Value::from(0),
            "must be specified for an update",
        );
        // Here Kubernetes names the resource in the kind's place.
        return Err(ApiError::invalid_kind(names.plural, names.group, name, &[error]));
    }
    if asked.parse::<u64>().is_err() {
        // Kubernetes passes on what its parser says, as a fault of its own.
        return Err(ApiError::new(500, "", format!("strconv.ParseUint: parsing {asked:?}: invalid syntax")));
    }
    if asked == there { Ok(()) } else { Err(ApiError::modified(names, name)) }
}

/// A UID that an update names must be that of the object.
pub(crate) fn check_uid(object: &Value, current: &Value, names: &Names, dry_run: bool) -> Result<(), ApiError> {
    let (asked, there) = (text(object, "uid"), text(current, "uid"));
    if asked.is_empty() || asked == there {
        return Ok(());
    }
    // A dry run does not reach Kubernetes' storage, which alone knows the root of all keys.
    let root = if dry_run { "/" } else { ROOT };
    Err(mismatch(root, names, current, "UID", asked, there))
}

/// What all of Kubernetes' keys begin with.
const ROOT: &str = "/registry/";

/// The object is in another version than the client means.
pub(crate) fn version_mismatch(names: &Names, current: &Value, asked: &str, there: &str) -> ApiError {
    mismatch(ROOT, names, current, "ResourceVersion", asked, there)
}

/// What Kubernetes' storage says when the object is not as the client means it to be.
fn mismatch(root: &str, names: &Names, current: &Value, what: &str, asked: &str, there: &str) -> ApiError {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         {what} in precondition: {asked}, {what} in object meta: {there}",
        storage_key(root, names, text(current, "namespace"), text(current, "name"))
    );
    ApiError::conflict(names, text(current, "name"), &why)
}

/// Groups whose kinds Kubernetes keeps under their plain names.
const PLAIN_GROUPS: [&str; 18] = [
    "",
    "admissionregistration.k8s.io",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// The key under which Kubernetes keeps an object: it stands in some of its texts.
fn storage_key(root: &str, names: &Names, namespace: &str, name: &str) -> String {
    let plural = match (names.group, names.plural) {
        ("", "endpoints") => "services/endpoints",
        ("", "nodes") => "minions",
        ("", "replicationcontrollers") => "controllers",
        ("", "services") => "services/specs",
        ("networking.k8s.io", "ingresses") => "ingress",
        (_, plural) => plural,
    };
    let mut key = root.to_owned();
    let group = if PLAIN_GROUPS.contains(&names.group) { "" } else { names.group };
    for part in [group, plural, namespace].into_iter().filter(|part| !part.is_empty()) {
        key.push_str(part);
        key.push('/');
    }
    key.push_str(name);
    key
}
