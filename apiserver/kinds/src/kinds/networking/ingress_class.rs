//! IngressClass: who carries out the Ingresses that name it.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressClass;
use reeve_api::names;
use serde_json::Value;

use super::{GROUP, annotation, reference};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, set_absent, some_mut, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// Most bytes of a controller's name.
const MAX_CONTROLLER: usize = 250;
/// What may stand in the path of a controller's name besides letters and digits.
const PATH_CHARACTERS: &str = "/-._~%!$&'()*+,;=:";
/// Annotation that makes a class the one for Ingresses that name none.
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Controller", "Controller that is responsible for handling this class"),
    table::column("Parameters", "A reference to a resource with additional parameters"),
    table::AGE,
];

/// The kind.
pub(super) struct IngressClasses;

impl Kind for IngressClasses {
    wiring!(IngressClass, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        if let Some(parameters) = some_mut(object, "spec").and_then(|spec| some_mut(spec, "parameters")) {
            set_absent(parameters, "scope", "Cluster");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        meta::next_generation(object, old);
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        let controller = |object| Value::from(text_at(object, &["spec", "controller"]));
        errors.immutable(&Path::of("spec").child("controller"), &controller(object), &controller(old));
        check(object, &mut errors);
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, is_default) = (get(object, "spec"), annotation(object, DEFAULT_ANNOTATION) == Some("true"));
        let target = get(spec, "parameters");
        let group = get(target, "apiGroup").as_str().map(|group| format!(".{group}")).unwrap_or_default();
        let shown = format!("{}{group}/{}", text(target, "kind"), text(target, "name"));
        vec![
            table::name_with_default(object, is_default),
            text(spec, "controller").into(),
            table::or_none(if target.is_null() { "" } else { &shown }),
            age::of(object, now).into(),
        ]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    controller(text(spec, "controller"), &path.child("controller"), errors);
    let target = get(spec, "parameters");
    if !target.is_null() {
        parameters(target, &path.child("parameters"), errors);
    }
}

/// A domain and a path, `example.com/ingress`.
fn controller(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.len() > MAX_CONTROLLER {
        errors.too_long(path, MAX_CONTROLLER);
    }
    if name.is_empty() {
        return errors.required(path, "");
    }
    match name.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            errors.invalid_each(path, host, names::dns1123_subdomain(host));
            if !rest.chars().all(|c| c.is_ascii_alphanumeric() || PATH_CHARACTERS.contains(c)) {
                let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.invalid(path, rest, detail);
            }
        }
        _ => errors.invalid(path, name, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

fn parameters(target: &Value, path: &Path<'_>, errors: &mut Errors) {
    reference(target, path, errors);
    if !has(target, "scope") {
        return errors.required(&path.child("scope"), "");
    }
    let (namespace, namespace_path) = (get(target, "namespace"), path.child("namespace"));
    match text(target, "scope") {
        "Namespace" if namespace.is_null() => {
            errors.required(&namespace_path, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => {
            let name = text(target, "namespace");
            errors.invalid_each(&namespace_path, name, names::dns1123_label(name));
        }
        "Cluster" if !namespace.is_null() => {
            errors.forbidden(&namespace_path, "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        other => errors.unsupported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: a, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}, spec: {controller: example.com/a, parameters: {apiGroup: x.y, kind: P, name: p}}}";

    #[test]
    fn parameters_are_the_cluster_s_unless_said_otherwise() {
        assert_eq!(created(PLAIN)["spec"]["parameters"]["scope"], "Cluster");
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "a (default) | example.com/a | P.x.y/p | <unknown>");
    }

    #[test]
    fn controller_and_parameters_are_checked() {
        check_invalid(
            "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: a}}",
            &["spec.controller: Required value"],
        );
        check_invalid(
            &PLAIN.replace("example.com/a", "'example.com/a b'").replace("kind: P, name: p", "scope: Namespace"),
            &[
                "spec.controller: Invalid value: \"a b\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                "spec.parameters.kind: Required value",
                "spec.parameters.name: Required value",
                "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
            ],
        );
        check_invalid(
            &PLAIN.replace("example.com/a", "plain").replace("name: p", "name: p, namespace: n"),
            &[
                "spec.controller: Invalid value: \"plain\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
            ],
        );
    }

    #[test]
    fn the_controller_stays_and_changes_are_counted() {
        let (new, errors) = updated(Part::Main, PLAIN, |new| new["spec"]["controller"] = json!("example.com/b"));
        assert_eq!(errors, ["spec.controller: Invalid value: \"example.com/b\": field is immutable"]);
        assert_eq!(new["metadata"]["generation"], 2);
    }
}
