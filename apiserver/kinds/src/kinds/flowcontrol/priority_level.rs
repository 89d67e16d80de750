//! PriorityLevelConfiguration: how many requests run at once, and what becomes of the others.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use reeve_api::names;
use serde_json::{Value, json};

use super::{GROUP, bootstrap, conditions};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, get, has, int, set, set_absent, set_default_number, some_mut, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::shown::{self, Go};
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// The level that is never limited.
const EXEMPT: &str = "exempt";
/// Annotation of an older version, which no object of this one may have.
const FORBIDDEN_ANNOTATION: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
/// Most queues of a level.
const MAX_QUEUES: i64 = 10_000_000;
/// Bits of the hash from which a flow's queues are drawn.
const HASH_BITS: i64 = 60;

/// The spec as complaints show it.
const SPEC: Go = Go::Struct(&[
    ("Type", "type", Go::Text),
    (
        "Limited",
        "limited",
        Go::Pointer(&[
            ("NominalConcurrencyShares", "nominalConcurrencyShares", Go::Number),
            (
                "LimitResponse",
                "limitResponse",
                Go::Struct(&[
                    ("Type", "type", Go::Text),
                    (
                        "Queuing",
                        "queuing",
                        Go::Pointer(&[
                            ("Queues", "queues", Go::Number),
                            ("HandSize", "handSize", Go::Number),
                            ("QueueLengthLimit", "queueLengthLimit", Go::Number),
                        ]),
                    ),
                ]),
            ),
            ("LendablePercent", "lendablePercent", Go::Plain),
            ("BorrowingLimitPercent", "borrowingLimitPercent", Go::Plain),
        ]),
    ),
    (
        "Exempt",
        "exempt",
        Go::Pointer(&[
            ("NominalConcurrencyShares", "nominalConcurrencyShares", Go::Plain),
            ("LendablePercent", "lendablePercent", Go::Plain),
        ]),
    ),
]);

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Type",
        "`type` indicates whether this priority level is subject to limitation on request execution.  A value of `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never queued) and do not detract from the capacity made available to other priority levels.  A value of `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of the server's limited capacity is made available exclusively to this priority level. Required.",
    ),
    table::column(
        "NominalConcurrencyShares",
        "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level. This is the number of execution seats available at this priority level. This is used both for requests dispatched from this priority level as well as requests dispatched from other priority levels borrowing seats from this level. The server's concurrency limit (ServerCL) is divided among the Limited priority levels in proportion to their NCS values:\n\nNominalCL(i)  = ceil( ServerCL * NCS(i) / sum_ncs ) sum_ncs = sum[priority level k] NCS(k)\n\nBigger numbers mean a larger nominal concurrency limit, at the expense of every other priority level.\n\nIf not specified, this field defaults to a value of 30.\n\nSetting this field to zero supports the construction of a \"jail\" for this priority level that is used to hold some request(s)",
    ),
    table::column(
        "Queues",
        "`queues` is the number of queues for this priority level. The queues exist independently at each apiserver. The value must be positive.  Setting it to 1 effectively precludes shufflesharding and thus makes the distinguisher method of associated flow schemas irrelevant.  This field has a default value of 64.",
    ),
    table::column(
        "HandSize",
        "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.  When enqueuing a request at this priority level the request's flow identifier (a string pair) is hashed and the hash value is used to shuffle the list of queues and deal a hand of the size specified here.  The request is put into one of the shortest queues in that hand. `handSize` must be no larger than `queues`, and should be significantly smaller (so that a few heavy flows do not saturate most of the queues).  See the user-facing documentation for more extensive guidance on setting this field.  This field has a default value of 8.",
    ),
    table::column(
        "QueueLengthLimit",
        "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time; excess requests are rejected.  This value must be positive.  If not specified, it will be defaulted to 50.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct PriorityLevels;

impl Kind for PriorityLevels {
    wiring!(PriorityLevelConfiguration, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let Some(spec) = some_mut(object, "spec") else { return };
        if let Some(limited) = some_mut(spec, "limited") {
            set_absent(limited, "nominalConcurrencyShares", 30);
            set_absent(limited, "lendablePercent", 0);
            if let Some(queuing) = some_mut(limited, "limitResponse").and_then(|limit| some_mut(limit, "queuing")) {
                for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                    set_default_number(queuing, field, value);
                }
            }
        }
        if let Some(exempt) = some_mut(spec, "exempt") {
            set_absent(exempt, "nominalConcurrencyShares", 0);
            set_absent(exempt, "lendablePercent", 0);
        }
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
        let limited = at(object, &["spec", "limited"]);
        let queuing = at(limited, &["limitResponse", "queuing"]);
        let number = |value: &Value| if value.is_null() { "<none>".into() } else { value.clone() };
        vec![
            table::name(object),
            text_at(object, &["spec", "type"]).into(),
            number(get(limited, "nominalConcurrencyShares")),
            number(get(queuing, "queues")),
            number(get(queuing, "handSize")),
            number(get(queuing, "queueLengthLimit")),
            age::of(object, now).into(),
        ]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    if has(at(object, &["metadata", "annotations"]), FORBIDDEN_ANNOTATION) {
        let detail = format!("annotation '{FORBIDDEN_ANNOTATION}' is forbidden");
        errors.forbidden(&Path::of("metadata").child("annotations"), detail);
    }
    let (spec, name, path) = (get(object, "spec"), text_at(object, &["metadata", "name"]), Path::of("spec"));
    spec_rules(spec, name, &path, errors);
    mandatory(spec, name, &path, errors);
    conditions(object, errors);
}

fn mandatory(spec: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    let all = bootstrap::mandatory_priority_levels();
    let Some(wanted) = all.iter().find(|level| text_at(level, &["metadata", "name"]) == name) else { return };
    let mut same = spec.clone();
    let mut what = "";
    if name == EXEMPT {
        copy_field(&mut same, get(wanted, "spec"), "exempt");
        what = " except the 'spec.exempt' field";
    }
    if same != *get(wanted, "spec") {
        let detail = format!("spec of '{name}'{what} must equal the fixed value");
        errors.invalid_object(path, shown::go(spec, &SPEC), detail);
    }
}

fn spec_rules(spec: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(spec, "type");
    if (name == EXEMPT) != (kind == "Exempt") {
        errors.invalid(&path.child("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    let (limited, exempt) = (get(spec, "limited"), get(spec, "exempt"));
    let (limited_path, exempt_path) = (path.child("limited"), path.child("exempt"));
    match kind {
        "Exempt" => {
            if !limited.is_null() {
                errors.forbidden(&limited_path, "must be nil if the type is not Limited");
            }
            shares(exempt, &exempt_path, errors);
            lendable(exempt, &exempt_path, errors);
        }
        "Limited" => {
            if !exempt.is_null() {
                errors.forbidden(&exempt_path, "must be nil if the type is Limited");
            }
            if limited.is_null() {
                errors.required(&limited_path, "must not be empty when type is Limited");
            } else {
                limits(limited, &limited_path, errors);
            }
        }
        other => errors.unsupported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn shares(level: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(shares) = int(level, "nominalConcurrencyShares").filter(|shares| *shares < 0) {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
}

fn lendable(level: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(percent) = int(level, "lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn limits(limited: &Value, path: &Path<'_>, errors: &mut Errors) {
    shares(limited, path, errors);
    let (response, response_path) = (get(limited, "limitResponse"), path.child("limitResponse"));
    let (queuing, queuing_path) = (get(response, "queuing"), response_path.child("queuing"));
    match text(response, "type") {
        "Reject" if !queuing.is_null() => {
            errors.forbidden(&queuing_path, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_null() => {
            errors.required(&queuing_path, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => queues(queuing, &queuing_path, errors),
        other => errors.unsupported(&response_path.child("type"), other, &["Queue", "Reject"]),
    }
    lendable(limited, path, errors);
    if let Some(percent) = int(limited, "borrowingLimitPercent").filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), percent, detail);
    }
}

fn queues(queuing: &Value, path: &Path<'_>, errors: &mut Errors) {
    let number = |field| int(queuing, field).unwrap_or_default();
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), number("queueLengthLimit"), "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(&path.child("queues"), queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&path, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&path, hand, format!("should not be greater than queues ({queues})"));
    } else if entropy(queues, hand) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&path, hand, detail);
    }
}

/// How many bits it takes to deal a hand of so many of so many queues.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // Both numbers are at most 10^7.
fn entropy(queues: i64, hand: i64) -> i64 {
    ((queues as f64).log2() * hand as f64).ceil() as i64
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn level(name: &str, spec: &str) -> String {
        format!(
            "{{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {{name: {name}}}, spec: {spec}}}"
        )
    }

    const QUEUE: &str = "{type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}";

    #[test]
    fn shares_and_queues_get_kubernetes_defaults() {
        let object = created(&level("a", QUEUE));
        assert_eq!(
            object["spec"]["limited"],
            json!({"nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}}})
        );
        assert_eq!((&object["status"], &object["metadata"]["generation"]), (&json!({}), &json!(1)));
        check_valid(&level("a", QUEUE));
        assert_eq!(row(&level("a", QUEUE)), "a | Limited | <none> | <none> | <none> | <none> | <unknown>");
    }

    #[test]
    fn levels_are_checked() {
        check_invalid(
            &level("a", "{type: Exempt, limited: {}}"),
            &[
                "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
                "spec.limited: Forbidden: must be nil if the type is not Limited",
            ],
        );
        check_invalid(
            &level("a", "{type: Limited}"),
            &["spec.limited: Required value: must not be empty when type is Limited"],
        );
        check_invalid(
            &level(
                "a",
                "{type: Limited, exempt: {}, limited: {nominalConcurrencyShares: -1, lendablePercent: 101, borrowingLimitPercent: -1, limitResponse: {type: Queue, queuing: {queues: 100, handSize: 10, queueLengthLimit: -1}}}}",
            ),
            &[
                "spec.exempt: Forbidden: must be nil if the type is Limited",
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 10: required entropy bits of deckSize 100 and handSize 10 should not be greater than 60",
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            ],
        );
        check_invalid(
            &level("a", "{type: Limited, limited: {}}"),
            &["spec.limited.limitResponse.type: Unsupported value: \"\": supported values: \"Queue\", \"Reject\""],
        );
    }

    #[test]
    fn the_mandatory_levels_say_what_they_always_say() {
        check_valid(&level("exempt", "{type: Exempt, exempt: {nominalConcurrencyShares: 7}}"));
        check_invalid(
            &level(
                "catch-all",
                "{type: Limited, limited: {nominalConcurrencyShares: 6, limitResponse: {type: Reject}}}",
            ),
            &[
                "spec: Invalid value: {\"Type\":\"Limited\",\"Limited\":{\"NominalConcurrencyShares\":6,\"LimitResponse\":{\"Type\":\"Reject\",\"Queuing\":null},\"LendablePercent\":0,\"BorrowingLimitPercent\":null},\"Exempt\":null}: spec of 'catch-all' must equal the fixed value",
            ],
        );
    }

    #[test]
    fn a_status_changes_nothing_else() {
        let (new, errors) = updated(Part::Status, &level("a", QUEUE), |new| {
            new["metadata"]["labels"] = json!({"a": "b"});
            new["spec"] = json!({});
            new["status"] = json!({"conditions": [{"type": "X"}, {"type": "X"}, {}]});
        });
        assert!(new["metadata"].get("labels").is_none() && new["spec"]["type"] == "Limited");
        assert_eq!(
            errors,
            ["status.conditions[1].type: Duplicate value: \"X\"", "status.conditions[2].type: Required value"]
        );
    }
}
