//! Policies in CEL, in force on the registry.

use serde_json::{Value, json};

use super::{Events, World, data};
use crate::auth::{Attributes, Authorizer, Decision, KnownRules, Target};
use crate::custom::tests::{create, define, definition};
use crate::registry::{Patch, UserInfo};
use crate::status::ApiError;

/// What a policy is about: config maps.
fn constraints(operations: &[&str]) -> Value {
    json!({ "resourceRules": [
        { "operations": operations, "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }
    ] })
}

/// A policy about creations and changes of config maps, with a binding of the same name.
async fn validating(world: &World, name: &str, spec: Value, binding: Value) {
    put(world, "validating", name, spec, binding).await;
}

async fn mutating(world: &World, name: &str, mut spec: Value, binding: Value) {
    if spec["reinvocationPolicy"].is_null() {
        spec["reinvocationPolicy"] = "Never".into();
    }
    put(world, "mutating", name, spec, binding).await;
}

async fn put(world: &World, flavor: &str, name: &str, mut spec: Value, mut binding: Value) {
    if spec["matchConstraints"].is_null() {
        spec["matchConstraints"] = constraints(&["CREATE", "UPDATE"]);
    }
    binding["policyName"] = name.into();
    if flavor == "validating" && binding["validationActions"].is_null() {
        binding["validationActions"] = json!(["Deny"]);
    }
    let metadata = json!({ "name": name });
    world.create(&format!("{flavor}admissionpolicies"), json!({ "metadata": metadata, "spec": spec })).await;
    let path = format!("{flavor}admissionpolicybindings");
    world.create(&path, json!({ "metadata": metadata, "spec": binding })).await;
}

async fn refused(world: &World, name: &str, value: &str) -> ApiError {
    let object = json!({ "metadata": { "name": name }, "data": { "a": value } });
    world.try_create("configmaps", object).await.expect_err("it is refused")
}

#[tokio::test]
async fn a_bound_policy_refuses_at_once_with_the_code_of_its_reason_and_not_after_its_removal() {
    let world = World::new().await;
    let rule = json!({ "expression": "object.data.a != 'bad'", "messageExpression": "'not ' + object.data.a",
        "reason": "RequestEntityTooLarge" });
    validating(&world, "p", json!({ "validations": [rule] }), json!({})).await;
    world.config_map("good", json!({ "a": "fine" })).await;
    let error = refused(&world, "x", "bad").await;
    let said = "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: not bad";
    assert_eq!(error.message, format!("configmaps \"x\" is forbidden: {said}"));
    assert_eq!((error.code, error.reason), (413, "RequestEntityTooLarge"));
    assert_eq!(error.details.unwrap().causes[0].message, said);
    let request = world.request("configmaps");
    let strange = json!({ "metadata": { "name": "x" }, "data": { "a": "bad" }, "odd": 1 });
    world.registry.create(&request, strange.into()).await.expect_err("it is refused");
    assert_eq!(request.warnings.take(), ["unknown field \"odd\""], "what is wrong with the body is told all the same");
    let changed = world.merge("configmaps/good", json!({ "data": { "a": "bad" } })).await;
    assert_eq!(changed.expect_err("changes are meant too").code, 413);
    world.delete("validatingadmissionpolicybindings/p").await.unwrap();
    world.config_map("x", json!({ "a": "bad" })).await;
}

#[tokio::test]
async fn a_changed_policy_holds_for_the_next_request() {
    let world = World::new().await;
    let rules = |expression: &str| json!({ "validations": [{ "expression": expression }] });
    validating(&world, "p", rules("object.data.a == '1'"), json!({})).await;
    refused(&world, "x", "2").await;
    let patch = json!({ "spec": rules("object.data.a == '2'") });
    let request = world.request("validatingadmissionpolicies/p");
    world.registry.patch(&request, Patch::Merge(patch.into())).await.unwrap();
    world.config_map("x", json!({ "a": "2" })).await;
    refused(&world, "y", "1").await;
}

#[tokio::test]
async fn a_binding_may_only_warn_and_what_goes_wrong_is_passed_over_where_the_policy_says_so() {
    let world = World::new().await;
    let rule = |expression: &str| json!([{ "expression": expression, "message": "m" }]);
    let warn = json!({ "validationActions": ["Warn", "Audit"] });
    validating(&world, "w", json!({ "validations": rule("false") }), warn).await;
    let lax = json!({ "failurePolicy": "Ignore", "validations": rule("object.nope == 1") });
    validating(&world, "i", lax, json!({})).await;
    let request = world.request("configmaps");
    let object = json!({ "metadata": { "name": "x" } });
    world.registry.create(&request, object.into()).await.unwrap();
    let said = "Validation failed for ValidatingAdmissionPolicy 'w' with binding 'w': m";
    assert_eq!(request.warnings.take(), [said]);
}

#[tokio::test]
async fn parameters_are_found_by_name_or_selector_in_the_namespace_of_the_request() {
    let world = World::new().await;
    let with_params = json!({
        "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "matchConditions": [{ "name": "not-params", "expression": "!has(object.metadata.labels)" }],
        "validations": [{ "expression": "params == null || object.data.a == params.data.wanted" }]
    });
    let param = |name: &str, wanted: &str| json!({ "metadata": { "name": name, "labels": { "is": "param" } }, "data": { "wanted": wanted } });
    let by = |reference: Value| json!({ "paramRef": reference });
    let reference = json!({ "name": "one", "parameterNotFoundAction": "Deny" });
    validating(&world, "p", with_params.clone(), by(reference)).await;
    let missing = refused(&world, "x", "1").await;
    assert!(missing.message.ends_with(
        "'p' with binding 'p' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    ), "{}", missing.message);
    world.delete("validatingadmissionpolicybindings/p").await.unwrap();
    world.create("configmaps", param("one", "1")).await;
    let selected = json!({ "selector": { "matchLabels": { "is": "param" } }, "parameterNotFoundAction": "Allow" });
    let binding = json!({ "metadata": { "name": "s" },
        "spec": { "policyName": "p", "validationActions": ["Deny"], "paramRef": selected } });
    world.create("validatingadmissionpolicybindings", binding).await;
    refused(&world, "x", "2").await;
    world.config_map("x", json!({ "a": "1" })).await;
    world.create("configmaps", param("two", "2")).await;
    refused(&world, "y", "1").await;
    world.create("namespaces", json!({ "metadata": { "name": "other" } })).await;
    world.create("configmaps/other/", json!({ "metadata": { "name": "x" }, "data": { "a": "9" } })).await;
}

#[tokio::test]
async fn a_kind_of_parameters_that_is_not_served_refuses_what_the_policy_is_about() {
    let world = World::new().await;
    let spec =
        json!({ "paramKind": { "apiVersion": "v1", "kind": "Nope" }, "validations": [{ "expression": "true" }] });
    let binding = json!({ "paramRef": { "name": "x", "parameterNotFoundAction": "Deny" } });
    validating(&world, "p", spec, binding).await;
    let why = "failed to find resource referenced by paramKind: '/v1, Kind=Nope'";
    assert_eq!(
        refused(&world, "x", "1").await.message,
        format!(
            "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: {why}"
        )
    );
    world.create("secrets", json!({ "metadata": { "name": "x" } })).await;
}

#[tokio::test]
async fn deletions_show_the_old_object_and_collections_no_name() {
    let world = World::new().await;
    let spec = json!({
        "matchConstraints": constraints(&["DELETE"]),
        "validations": [{ "expression": "object != null", "messageExpression": "oldObject.metadata.name + '.' + request.operation" }]
    });
    validating(&world, "p", spec, json!({})).await;
    world.config_map("x", json!({})).await;
    let error = world.delete("configmaps/x").await.expect_err("it is refused");
    assert!(error.message.starts_with("configmaps \"x\" is forbidden: ") && error.message.ends_with(": x.DELETE"));
    let error = world.registry.delete_collection(&world.request("configmaps")).await.expect_err("it is refused");
    assert!(error.message.starts_with("configmaps \"Unknown\" is forbidden: "), "{}", error.message);
}

#[tokio::test]
async fn a_rule_means_all_versions_of_a_resource_unless_it_says_exact() {
    let world = World::new().await;
    let spec = |policy: &str| {
        json!({
            "matchConstraints": { "matchPolicy": policy, "resourceRules": [
                { "operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["*"] }
            ] },
            "validations": [{ "expression": "false", "messageExpression":
                "object.apiVersion + ' ' + string(object.spec.targetCPUUtilizationPercentage) + ' ' + request.requestKind.version" }]
        })
    };
    let metrics = json!([{ "type": "Resource",
        "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } }]);
    let scaler = json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "x" },
        "spec": { "maxReplicas": 3, "metrics": metrics,
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" } } });
    let mut request = world.request("horizontalpodautoscalers");
    request.resource = world.registry.resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
    validating(&world, "exact", spec("Exact"), json!({})).await;
    world.registry.create(&request, scaler.clone().into()).await.unwrap();
    validating(&world, "equivalent", spec("Equivalent"), json!({})).await;
    let error = world.registry.create(&request, scaler.into()).await.expect_err("it is refused");
    assert!(error.message.ends_with("denied request: autoscaling/v1 50 v2"), "{}", error.message);
}

#[tokio::test]
async fn what_configures_policies_is_never_judged_by_policies() {
    let world = World::new().await;
    let everything = json!({
        "matchConstraints": { "resourceRules": [
            { "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"] }
        ] },
        "validations": [{ "expression": "false" }]
    });
    validating(&world, "p", everything, json!({})).await;
    refused(&world, "x", "1").await;
    world.delete("validatingadmissionpolicies/p").await.unwrap();
    world.config_map("x", json!({})).await;
}

/// Lets only `jane` do anything.
struct OnlyJane;

impl Authorizer for OnlyJane {
    fn decide(&self, asked: &Attributes<'_>) -> Decision {
        let is_asked = matches!(asked.target, Target::Resource { resource: "configmaps", .. });
        if asked.user.name == "jane" && is_asked {
            Decision::allow()
        } else {
            Decision::Refused { reason: "no".into() }
        }
    }

    fn rules(&self, _: &UserInfo, _: &str) -> KnownRules {
        KnownRules::default()
    }
}

#[tokio::test]
async fn expressions_may_ask_what_the_user_may_do() {
    let mut world = World::new().await;
    world.registry.policies.set_authorizer(std::sync::Arc::new(OnlyJane));
    let spec = json!({ "validations": [{ "expression": "authorizer.requestResource.check('frob').allowed()" }] });
    validating(&world, "p", spec, json!({})).await;
    refused(&world, "x", "1").await;
    world.user = UserInfo::new("jane", &[]);
    world.config_map("x", json!({})).await;
}

#[tokio::test]
async fn mutations_come_one_after_the_other_and_defaults_after_them() {
    let world = World::new().await;
    let merge = "Object{data: {'b': object.data.a + '!'}, metadata: Object.metadata{labels: {'x': 'y'}}}";
    let operations = "[JSONPatch{op: 'add', path: '/data/c', value: object.data.b + variables.v}]";
    let spec = json!({
        "variables": [{ "name": "v", "expression": "namespaceObject.metadata.name" }],
        "mutations": [
            { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": merge } },
            { "patchType": "JSONPatch", "jsonPatch": { "expression": operations } }
        ]
    });
    mutating(&world, "m", spec, json!({})).await;
    let made = world.config_map("x", json!({ "a": "1" })).await;
    assert_eq!((data(&made, "b"), data(&made, "c")), ("1!".to_owned(), "1!default".to_owned()));
    assert_eq!(made["metadata"]["labels"], json!({ "x": "y" }));
    let spec = json!({
        "matchConstraints": { "resourceRules": [
            { "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"] }
        ] },
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression":
            "[JSONPatch{op: 'add', path: '/spec/ports/-', value: Object.spec.ports{name: 'b', port: 81}}]" } }]
    });
    mutating(&world, "defaults", spec, json!({})).await;
    let service = json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "name": "a", "port": 80 }] } });
    let made = world.create("services", service).await;
    assert_eq!(made["spec"]["ports"][1], json!({ "name": "b", "port": 81, "protocol": "TCP", "targetPort": 81 }));
}

#[tokio::test]
async fn a_mutation_that_goes_wrong_refuses_and_all_that_went_wrong_is_told() {
    let world = World::new().await;
    let mutation = |expression: &str| json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } });
    let wrong = "[JSONPatch{op: 'remove', path: '/data/none'}]";
    let spec = json!({ "mutations": [mutation(wrong), mutation("[JSONPatch{op: 'add', path: '/no/x', value: 1}]")] });
    mutating(&world, "m", spec, json!({})).await;
    let error = refused(&world, "x", "1").await;
    let said = |why: &str| format!("policy 'm' with binding 'm' denied request: JSON Patch: {why}: missing value");
    let first = said("error in remove for path: '/data/none': Unable to remove nonexistent key: none");
    assert_eq!((error.code, error.reason, &error.message), (403, "Invalid", &first));
    let causes: Vec<String> = error.details.unwrap().causes.into_iter().map(|cause| cause.message).collect();
    assert_eq!(causes, [first, said("add operation does not apply: doc is missing path: \"/no/x\"")]);
    let unknown = mutation("[JSONPatch{op: 'add', path: '/spec', value: {'a': 'b'}}]");
    let patch = json!({ "spec": { "failurePolicy": "Ignore", "mutations": [unknown] } });
    let request = world.request("mutatingadmissionpolicies/m");
    world.registry.patch(&request, Patch::Merge(patch.into())).await.unwrap();
    let error = refused(&world, "x", "1").await;
    assert_eq!(error.message, "Internal error occurred: strict decoding error: unknown field \"spec\"");
}

#[tokio::test]
async fn who_wants_to_be_is_asked_again_after_others_changed_the_object() {
    let world = World::new().await;
    let append = |letter: &str, again: &str| {
        let seen = "(has(object.data.seen) ? object.data.seen : '')";
        let expression = format!("[JSONPatch{{op: 'add', path: '/data/seen', value: {seen} + '{letter}'}}]");
        json!({ "reinvocationPolicy": again,
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } }] })
    };
    mutating(&world, "a", append("a", "IfNeeded"), json!({})).await;
    mutating(&world, "b", append("b", "Never"), json!({})).await;
    let made = world.config_map("x", json!({ "a": "1" })).await;
    assert_eq!(data(&made, "seen"), "aba");
}

#[tokio::test]
async fn a_policy_cannot_make_another_kind_of_the_object_and_is_not_about_deletions() {
    let world = World::new().await;
    let spec = json!({
        "matchConstraints": constraints(&["*"]),
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression":
            "[JSONPatch{op: 'replace', path: '/kind', value: object.data.a}]" } }]
    });
    mutating(&world, "m", spec, json!({})).await;
    let error = refused(&world, "x", "Secret").await;
    let why = "converting (v1.Secret) to (core.ConfigMap): unknown conversion";
    assert_eq!(error.message, format!("Internal error occurred: failed to convert object: {why}"));
    world.config_map("x", json!({ "a": "" })).await;
    world.delete("configmaps/x").await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_the_types_is_told_in_the_status_and_a_change_is_looked_at_again() {
    let world = World::new().await;
    let spec = |expression: &str| {
        json!({
            "matchConstraints": { "resourceRules": [
                { "operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "daemonsets/*"] }
            ] },
            "validations": [{ "expression": expression, "messageExpression": "string(object.spec.replicas)" }]
        })
    };
    let mut events = world.watch("validatingadmissionpolicies", |_| {}).await;
    let wrong = json!({ "metadata": { "name": "p" }, "spec": spec("object.spec.replicas > '1'") });
    world.create("validatingadmissionpolicies", wrong).await;
    let checked = async |events: &mut Events, generation: i64| loop {
        assert_ne!(events.next().await, "end");
        let policy = world.get("validatingadmissionpolicies/p").await.unwrap();
        if policy["status"]["observedGeneration"] == generation {
            return policy;
        }
    };
    let policy = checked(&mut events, 1).await;
    let issue = "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^";
    let warning = json!({ "fieldRef": "spec.validations[0].expression", "warning": format!("apps/v1, Kind=Deployment: {issue}\n") });
    assert_eq!(
        policy["status"],
        json!({ "observedGeneration": 1, "typeChecking": { "expressionWarnings": [warning] } })
    );
    let managers = policy["metadata"]["managedFields"].as_array().unwrap();
    let own = managers.iter().find(|entry| entry["manager"] == "validatingadmissionpolicy-status").unwrap();
    assert_eq!((&own["operation"], &own["subresource"]), (&json!("Apply"), &json!("status")));
    let patch = json!({ "spec": spec("object.spec.replicas > 1") });
    world.merge("validatingadmissionpolicies/p", patch).await.unwrap();
    assert_eq!(checked(&mut events, 2).await["status"], json!({ "observedGeneration": 2, "typeChecking": {} }));
}

#[tokio::test]
async fn a_policy_changes_custom_resources_in_any_version_by_their_schema() {
    let world = World::new().await;
    define(&world, definition(&["v1", "v2"])).await;
    let operations = "[JSONPatch{op: 'add', path: '/spec/color', value: object.apiVersion}, \
        JSONPatch{op: 'add', path: '/spec/odd', value: 1}, \
        JSONPatch{op: 'replace', path: '/kind', value: object.metadata.name == 'bad' ? 'Other' : 'Widget'}]";
    let spec = json!({
        "matchConstraints": { "resourceRules": [
            { "operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"] }
        ] },
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": operations } }]
    });
    mutating(&world, "m", spec, json!({})).await;
    let made = create(&world, "v2", json!({ "metadata": { "name": "a" } , "spec": {} })).await.unwrap();
    assert_eq!(
        (&made["apiVersion"], &made["spec"]),
        (&json!("example.com/v2"), &json!({ "color": "example.com/v1", "size": 3 }))
    );
    let error = create(&world, "v1", json!({ "metadata": { "name": "bad" }, "spec": {} })).await.unwrap_err();
    assert_eq!(error.message, "Other.example.com \"bad\" is invalid: kind: Invalid value: \"Other\": must be Widget");
    assert_eq!(error.code, 422);
}
