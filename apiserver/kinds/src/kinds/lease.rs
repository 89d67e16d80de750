//! Lease: who holds something, and for how long; a node's heartbeat.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use reeve_api::names;
use serde_json::Value;

use super::shape_of;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, int, object_mut, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::meta::MetaRules;
use crate::openapi::{self, Schemas};
use crate::path::Path;
use crate::shape::Shape;
use crate::{age, table};

const NAMES: Names = Names {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Holder",
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct Leases;

impl Kind for Leases {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn shape(&self) -> &'static Shape {
        shape_of!(Lease)
    }

    fn schemas(&self) -> Schemas {
        openapi::of::<Lease>()
    }

    fn default(&self, object: &mut Value) {
        object_mut(object, "spec");
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        spec_rules(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = text_at(object, &["spec", "holderIdentity"]);
        vec![table::name(object), holder.into(), age::of(object, now).into()]
    }
}

fn spec_rules(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    errors.not_negative(&path.child("leaseTransitions"), int(spec, "leaseTransitions"));
    if has(spec, "strategy") {
        let strategy = text(spec, "strategy");
        errors.invalid_each(&path.child("strategy"), strategy, names::qualified_name(strategy));
    }
    if !text(spec, "preferredHolder").is_empty() && text(spec, "strategy").is_empty() {
        let detail = "may only be specified if `strategy` is defined";
        errors.forbidden(&path.child("preferredHolder"), detail);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a, namespace: n}, spec: {holderIdentity: me, leaseDurationSeconds: 40, renewTime: '2026-01-01T00:00:00.5Z'}}";

    #[test]
    fn times_are_kept_to_the_microsecond() {
        check_created(PLAIN, &PLAIN.replace("00.5Z", "00.500000Z"));
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "a | me | <unknown>");
    }

    #[test]
    fn durations_are_positive() {
        check_invalid(
            &PLAIN.replace("40", "0"),
            &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        );
    }
}
