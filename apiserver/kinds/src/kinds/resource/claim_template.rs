//! ResourceClaimTemplate: from which each pod gets claims of its own.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use reeve_api::names;
use serde_json::Value;

use super::{GROUP, claim_spec};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, object_mut};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::shown::{self, Go};
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[table::NAME, table::AGE];

/// The template as complaints show it: its metadata is embedded, under the names of the API.
const SPEC: Go = Go::Struct(&[("Spec", "spec", Go::Struct(claim_spec::SPEC))]);

/// The kind.
pub(super) struct ResourceClaimTemplates;

impl Kind for ResourceClaimTemplates {
    wiring!(ResourceClaimTemplate, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        claim_spec::default(object_mut(object_mut(object, "spec"), "spec"));
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        check(object, &mut errors);
        let spec = get(object, "spec");
        if spec != get(old, "spec") {
            errors.invalid_object(&Path::of("spec"), shown::go(spec, &SPEC), "field is immutable");
        }
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), age::of(object, now).into()]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (template, path) = (get(object, "spec"), Path::of("spec"));
    let (own, own_path) = (get(template, "metadata"), path.child("metadata"));
    meta::annotations(own, &own_path.child("annotations"), errors);
    meta::labels(get(own, "labels"), &own_path.child("labels"), errors);
    for (field, _) in own.as_object().into_iter().flatten() {
        if field != "labels" && field != "annotations" {
            let field = if field == "uid" { "uID" } else { field };
            errors.forbidden(&own_path.child(field), "cannot be set");
        }
    }
    claim_spec::check(get(template, "spec"), &path.child("spec"), errors);
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: a, namespace: n}, spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}}";

    #[test]
    fn a_template_is_checked_as_a_claim_and_stays() {
        let template = created(PLAIN);
        assert_eq!(template["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
        assert_eq!(template["spec"]["metadata"], json!({}));
        check_valid(PLAIN);
        check_invalid(
            &PLAIN.replace("spec: {spec:", "spec: {metadata: {name: x}, spec:").replace("name: r,", "name: R,"),
            &[
                "spec.metadata.name: Forbidden: cannot be set",
                "spec.spec.devices.requests[0].name: Invalid value: \"R\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        );
        let (_, errors) = updated(crate::kind::Part::Main, PLAIN, |new| {
            new["spec"]["spec"]["devices"]["requests"][0]["name"] = json!("s");
        });
        assert!(errors[0].starts_with("spec: Invalid value: {") && errors[0].ends_with(": field is immutable"));
    }
}
