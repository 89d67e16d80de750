//! LimitRange: what one pod, container or claim of a namespace may ask for, and what it gets when it asks for nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::LimitRange;
use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{entries, get, has, items_mut, list, object_mut, set, set_default, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::pod::resources::{self, round_up};
use crate::table;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short: &["limits"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[table::NAME, table::CREATED_AT];

/// The lists of amounts in an item.
const AMOUNTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// Amounts beyond this are compared in whole units, smaller ones in thousandths.
const MILLI_MAX: i64 = i64::MAX / 1000;

/// The kind.
pub(super) struct LimitRanges;

impl Kind for LimitRanges {
    wiring!(LimitRange, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        for item in items_mut(spec, "limits") {
            default_item(item);
        }
    }

    /// A LimitRange without a name gets one that nobody else has.
    fn prepare_create(&self, object: &mut Value) {
        let uid = text_at(object, &["metadata", "uid"]).to_owned();
        let meta = object_mut(object, "metadata");
        if text(meta, "name").is_empty() && text(meta, "generateName").is_empty() && !uid.is_empty() {
            set(meta, "name", uid);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        rules(object)
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, _old: &Value) -> Vec<FieldError> {
        rules(object)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![table::name(object), table::created_at(object)]
    }
}

/// What a container's limits say of what a container gets that says nothing.
fn default_item(item: &mut Value) {
    if text(item, "type") == "Container" {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let amounts: Vec<_> = entries(item, from).map(|(name, amount)| (name.to_owned(), amount.clone())).collect();
            for (name, amount) in amounts {
                set_default(object_mut(item, to), &name, amount);
            }
        }
    }
    for amounts in AMOUNTS {
        round_up(item, amounts);
    }
}

fn rules(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    META.create(object, &mut errors);
    let path = Path::of("spec");
    let path = path.child("limits");
    let mut seen = BTreeSet::new();
    for (index, item) in list(get(object, "spec"), "limits").iter().enumerate() {
        let (path, kind) = (path.index(index), text(item, "type"));
        type_name(kind, &path.child("type"), &mut errors);
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        item_rules(item, &path, &mut errors);
    }
    errors.into_vec()
}

fn type_name(kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let complaints = names::qualified_name(kind);
    let is_known = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind) || kind.contains('/');
    if complaints.is_empty() && !is_known {
        errors.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
    errors.invalid_each(path, kind, complaints);
}

fn item_rules(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(item, "type");
    let mut names = BTreeSet::new();
    for field in AMOUNTS {
        let here = path.child(field);
        if kind == "Pod" && field.starts_with("default") {
            if has(item, field) {
                errors.forbidden(&here, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        if field == "maxLimitRequestRatio" {
            storage_is_bounded(item, path, errors);
        }
        for (name, _) in entries(item, field) {
            if kind == "Pod" || kind == "Container" {
                resources::container_name(name, &here.key(name), errors);
            } else {
                resources::any_name(name, &here.key(name), errors);
            }
            names.insert(name);
        }
    }
    for name in names {
        compare(item, name, path, errors);
    }
}

fn storage_is_bounded(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    let bounded = ["min", "max"].iter().any(|side| has(get(item, side), "storage"));
    if text(item, "type") == "PersistentVolumeClaim" && !bounded {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), detail);
    }
}

/// The amounts of one resource agree with each other.
fn compare(item: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    let is_pod = text(item, "type") == "Pod";
    let of = |field: &str| match get(get(item, field), name) {
        Value::Null => None,
        _ if is_pod && field.starts_with("default") => None,
        amount => Quantity::from_value(amount).ok(),
    };
    let (min, max, limit, request) = (of("min"), of("max"), of("default"), of("defaultRequest"));
    let mut not_above = |low: Option<Quantity>, high: Option<Quantity>, texts: [&str; 3], shown: Option<Quantity>| {
        if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
            && low > high
        {
            let here = path.child(texts[0]);
            let detail = format!("{} value {low} is greater than {} value {high}", texts[1], texts[2]);
            errors.invalid(&here.key(name), shown.to_string(), detail);
        }
    };
    not_above(min, max, ["min", "min", "max"], min);
    not_above(min, request, ["defaultRequest", "min", "default request"], request);
    not_above(request, max, ["defaultRequest", "default request", "max"], request);
    not_above(request, limit, ["defaultRequest", "default request", "default limit"], request);
    not_above(min, limit, ["default", "min", "default"], min);
    not_above(limit, max, ["default", "default", "max"], max);
    ratio(of("maxLimitRequestRatio"), min, max, &path.child("maxLimitRequestRatio").key(name), errors);
    if let (Some(limit), Some(request)) = (limit, request)
        && !resources::overcommit_allowed(name)
        && limit != request
    {
        let detail = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        errors.invalid(&path.child("defaultRequest").key(name), request.to_string(), detail);
    }
}

#[allow(clippy::cast_precision_loss)] // Kubernetes compares ratios as floating point numbers, too.
fn ratio(ratio: Option<Quantity>, min: Option<Quantity>, max: Option<Quantity>, path: &Path<'_>, errors: &mut Errors) {
    let Some(ratio) = ratio else { return };
    if ratio < Quantity::new(1, ratio.format()) {
        errors.invalid(path, ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
    let (Some(min), Some(max)) = (min, max) else { return };
    let is_small = [ratio, min, max].iter().all(|amount| amount.value() < MILLI_MAX);
    let (value, low, high) = if is_small {
        (ratio.milli_value() as f64 / 1000.0, min.milli_value(), max.milli_value())
    } else {
        (ratio.value() as f64, min.value(), max.value())
    };
    let limit = high as f64 / low as f64;
    if value > limit {
        errors.invalid(path, ratio.to_string(), format!("ratio {ratio} is greater than max/min = {limit:.6}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn range(items: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: LimitRange, metadata: {{name: l, namespace: n}}, spec: {{limits: [{items}]}}}}"
        )
    }

    #[test]
    fn a_container_gets_its_limits_from_the_most_and_its_requests_from_the_limits() {
        check_created(
            &range("{type: Container, max: {cpu: 2}, min: {memory: 1Mi}}, {type: Pod, max: {cpu: 0.0001}}"),
            "{apiVersion: v1, kind: LimitRange, metadata: {name: l, namespace: n}, spec: {limits: [
               {type: Container, max: {cpu: '2'}, min: {memory: 1Mi}, default: {cpu: '2'},
                defaultRequest: {cpu: '2', memory: 1Mi}},
               {type: Pod, max: {cpu: 1m}}]}}",
        );
    }

    #[test]
    fn amounts_that_contradict_each_other_are_refused() {
        check_valid(&range("{type: Container, max: {cpu: 2}, min: {cpu: 1}, maxLimitRequestRatio: {cpu: 2}}"));
        check_invalid(
            &range("{type: Container, max: {cpu: 1}, min: {cpu: 2}, default: {cpu: 3}, defaultRequest: {cpu: 4}}"),
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"4\": default request value 4 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"4\": default request value 4 is greater than default limit value 3",
                "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 3 is greater than max value 1",
            ],
        );
        check_invalid(
            &range(
                "{type: Pod, default: {cpu: 1}, max: {cpu: 2}, min: {cpu: 1}, maxLimitRequestRatio: {cpu: 3}}, {type: Pod}",
            ),
            &[
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
            ],
        );
        check_invalid(
            &range(
                "{type: PersistentVolumeClaim, max: {bogus: 1}, maxLimitRequestRatio: {storage: 500m}}, {type: Node}",
            ),
            &[
                "spec.limits[0].max[bogus]: Invalid value: \"bogus\": must be a standard resource type or fully qualified",
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                "spec.limits[0].maxLimitRequestRatio[storage]: Invalid value: \"500m\": ratio 500m is less than 1",
                "spec.limits[1].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
            ],
        );
    }

    #[test]
    fn a_row_shows_when_it_was_created() {
        assert_eq!(
            row("{apiVersion: v1, kind: LimitRange, metadata: {name: l, creationTimestamp: '2026-01-01T00:00:00Z'}}"),
            "l | 2026-01-01T00:00:00Z"
        );
    }
}
