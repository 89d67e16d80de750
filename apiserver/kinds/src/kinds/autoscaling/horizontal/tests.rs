//! Tests of HorizontalPodAutoscaler: objects in, objects, complaints and rows out.

use super::*;
use crate::testing::*;

fn autoscaler(spec: &str) -> String {
    format!(
        "{{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {{name: web, namespace: n}}, spec: {{scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}, maxReplicas: 5{spec}}}}}"
    )
}

#[test]
fn without_metrics_the_cpu_counts() {
    check_created(
        &autoscaler(""),
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: n}, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 5, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]}, status: {desiredReplicas: 0, currentMetrics: null}}",
    );
}

#[test]
fn a_behavior_has_rules_for_both_directions() {
    let made = created(&autoscaler(", behavior: {scaleDown: {stabilizationWindowSeconds: 60}}"));
    assert_eq!(
        made["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15}]},
        })
    );
}

#[test]
fn target_and_bounds_are_checked() {
    check_valid(&autoscaler(""));
    check_invalid(
        &autoscaler(", minReplicas: 7").replace("apiVersion: apps/v1, kind: Deployment, name: web", "kind: Deployment"),
        &[
            "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
            "spec.scaleTargetRef.name: Required value",
            "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
        ],
    );
    check_invalid(
        &autoscaler(", minReplicas: 0").replace("maxReplicas: 5, ", ""),
        &[
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.maxReplicas: Required value: must be set and greater than 0",
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ],
    );
}

#[test]
fn each_metric_has_one_source_and_a_target() {
    check_invalid(
        &autoscaler(
            ", metrics: [{type: Odd}, {type: Pods, pods: {metric: {name: a/b}, target: {type: Value, value: 0}}, resource: {name: cpu, target: {type: Utilization}}}, {type: Resource}]",
        ),
        &[
            "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            "spec.metrics[1].pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.metrics[1].pods.target.value: Invalid value: \"0\": must be positive",
            "spec.metrics[1].pods.target.averageValue: Required value: must specify a positive target averageValue",
            "spec.metrics[1].resource: Forbidden: must populate the given metric source only",
            "spec.metrics[2].resource: Required value: must populate information for the given metric source",
        ],
    );
    check_invalid(
        &autoscaler(
            ", metrics: [{type: ContainerResource, containerResource: {name: bogus, container: C, target: {type: Utilization}}}], behavior: {scaleUp: {stabilizationWindowSeconds: 4000, selectPolicy: Odd, policies: [{type: Odd, value: 0, periodSeconds: 2000}], tolerance: -1}}",
        ),
        &[
            "spec.metrics[0].containerResource.name: Invalid value: \"bogus\": must be a standard resource type or fully qualified",
            "spec.metrics[0].containerResource.name: Invalid value: \"bogus\": must be a standard resource for containers",
            "spec.metrics[0].containerResource.container: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.metrics[0].containerResource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
            "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Odd\": supported values: \"Disabled\", \"Max\", \"Min\"",
            "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Odd\": supported values: \"Percent\", \"Pods\"",
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 2000: must be less than or equal to 1800",
            "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
}

#[test]
fn a_target_that_stays_is_not_looked_at_again() {
    check_update(&autoscaler(""), |object| object["spec"]["maxReplicas"] = json!(9), &[]);
    check_update(
        &autoscaler("").replace("apiVersion: apps/v1, kind", "kind"),
        |object| object["spec"]["maxReplicas"] = json!(9),
        &[],
    );
}

#[test]
fn a_row_shows_two_metrics_and_counts_the_rest() {
    let shown = row(
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {scaleTargetRef: {kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 5, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}, {type: Pods, pods: {metric: {name: a}, target: {type: AverageValue, averageValue: 10}}}, {type: External, external: {target: {value: 1}}}]}, status: {currentReplicas: 2, currentMetrics: [{type: Resource, resource: {current: {averageUtilization: 40}}}]}}",
    );
    assert_eq!(shown, "web | Deployment/web | cpu: 40%/80%, <unknown>/10 + 1 more... | 1 | 5 | 2 | 10m");
}
