//! Priority: each pod gets its number. The two classes that Kubernetes itself brings are known; others come
//! with the PriorityClass kind.

use serde_json::Value;

const PREEMPTION: &str = "PreemptLowerPriority";

/// The number of a class.
fn value_of(class: &str) -> Option<i64> {
    match class {
        "" => Some(0),
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    }
}

/// Sets `priority` and `preemptionPolicy`, or says why the pod is not let through.
pub(super) fn admit(pod: &mut Value) -> Result<(), String> {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let class = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default();
    let computed = value_of(class).ok_or_else(|| format!("no PriorityClass with name {class} was found"))?;
    if let Some(stated) = spec.get("priority").and_then(Value::as_i64).filter(|stated| *stated != computed) {
        return Err(format!(
            "the integer value of priority ({stated}) must not be provided in pod spec; priority admission controller \
             computed {computed} from the given PriorityClass name"
        ));
    }
    if let Some(stated) = spec.get("preemptionPolicy").and_then(Value::as_str).filter(|stated| *stated != PREEMPTION) {
        return Err(format!(
            "the string value of PreemptionPolicy ({stated}) must not be provided in pod spec; priority admission \
             controller computed {PREEMPTION} from the given PriorityClass name"
        ));
    }
    spec.insert("priority".to_owned(), computed.into());
    spec.insert("preemptionPolicy".to_owned(), PREEMPTION.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_without_a_class_has_priority_zero_and_may_preempt() {
        let mut pod = json!({ "spec": {} });
        admit(&mut pod).unwrap();
        assert_eq!(pod["spec"], json!({ "priority": 0, "preemptionPolicy": "PreemptLowerPriority" }));
    }

    #[test]
    fn an_unknown_class_and_a_number_of_the_users_own_are_refused() {
        let refusal = |spec: Value| admit(&mut json!({ "spec": spec })).unwrap_err();
        assert_eq!(refusal(json!({ "priorityClassName": "gold" })), "no PriorityClass with name gold was found");
        assert!(
            refusal(json!({ "priority": 7 })).starts_with("the integer value of priority (7) must not be provided")
        );
    }
}
