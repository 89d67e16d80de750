//! Tests of Job: objects in, objects, complaints and rows out.

use super::*;
use crate::testing::*;

fn job(spec: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: sum, namespace: n, uid: u-1}}, spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: 'sum:1'}}]}}}}{spec}}}}}"
    )
}

#[test]
fn a_job_runs_once_and_knows_its_pods_by_its_uid() {
    let made = created(&job(""));
    let mut spec = made["spec"].clone();
    let template = spec["template"].take();
    assert_eq!(
        spec,
        json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": false, "template": null,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}})
    );
    assert_eq!(
        template["metadata"]["labels"],
        json!({"controller-uid": "u-1", "batch.kubernetes.io/controller-uid": "u-1", "job-name": "sum",
            "batch.kubernetes.io/job-name": "sum"})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    let open =
        created(&job(", parallelism: 3, backoffLimitPerIndex: 1, completionMode: Indexed, manualSelector: true"));
    assert_eq!(open["spec"]["completions"], json!(null));
    assert_eq!(open["spec"]["backoffLimit"], i32::MAX);
    assert_eq!(open["spec"]["selector"], json!(null));
}

#[test]
fn a_job_ends_and_its_selector_is_the_servers() {
    check_valid(&job(""));
    check_invalid(
        &job("").replace("restartPolicy: Never, ", ""),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    check_invalid(
        &job(", selector: {matchLabels: {a: b}}"),
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"u-1\"}}: `selector` not auto-generated",
            "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u-1\",\"batch.kubernetes.io/job-name\":\"sum\",\"controller-uid\":\"u-1\",\"job-name\":\"sum\"}: `selector` does not match template `labels`",
        ],
    );
    check_invalid(
        &job(", manualSelector: true, completionMode: Odd, managedBy: me"),
        &[
            "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            "spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\"",
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
        ],
    );
}

#[test]
fn indexes_have_limits() {
    check_valid(&job(", completionMode: Indexed, completions: 3, backoffLimitPerIndex: 1, maxFailedIndexes: 2"));
    check_invalid(
        &job(", completionMode: Indexed, parallelism: 100001, backoffLimitPerIndex: 1, completions: 200000"),
        &[
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
        ],
    );
    check_invalid(
        &job(", maxFailedIndexes: 2, backoffLimit: -1, successPolicy: {rules: [{succeededCount: 1}]}"),
        &[
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 2: requires indexed completion mode",
            "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededIndexes\":null,\"SucceededCount\":1}]}: requires indexed completion mode",
        ],
    );
    check_invalid(
        &job(
            ", completionMode: Indexed, completions: 3, successPolicy: {rules: [{}, {succeededIndexes: '0-1', succeededCount: 3}, {succeededIndexes: '5'}]}",
        ),
        &[
            "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            "spec.successPolicy.rules[1].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
            "spec.successPolicy.rules[2].succeededIndexes: Invalid value: \"5\": error parsing succeededIndexes: too large index: \"5\"",
        ],
    );
}

#[test]
fn a_failure_policy_says_for_each_rule_what_and_when() {
    check_valid(&job(", podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]}"));
    check_invalid(
        &job(
            ", podFailurePolicy: {rules: [{action: Odd}, {action: FailIndex, onExitCodes: {containerName: x, operator: In, values: [3, 0, 3]}, onPodConditions: [{type: A, status: Maybe}]}, {onExitCodes: {values: []}}]}, podReplacementPolicy: TerminatingOrFailed",
        ),
        &[
            "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Odd\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            "spec.podFailurePolicy.rules[1].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[1].onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[1].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[1].onExitCodes.values[2]: Duplicate value: 3",
            "spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: [3,0,3]: must be ordered",
            "spec.podFailurePolicy.rules[1].onPodConditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
            "spec.podFailurePolicy.rules[1]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
            "spec.podFailurePolicy.rules[2].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            "spec.podFailurePolicy.rules[2].onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]",
            "spec.podFailurePolicy.rules[2].onExitCodes.values: Invalid value: []: at least one value is required",
            "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
        ],
    );
}

#[test]
fn a_running_job_keeps_its_template() {
    check_update(&job(""), |job| job["spec"]["parallelism"] = json!(3), &[]);
    check_update(
        &job(""),
        |job| job["spec"]["completions"] = json!(3),
        &["spec.completions: Invalid value: 3: field is immutable"],
    );
    let (_, errors) = updated(Part::Main, &job(""), |job| {
        job["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    });
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec.template: Invalid value: {\"labels\":{"), "{}", errors[0]);
    assert!(errors[0].ends_with(": field is immutable"), "{}", errors[0]);
    check_update(
        &job(", completionMode: Indexed, completions: 2, parallelism: 2"),
        |job| job["spec"]["completions"] = json!(3),
        &["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"],
    );
}

#[test]
fn a_suspended_job_may_be_told_where_to_go_and_what_to_use() {
    check_update(
        &job(", suspend: true"),
        |job| {
            let spec = &mut job["spec"]["template"]["spec"];
            spec["nodeSelector"] = json!({"a": "b"});
            spec["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
        },
        &[],
    );
    let (_, errors) = updated(Part::Main, &job(", suspend: true"), |job| {
        job["spec"]["template"]["spec"]["containers"][0]["image"] = json!("sum:2");
    });
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec.template.spec: Invalid value: {\"Volumes\":null,"), "{}", errors[0]);
}

#[test]
fn a_status_goes_forward() {
    let status = |status: Value| updated(Part::Status, &job(""), |job| job["status"] = status).1;
    assert_eq!(status(json!({"active": 1, "startTime": "2026-01-01T00:00:00Z"})), Vec::<String>::new());
    assert_eq!(
        status(json!({"conditions": [{"type": "Complete", "status": "True"}], "active": 1})),
        [
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
        ]
    );
    assert_eq!(
        status(
            json!({"completedIndexes": "0", "failedIndexes": "0", "ready": 1, "uncountedTerminatedPods": {"failed": ["a", "a", ""]}})
        ),
        [
            "status.uncountedTerminatedPods.failed[1]: Duplicate value: \"a\"",
            "status.uncountedTerminatedPods.failed[2]: Invalid value: \"\": must not be empty",
            "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode",
            "status.failedIndexes: Invalid value: \"0\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            "status.failedIndexes: Invalid value: \"0\": failedIndexes and completedIndexes overlap at index: 0",
            "status.ready: Invalid value: 1: cannot set more ready pods than active",
        ]
    );
}

#[test]
fn a_row_shows_how_far_it_is() {
    let job = |status: &str| {
        row(&format!(
            "{{apiVersion: batch/v1, kind: Job, metadata: {{name: sum, creationTimestamp: '2026-01-01T00:50:00Z'}}, spec: {{completions: 3, selector: {{matchLabels: {{a: b}}}}, template: {{spec: {{containers: [{{name: c, image: 'sum:1'}}]}}}}}}, status: {{{status}}}}}"
        ))
    };
    assert_eq!(job(""), "sum | Running | 0/3 |  | 10m | c | sum:1 | a=b");
    assert_eq!(
        job(
            "succeeded: 3, startTime: '2026-01-01T00:50:00Z', completionTime: '2026-01-01T00:50:42Z', conditions: [{type: Complete, status: 'True'}]"
        ),
        "sum | Complete | 3/3 | 42s | 10m | c | sum:1 | a=b"
    );
}
