//! Event: what happened to an object, for people to read.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, int, set, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    categories: &[],
    namespaced: true,
};

/// Names of events are made from names of any object.
const META: MetaRules = MetaRules { namespaced: true, name: meta::path_segment };

/// Longest texts of an event of the new kind (with `eventTime`).
const MAX_FIELD: usize = 128;
const MAX_MESSAGE: usize = 1024;

pub(in crate::kinds) const COLUMNS: &[Column] = &[
    table::column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    table::column("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    table::column(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    table::column("Object", "The object that this event is about."),
    table::wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    table::wide("Source", "The component reporting this event. Should be a short machine understandable string."),
    table::column("Message", "A human-readable description of the status of this operation."),
    table::wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    table::wide("Count", "The number of times this event has occurred."),
    table::WIDE_NAME,
];

/// The kind.
pub(in crate::kinds) struct Events;

impl Kind for Events {
    wiring!(Event, NAMES, COLUMNS);

    /// The two fields are always there.
    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        for field in ["reportingComponent", "reportingInstance"] {
            if !has(object, field) {
                set(object, field, "");
            }
        }
        crate::json::object_mut(object, "source");
        crate::json::object_mut(object, "involvedObject");
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        rules(object, "reportingComponent", &mut errors);
        if errors.count() == 0 {
            META.create_plain(object, &mut errors);
        }
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        rules(object, "reportingComponent", &mut errors);
        errors.into_vec()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let value = match field {
            "involvedObject.kind"
            | "involvedObject.namespace"
            | "involvedObject.name"
            | "involvedObject.uid"
            | "involvedObject.apiVersion"
            | "involvedObject.resourceVersion"
            | "involvedObject.fieldPath" => {
                text(get(object, "involvedObject"), field.trim_start_matches("involvedObject."))
            }
            "reason" | "type" | "reportingComponent" => text(object, field),
            // What reports an event says so in one of two places.
            "source" => match text_at(object, &["source", "component"]) {
                "" => text(object, "reportingComponent"),
                component => component,
            },
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let seen = |field: &str| Some(text(object, field)).filter(|time| !time.is_empty());
        let event_time = seen("eventTime").unwrap_or_default();
        let first = age::since(seen("firstTimestamp").unwrap_or(event_time), now);
        let mut last = seen("lastTimestamp").map_or_else(|| first.clone(), |time| age::since(time, now));
        let mut count = int(object, "count").unwrap_or_default().max(1);
        if has(object, "series") {
            let series = get(object, "series");
            last = age::since(text(series, "lastObservedTime"), now);
            count = int(series, "count").unwrap_or_default();
        }
        let about = get(object, "involvedObject");
        let (kind, name) = (text(about, "kind").to_lowercase(), text(about, "name"));
        vec![
            last.into(),
            text(object, "type").into(),
            text(object, "reason").into(),
            if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() },
            text(about, "fieldPath").into(),
            source(object).into(),
            text(object, "message").trim().into(),
            first.into(),
            count.into(),
            table::name(object),
        ]
    }
}

/// `component, host`
fn source(object: &Value) -> String {
    let part = |old: &str, new: &str| match text_at(object, &["source", old]) {
        "" => text(object, new).to_owned(),
        text => text.to_owned(),
    };
    let (component, host) = (part("component", "reportingComponent"), part("host", "reportingInstance"));
    if host.is_empty() { component } else { format!("{component}, {host}") }
}

/// Rules for every event; `reporting` is what the field with the reporting component is called in complaints.
pub(in crate::kinds) fn rules(object: &Value, reporting: &'static str, errors: &mut Errors) {
    let namespace = text_at(object, &["metadata", "namespace"]);
    let about = text_at(object, &["involvedObject", "namespace"]);
    let path = Path::of("involvedObject");
    let has_time = has(object, "eventTime");
    let agrees = match about {
        "" => namespace == "default" || (has_time && namespace == "kube-system"),
        about => has_time || about == namespace,
    };
    if !agrees {
        errors.invalid(&path.child("namespace"), about, "does not match event.namespace");
    }
    if has_time {
        timed_rules(object, reporting, errors);
    }
    errors.invalid_each(&Path::of("namespace"), namespace, names::dns1123_subdomain(namespace));
}

/// Rules for an event of the new form, the one with `eventTime`.
fn timed_rules(object: &Value, reporting: &'static str, errors: &mut Errors) {
    let (component, path) = (text(object, "reportingComponent"), Path::of(reporting));
    if component.is_empty() {
        errors.required(&path, "");
    }
    errors.invalid_each(&path, component, names::qualified_name(component));
    for field in ["reportingInstance", "action", "reason"] {
        let (value, path) = (text(object, field), Path::of(field));
        if value.is_empty() {
            errors.required(&path, "");
        }
        if value.len() > MAX_FIELD {
            errors.invalid(&path, "", format!("can have at most {MAX_FIELD} characters"));
        }
    }
    if text(object, "message").len() > MAX_MESSAGE {
        errors.invalid(&Path::of("message"), "", format!("can have at most {MAX_MESSAGE} characters"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: v1, kind: Event, metadata: {name: a.1, namespace: n}, involvedObject: {kind: Pod, name: a, namespace: n, fieldPath: 'spec.containers{c}'}, reason: Started, message: ' Started it ', type: Normal, source: {component: kubelet, host: n1}, firstTimestamp: '2026-01-01T00:50:00Z', lastTimestamp: '2026-01-01T00:59:00Z', count: 4}";

    #[test]
    fn an_event_belongs_to_the_namespace_of_its_object() {
        check_valid(PLAIN);
        check_invalid(
            &PLAIN.replace("name: a, namespace: n", "name: a, namespace: m"),
            &["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"],
        );
        check_invalid(
            &PLAIN.replace("count: 4", "eventTime: '2026-01-01T00:59:00.000000Z', action: X"),
            &[
                "reportingComponent: Required value",
                "reportingComponent: Invalid value: \"\": name part must be non-empty",
                "reportingComponent: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "reportingInstance: Required value",
            ],
        );
    }

    #[test]
    fn events_are_selected_by_their_object() {
        let event = created(PLAIN);
        for (field, value) in [("involvedObject.name", "a"), ("type", "Normal"), ("source", "kubelet")] {
            assert_eq!(Events.selectable_field(&event, field).as_deref(), Some(value), "{field}");
        }
        assert_eq!(Events.selectable_field(&event, "message"), None);
    }

    #[test]
    fn a_row_shows_what_kubectl_shows() {
        assert_eq!(
            row(PLAIN),
            "60s | Normal | Started | pod/a | spec.containers{c} | kubelet, n1 | Started it | 10m | 4 | a.1"
        );
    }
}
