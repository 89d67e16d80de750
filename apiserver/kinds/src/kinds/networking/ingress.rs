//! Ingress: which requests from outside go to which Service.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use reeve_api::names;
use serde_json::{Value, json};

use super::{GROUP, annotation, reference};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, get, has, int, list, set, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short: &["ing"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

/// What named the class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What may not stand in a path, and how it may not end.
const BAD_SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: &[&str] = &["/..", "/."];
/// Most hosts that a row shows.
const SHOWN_HOSTS: usize = 3;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Class", "The name of the IngressClass resource that should be used for additional configuration"),
    table::column("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
    table::column("Address", "Address is a list containing ingress points for the load-balancer"),
    table::column("Ports", "Ports of TLS configurations that open"),
    table::AGE,
];

/// The kind.
pub(super) struct Ingresses;

impl Kind for Ingresses {
    wiring!(Ingress, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        let (noted, class) = (annotation(object, CLASS_ANNOTATION), at(object, &["spec", "ingressClassName"]).as_str());
        if let (Some(noted), Some(class)) = (noted, class)
            && noted != class
        {
            let detail = "must match `ingressClassName` when both are specified";
            errors.invalid(&Path::of("annotations").child(CLASS_ANNOTATION), noted, detail);
        }
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Status => copy_field(object, old, "spec"),
            _ => copy_field(object, old, "status"),
        }
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        match part {
            Part::Status => addresses(object, &mut errors),
            _ => check(object, &mut errors),
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let noted = annotation(object, CLASS_ANNOTATION).is_some();
        if old.is_none() && noted && !has(get(object, "spec"), "ingressClassName") {
            let why = "is deprecated, please use 'spec.ingressClassName' instead";
            return vec![format!("annotation \"{CLASS_ANNOTATION}\" {why}")];
        }
        Vec::new()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = get(object, "spec");
        let class = get(spec, "ingressClassName").as_str().unwrap_or("<none>");
        let all = list(at(object, &["status", "loadBalancer"]), "ingress").iter();
        let points: BTreeSet<_> = all
            .map(|point| if text(point, "ip").is_empty() { text(point, "hostname") } else { text(point, "ip") })
            .filter(|point| !point.is_empty())
            .collect();
        vec![
            table::name(object),
            class.into(),
            hosts(list(spec, "rules")).into(),
            points.into_iter().collect::<Vec<_>>().join(",").into(),
            if list(spec, "tls").is_empty() { "80" } else { "80, 443" }.into(),
            age::of(object, now).into(),
        ]
    }
}

/// The hosts of the rules, or some of them and how many more rules there are.
fn hosts(rules: &[Value]) -> String {
    let (mut shown, mut more) = (Vec::new(), false);
    for rule in rules {
        more |= shown.len() == SHOWN_HOSTS;
        if !more && !text(rule, "host").is_empty() {
            shown.push(text(rule, "host"));
        }
    }
    match shown.join(",") {
        none if none.is_empty() => "*".to_owned(),
        some if more => format!("{some} + {} more...", rules.len() - SHOWN_HOSTS),
        some => some,
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    let rules = list(spec, "rules");
    if rules.is_empty() && !has(spec, "defaultBackend") {
        errors.invalid(&path, get(spec, "rules").clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if has(spec, "defaultBackend") {
        backend(get(spec, "defaultBackend"), &path.child("defaultBackend"), errors);
    }
    let rules_path = path.child("rules");
    for (index, one) in rules.iter().enumerate() {
        rule(one, &rules_path.index(index), errors);
    }
    let tls_path = path.child("tls");
    for (index, one) in list(spec, "tls").iter().enumerate() {
        tls(one, &tls_path.index(index), errors);
    }
    if let Some(class) = get(spec, "ingressClassName").as_str() {
        errors.invalid_each(&path.child("ingressClassName"), class, names::dns1123_subdomain(class));
    }
}

/// A name of hosts, perhaps with `*` as its first label.
fn host(host: &str, path: &Path<'_>, errors: &mut Errors) {
    let rule = if host.contains('*') { names::wildcard_subdomain } else { names::dns1123_subdomain };
    errors.invalid_each(path, host, rule(host));
}

fn rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (name, host_path) = (text(rule, "host"), path.child("host"));
    if !name.is_empty() {
        if names::sloppy_ip(name).is_some() {
            errors.invalid(&host_path, name, "must be a DNS name, not an IP address");
        }
        host(name, &host_path, errors);
    }
    let http = get(rule, "http");
    if http.is_null() {
        return;
    }
    let path = path.child("http");
    let (paths, path) = (list(http, "paths"), path.child("paths"));
    if paths.is_empty() {
        errors.required(&path, "");
    }
    for (index, one) in paths.iter().enumerate() {
        http_path(one, &path.index(index), errors);
    }
}

fn http_path(one: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(kind) = get(one, "pathType").as_str() else {
        return errors.required(&path.child("pathType"), "pathType must be specified");
    };
    let (text, here) = (text(one, "path"), path.child("path"));
    let absolute = text.starts_with('/');
    match kind {
        "Exact" | "Prefix" => {
            if !absolute {
                errors.invalid(&here, text, "must be an absolute path");
            }
            for bad in BAD_SEQUENCES.iter().filter(|bad| text.contains(**bad)) {
                errors.invalid(&here, text, format!("must not contain '{bad}'"));
            }
            for bad in BAD_ENDS.iter().filter(|bad| text.ends_with(**bad)) {
                errors.invalid(&here, text, format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" if !text.is_empty() && !absolute => {
            errors.invalid(&here, text, "must be an absolute path");
        }
        "ImplementationSpecific" => {}
        other => {
            let known = &["Exact", "ImplementationSpecific", "Prefix"];
            errors.unsupported(&path.child("pathType"), other, known);
        }
    }
    backend(get(one, "backend"), &path.child("backend"), errors);
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (service, resource) = (get(backend, "service"), get(backend, "resource"));
    match (service.is_null(), resource.is_null()) {
        (false, false) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (true, true) => errors.invalid(path, "", "resource or service backend is required"),
        (true, false) => reference(resource, &path.child("resource"), errors),
        (false, true) => service_backend(service, path, errors),
    }
}

fn service_backend(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    let service_path = path.child("service");
    match text(service, "name") {
        "" => errors.required(&service_path.child("name"), ""),
        name => errors.invalid_each(&service_path.child("name"), name, names::dns1123_label(name)),
    }
    let (port, port_path) = (get(service, "port"), service_path.child("port"));
    match (text(port, "name"), int(port, "number").unwrap_or_default()) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => {
            for why in names::port_number(number) {
                errors.invalid(&port_path.child("number"), number, why);
            }
        }
        (name, 0) => errors.invalid_each(&port_path.child("name"), name, names::port_name(name)),
        _ => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

fn tls(tls: &Value, path: &Path<'_>, errors: &mut Errors) {
    let hosts = path.child("hosts");
    for (index, name) in list(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
        host(name, &hosts.index(index), errors);
    }
    let secret = text(tls, "secretName");
    if !secret.is_empty() {
        errors.invalid_each(&path.child("secretName"), secret, names::dns1123_subdomain(secret));
    }
}

/// The points at which the Ingress is reached.
fn addresses(object: &Value, errors: &mut Errors) {
    let path = Path::of("status");
    let path = path.child("loadBalancer");
    let path = path.child("ingress");
    for (index, point) in list(at(object, &["status", "loadBalancer"]), "ingress").iter().enumerate() {
        let (path, ip, name) = (path.index(index), text(point, "ip"), text(point, "hostname"));
        if !ip.is_empty() {
            errors.invalid_each(&path.child("ip"), ip, names::ip(ip));
        }
        if !name.is_empty() {
            errors.invalid_each(&path.child("hostname"), name, names::dns1123_subdomain(name));
            if names::sloppy_ip(name).is_some() {
                errors.invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn ingress(spec: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: a, namespace: n}}, spec: {spec}}}"
        )
    }

    fn plain() -> String {
        ingress(
            "{ingressClassName: c, rules: [{host: a.b, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}",
        )
    }

    #[test]
    fn an_ingress_starts_without_addresses() {
        let object = created(&plain());
        assert_eq!((&object["status"], &object["metadata"]["generation"]), (&json!({"loadBalancer": {}}), &json!(1)));
        check_valid(&plain());
        assert_eq!(row(&plain()), "a | c | a.b |  | 80 | <unknown>");
        let many = ingress("{tls: [{}], rules: [{host: a}, {host: b}, {host: c}, {host: d}, {host: e}]}");
        assert_eq!(row(&many), "a | <none> | a,b,c + 2 more... |  | 80, 443 | <unknown>");
    }

    #[test]
    fn backends_and_paths_are_checked() {
        check_invalid(
            &ingress("{}"),
            &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        );
        check_invalid(
            &ingress(
                "{defaultBackend: {}, rules: [{http: {}}, {host: 1.2.3.4, http: {paths: [{backend: {}}, {pathType: Exact, path: a//b/.., backend: {resource: {kind: K}, service: {}}}, {pathType: X, backend: {service: {name: s, port: {name: p, number: 1}}}}, {pathType: ImplementationSpecific, backend: {service: {name: '', port: {}}}}]}}]}",
            ),
            &[
                "spec.defaultBackend: Invalid value: \"\": resource or service backend is required",
                "spec.rules[0].http.paths: Required value",
                "spec.rules[1].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                "spec.rules[1].http.paths[0].pathType: Required value: pathType must be specified",
                "spec.rules[1].http.paths[1].path: Invalid value: \"a//b/..\": must be an absolute path",
                "spec.rules[1].http.paths[1].path: Invalid value: \"a//b/..\": must not contain '//'",
                "spec.rules[1].http.paths[1].path: Invalid value: \"a//b/..\": cannot end with '/..'",
                "spec.rules[1].http.paths[1].backend: Invalid value: \"\": cannot set both resource and service backends",
                "spec.rules[1].http.paths[2].pathType: Unsupported value: \"X\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                "spec.rules[1].http.paths[2].backend: Invalid value: \"\": cannot set both port name & port number",
                "spec.rules[1].http.paths[3].backend.service.name: Required value",
                "spec.rules[1].http.paths[3].backend: Required value: port name or number is required",
            ],
        );
    }

    #[test]
    fn the_old_annotation_is_warned_of_and_must_say_the_same() {
        let noted = plain().replace("namespace: n", "namespace: n, annotations: {kubernetes.io/ingress.class: d}");
        check_invalid(
            &noted,
            &[
                "annotations.kubernetes.io/ingress.class: Invalid value: \"d\": must match `ingressClassName` when both are specified",
            ],
        );
        check_warned(
            &noted.replace("ingressClassName: c, ", ""),
            &["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"],
        );
    }

    #[test]
    fn the_status_is_written_by_itself() {
        let (new, errors) = updated(Part::Status, &plain(), |new| {
            new["spec"] = json!({});
            new["status"]["loadBalancer"]["ingress"] = json!([{"ip": "1.2.3"}, {"hostname": "1.2.3.4"}]);
        });
        assert_eq!(new["spec"]["ingressClassName"], "c");
        assert_eq!(
            errors,
            [
                "status.loadBalancer.ingress[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "status.loadBalancer.ingress[1].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ]
        );
    }
}
