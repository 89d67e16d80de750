//! Lease: who holds something, and for how long; a node's heartbeat.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, int, object_mut, remove, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
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
    wiring!(Lease, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        object_mut(object, "spec");
    }

    /// Coordinated leader election is not served: Kubernetes drops its fields as long as it is off.
    fn prepare_create(&self, object: &mut Value) {
        for field in ["strategy", "preferredHolder"] {
            remove(object_mut(object, "spec"), field);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create_plain(object, &mut errors);
        spec_rules(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, _old: &Value) {
        self.prepare_create(object);
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update_plain(object, old, &mut errors);
        spec_rules(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a, namespace: n}, spec: {holderIdentity: me, leaseDurationSeconds: 40, renewTime: '2026-01-01T02:00:00.500000+02:00'}}";

    #[test]
    fn times_are_kept_to_the_microsecond() {
        check_created(PLAIN, &PLAIN.replace("T02:00:00.500000+02:00", "T00:00:00.500000Z"));
        check_valid(PLAIN);
        for (time, rest) in [("2026-01-01T00:00:00Z", "Z"), ("2026-01-01T00:00:00.5Z", ".5Z")] {
            let mut lease = serde_json::json!({"spec": {"renewTime": time}});
            assert_eq!(
                Leases.conform(&mut lease).unwrap_err().to_string(),
                format!(
                    "parsing time {time:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {rest:?} as \".000000\""
                )
            );
        }
        assert_eq!(row(PLAIN), "a | me | <unknown>");
    }

    #[test]
    fn fields_of_coordinated_election_are_dropped() {
        let lease = created(&PLAIN.replace("holderIdentity: me", "strategy: Oldest, preferredHolder: x"));
        assert_eq!(
            lease["spec"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["leaseDurationSeconds", "renewTime"]
        );
    }

    #[test]
    fn durations_are_positive() {
        check_invalid(
            &PLAIN.replace("40", "0"),
            &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        );
    }
}
