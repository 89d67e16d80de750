//! `admissionregistration.k8s.io`: who is asked before an object is written, and rules written in CEL.
//!
//! Rules and words: `pkg/apis/admissionregistration/validation` of Kubernetes. One file per kind; `rules` holds what
//! they share.

mod mutating_policy;
mod policy_bindings;
mod rules;
mod validating_policy;
mod webhooks;

use std::sync::Arc;

use serde_json::Value;

use crate::json::{at, entries, get, list, object_mut, set, text, text_at};
use crate::kind::{Kind, Names};

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(policy_bindings::MutatingAdmissionPolicyBindings),
        Arc::new(mutating_policy::MutatingAdmissionPolicies),
        Arc::new(webhooks::MutatingWebhookConfigurations),
        Arc::new(policy_bindings::ValidatingAdmissionPolicyBindings),
        Arc::new(validating_policy::ValidatingAdmissionPolicies),
        Arc::new(webhooks::ValidatingWebhookConfigurations),
    ]
}

const fn names(kind: &'static str, plural: &'static str, singular: &'static str) -> Names {
    Names {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kind,
        plural,
        singular,
        short: &[],
        categories: &["api-extensions"],
        namespaced: false,
    }
}

/// Counts one generation more when the field differs.
fn next_generation(object: &mut Value, old: &Value, field: &str) {
    let was = at(old, &["metadata", "generation"]).as_i64().unwrap_or_default();
    let now = if get(object, field) == get(old, field) { was } else { was + 1 };
    set(object_mut(object, "metadata"), "generation", now);
}

/// Names that only configuration in files may have, where Kubernetes reads it from files.
fn reserved_name(object: &Value) -> Vec<String> {
    const SUFFIX: &str = ".static.k8s.io";
    if !text_at(object, &["metadata", "name"]).ends_with(SUFFIX) {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: names ending with {SUFFIX:?} are reserved for static manifest-based configurations and cannot be managed via the API"
    )]
}

/// `GROUP/VERSION/KIND` of a policy's parameters, as a cell.
fn param_kind(object: &Value) -> Value {
    let kind = at(object, &["spec", "paramKind"]);
    if kind.is_null() {
        return "<unset>".into();
    }
    format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")).into()
}

/// A selector as Go prints its struct: so it stands in the table of Kubernetes.
fn go_selector(selector: &Value) -> String {
    let labels: String = entries(selector, "matchLabels")
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    let terms: String = list(selector, "matchExpressions")
        .iter()
        .map(|term| {
            let values: Vec<&str> = list(term, "values").iter().filter_map(Value::as_str).collect();
            let (key, operator, values) = (text(term, "key"), text(term, "operator"), values.join(" "));
            format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )
}

/// The parameters that a binding names, as a cell.
fn param_ref(object: &Value) -> Value {
    let reference = at(object, &["spec", "paramRef"]);
    let (namespace, name) = (text(reference, "namespace"), text(reference, "name"));
    match (namespace, name) {
        (_, "") if get(reference, "selector").is_object() => go_selector(get(reference, "selector")).into(),
        (_, "") => "<unset>".into(),
        ("", name) => format!("*/{name}").into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
}
