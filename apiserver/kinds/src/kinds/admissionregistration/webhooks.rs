//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration: servers that are asked before an object is
//! written.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use reeve_api::names;
use serde_json::{Value, json};

use super::{next_generation, reserved_name, rules};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, int, items_mut, list, set_absent, set_default, some_mut, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const MUTATING: Names =
    super::names("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration");
const VALIDATING: Names =
    super::names("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validatingwebhookconfiguration");

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
    table::AGE,
];

/// Versions of the review that the server speaks.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
/// What a webhook may do besides answering.
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const DEFAULT_TIMEOUT_SECONDS: i64 = 10;
const DEFAULT_PORT: i64 = 443;

/// The kind whose webhooks may change objects.
pub(super) struct MutatingWebhookConfigurations;

/// The kind whose webhooks say yes or no.
pub(super) struct ValidatingWebhookConfigurations;

/// The methods of both kinds, which differ in their names and in the reinvocation policy.
macro_rules! configuration {
    ($kind:ty, $type:ty, $names:expr, $mutating:expr) => {
        impl Kind for $kind {
            wiring!($type, $names, COLUMNS);

            fn default(&self, object: &mut Value) {
                self.shape().fill(object);
                for hook in items_mut(object, "webhooks") {
                    default_hook(hook, $mutating);
                }
            }

            fn prepare_create(&self, object: &mut Value) {
                meta::first_generation(object);
            }

            fn validate_create(&self, object: &Value) -> Vec<FieldError> {
                let mut errors = Errors::default();
                META.create(object, &mut errors);
                hooks(object, None, &mut errors);
                errors.into_vec()
            }

            fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
                next_generation(object, old, "webhooks");
            }

            fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
                let mut errors = Errors::default();
                META.create(object, &mut errors);
                hooks(object, Some(old), &mut errors);
                errors.into_vec()
            }

            fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
                reserved_name(object)
            }

            fn unconditional_update(&self) -> bool {
                false
            }

            fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
                vec![table::name(object), list(object, "webhooks").len().into(), age::of(object, now).into()]
            }
        }
    };
}

configuration!(MutatingWebhookConfigurations, MutatingWebhookConfiguration, MUTATING, true);
configuration!(ValidatingWebhookConfigurations, ValidatingWebhookConfiguration, VALIDATING, false);

fn default_hook(hook: &mut Value, mutating: bool) {
    set_absent(hook, "failurePolicy", "Fail");
    rules::default_match(hook);
    set_default(hook, "timeoutSeconds", DEFAULT_TIMEOUT_SECONDS);
    if mutating {
        set_absent(hook, "reinvocationPolicy", "Never");
    }
    rules::default_rules(hook, "rules");
    if let Some(service) = hook.get_mut("clientConfig").and_then(|config| some_mut(config, "service")) {
        set_default(service, "port", DEFAULT_PORT);
    }
}

fn hooks(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let path = Path::of("webhooks");
    let conditions = |object: &Value| -> Vec<Value> {
        list(object, "webhooks").iter().map(|hook| get(hook, "matchConditions").clone()).collect()
    };
    // Conditions that a change leaves as they are, are not looked at again.
    let same_conditions = old.is_some_and(|old| conditions(old) == conditions(object));
    let mut seen = BTreeSet::new();
    for (index, hook) in list(object, "webhooks").iter().enumerate() {
        let path = path.index(index);
        one_hook(hook, &path, errors);
        if !same_conditions {
            rules::match_conditions(hook, false, &path, errors);
        }
        review_versions(hook, &path.child("admissionReviewVersions"), errors);
        let name = text(hook, "name");
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

fn one_hook(hook: &Value, path: &Path<'_>, errors: &mut Errors) {
    qualified_domain(text(hook, "name"), &path.child("name"), errors);
    let rules_path = path.child("rules");
    for (index, rule) in list(hook, "rules").iter().enumerate() {
        rules::rule(rule, &rules_path.index(index), errors);
    }
    rules::choice(hook, "failurePolicy", rules::FAILURE_POLICIES, path, errors);
    rules::choice(hook, "matchPolicy", rules::MATCH_POLICIES, path, errors);
    if has(hook, "sideEffects") {
        rules::choice(hook, "sideEffects", SIDE_EFFECTS, path, errors);
    } else {
        errors.required(&path.child("sideEffects"), format!("must specify one of {}", SIDE_EFFECTS.join(", ")));
    }
    if let Some(seconds) = int(hook, "timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.child("timeoutSeconds"), seconds, why);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(get(hook, field), &path.child(field), errors);
    }
    rules::choice(hook, "reinvocationPolicy", rules::REINVOCATION_POLICIES, path, errors);
    client_config(get(hook, "clientConfig"), &path.child("clientConfig"), errors);
}

/// A name of at least three parts.
fn qualified_domain(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let broken = names::dns1123_subdomain(name);
    if name.is_empty() {
        errors.required(path, "");
    } else if !broken.is_empty() {
        errors.invalid(path, name, broken.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

fn client_config(config: &Value, path: &Path<'_>, errors: &mut Errors) {
    let service = get(config, "service");
    match (get(config, "url").as_str(), service.is_object()) {
        (Some(_), true) | (None, false) => errors.required(path, "exactly one of url or service is required"),
        (Some(url), false) => webhook_url(url, &path.child("url"), errors),
        (None, true) => webhook_service(service, &path.child("service"), errors),
    }
}

fn webhook_url(url: &str, path: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = match rest.split_once("://") {
        Some((scheme, rest)) => (scheme.to_lowercase(), rest),
        None => (String::new(), ""),
    };
    if scheme != "https" {
        errors.invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.invalid(path, host, format!("host must be specified{FORM}"));
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

fn webhook_service(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    // Kubernetes takes the two for each other: which one is missing is told of the other.
    for (field, told) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, field).is_empty() {
            errors.required(&path.child(told), "");
        }
    }
    let port = int(service, "port").unwrap_or_default();
    let broken = names::port_number(port);
    if !broken.is_empty() {
        errors.invalid(&path.child("port"), port, format!("port is not valid: {}", broken.join(", ")));
    }
    url_path(text(service, "path"), &path.child("path"), errors);
}

fn url_path(stated: &str, path: &Path<'_>, errors: &mut Errors) {
    match stated {
        "" | "/" => return,
        "//" => return errors.invalid(path, stated, "segment[0] may not be empty"),
        _ => {}
    }
    if !stated.starts_with('/') {
        errors.invalid(path, stated, "must start with a '/'");
    }
    let rest = stated.get(1..).unwrap_or_default();
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(path, stated, format!("segment[{index}] may not be empty"));
            continue;
        }
        for broken in names::dns1123_subdomain(step) {
            errors.invalid(path, stated, format!("segment[{index}]: {broken}"));
        }
    }
}

fn review_versions(hook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let all = rules::texts(hook, "admissionReviewVersions");
    if all.is_empty() {
        errors.required(path, format!("must specify one of {}", REVIEW_VERSIONS.join(", ")));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, version) in all.iter().enumerate() {
        if seen.insert(*version) {
            errors.invalid_each(&path.index(index), version, names::dns1035_label(version));
        } else {
            errors.invalid(&path.index(index), *version, "duplicate version");
        }
    }
    if !all.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        errors.invalid(path, json!(all), format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn an_empty_choice_is_not_taken_for_one_that_is_left_out() {
        check_update(
            PLAIN,
            |new| new["webhooks"][0]["matchPolicy"] = "".into(),
            &["webhooks[0].matchPolicy: Unsupported value: \"\": supported values: \"Equivalent\", \"Exact\""],
        );
    }

    const PLAIN: &str = "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration,
        metadata: {name: a}, webhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1],
        clientConfig: {service: {namespace: n, name: s}},
        rules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}]}";

    #[test]
    fn a_webhook_is_about_everybody_fails_closed_and_has_ten_seconds() {
        check_created(
            PLAIN,
            "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration,
            metadata: {name: a, generation: 1}, webhooks: [{name: a.b.c, sideEffects: None,
            admissionReviewVersions: [v1], clientConfig: {service: {namespace: n, name: s, port: 443}},
            failurePolicy: Fail, matchPolicy: Equivalent, namespaceSelector: {}, objectSelector: {},
            timeoutSeconds: 10, reinvocationPolicy: Never,
            rules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods], scope: '*'}]}]}",
        );
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "a | 1 | <unknown>");
        let validating = PLAIN.replace("Mutating", "Validating");
        check_valid(&validating);
        assert!(created(&validating)["webhooks"][0]["reinvocationPolicy"].is_null());
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_told_in_kubernetes_words() {
        check_invalid(
            &PLAIN
                .replace("a.b.c", "a.b")
                .replace("sideEffects: None", "sideEffects: Some, timeoutSeconds: 31")
                .replace("[v1],\n        client", "[v2],\n        client"),
            &[
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ],
        );
        check_invalid(
            &PLAIN.replace("service: {namespace: n, name: s}", "url: 'http://u@/x?y#z'"),
            &[
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "webhooks[0].clientConfig.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
                "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"z\": fragments are not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"y\": query parameters are not permitted in the URL",
            ],
        );
        check_invalid(
            &PLAIN.replace("service: {namespace: n, name: s}", "caBundle: ''"),
            &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
        );
    }

    #[test]
    fn rules_say_each_thing_once() {
        check_invalid(
            &PLAIN.replace("[CREATE]", "['*', READ]").replace("[pods]", "['*/*', pods/*, pods/log]"),
            &[
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"READ\"]: if '*' is present, must not specify other operations",
                "webhooks[0].rules[0].operations[1]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/*\": if '*/*' is present, must not specify pods/*",
                "webhooks[0].rules[0].resources[2]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
                "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods/*\",\"pods/log\"]: if '*/*' is present, must not specify other resources",
            ],
        );
    }

    #[test]
    fn a_change_of_the_webhooks_is_a_generation() {
        let change = |object: &mut serde_json::Value| object["webhooks"][0]["timeoutSeconds"] = 5.into();
        assert_eq!(updated(crate::Part::Main, PLAIN, change).0["metadata"]["generation"], 2);
        let label = |object: &mut serde_json::Value| object["metadata"]["labels"] = serde_json::json!({ "a": "b" });
        assert_eq!(updated(crate::Part::Main, PLAIN, label).0["metadata"]["generation"], 1);
    }

    #[test]
    fn conditions_must_compile_and_know_no_parameters() {
        let with =
            |conditions: &str| PLAIN.replace("sideEffects", &format!("matchConditions: [{conditions}], sideEffects"));
        check_valid(&with("{name: a, expression: \"object.metadata.name != 'x'\"}"));
        check_invalid(
            &with("{name: a, expression: params.x}, {name: a, expression: ' '}"),
            &[
                "webhooks[0].matchConditions[0].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x\n | ^",
                "webhooks[0].matchConditions[1].expression: Required value",
                "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
            ],
        );
    }
}
