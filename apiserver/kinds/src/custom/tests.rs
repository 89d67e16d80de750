//! A custom kind as the API server uses it. The answers are those of kube-apiserver 1.36.2 for the same requests.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::CustomKind;
use crate::kind::{Kind, Part};

/// A definition with most of what schemas have.
fn widgets() -> Value {
    let spec = json!({"type": "object", "required": ["image"], "properties": {
        "image": {"type": "string", "minLength": 1, "description": "the image"},
        "replicas": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 10, "default": 1},
        "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
        "when": {"type": "string", "format": "date-time"},
        "port": {"x-kubernetes-int-or-string": true},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "tpl": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let status =
        json!({"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}});
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
    "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
    "versions": [
        {"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
            "additionalPrinterColumns": [{"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}],
            "selectableFields": [{"jsonPath": ".spec.mode"}],
            "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"],
                "properties": {"spec": spec, "status": status}}}},
        {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
    ]}})
}

fn kind() -> CustomKind {
    CustomKind::new(&widgets(), "v1", false).unwrap()
}

/// A widget as it is after decoding and defaults, and what was unknown.
fn decoded(spec: &Value) -> (Value, Vec<String>) {
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": spec, "status": {"replicas": 3},
        "metadata": {"name": "a", "namespace": "n"}});
    let unknown = kind().conform(&mut object).unwrap();
    kind().default(&mut object);
    (object, unknown)
}

fn lines(errors: &[crate::field::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_bad_object_is_told_everything_that_is_wrong_with_it() {
    let (object, unknown) = decoded(&json!({"replicas": 0, "mode": "x", "when": "nope", "image": "", "port": 1.5,
        "ports": [{"name": "a"}, {"name": "a", "odd": 1}], "tags": ["a", "a"], "tpl": {"kind": "x"}, "bogus": 1}));
    assert_eq!(unknown, ["spec.bogus", "spec.ports[1].odd"]);
    assert_eq!(
        lines(&kind().validate_create(&object)),
        [
            "spec.image: Invalid value: \"\": spec.image in body should be at least 1 chars long",
            "spec.mode: Unsupported value: \"x\": supported values: \"fast\", \"slow\"",
            "spec.port: Invalid value: \"number\": spec.port in body must be of type integer,string: \"number\"",
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
            "spec.when: Invalid value: \"nope\": spec.when in body must be of type date-time: \"nope\"",
            "spec.tpl.apiVersion: Required value",
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
            "spec.tags[1]: Duplicate value: \"a\"",
        ]
    );
    let (object, _) = decoded(&json!({"tpl": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "!"}}}}));
    let errors = lines(&kind().validate_create(&object));
    assert_eq!(errors[0], "spec.image: Required value");
    assert!(
        errors[1].starts_with("spec.tpl.metadata.labels: Invalid value: \"!\": a valid label must be"),
        "{errors:?}"
    );
}

#[test]
fn metadata_of_the_wrong_type_is_refused_in_gos_words() {
    let mut object =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {}, "metadata": {"labels": {"x": 1}}});
    let error = kind().conform(&mut object).unwrap_err();
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"
    );
}

#[test]
fn status_is_a_part_of_its_own_and_the_rest_counts_generations() {
    let kind = kind();
    let (mut object, _) = decoded(&json!({"image": "i"}));
    kind.prepare_create(&mut object);
    assert_eq!((&object["spec"]["replicas"], &object["spec"]["mode"]), (&json!(1), &json!("fast")));
    assert_eq!((object.get("status"), &object["metadata"]["generation"]), (None, &json!(1)));
    let old = object.clone();
    let change = |part, edit: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        edit(&mut new);
        kind.prepare_update(part, &mut new, &old);
        let errors = lines(&kind.validate_update(part, &new, &old));
        (new, errors)
    };
    let (new, _) = change(Part::Main, &|new| new["spec"]["replicas"] = json!(2));
    assert_eq!(new["metadata"]["generation"], 2);
    let (new, _) = change(Part::Main, &|new| new["metadata"]["labels"] = json!({"a": "b"}));
    assert_eq!(new["metadata"]["generation"], 1);
    let (new, errors) = change(Part::Status, &|new| {
        new["spec"]["replicas"] = json!(5);
        new["status"] = json!({"replicas": "three"});
    });
    assert_eq!((&new["spec"]["replicas"], &new["metadata"]["generation"]), (&json!(1), &json!(1)));
    assert_eq!(
        errors,
        [
            "status.replicas: Invalid value: \"string\": replicas in body must be of type integer: \"string\"",
            ".status.replicas: Invalid value: 0: .status.replicas accessor error: three is of the type string, expected int64",
        ]
    );
    let (_, errors) = change(Part::Main, &|new| new["spec"] = json!([]));
    assert!(
        errors.contains(
            &".spec.replicas: Invalid value: 0: .spec.replicas accessor error: [] is of the type []interface {}, \
              expected map[string]interface{}"
                .to_owned()
        ),
        "{errors:#?}"
    );
}

#[test]
fn what_an_update_leaves_as_it_was_is_not_judged_again() {
    let (mut old, _) = decoded(&json!({"image": "i", "mode": "gone", "ports": [{"name": "a", "port": "x"}]}));
    old["metadata"]["generation"] = json!(1);
    let errors = |edit: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        edit(&mut new);
        lines(&kind().validate_update(Part::Main, &new, &old))
    };
    assert!(errors(&|new| new["spec"]["replicas"] = json!(2)).is_empty());
    assert!(errors(&|new| new["spec"]["ports"] = json!([{"name": "b"}, {"name": "a", "port": "x"}])).is_empty());
    assert_eq!(
        errors(&|new| new["spec"]["mode"] = json!("worse")),
        ["spec.mode: Unsupported value: \"worse\": supported values: \"fast\", \"slow\""]
    );
    assert_eq!(
        errors(&|new| new["spec"]["ports"] = json!([{"name": "b", "port": "x"}])),
        [
            "spec.ports[0].port: Invalid value: \"string\": spec.ports[0].port in body must be of type integer: \"string\""
        ]
    );
}

#[test]
fn names_columns_fields_and_warnings_come_from_the_definition() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let (object, _) = decoded(&json!({"image": "i", "replicas": 4}));
    assert_eq!(kind().row(&object, now), [json!("a"), json!(4)]);
    assert_eq!(kind().selectable_field(&object, "spec.mode").as_deref(), Some("fast"));
    assert_eq!(kind().selectable_field(&object, "spec.image"), None);
    let beta = CustomKind::new(&widgets(), "v1beta1", false).unwrap();
    assert_eq!(beta.columns().iter().map(|column| column.name.as_ref()).collect::<Vec<_>>(), ["Name", "Age"]);
    assert_eq!(beta.deprecation(), Some("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget"));
    let mut warned = object.clone();
    warned["metadata"]["finalizers"] = json!(["plain", "a.b", "ok.example/x", "orphan"]);
    assert_eq!(
        kind().warnings(&warned, Some(&object)),
        [
            "metadata.finalizers: \"a.b\": prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers",
            "metadata.finalizers: \"plain\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers",
        ]
    );
}

#[test]
fn stored_objects_are_read_with_todays_schema() {
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "labels": 1},
        "spec": {"image": "i", "old": true}});
    kind().read_stored(&mut object);
    assert_eq!(object["spec"], json!({"image": "i", "mode": "fast", "replicas": 1}));
    assert_eq!(object["metadata"], json!({"name": "a"}));
}

#[test]
fn the_published_schema_has_type_and_metadata_and_says_what_a_number_or_text_is() {
    let published = kind().schemas();
    let widget = &published.all["com.example.v1.Widget"];
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "kind": "Widget", "version": "v1"}])
    );
    assert_eq!(widget["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.mode"}]));
    let spec = &widget["properties"]["spec"]["properties"];
    assert_eq!(
        spec["port"],
        json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true})
    );
    assert_eq!(spec["tpl"]["required"], json!(["kind", "apiVersion"]));
    let list = &published.all["com.example.v1.WidgetList"];
    assert_eq!(list["properties"]["items"]["items"]["$ref"], "#/components/schemas/com.example.v1.Widget");
}

/// A kind with rules in CEL.
fn ruled() -> CustomKind {
    let text = json!({"type": "string", "maxLength": 20, "x-kubernetes-validations": [
        {"rule": "self == oldSelf", "message": "immutable"},
        {"rule": "self.startsWith('x')"},
        {"rule": "self.size() < 5", "messageExpression": "'too big: ' + self", "reason": "FieldValueInvalid"},
    ]});
    let entries = json!({"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string", "maxLength": 9},
            "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}});
    let schema = json!({"type": "object",
        "x-kubernetes-validations": [
            {"rule": "has(self.spec)", "message": "spec needed"},
            {"rule": "self.spec.a < self.spec.b", "fieldPath": ".spec.a", "reason": "FieldValueForbidden"},
        ],
        "properties": {"spec": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"},
            "s": text, "m": entries}}}});
    let mut crd = widgets();
    crd["spec"]["versions"][0]["schema"] = json!({"openAPIV3Schema": schema});
    CustomKind::new(&crd, "v1", false).unwrap()
}

#[test]
fn rules_in_cel_are_asked_about_new_and_changed_values() {
    let object = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "n"}, "spec": spec});
    let errors = |spec| lines(&ruled().validate_create(&object(spec)));
    assert_eq!(
        errors(json!({"a": 3, "b": 2, "s": "yyyyyy"})),
        [
            "spec.a: Forbidden: failed rule: self.spec.a < self.spec.b",
            "spec.s: Invalid value: \"yyyyyy\": failed rule: self.startsWith('x')",
            "spec.s: Invalid value: \"yyyyyy\": too big: yyyyyy",
        ]
    );
    assert_eq!(
        errors(json!({"a": "x", "b": 2, "s": "yyyyyy"})),
        [
            "spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
    let old = object(json!({"a": 1, "b": 2, "s": "xy", "m": [{"k": "a", "v": 3}]}));
    assert!(ruled().validate_create(&old).is_empty());
    let new = object(json!({"a": 1, "b": 2, "s": "xz", "m": [{"k": "b", "v": 1}, {"k": "a", "v": 2}]}));
    assert_eq!(
        lines(&ruled().validate_update(Part::Main, &new, &old)),
        ["spec.m[1].v: Invalid value: 2: failed rule: self >= oldSelf", "spec.s: Invalid value: \"xz\": immutable",]
    );
    let mut bare = object(json!({}));
    bare.as_object_mut().unwrap().remove("spec");
    assert_eq!(
        lines(&ruled().validate_create(&bare)),
        [
            "<nil>: Invalid value: spec needed",
            "<nil>: Invalid value: \"object\": no such key: spec evaluating rule: self.spec.a < self.spec.b",
        ]
    );
    // Broken before, and unchanged: only what changed is asked about again.
    let (old, mut new) = (object(json!({"s": "xy", "a": 2, "b": 1})), object(json!({"s": "xy", "a": 2, "b": 1})));
    new["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(
        lines(&ruled().validate_update(Part::Main, &new, &old)),
        ["spec.a: Forbidden: failed rule: self.spec.a < self.spec.b"]
    );
}

/// What kube-apiserver 1.36.2 says to objects of one schema: `answers.json` has the schema, and each `spec` with its
/// complaints. Those of one object are in no certain order there, for fields are kept in Go's maps.
#[test]
fn objects_are_answered_as_kube_apiserver_answers_them() {
    let golden: Value = serde_json::from_str(include_str!("answers.json")).unwrap();
    let mut crd = widgets();
    crd["spec"]["versions"][0]["schema"] = json!({"openAPIV3Schema": golden["schema"]});
    crd["spec"]["versions"][0]["subresources"] = json!({});
    let kind = CustomKind::new(&crd, "v1", false).unwrap();
    let mut wrong = Vec::new();
    for answer in golden["answers"].as_array().unwrap() {
        let mut object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": answer["spec"],
            "metadata": {"name": "a", "namespace": "n"}});
        kind.conform(&mut object).unwrap();
        kind.default(&mut object);
        kind.prepare_create(&mut object);
        let mut found = lines(&kind.validate_create(&object));
        let mut expected: Vec<String> =
            answer["errors"].as_array().unwrap().iter().map(|error| error.as_str().unwrap().to_owned()).collect();
        found.sort();
        expected.sort();
        if found != expected {
            wrong.push(format!(
                "{}\nsays\n  {}\nbut should\n  {}",
                answer["spec"],
                found.join("\n  "),
                expected.join("\n  ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_new_object_has_the_default_of_its_status_and_not_the_one_it_came_with() {
    let mut crd = widgets();
    let status = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    status["default"] = json!({"selector": "none"});
    let kind = CustomKind::new(&crd, "v1", false).unwrap();
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"},
        "spec": {"image": "i"}, "status": {"replicas": 3}});
    kind.default(&mut object);
    kind.prepare_create(&mut object);
    assert_eq!(object["status"], json!({"selector": "none"}));
}
