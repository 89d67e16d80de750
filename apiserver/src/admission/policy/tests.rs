//! Policies asked about objects, without a server.

use reeve_kinds::managed::DEDUCED;
use serde_json::{Value, json};

use super::compiled::{Mutating, Validating};
use super::conditions::Matched;
use super::input::{Facts, Input};
use super::{judge, patch};

fn policy(spec: &Value) -> Value {
    json!({ "metadata": { "name": "p" }, "spec": spec })
}

/// Asks with these facts; the request is a creation by `jane`.
fn with_facts<T>(policy: &Validating, object: &Value, params: Option<&Value>, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
    let request = json!({ "operation": "CREATE", "userInfo": { "username": "jane" } });
    ask(&Facts {
        object,
        old: &Value::Null,
        request: &request,
        namespace: &json!({ "metadata": { "labels": { "env": "prod" } } }),
        params,
        authorizer: None,
        variables: &policy.common.variables,
    })
}

#[track_caller]
fn check(spec: &Value, object: &Value, wanted: &[&str]) {
    let policy = Validating::compile(&policy(spec));
    let found = with_facts(&policy, object, Some(&json!({ "max": 3 })), |facts| judge::evaluate(&policy, facts));
    let found: Vec<String> = found.denials.into_iter().map(|denial| denial.message).collect();
    assert_eq!(found, wanted);
}

#[test]
fn a_rule_that_does_not_hold_is_told_by_its_message() {
    let object = json!({ "spec": { "replicas": 5 } });
    let rule = |more: Value| {
        let mut rule = json!({ "expression": "object.spec.replicas <= params.max" });
        rule.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        json!({ "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" }, "validations": [rule] })
    };
    check(&rule(json!({})), &object, &["failed expression: object.spec.replicas <= params.max"]);
    check(&rule(json!({ "message": " too many " })), &object, &["too many"]);
    let made = json!({ "message": "too many", "messageExpression": "'at most ' + string(params.max)" });
    check(&rule(made), &object, &["at most 3"]);
    check(&rule(json!({ "message": "m", "messageExpression": "object.nope" })), &object, &["m"]);
    check(&rule(json!({})), &json!({ "spec": { "replicas": 2 } }), &[]);
}

#[test]
fn variables_are_computed_when_they_are_needed() {
    let spec = json!({
        "variables": [
            { "name": "n", "expression": "object.spec.replicas" },
            { "name": "twice", "expression": "variables.n * 2" },
            { "name": "broken", "expression": "object.nope" }
        ],
        "validations": [{ "expression": "variables.twice < 10 && namespaceObject.metadata.labels.env == 'prod'" }]
    });
    check(&spec, &json!({ "spec": { "replicas": 4 } }), &[]);
    let spec = json!({
        "variables": [{ "name": "broken", "expression": "object.nope" }],
        "validations": [{ "expression": "variables.broken == 1" }]
    });
    let said = "expression 'variables.broken == 1' resulted in error: composited variable \"broken\" fails to evaluate: no such key: nope";
    check(&spec, &json!({}), &[said]);
}

#[test]
fn what_goes_wrong_refuses_unless_failures_are_ignored() {
    let spec = |policy: &str| json!({ "failurePolicy": policy, "validations": [{ "expression": "object.nope == 1" }, { "expression": "1" }] });
    let wrong = [
        "expression 'object.nope == 1' resulted in error: no such key: nope",
        "compilation error: must evaluate to bool but got int",
    ];
    check(&spec("Fail"), &json!({}), &wrong);
    check(&spec("Ignore"), &json!({}), &[]);
}

#[test]
fn conditions_decide_whether_a_policy_is_asked() {
    let asked = |failure: &str, expressions: &[&str]| {
        let conditions: Vec<Value> =
            expressions.iter().map(|text| json!({ "name": "c", "expression": text })).collect();
        let policy = Validating::compile(&policy(&json!({ "failurePolicy": failure, "matchConditions": conditions })));
        with_facts(&policy, &json!({ "a": 1 }), None, |facts| policy.common.conditions.check(facts))
    };
    assert_eq!(asked("Fail", &[]), Matched::Yes);
    assert_eq!(asked("Fail", &["object.a == 1", "request.userInfo.username == 'jane'"]), Matched::Yes);
    assert_eq!(asked("Fail", &["object.nope == 1", "object.a == 2"]), Matched::No);
    assert_eq!(asked("Ignore", &["object.nope == 1"]), Matched::No);
    let error = "expression 'object.nope == 1' resulted in error: no such key: nope".to_owned();
    assert_eq!(asked("Fail", &["object.nope == 1"]), Matched::Failed(error.clone()));
    assert_eq!(asked("Fail", &["object.nope == 1", "object.nope == 1"]), Matched::Failed(error.clone()));
    let other = "expression 'object.none == 1' resulted in error: no such key: none";
    assert_eq!(
        asked("Fail", &["object.nope == 1", "object.none == 1"]),
        Matched::Failed(format!("[{error}, {other}]"))
    );
}

/// What the first mutation of a policy makes of an object.
fn mutated(mutation: &Value, object: &Value) -> Result<Value, String> {
    let policy = Mutating::compile(&policy(&json!({ "mutations": [mutation] })));
    let mutation = policy.mutations.first().expect("a mutation");
    let facts = Facts {
        object,
        old: &Value::Null,
        request: &Value::Null,
        namespace: &Value::Null,
        params: None,
        authorizer: None,
        variables: &policy.common.variables,
    };
    let given = Input::new(&facts).run(&mutation.expression, &mut 1_000_000)??;
    match mutation.is_json_patch {
        true => patch::json_patch(object, &given),
        false => patch::apply(&DEDUCED, object, &given),
    }
}

fn operations(expression: &str) -> Value {
    json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } })
}

#[test]
fn operations_change_an_object() {
    let object = json!({ "metadata": { "labels": { "a": "b" } } });
    let added = operations(
        "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y'), value: object.metadata.labels.a}]",
    );
    assert_eq!(mutated(&added, &object), Ok(json!({ "metadata": { "labels": { "a": "b", "x/y": "b" } } })));
    let tested = operations(
        "[JSONPatch{op: 'test', path: '/metadata/labels/a', value: 'z'}, JSONPatch{op: 'remove', path: '/metadata'}]",
    );
    assert_eq!(mutated(&tested, &object), Ok(object.clone()));
    let missing = operations("[JSONPatch{op: 'remove', path: '/nope'}]");
    assert!(mutated(&missing, &object).expect_err("no such field").starts_with("JSON Patch: "));
    let made = operations("[JSONPatch{op: 'add', path: '/spec', value: Object.spec{replicas: 2}}]");
    assert_eq!(mutated(&made, &json!({})), Ok(json!({ "spec": { "replicas": 2 } })));
}

#[test]
fn objects_are_merged() {
    let apply = |expression: &str| json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } });
    let object = json!({ "apiVersion": "v1", "kind": "K", "metadata": { "labels": { "a": "b" } } });
    let merged = mutated(&apply("Object{metadata: Object.metadata{labels: Object.metadata.labels{c: 'd'}}}"), &object);
    assert_eq!(merged.map(|object| object["metadata"].clone()), Ok(json!({ "labels": { "a": "b", "c": "d" } })));
    let wrong = mutated(&apply("Object{spec: Object.metadata{x: 1}}"), &object);
    let said = "type mismatch: unexpected type name \"Object.metadata\", expected \"Object.spec\", which matches field name path from root Object type";
    assert_eq!(wrong, Err(said.to_owned()));
}
