//! ResourceClaim: devices that somebody wants, and which they got.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use reeve_api::names;
use serde_json::{Value, json};

use super::{GROUP, claim_spec, claim_status};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, get, has, list, object_mut, set};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::shown::{self, Go};
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
    table::AGE,
];

/// The kind.
pub(super) struct ResourceClaims;

impl Kind for ResourceClaims {
    wiring!(ResourceClaim, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        claim_spec::default(object_mut(object, "spec"));
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        claim_spec::check(get(object, "spec"), &Path::of("spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Status {
            copy_field(object, old, "spec");
            meta::reset_for_status(object, old);
            claim_status::drop_deallocated(object, old);
        } else {
            copy_field(object, old, "status");
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part == Part::Status {
            claim_status::check(object, old, &mut errors);
        } else {
            META.create(object, &mut errors);
            let spec = get(object, "spec");
            if spec != get(old, "spec") {
                let shown = shown::go(spec, &Go::Struct(claim_spec::SPEC));
                errors.invalid_object(&Path::of("spec"), shown, "field is immutable");
            }
        }
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = get(object, "status");
        let deleted = !at(object, &["metadata", "deletionTimestamp"]).is_null();
        let allocated = has(status, "allocation");
        let states = [
            ("deleted", deleted),
            ("pending", !allocated && !deleted),
            ("allocated", allocated),
            ("reserved", allocated && !list(status, "reservedFor").is_empty()),
        ];
        let states: Vec<_> = states.into_iter().filter(|(_, is)| *is).map(|(state, _)| state).collect();
        vec![table::name(object), states.join(",").into(), age::of(object, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::{Value, json};

    fn claim(devices: &str) -> String {
        format!(
            "{{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {{name: a, namespace: n}}, spec: {{devices: {devices}}}}}"
        )
    }

    const ONE: &str = "{requests: [{name: r, exactly: {deviceClassName: c}}]}";

    #[test]
    fn a_request_is_for_one_device_unless_it_says_otherwise() {
        let object = created(&claim(ONE));
        assert_eq!(
            object["spec"]["devices"]["requests"][0]["exactly"],
            json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1})
        );
        assert_eq!(created(&claim("{}"))["spec"]["devices"].get("requests"), Some(&Value::Null));
        check_valid(&claim(ONE));
        assert_eq!(row(&claim(ONE)), "a | pending | <unknown>");
    }

    #[test]
    fn requests_constraints_and_settings_are_checked() {
        check_invalid(
            &claim(
                "{requests: [{name: r}, {name: r, exactly: {deviceClassName: '', allocationMode: All, count: 2, selectors: [{}]}}, {name: s, firstAvailable: [{name: x, deviceClassName: c, allocationMode: Some, tolerations: [{operator: X, effect: Y}]}]}], constraints: [{requests: [t], matchAttribute: plain}, {requests: [s/x]}], config: [{requests: [a/b/c], opaque: {driver: d, parameters: 1}}]}",
            ),
            &[
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1].exactly.deviceClassName: Required value",
                "spec.devices.requests[1].exactly.selectors[0].cel: Required value",
                "spec.devices.requests[1].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
                "spec.devices.requests[2].firstAvailable[0].allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
                "spec.devices.requests[2].firstAvailable[0].tolerations[0].operator: Unsupported value: \"X\": supported values: \"Equal\", \"Exists\"",
                "spec.devices.requests[2].firstAvailable[0].tolerations[0].effect: Unsupported value: \"Y\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                "spec.devices.requests[1]: Duplicate value: \"r\"",
                "spec.devices.constraints[0].requests[0]: Invalid value: \"t\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                "spec.devices.constraints[0].matchAttribute: Invalid value: \"plain\": a fully qualified name must be a domain and a name separated by a slash",
                "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                "spec.devices.config[0].requests[0]: Invalid value: \"a/b/c\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            ],
        );
    }

    #[test]
    fn a_claim_stays_as_it_is() {
        check_update(
            &claim(ONE),
            |new| new["spec"]["devices"]["requests"][0]["name"] = json!("s"),
            &[
                "spec: Invalid value: {\"Devices\":{\"Requests\":[{\"Name\":\"s\",\"Exactly\":{\"DeviceClassName\":\"c\",\"Selectors\":null,\"AllocationMode\":\"ExactCount\",\"Count\":1,\"AdminAccess\":null,\"Tolerations\":null,\"Capacity\":null},\"FirstAvailable\":null}],\"Constraints\":null,\"Config\":null}}: field is immutable",
            ],
        );
    }

    #[test]
    fn the_status_is_checked_against_the_claim() {
        let (_, errors) = updated(Part::Status, &claim(ONE), |new| {
            new["status"] = json!({
                "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}, {"uid": "u"}],
                "devices": [{"driver": "d.com", "pool": "p", "device": "x"}],
            });
        });
        assert_eq!(
            errors,
            [
                "status.reservedFor[1].resource: Required value",
                "status.reservedFor[1].name: Required value",
                "status.reservedFor[1]: Duplicate value: \"u\"",
                "status.devices[0]: Invalid value: {\"Driver\":\"d.com\",\"Pool\":\"p\",\"Device\":\"x\",\"ShareID\":\"\"}: must be an allocated device in the claim",
                "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
            ]
        );
        let allocation =
            json!({"devices": {"results": [{"request": "r", "driver": "d.com", "pool": "p", "device": "x"}]}});
        let (new, errors) = updated(Part::Status, &claim(ONE), |new| new["status"] = json!({"allocation": allocation}));
        assert!(errors.is_empty() && new["status"]["allocation"]["devices"]["results"][0]["device"] == "x");
        let (_, errors) = updated(Part::Status, &claim(ONE), |new| {
            new["status"] = json!({"allocation": {"devices": {"results": [{"request": "s"}]}}});
        });
        assert_eq!(
            errors[0],
            "status.allocation.devices.results[0].request: Invalid value: \"s\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
        );
    }
}
