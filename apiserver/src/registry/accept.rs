//! From a decoded body to an object of the kind: its type, its fields, and what to do about those it should not have.

use reeve_kinds::Kind;
use reeve_kinds::strict::DecodeError;
use serde_json::Value;

use super::meta;
use super::request::{Body, FieldValidation};
use crate::decode;
use crate::status::ApiError;

/// An object whose fields are those of its kind.
pub(crate) struct Accepted {
    /// The object, with `apiVersion`, `kind` and `metadata`.
    pub(crate) object: Value,
    /// Unknown and duplicate fields, when they are only to be warned of, and owners that were named twice.
    pub(crate) warnings: Vec<String>,
}

/// Checks a whole object as it comes with create and update.
pub(crate) fn whole(kind: &dyn Kind, body: Body, validation: FieldValidation) -> Result<Accepted, ApiError> {
    let names = kind.names();
    let Body { value: mut object, complaints, text } = body;
    let (stated_version, stated_kind) = set_type(&mut object, &names.api_version(), names.kind)?;
    let version = stated_version.rsplit('/').next().unwrap_or_default().to_owned();
    let refuse = |why: String| {
        let own = names.kind;
        ApiError::bad_request(format!("{stated_kind} in version {version:?} cannot be handled as a {own}: {why}"))
    };
    let unknown = kind.conform(&mut object).map_err(|error| refuse(error.to_string()))?;
    let mut warnings = judge(all_complaints(complaints, text.as_deref(), unknown), validation).map_err(refuse)?;
    meta::fields(&mut object);
    warnings.extend(meta::drop_repeated_owners(&mut object, ""));
    Ok(Accepted { object, warnings })
}

/// What is wrong with what a patch has made of an object.
pub(crate) enum Refused {
    /// A value does not fit its field.
    Misfit(DecodeError),
    /// Anything else, in words.
    Other(String),
}

/// The form that an object must have.
pub(crate) struct Form<'f> {
    /// `apps/v1`
    pub(crate) api_version: &'f str,
    /// `Deployment`
    pub(crate) kind: &'f str,
    /// Brings it into that form; gives the paths of unknown fields.
    pub(crate) conform: &'f dyn Fn(&mut Value) -> Result<Vec<String>, DecodeError>,
}

/// Checks what a patch has made of an object; complaints blame the patch.
pub(crate) fn patched(
    form: &Form<'_>,
    body: Body,
    validation: FieldValidation,
    refuse: impl Fn(Refused) -> ApiError,
) -> Result<Accepted, ApiError> {
    let Body { value: mut object, complaints, .. } = body;
    let (version, own) = set_type_if_absent(&mut object, form.api_version, form.kind)?;
    if version != form.api_version || own != form.kind {
        let scheme = "in scheme \"pkg/runtime/scheme.go:111\"";
        return Err(refuse(Refused::Other(format!("no kind {own:?} is registered for version {version:?} {scheme}"))));
    }
    let unknown = (form.conform)(&mut object).map_err(|error| refuse(Refused::Misfit(error)))?;
    let all = all_complaints(complaints, None, unknown);
    let mut warnings = judge(all, validation).map_err(|why| refuse(Refused::Other(why)))?;
    meta::fields(&mut object);
    warnings.extend(meta::drop_repeated_owners(&mut object, " after mutating admission happens"));
    Ok(Accepted { object, warnings })
}

/// Kinds that Kubernetes knows in every version of every group.
const IN_EVERY_VERSION: &[&str] =
    &["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"];

/// The kinds that Kubernetes knows, served or not: a line for each version, with the kinds that only it has.
const SCHEME: &str = include_str!("scheme.txt");

/// Groups whose kinds of the same name were once one.
const RELATED: [(&str, &str); 3] = [("", "events.k8s.io"), ("extensions", "apps"), ("extensions", "networking.k8s.io")];

/// Whether Kubernetes knows that kind in that version. Custom resources are not among them.
fn is_registered(api_version: &str, kind: &str) -> bool {
    let line = SCHEME.lines().find_map(|line| line.strip_prefix(api_version)?.strip_prefix(' '));
    let in_scheme =
        line.is_some_and(|kinds| IN_EVERY_VERSION.contains(&kind) || kinds.split(' ').any(|own| own == kind));
    in_scheme || is_builtin(api_version, kind)
}

/// Whether it is served without a definition, or the list of what is: some of these Kubernetes knows elsewhere.
fn is_builtin(api_version: &str, kind: &str) -> bool {
    let of_version = |names: &reeve_kinds::Names| names.api_version() == api_version;
    let is_it = |own: &str| own == kind || kind.strip_suffix("List") == Some(own) || IN_EVERY_VERSION.contains(&kind);
    reeve_kinds::builtin().iter().any(|one| of_version(one.names()) && is_it(one.names().kind))
}

/// Fills in `apiVersion` and `kind`, or checks them. Gives what the object said.
pub(crate) fn set_type(object: &mut Value, api_version: &str, kind: &str) -> Result<(String, String), ApiError> {
    let (own_version, own_kind) = set_type_if_absent(object, api_version, kind)?;
    check_type(own_version, own_kind, api_version, kind)
}

/// Fills in `apiVersion` and `kind`. Gives what the object says.
fn set_type_if_absent(object: &mut Value, api_version: &str, kind: &str) -> Result<(String, String), ApiError> {
    let Some(fields) = object.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; \
             json parse error: json: cannot unmarshal value into Go value of type struct"
        )));
    };
    let mut stated = |name: &str, wanted: &str| match fields.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => {
            fields.insert(name.to_owned(), wanted.into());
            wanted.to_owned()
        }
    };
    Ok((stated("apiVersion", api_version), stated("kind", kind)))
}

fn check_type(
    own_version: String,
    own_kind: String,
    api_version: &str,
    kind: &str,
) -> Result<(String, String), ApiError> {
    if own_version == api_version && own_kind == kind {
        return Ok((own_version, own_kind));
    }
    let split = |version: &str| match version.rsplit_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), version.to_owned()),
    };
    let ((own_group, version), (group, _)) = (split(&own_version), split(api_version));
    let handled = format!("{own_kind} in version {version:?} cannot be handled as a {kind}");
    // Custom resources are not in the scheme.
    if !is_registered(&own_version, &own_kind) && is_registered(api_version, kind) {
        return Err(ApiError::bad_request(format!(
            "{handled}: no kind {own_kind:?} is registered for version {own_version:?} in scheme \
             \"pkg/runtime/scheme.go:111\""
        )));
    }
    let was_one = || RELATED.iter().any(|(a, b)| (*a == own_group && *b == group) || (*b == own_group && *a == group));
    if own_kind != kind || (own_group != group && !was_one()) {
        let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
        return Err(ApiError::bad_request(format!(
            "{handled}: converting ({version}.{own_kind}) to ({package}.{kind}): unknown conversion"
        )));
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({own_version}) does not match the expected API version ({api_version})"
    )))
}

/// All that is wrong with the fields of a body; with its text, in the order in which it stands there.
fn all_complaints(complaints: Vec<String>, text: Option<&[u8]>, unknown: Vec<String>) -> Vec<String> {
    let mut all = match text {
        Some(text) if !unknown.is_empty() => decode::in_order(text, &unknown),
        _ => Vec::new(),
    };
    // What stands in a field that is not known is not read.
    let is_read = |complaint: &String| {
        let path = complaint.strip_prefix("duplicate field \"").unwrap_or_default();
        let below = |rest: &str| rest.starts_with(['"', '.', '[']);
        !unknown.iter().any(|unknown| path.strip_prefix(unknown.as_str()).is_some_and(below))
    };
    all.retain(is_read);
    let complaints: Vec<String> = complaints.into_iter().filter(is_read).collect();
    let unknown = unknown.into_iter().map(|path| format!("unknown field \"{path}\""));
    for complaint in complaints.into_iter().chain(unknown) {
        if !all.contains(&complaint) {
            all.push(complaint);
        }
    }
    all
}

/// What follows from the complaints: warnings, nothing, or a refusal.
fn judge(complaints: Vec<String>, validation: FieldValidation) -> Result<Vec<String>, String> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(complaints),
        FieldValidation::Strict if complaints.is_empty() => Ok(complaints),
        FieldValidation::Strict => {
            let (yaml, mut other): (Vec<_>, Vec<_>) =
                complaints.into_iter().partition(|complaint| decode::is_of_yaml(complaint));
            if !yaml.is_empty() {
                other.insert(0, decode::yaml_errors(&yaml));
            }
            Err(format!("strict decoding error: {}", other.join(", ")))
        }
    }
}
