//! DefaultTolerationSeconds: a pod stays for five minutes on a node that is not ready or unreachable, unless it
//! says otherwise.

use serde_json::{Value, json};

use super::attributes::{Attributes, Operation};

/// Kubernetes' `--default-not-ready-toleration-seconds` and `--default-unreachable-toleration-seconds`.
const SECONDS: i64 = 300;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Adds what is missing to new and to changed pods: whoever changes the tolerations need not know of these.
pub(super) fn mutate(attributes: &mut Attributes<'_>) {
    let writes_pod = matches!(attributes.operation, Operation::Create | Operation::Update);
    if writes_pod && attributes.is("", "pods") {
        admit(&mut attributes.object);
    }
}

fn admit(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(list) = tolerations.as_array_mut() else { return };
    for taint in TAINTS.into_iter().filter(|taint| !list.iter().any(|one| covers(one, taint))).collect::<Vec<_>>() {
        list.push(json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS }));
    }
}

fn covers(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    matches!(text("key"), key if key == taint || key.is_empty()) && matches!(text("effect"), "NoExecute" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tolerations: &Value, added: usize) {
        let mut pod = json!({ "spec": { "tolerations": tolerations } });
        let before = tolerations.as_array().map_or(0, Vec::len);
        admit(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), before + added, "{pod}");
    }

    #[test]
    fn each_of_the_two_tolerations_is_added_when_nothing_covers_it() {
        check(&Value::Null, 2);
        check(&json!([{ "operator": "Exists" }]), 0);
        check(&json!([{ "key": TAINTS[0], "operator": "Exists", "effect": "NoExecute" }]), 1);
        check(&json!([{ "key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule" }]), 2);
    }
}
