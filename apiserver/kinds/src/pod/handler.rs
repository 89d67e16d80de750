//! Rules for probes and lifecycle hooks: exactly one way to ask a container something.

use reeve_api::names;
use serde_json::Value;

use super::Scope;
use crate::errors::Errors;
use crate::json::{get, has, int, list, text};
use crate::path::Path;

const PROBE_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

/// Rules for the three probes of a container that may have them.
pub(super) fn probes(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (one, path) = (get(container, kind), path.child(kind));
        if one.is_null() {
            continue;
        }
        probe(one, scope, &path, errors);
        if kind == "readinessProbe" {
            if let Some(grace) = int(one, "terminationGracePeriodSeconds") {
                let path = path.child("terminationGracePeriodSeconds");
                errors.invalid(&path, grace, "must not be set for readinessProbes");
            }
        } else if int(one, "successThreshold") != Some(1) {
            errors.invalid(&path.child("successThreshold"), get(one, "successThreshold").clone(), "must be 1");
        }
    }
}

fn probe(probe: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    handler(probe, PROBE_HANDLERS, scope, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.not_negative(&path.child(field), int(probe, field));
    }
    if let Some(grace) = int(probe, "terminationGracePeriodSeconds").filter(|grace| *grace <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), grace, "must be greater than 0");
    }
}

/// Rules for `lifecycle`.
pub(super) fn lifecycle(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let lifecycle = get(container, "lifecycle");
    for hook in ["postStart", "preStop"].into_iter().filter(|hook| has(lifecycle, hook)) {
        handler(get(lifecycle, hook), HOOK_HANDLERS, scope, &path.child(hook), errors);
    }
}

fn handler(holder: &Value, kinds: &[&str], scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut found = 0;
    for kind in kinds.iter().filter(|kind| has(holder, kind)) {
        let (action, path) = (get(holder, kind), path.child(kind));
        found += 1;
        if found > 1 {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if list(action, "command").is_empty() => errors.required(&path.child("command"), ""),
            "httpGet" => http(action, &path, errors),
            "tcpSocket" | "grpc" => port(get(action, "port"), &path.child("port"), errors),
            "sleep" => sleep(action, scope, &path, errors),
            _ => {}
        }
    }
    if found == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn http(action: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(action, "path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    port(get(action, "port"), &path.child("port"), errors);
    let scheme = text(action, "scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.unsupported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        errors.invalid_each(&path.child("httpHeaders"), name, names::http_header(name));
    }
}

/// A port by number or by name.
pub(crate) fn port(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    match port {
        Value::String(name) => errors.invalid_each(path, name, names::port_name(name)),
        _ => {
            let number = port.as_i64().unwrap_or_default();
            for detail in names::port_number(number) {
                errors.invalid(path, number, detail);
            }
        }
    }
}

fn sleep(action: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let seconds = int(action, "seconds").unwrap_or_default();
    if seconds < 0 || seconds > scope.grace {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({})", scope.grace);
        errors.invalid(path, seconds, detail);
    }
}
