//! What `kubectl get hpa` shows.

use jiff::Timestamp;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use crate::json::{at, get, has, int, list, text};
use crate::kind::Column;
use crate::{age, table};

pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Reference",
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
    ),
    table::column(
        "Targets",
        "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
    ),
    table::column(
        "MinPods",
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
    ),
    table::column(
        "MaxPods",
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
    ),
    table::column(
        "Replicas",
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
    ),
    table::AGE,
];

/// So many metrics are shown, the others are counted.
const METRICS_MAX: usize = 2;

/// The cells of one autoscaler of autoscaling/v2.
pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (get(object, "spec"), get(object, "status"));
    let target = get(spec, "scaleTargetRef");
    vec![
        table::name(object),
        format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
        metrics(list(spec, "metrics"), list(status, "currentMetrics")).into(),
        int(spec, "minReplicas").map_or_else(|| "<unset>".to_owned(), |min| min.to_string()).into(),
        int(spec, "maxReplicas").unwrap_or_default().into(),
        int(status, "currentReplicas").unwrap_or_default().into(),
        age::of(object, now).into(),
    ]
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<_> = specs
        .iter()
        .enumerate()
        .take(METRICS_MAX)
        .map(|(index, spec)| metric(spec, statuses.get(index).unwrap_or(&Value::Null)))
        .collect();
    let shown = shown.join(", ");
    match specs.len().saturating_sub(METRICS_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let field = match text(spec, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (goal, current) = (at(spec, &[field, "target"]), at(status, &[field, "current"]));
    let amount = |holder: &Value, field: &str| Quantity::from_value(get(holder, field)).unwrap_or_default().to_string();
    let seen = |field: &str| {
        let unknown = current.is_null() || !has(current, field);
        if unknown { "<unknown>".to_owned() } else { amount(current, field) }
    };
    let by_average = has(goal, "averageValue");
    match field {
        "pods" => format!("{}/{}", seen("averageValue"), amount(goal, "averageValue")),
        "external" | "object" if by_average => {
            format!("{}/{} (avg)", seen("averageValue"), amount(goal, "averageValue"))
        }
        "external" | "object" => format!("{}/{}", seen("value"), amount(goal, "value")),
        _ => {
            let name = text(get(spec, field), "name");
            if by_average {
                return format!("{name}: {}/{}", seen("averageValue"), amount(goal, "averageValue"));
            }
            let percent = |holder: &Value, other: &str| {
                int(holder, "averageUtilization").map_or_else(|| other.to_owned(), |percent| format!("{percent}%"))
            };
            format!("{name}: {}/{}", percent(current, "<unknown>"), percent(goal, "<auto>"))
        }
    }
}
