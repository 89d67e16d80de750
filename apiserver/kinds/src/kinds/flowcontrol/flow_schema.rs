//! FlowSchema: which requests belong to which priority level.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use reeve_api::names;
use serde_json::{Value, json};

use super::{GROUP, bootstrap, conditions, policy_rules};
use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::{at, copy_field, get, int, list, object_mut, set, set_default_number, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::shown::{self, Go};
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// Highest number that says how late a schema is tried.
const MAX_PRECEDENCE: i64 = 10_000;

const METHOD: &[(&str, &str, Go)] = &[("Type", "type", Go::Text)];

/// The spec as complaints show it.
const SPEC: Go = Go::Struct(&[
    ("PriorityLevelConfiguration", "priorityLevelConfiguration", Go::Struct(&[("Name", "name", Go::Text)])),
    ("MatchingPrecedence", "matchingPrecedence", Go::Number),
    ("DistinguisherMethod", "distinguisherMethod", Go::Pointer(METHOD)),
    (
        "Rules",
        "rules",
        Go::List(&[
            (
                "Subjects",
                "subjects",
                Go::List(&[
                    ("Kind", "kind", Go::Text),
                    ("User", "user", Go::Pointer(&[("Name", "name", Go::Text)])),
                    ("Group", "group", Go::Pointer(&[("Name", "name", Go::Text)])),
                    (
                        "ServiceAccount",
                        "serviceAccount",
                        Go::Pointer(&[("Namespace", "namespace", Go::Text), ("Name", "name", Go::Text)]),
                    ),
                ]),
            ),
            (
                "ResourceRules",
                "resourceRules",
                Go::List(&[
                    ("Verbs", "verbs", Go::Plain),
                    ("APIGroups", "apiGroups", Go::Plain),
                    ("Resources", "resources", Go::Plain),
                    ("ClusterScope", "clusterScope", Go::Flag),
                    ("Namespaces", "namespaces", Go::Plain),
                ]),
            ),
            (
                "NonResourceRules",
                "nonResourceRules",
                Go::List(&[("Verbs", "verbs", Go::Plain), ("NonResourceURLs", "nonResourceURLs", Go::Plain)]),
            ),
        ]),
    ),
]);

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("PriorityLevel", "`name` is the name of the priority level configuration being referenced Required."),
    table::column(
        "MatchingPrecedence",
        "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen FlowSchema is among those with the numerically lowest (which we take to be logically highest) MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the precedence is not specified, it will be set to 1000 as default.",
    ),
    table::column(
        "DistinguisherMethod",
        "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
    ),
    table::AGE,
    table::column("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
];

/// The kind.
pub(super) struct FlowSchemas;

impl Kind for FlowSchemas {
    wiring!(FlowSchema, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        set_default_number(object_mut(object, "spec"), "matchingPrecedence", 1000);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Status {
            meta::keep_for_status(object, old);
            copy_field(object, old, "spec");
        } else {
            meta::next_generation(object, old);
            copy_field(object, old, "status");
        }
    }

    fn validate_update(&self, part: Part, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        match part {
            Part::Status => conditions(object, &mut errors),
            _ => check(object, &mut errors),
        }
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = get(object, "spec");
        let dangling = list(get(object, "status"), "conditions").iter().find(|one| text(one, "type") == "Dangling");
        vec![
            table::name(object),
            text_at(spec, &["priorityLevelConfiguration", "name"]).into(),
            int(spec, "matchingPrecedence").unwrap_or_default().into(),
            table::or_none(text_at(spec, &["distinguisherMethod", "type"])),
            age::of(object, now).into(),
            dangling.map_or("?", |condition| text(condition, "status")).into(),
        ]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (spec, name, path) = (get(object, "spec"), text_at(object, &["metadata", "name"]), Path::of("spec"));
    spec_rules(spec, name, &path, errors);
    let mandatory = bootstrap::mandatory_flow_schemas();
    let wanted = mandatory.iter().find(|schema| text_at(schema, &["metadata", "name"]) == name);
    if wanted.is_some_and(|wanted| get(wanted, "spec") != spec) {
        let detail = format!("spec of '{name}' must equal the fixed value");
        errors.invalid_object(&path, shown::go(spec, &SPEC), detail);
    }
    conditions(object, errors);
}

fn spec_rules(spec: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    let (precedence, here) = (int(spec, "matchingPrecedence").unwrap_or_default(), path.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.invalid(&here, precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(&here, precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != "exempt" {
        errors.invalid(&here, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let (method, here) = (get(spec, "distinguisherMethod"), path.child("distinguisherMethod"));
    if !method.is_null() && !["ByNamespace", "ByUser"].contains(&text(method, "type")) {
        let (shown, detail) =
            (shown::go(method, &Go::Pointer(METHOD)), "supported values: \"ByNamespace\", \"ByUser\"");
        errors.add_text(FieldErrorKind::NotSupported, &here.child("type"), shown, detail);
    }
    let here = path.child("priorityLevelConfiguration");
    match text(at(spec, &["priorityLevelConfiguration"]), "name") {
        "" => errors.required(&here.child("name"), "must reference a priority level"),
        level => errors.invalid_each(&here.child("name"), level, names::dns1123_subdomain(level)),
    }
    let path = path.child("rules");
    for (index, rule) in list(spec, "rules").iter().enumerate() {
        policy_rules::check(rule, &path.index(index), errors);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn schema(name: &str, spec: &str) -> String {
        format!(
            "{{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {{name: {name}}}, spec: {spec}}}"
        )
    }

    #[test]
    fn a_schema_comes_late_unless_it_says_otherwise() {
        let plain = schema("a", "{priorityLevelConfiguration: {name: l}}");
        assert_eq!(created(&plain)["spec"]["matchingPrecedence"], 1000);
        check_valid(&plain);
        assert_eq!(row(&plain), "a | l | 0 | <none> | <unknown> | ?");
    }

    #[test]
    fn schemas_are_checked() {
        check_invalid(
            &schema("a", "{matchingPrecedence: 1, distinguisherMethod: {type: X}, rules: [{}]}"),
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"X\"}: supported values: \"ByNamespace\", \"ByUser\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        );
        check_invalid(
            &schema(
                "a",
                "{priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: X}, {kind: User, group: {name: g}}, {kind: ServiceAccount, serviceAccount: {name: '*'}}], resourceRules: [{verbs: [get, '*'], apiGroups: ['*', a], resources: []}, {verbs: [read], apiGroups: [a], resources: [b], namespaces: [A_]}], nonResourceRules: [{verbs: [get], nonResourceURLs: ['', a, /a/*/b]}]}]}",
            ),
            &[
                "spec.rules[0].subjects[0].kind: Unsupported value: \"X\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "spec.rules[0].subjects[1].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0].subjects[1].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                "spec.rules[0].subjects[2].serviceAccount.namespace: Required value: must specify namespace for service account",
                "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs",
                "spec.rules[0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other api groups",
                "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                "spec.rules[0].resourceRules[1].verbs: Unsupported value: [\"read\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                "spec.rules[0].resourceRules[1].namespaces[0]: Invalid value: \"A_\": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"\": must not be empty",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"a\": must start with slash",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/a/*/b\": wildcard can only do suffix matching",
            ],
        );
    }

    #[test]
    fn a_mandatory_schema_says_what_it_always_says() {
        check_invalid(
            &schema("exempt", "{matchingPrecedence: 1, priorityLevelConfiguration: {name: exempt}}"),
            &[
                "spec: Invalid value: {\"PriorityLevelConfiguration\":{\"Name\":\"exempt\"},\"MatchingPrecedence\":1,\"DistinguisherMethod\":null,\"Rules\":null}: spec of 'exempt' must equal the fixed value",
            ],
        );
    }
}
