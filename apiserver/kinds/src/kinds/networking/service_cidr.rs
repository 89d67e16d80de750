//! ServiceCIDR: ranges from which Services get their addresses.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use reeve_api::names;
use serde_json::{Value, json};

use super::GROUP;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, get, list, set};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, shown, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "CIDRs",
        "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is immutable.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct ServiceCidrs;

impl Kind for ServiceCidrs {
    wiring!(ServiceCIDR, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        ranges(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Status {
            copy_field(object, old, "spec");
            meta::reset_for_status(object, old);
        } else {
            copy_field(object, old, "status");
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part != Part::Status {
            changes(object, old, &mut errors);
        }
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let all: Vec<_> = cidrs(object).iter().filter_map(Value::as_str).collect();
        vec![table::name(object), all.join(",").into(), age::of(object, now).into()]
    }
}

fn cidrs(object: &Value) -> &[Value] {
    list(get(object, "spec"), "cidrs")
}

fn ranges(object: &Value, errors: &mut Errors) {
    let (all, path) = (cidrs(object), Path::of("spec"));
    let path = path.child("cidrs");
    if all.is_empty() {
        return errors.required(&path, "at least one CIDR required");
    }
    if all.len() > 2 {
        let shown = shown::object(&[("CIDRs", Value::from(all.to_vec()).to_string())]);
        return errors.invalid_object(&path, shown, "may only hold up to 2 values");
    }
    for (index, cidr) in all.iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_each(&path.index(index), cidr, names::canonical_cidr(cidr));
    }
    let families: Vec<_> =
        all.iter().filter_map(Value::as_str).filter_map(names::parse_cidr).map(|(start, _)| start.is_ipv4()).collect();
    if let [first, second] = families[..]
        && first == second
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&path, all.to_vec(), detail);
    }
}

/// A second range may be added; otherwise ranges stay.
fn changes(object: &Value, old: &Value, errors: &mut Errors) {
    let (now, was, path) = (cidrs(object), cidrs(old), Path::of("spec"));
    let path = path.child("cidrs");
    if now.len() == was.len() {
        for (index, (now, was)) in now.iter().zip(was).enumerate() {
            errors.immutable(&path.index(index), now, was);
        }
    } else if was.len() == 1 && now.len() == 2 {
        errors.immutable(&path.index(0), &now[0], &was[0]);
        ranges(object, errors);
    } else {
        errors.invalid(&path, at(object, &["spec", "cidrs"]).clone(), "field is immutable");
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn ranges(cidrs: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {{name: a}}, spec: {{cidrs: [{cidrs}]}}}}"
        )
    }

    #[test]
    fn ranges_are_checked() {
        check_valid(&ranges("10.0.0.0/16, '2001:db8::/64'"));
        assert_eq!(row(&ranges("10.0.0.0/16, '2001:db8::/64'")), "a | 10.0.0.0/16,2001:db8::/64 | <unknown>");
        check_invalid(&ranges(""), &["spec.cidrs: Required value: at least one CIDR required"]);
        check_invalid(
            &ranges("a, b, c"),
            &["spec.cidrs: Invalid value: {\"CIDRs\":[\"a\",\"b\",\"c\"]}: may only hold up to 2 values"],
        );
        check_invalid(
            &ranges("10.0.0.0/16, 10.1.0.1/16"),
            &[
                "spec.cidrs[1]: Invalid value: \"10.1.0.1/16\": must not have bits set beyond the prefix length",
                "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.1/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ],
        );
    }

    #[test]
    fn a_range_stays_and_a_second_may_come() {
        let set = |cidrs| move |new: &mut serde_json::Value| new["spec"]["cidrs"] = cidrs;
        check_update(&ranges("10.0.0.0/16"), set(json!(["10.0.0.0/16", "2001:db8::/64"])), &[]);
        check_update(
            &ranges("10.0.0.0/16"),
            set(json!(["10.1.0.0/16"])),
            &["spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"],
        );
        check_update(
            &ranges("10.0.0.0/16, '2001:db8::/64'"),
            set(json!(["10.0.0.0/16"])),
            &["spec.cidrs: Invalid value: [\"10.0.0.0/16\"]: field is immutable"],
        );
        let (new, errors) = updated(Part::Status, &ranges("10.0.0.0/16"), |new| {
            new["metadata"]["labels"] = json!({"a": "b"});
            new["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        });
        assert!(errors.is_empty() && new["metadata"].get("labels").is_none());
        assert_eq!(new["status"]["conditions"][0]["type"], "Ready");
    }
}
