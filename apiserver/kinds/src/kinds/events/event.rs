//! Event in events.k8s.io/v1: the same objects as the core group's events, under other names and with stricter rules.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, int, object_mut, remove, set, text};
use crate::kind::{Kind, Names, Part, StoredAs};
use crate::kinds::core::event::{self as core, Events};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::shown;

const NAMES: Names = Names {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

/// What fields are called here and in the core group.
const RENAMED: [(&str, &str); 7] = [
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

/// Texts that the core group writes even when they are empty.
const REPORTING: [&str; 2] = ["reportingComponent", "reportingInstance"];

/// The kind.
pub(super) struct NewEvents;

impl Kind for NewEvents {
    wiring!(Event, NAMES, core::COLUMNS);

    fn stored_as(&self) -> Option<StoredAs> {
        Some(StoredAs { group: "", plural: "events" })
    }

    fn from_stored(&self, object: &mut Value) {
        for field in REPORTING.into_iter().filter(|field| text(object, field).is_empty()).collect::<Vec<_>>() {
            remove(object, field);
        }
        rename(object, |(new, old)| (old, new));
        set(object, "apiVersion", "events.k8s.io/v1");
    }

    fn to_stored(&self, object: &mut Value) {
        rename(object, |names| names);
        for field in REPORTING {
            if !has(object, field) {
                set(object, field, "");
            }
        }
        set(object, "apiVersion", "v1");
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        object_mut(object, "regarding");
        object_mut(object, "deprecatedSource");
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let object = as_core(object);
        let mut errors = Errors::default();
        core::rules(&object, "reportingController", &mut errors);
        META.create(&object, &mut errors);
        series(&object, &mut errors);
        new_form(&object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let (object, old) = (as_core(object), as_core(old));
        let mut errors = Errors::default();
        core::rules(&object, "reportingController", &mut errors);
        META.update(&object, &old, &mut errors);
        if get(&object, "series") != get(&old, "series") {
            series(&object, &mut errors);
        }
        immutable(&object, &old, &mut errors);
        errors.into_vec()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let core_name = match field {
            "reason" | "type" => field.to_owned(),
            "reportingController" => "reportingComponent".to_owned(),
            _ => format!("involvedObject.{}", field.strip_prefix("regarding.")?),
        };
        Events.selectable_field(&as_core(object), &core_name)
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        Events.row(&as_core(object), now)
    }
}

fn as_core(object: &Value) -> Value {
    let mut object = object.clone();
    NewEvents.to_stored(&mut object);
    object
}

fn rename(object: &mut Value, order: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    for (from, to) in RENAMED.into_iter().map(order) {
        if let Some(value) = remove(object, from) {
            set(object, to, value);
        }
    }
}

fn series(object: &Value, errors: &mut Errors) {
    let series = get(object, "series");
    if series.is_null() {
        return;
    }
    if int(series, "count").unwrap_or_default() < 2 {
        errors.invalid(&Path::of("series.count"), "", "should be at least 2");
    }
    if !has(series, "lastObservedTime") {
        errors.required(&Path::of("series.lastObservedTime"), "");
    }
}

/// An event of the new form has none of the fields of the old one.
fn new_form(object: &Value, errors: &mut Errors) {
    if !has(object, "eventTime") {
        errors.required(&Path::of("eventTime"), "");
    }
    let kind = text(object, "type");
    if !["Normal", "Warning"].contains(&kind) {
        errors.invalid(&Path::of("type"), "", format!("has invalid value: {kind}"));
    }
    let source = get(object, "source");
    for (field, set) in [
        ("firstTimestamp", has(object, "firstTimestamp")),
        ("lastTimestamp", has(object, "lastTimestamp")),
        ("count", int(object, "count").is_some_and(|count| count != 0)),
        ("source", ["component", "host"].iter().any(|field| !text(source, field).is_empty())),
    ] {
        if set {
            errors.invalid(&Path::of(field), "", "needs to be unset");
        }
    }
}

/// Only the series goes on.
fn immutable(object: &Value, old: &Value, errors: &mut Errors) {
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingController",
        "reportingInstance",
    ] {
        let stored = if field == "reportingController" { "reportingComponent" } else { field };
        let now = get(object, stored);
        if now == get(old, stored) {
            continue;
        }
        let shown = match field {
            "involvedObject" => shown::internal("ObjectReference", now),
            "related" if !now.is_null() => shown::internal("ObjectReference", now),
            "source" => shown::internal("EventSource", now),
            "count" => now.as_i64().unwrap_or_default().to_string(),
            "reason" | "message" | "type" | "action" => Value::from(now.as_str().unwrap_or_default()).to_string(),
            _ => now.to_string(),
        };
        errors.invalid_object(&Path::of(field), shown, "field is immutable");
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind as _;
    use crate::testing::*;
    use serde_json::json;

    const EVENT: &str = "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: a.1, namespace: n}, eventTime: '2026-01-01T00:59:00.000000Z', regarding: {kind: Pod, name: a, namespace: n}, reason: Started, action: Start, note: Started it, type: Normal, reportingController: example.org/c, reportingInstance: c-1}";

    #[test]
    fn an_event_is_stored_under_the_names_of_the_core_group() {
        let made = created(EVENT);
        let mut stored = made.clone();
        super::NewEvents.to_stored(&mut stored);
        assert_eq!(
            stored,
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a.1", "namespace": "n"},
                "eventTime": "2026-01-01T00:59:00.000000Z", "involvedObject": {"kind": "Pod", "name": "a", "namespace": "n"},
                "reason": "Started", "action": "Start", "message": "Started it", "type": "Normal", "source": {},
                "firstTimestamp": null, "lastTimestamp": null,
                "reportingComponent": "example.org/c", "reportingInstance": "c-1"})
        );
        super::NewEvents.from_stored(&mut stored);
        assert_eq!(stored, made);
    }

    #[test]
    fn an_event_of_the_new_form_has_nothing_of_the_old() {
        check_valid(EVENT);
        check_invalid(
            &EVENT.replace(
                "type: Normal",
                "type: Odd, deprecatedCount: 3, deprecatedSource: {host: h}, series: {count: 1}",
            ),
            &[
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ],
        );
    }

    #[test]
    fn only_the_series_goes_on() {
        check_update(
            EVENT,
            |event| event["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T01:00:00.000000Z"}),
            &[],
        );
        check_update(
            EVENT,
            |event| event["note"] = json!("else"),
            &["message: Invalid value: \"else\": field is immutable"],
        );
    }

    #[test]
    fn events_are_selected_and_shown_as_in_the_core_group() {
        let event = created(EVENT);
        assert_eq!(super::NewEvents.selectable_field(&event, "regarding.name").as_deref(), Some("a"));
        assert_eq!(super::NewEvents.selectable_field(&event, "involvedObject.name"), None);
        assert_eq!(row(EVENT), "60s | Normal | Started | pod/a |  | example.org/c, c-1 | Started it | 60s | 1 | a.1");
    }
}
