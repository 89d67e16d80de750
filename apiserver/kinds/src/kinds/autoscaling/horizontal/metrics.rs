//! Metrics of an autoscaler in the two forms they have: as fields of autoscaling/v2, and in the annotations with
//! which autoscaling/v1 keeps what it has no fields for.

use reeve_api::quantity::Quantity;
use serde_json::{Value, json};

use crate::json::{at, get, has, list, map_mut, object_mut, set, text};
use crate::shown;

/// How a field of the annotation is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// An amount that is always there.
    Amount,
    /// A reference to an object.
    Reference,
    /// A label selector, if there is one.
    Selector,
    /// A text that is always there.
    Text,
    /// Whatever it is, if it is there.
    Any,
}

/// A field: its name in the annotation, where it stands in v2, and its form.
type Field = (&'static str, &'static [&'static str], Form);

/// The sources of metrics in the order of the type, with their fields in order.
type Sources = [(&'static str, &'static [Field]); 5];

const SPEC: Sources = [
    (
        "object",
        &[
            ("target", &["describedObject"], Form::Reference),
            ("metricName", &["metric", "name"], Form::Text),
            ("targetValue", &["target", "value"], Form::Amount),
            ("selector", &["metric", "selector"], Form::Selector),
            ("averageValue", &["target", "averageValue"], Form::Any),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"], Form::Text),
            ("targetAverageValue", &["target", "averageValue"], Form::Amount),
            ("selector", &["metric", "selector"], Form::Selector),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"], Form::Text),
            ("targetAverageUtilization", &["target", "averageUtilization"], Form::Any),
            ("targetAverageValue", &["target", "averageValue"], Form::Any),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"], Form::Text),
            ("targetAverageUtilization", &["target", "averageUtilization"], Form::Any),
            ("targetAverageValue", &["target", "averageValue"], Form::Any),
            ("container", &["container"], Form::Text),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"], Form::Text),
            ("metricSelector", &["metric", "selector"], Form::Selector),
            ("targetValue", &["target", "value"], Form::Any),
            ("targetAverageValue", &["target", "averageValue"], Form::Any),
        ],
    ),
];

const STATUS: Sources = [
    (
        "object",
        &[
            ("target", &["describedObject"], Form::Reference),
            ("metricName", &["metric", "name"], Form::Text),
            ("currentValue", &["current", "value"], Form::Amount),
            ("selector", &["metric", "selector"], Form::Selector),
            ("averageValue", &["current", "averageValue"], Form::Any),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"], Form::Text),
            ("currentAverageValue", &["current", "averageValue"], Form::Amount),
            ("selector", &["metric", "selector"], Form::Selector),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"], Form::Text),
            ("currentAverageUtilization", &["current", "averageUtilization"], Form::Any),
            ("currentAverageValue", &["current", "averageValue"], Form::Amount),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"], Form::Text),
            ("currentAverageUtilization", &["current", "averageUtilization"], Form::Any),
            ("currentAverageValue", &["current", "averageValue"], Form::Amount),
            ("container", &["container"], Form::Text),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"], Form::Text),
            ("metricSelector", &["metric", "selector"], Form::Selector),
            ("currentValue", &["current", "value"], Form::Amount),
            ("currentAverageValue", &["current", "averageValue"], Form::Any),
        ],
    ),
];

/// `spec.metrics` of v2 as it stands in the annotation.
pub(super) fn specs_text<'v>(metrics: impl Iterator<Item = &'v Value>) -> String {
    texts(metrics, &SPEC)
}

/// `status.currentMetrics` of v2 as it stands in the annotation.
pub(super) fn statuses_text<'v>(metrics: impl Iterator<Item = &'v Value>) -> String {
    texts(metrics, &STATUS)
}

fn texts<'v>(metrics: impl Iterator<Item = &'v Value>, sources: &Sources) -> String {
    let texts: Vec<_> = metrics.map(|metric| text_of(metric, sources)).collect();
    format!("[{}]", texts.join(","))
}

fn text_of(metric: &Value, sources: &Sources) -> String {
    let mut shown = vec![("type", Value::from(text(metric, "type")).to_string())];
    for (source, fields) in sources.iter().filter(|(source, _)| has(metric, source)) {
        let fields: Vec<_> = fields.iter().filter_map(|field| field_text(get(metric, source), field)).collect();
        shown.push((source, shown::object(&fields)));
    }
    shown::object(&shown)
}

fn field_text(source: &Value, (name, path, form): &Field) -> Option<(&'static str, String)> {
    let value = at(source, path);
    let text = match form {
        Form::Amount => Value::from(Quantity::from_value(value).unwrap_or_default().to_string()).to_string(),
        Form::Text => Value::from(value.as_str().unwrap_or_default()).to_string(),
        Form::Reference => {
            let mut fields = vec!["kind", "name"];
            fields.extend((!text(value, "apiVersion").is_empty()).then_some("apiVersion"));
            shown::object(
                &fields.iter().map(|name| (*name, Value::from(text(value, name)).to_string())).collect::<Vec<_>>(),
            )
        }
        _ if value.is_null() => return None,
        Form::Selector => shown::selector(value),
        Form::Any => value.to_string(),
    };
    Some((name, text))
}

/// What the annotation says of `spec.metrics`; `None` when it cannot be read.
pub(super) fn specs(annotation: &str) -> Option<Vec<Value>> {
    let mut metrics = values(annotation, &SPEC)?;
    for metric in &mut metrics {
        for (source, _) in &SPEC {
            if has(metric, source) {
                target_type(source, object_mut(object_mut(metric, source), "target"));
            }
        }
    }
    Some(metrics)
}

/// What the annotation says of `status.currentMetrics`; `None` when it cannot be read.
pub(super) fn statuses(annotation: &str) -> Option<Vec<Value>> {
    let mut metrics = values(annotation, &STATUS)?;
    for metric in &mut metrics {
        for (source, _) in &STATUS {
            if has(metric, source) {
                object_mut(object_mut(metric, source), "current");
            }
        }
    }
    Some(metrics)
}

/// v1 does not say how a target is meant: it is told by what is there.
fn target_type(source: &str, target: &mut Value) {
    let (value, average) = (has(target, "value"), has(target, "averageValue"));
    let kind = match source {
        "object" if !average => "Value",
        "external" if value => "Value",
        "resource" | "containerResource" if has(target, "averageUtilization") => "Utilization",
        _ => "AverageValue",
    };
    // v1 cannot leave the value out and writes zero.
    let is_zero = Quantity::from_value(get(target, "value")).is_ok_and(|amount| amount.is_zero());
    if source == "object" && average && is_zero {
        map_mut(target).remove("value");
    }
    set(target, "type", kind);
}

fn values(annotation: &str, sources: &Sources) -> Option<Vec<Value>> {
    let Ok(Value::Array(metrics)) = serde_json::from_str(annotation) else { return None };
    Some(metrics.iter().map(|metric| value(metric, sources)).collect())
}

fn value(metric: &Value, sources: &Sources) -> Value {
    let mut converted = json!({"type": text(metric, "type")});
    for (source, fields) in sources.iter().filter(|(source, _)| has(metric, source)) {
        let mut into = json!({});
        for (name, path, form) in *fields {
            let mut value = get(get(metric, source), name).clone();
            if value.is_null() && *form == Form::Amount {
                value = "0".into();
            }
            if value.is_null() && *form == Form::Text {
                value = "".into();
            }
            if let (false, Some((last, parents))) = (value.is_null(), path.split_last()) {
                let holder = parents.iter().fold(&mut into, |holder, parent| object_mut(holder, parent));
                set(holder, last, value);
            }
        }
        set(&mut converted, source, into);
    }
    converted
}

/// Whether a metric is the one that v1 has a field for: how much of the CPU that was asked for is used.
pub(super) fn is_cpu_utilization(metric: &Value) -> bool {
    let resource = get(metric, "resource");
    text(metric, "type") == "Resource"
        && text(resource, "name") == "cpu"
        && has(get(resource, "target"), "averageUtilization")
}

/// How much of the CPU is used, as the status says; the last one counts.
pub(super) fn cpu_used(status: &Value) -> Option<i64> {
    let metrics = list(status, "currentMetrics").iter();
    let cpu =
        metrics.filter(|metric| text(metric, "type") == "Resource" && text(get(metric, "resource"), "name") == "cpu");
    cpu.filter_map(|metric| at(metric, &["resource", "current", "averageUtilization"]).as_i64()).next_back()
}
