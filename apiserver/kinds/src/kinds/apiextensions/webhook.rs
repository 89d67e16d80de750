//! Where a webhook is reached (`k8s.io/apiserver/pkg/util/webhook`).

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::json::{get, has, int, text};
use crate::path::Path;

/// The rules for the URL of a webhook.
pub(super) fn url(url: &str, path: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => (scheme.to_lowercase(), rest),
        _ => (String::new(), url),
    };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        errors.invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        errors.invalid(path, "", format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

/// The rules for the Service of a webhook. Kubernetes gives name and namespace in each other's place.
pub(super) fn service(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, place) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, field).is_empty() {
            errors.required(&path.child(place), "");
        }
    }
    let port = int(service, "port").unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.invalid(&path.child("port"), port, detail);
    }
    if !has(service, "path") {
        return;
    }
    service_path(get(service, "path").as_str().unwrap_or_default(), &path.child("path"), errors);
}

fn service_path(own: &str, path: &Path<'_>, errors: &mut Errors) {
    if own == "/" || own.is_empty() {
        return;
    }
    if own == "//" {
        errors.invalid(path, own, "segment[0] may not be empty");
        return;
    }
    if !own.starts_with('/') {
        errors.invalid(path, own, "must start with a '/'");
    }
    let first = own.chars().next().map_or(0, char::len_utf8);
    let steps = &own[first..];
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(path, own, format!("segment[{index}] may not be empty"));
        }
        let broken = if step.is_empty() { Vec::new() } else { names::dns1123_subdomain(step) };
        for failure in broken {
            errors.invalid(path, own, format!("segment[{index}]: {failure}"));
        }
    }
}
