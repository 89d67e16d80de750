//! The rules for definitions, in Kubernetes' words.

use serde_json::Value;

use crate::testing::{check_created, check_invalid, check_update, check_valid};

/// A small definition with the given schema of its one version.
fn crd(schema: &str) -> String {
    format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: widgets.example.com}}, \
         spec: {{group: example.com, scope: Namespaced, names: {{plural: widgets, kind: Widget}}, \
         versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {schema}}}}}]}}}}"
    )
}

#[test]
fn a_new_definition_gets_names_conversion_and_a_status() {
    check_created(
        &crd("{type: object}"),
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: widgets.example.com, generation: 1}, \
         spec: {group: example.com, scope: Namespaced, conversion: {strategy: None}, \
         names: {plural: widgets, kind: Widget, singular: widget, listKind: WidgetList}, \
         versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}, \
         status: {conditions: null, acceptedNames: {plural: '', kind: ''}, storedVersions: [v1]}}",
    );
    check_valid(&crd("{type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}"));
}

#[test]
fn schemas_that_are_not_structural_are_refused() {
    for (schema, complaints) in [
        ("{}", vec!["spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root"]),
        (
            "{type: object, properties: {a: {}, b: {type: array}}}",
            vec![
                "spec.validation.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
                "spec.validation.openAPIV3Schema.properties[b].items: Required value: must be specified",
            ],
        ),
        (
            "{type: object, properties: {a: {type: string, pattern: '(?!x)'}}}",
            vec![
                "spec.validation.openAPIV3Schema.properties[a].pattern: Invalid value: \"(?!x)\": must be a valid regular expression, but isn't: error parsing regexp: invalid or unsupported Perl syntax: `(?!`",
            ],
        ),
        (
            "{type: object, anyOf: [{properties: {x: {type: string}}}]}",
            vec![
                "spec.validation.openAPIV3Schema.anyOf[0].properties[x].type: Forbidden: must be empty to be structural",
                "spec.validation.openAPIV3Schema.properties[x]: Required value: because it is defined in spec.validation.openAPIV3Schema.anyOf[0].properties[x]",
            ],
        ),
        (
            "{type: object, properties: {a: {$ref: '#/x'}}}",
            vec!["spec.validation.openAPIV3Schema.properties[a].$ref: Forbidden: $ref is not supported"],
        ),
        (
            "{type: object, properties: {l: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, properties: {k: {type: string}}}}}}",
            vec![
                "spec.validation.openAPIV3Schema.properties[l].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
    ] {
        check_invalid(&crd(schema), &complaints);
    }
}

#[test]
fn what_openapi_has_and_kubernetes_does_not_take_is_refused() {
    for (schema, complaints) in [
        (
            "{type: object, properties: {a: {type: array, uniqueItems: true, items: {type: strange}}, \
             m: {type: object, additionalProperties: {type: string}, properties: {z: {type: string}}}}}",
            vec![
                "spec.validation.openAPIV3Schema.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                "spec.validation.openAPIV3Schema.properties[a].items.type: Unsupported value: \"strange\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
                "spec.validation.openAPIV3Schema.properties[m].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        ),
        (
            "{type: object, properties: {metadata: {type: object, properties: {labels: {type: object}}}}}",
            vec![
                "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        ),
        (
            "{type: object, nullable: true, additionalProperties: {type: string}}",
            vec![
                "spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root",
                "spec.validation.openAPIV3Schema.additionalProperties: Forbidden: must not be used at the root",
            ],
        ),
        (
            "{type: object, x-kubernetes-preserve-unknown-fields: false}",
            vec![
                "spec.validation.openAPIV3Schema.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
            ],
        ),
        (
            "{type: object, properties: {e: {type: object, x-kubernetes-embedded-resource: true, \
             properties: {metadata: {type: object, default: {labels: {a: 1}}}}}}}",
            vec![
                "spec.validation.openAPIV3Schema.properties[e].properties[metadata].default: Invalid value: {\"labels\":{\"a\":1}}: must result in valid metadata: metadata: Invalid value: {\"labels\":{\"a\":1}}: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
            ],
        ),
    ] {
        check_invalid(&crd(schema), &complaints);
    }
}

#[test]
fn defaults_must_be_values_of_their_schema() {
    check_invalid(
        &crd("{type: object, properties: {a: {type: integer, minimum: 3, default: 1}, b: {type: string, default: 5}, \
              c: {type: object, default: {x: 1}}}}"),
        &[
            "spec.validation.openAPIV3Schema.properties[a].default: Invalid value: 1:  in body should be greater than or equal to 3",
            "spec.validation.openAPIV3Schema.properties[b].default: Invalid value: \"integer\":  in body must be of type string: \"integer\"",
            "spec.validation.openAPIV3Schema.properties[c].default: Invalid value: {\"x\":1}: must not have unknown fields",
        ],
    );
}

#[test]
fn names_group_and_versions_are_checked() {
    let yaml = crd("{type: object}")
        .replace("group: example.com", "group: example")
        .replace("storage: true", "storage: false");
    check_invalid(
        &yaml,
        &[
            "metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group",
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
            "spec.versions: Invalid value: [{\"Name\":\"v1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]: must have exactly one version marked as storage version",
            "status.storedVersions: Invalid value: null: must have at least one stored version",
        ],
    );
}

#[test]
fn a_stored_version_may_not_go() {
    check_update(
        &crd("{type: object}"),
        |crd| crd["spec"]["versions"][0]["name"] = "v2".into(),
        &[
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions",
        ],
    );
}

#[test]
fn rules_in_cel_must_compile_and_cost_little() {
    let rules = |rules: &str| {
        crd(&format!("{{type: object, properties: {{a: {{type: string, x-kubernetes-validations: {rules}}}}}}}"))
    };
    let place = "spec.validation.openAPIV3Schema.properties[a].x-kubernetes-validations";
    check_invalid(
        &rules(
            "[{rule: 'self == 1'}, {rule: 'self.size() + 1'}, {rule: 'true', optionalOldSelf: true}, \
                {rule: 'true', messageExpression: '1'}]",
        ),
        &[
            &format!(
                "{place}[0].rule: Invalid value: {{\"Rule\":\"self == 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: compilation failed: ERROR: <input>:1:6: found no matching overload for '_==_' applied to '(string, int)'\n | self == 1\n | .....^"
            ),
            &format!(
                "{place}[1].rule: Invalid value: {{\"Rule\":\"self.size() + 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: cel expression must evaluate to a bool"
            ),
            &format!("{place}[2].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"),
            &format!(
                "{place}[3].messageExpression: Invalid value: {{\"Rule\":\"true\",\"Message\":\"\",\"MessageExpression\":\"1\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: messageExpression must evaluate to a string"
            ),
        ],
    );
    let much = "exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let place = "spec.validation.openAPIV3Schema.properties[l].items.items.x-kubernetes-validations";
    let part = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
    check_invalid(
        &crd("{type: object, properties: {l: {type: array, items: {type: array, items: {type: string, \
              x-kubernetes-validations: [{rule: 'self.contains(\"a\")'}, {rule: 'self == oldSelf'}]}}}}}"),
        &[
            &format!("{place}[0].rule: Forbidden: estimated rule cost {much}"),
            &format!("{place}[1].rule: Forbidden: estimated rule cost {much}"),
            &format!(
                "{place}[1].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[l]"
            ),
            &format!("{place}[1].rule: Forbidden: {part}"),
            &format!("{place}[0].rule: Forbidden: {part}"),
            &format!(
                "spec.validation.openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema {much}"
            ),
        ],
    );
    check_invalid(
        &crd("{type: object, properties: {l: {type: string, default: bad, \
              x-kubernetes-validations: [{rule: 'self == \"good\"', message: must be good}]}}}"),
        &["spec.validation.openAPIV3Schema.properties[l].default: Invalid value: \"bad\": must be good"],
    );
}

/// What kube-apiserver 1.36.2 says to bad definitions: `answers.json` has each with its complaints. Those of one
/// object are in no certain order there, for fields are kept in Go's maps.
#[test]
fn bad_definitions_are_answered_as_kube_apiserver_answers_them() {
    let answers: Vec<Value> = serde_json::from_str(include_str!("answers.json")).unwrap();
    let mut wrong = Vec::new();
    for answer in &answers {
        let mut found = complaints(&answer["crd"]);
        let mut expected: Vec<String> =
            answer["errors"].as_array().unwrap().iter().map(|error| error.as_str().unwrap().to_owned()).collect();
        found.sort();
        expected.sort();
        if found != expected {
            wrong.push(format!(
                "{}\nsays\n  {}\nbut should\n  {}",
                answer["crd"]["spec"],
                found.join("\n  "),
                expected.join("\n  ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn complaints(crd: &Value) -> Vec<String> {
    use crate::Kind as _;
    let kind = super::Definitions;
    let mut object = crd.clone();
    let unknown = kind.conform(&mut object);
    assert!(unknown.is_ok(), "{unknown:?}");
    kind.default(&mut object);
    kind.prepare_create(&mut object);
    kind.validate_create(&object).iter().map(ToString::to_string).collect()
}
