//! Priority: each pod gets its number, by the PriorityClass it names or by the one that is the default; and only one
//! class is the default.
//!
//! Source: Kubernetes' plugin `priority`.

use serde_json::Value;

use super::{Attributes, Operation, forbidden};
use crate::registry::{Registry, meta};
use crate::status::ApiError;

const PREEMPTION: &str = "PreemptLowerPriority";

/// What a class gives to its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    /// Empty for what pods have when there is no default class.
    name: String,
    value: i64,
    preemption: String,
}

impl Class {
    fn of(class: &Value) -> Self {
        Self {
            name: meta::text(class, "name").to_owned(),
            value: class["value"].as_i64().unwrap_or(0),
            preemption: class["preemptionPolicy"].as_str().unwrap_or(PREEMPTION).to_owned(),
        }
    }
}

/// Gives a pod its priority; one that has it keeps it.
pub(super) async fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    if !attributes.is("", "pods") {
        return Ok(());
    }
    match (attributes.operation, attributes.old) {
        (Operation::Update, Some(old)) => {
            keep(&mut attributes.object, old);
            Ok(())
        }
        (Operation::Create, _) => {
            let class = class_for(registry, attributes).await?;
            let mut pod = std::mem::take(&mut attributes.object);
            let done = set(&mut pod, &class);
            attributes.object = pod;
            done.map_err(|why| forbidden(attributes, &why))
        }
        _ => Ok(()),
    }
}

/// There is one default at most.
pub(super) fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let is_written = matches!(attributes.operation, Operation::Create | Operation::Update);
    let is_default = attributes.object["globalDefault"] == true;
    if !is_written || !is_default || !attributes.is("scheduling.k8s.io", "priorityclasses") {
        return Ok(());
    }
    let Some(default) = default_class(registry) else { return Ok(()) };
    if attributes.operation == Operation::Update && default.name == meta::text(&attributes.object, "name") {
        return Ok(());
    }
    let why = format!("PriorityClass {} is already marked as default. Only one default can exist", default.name);
    Err(forbidden(attributes, &why))
}

fn default_class(registry: &Registry) -> Option<Class> {
    let classes = registry.resource("scheduling.k8s.io", "v1", "priorityclasses")?;
    let all = registry.peek_all(&classes, "").into_iter().map(|class| class.value());
    // Of several, which a race may have made, the lowest counts.
    all.filter(|class| class["globalDefault"] == true).map(|class| Class::of(&class)).min_by_key(|class| class.value)
}

async fn class_for(registry: &Registry, attributes: &Attributes<'_>) -> Result<Class, ApiError> {
    let name = attributes.object["spec"]["priorityClassName"].as_str().unwrap_or_default();
    if name.is_empty() {
        let none = || Class { name: String::new(), value: 0, preemption: PREEMPTION.to_owned() };
        return Ok(default_class(registry).unwrap_or_else(none));
    }
    let mut found = None;
    if let Some(classes) = registry.resource("scheduling.k8s.io", "v1", "priorityclasses") {
        found = registry.peek(&classes, "", name);
        if found.is_none() {
            registry.fresh().await?;
            found = registry.peek(&classes, "", name);
        }
    }
    let why = || forbidden(attributes, &format!("no PriorityClass with name {name} was found"));
    found.map(|class| Class::of(&class.value())).ok_or_else(why)
}

/// Sets class, number and preemption, or says why the pod is not let through.
fn set(pod: &mut Value, class: &Class) -> Result<(), String> {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    if let Some(stated) = spec.get("priority").and_then(Value::as_i64).filter(|stated| *stated != class.value) {
        return Err(format!(
            "the integer value of priority ({stated}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            class.value
        ));
    }
    let stated = spec.get("preemptionPolicy").and_then(Value::as_str);
    if let Some(stated) = stated.filter(|stated| *stated != class.preemption) {
        return Err(format!(
            "the string value of PreemptionPolicy ({stated}) must not be provided in pod spec; priority admission \
             controller computed {} from the given PriorityClass name",
            class.preemption
        ));
    }
    if !class.name.is_empty() {
        spec.insert("priorityClassName".to_owned(), class.name.as_str().into());
    }
    spec.insert("priority".to_owned(), class.value.into());
    spec.insert("preemptionPolicy".to_owned(), class.preemption.as_str().into());
    Ok(())
}

/// A changed pod that does not say its priority has the one it had.
fn keep(pod: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        let had = &old["spec"][field];
        if pod["spec"][field].is_null()
            && !had.is_null()
            && let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.insert(field.to_owned(), had.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(name: &str, value: i64) -> Class {
        Class { name: name.to_owned(), value, preemption: PREEMPTION.to_owned() }
    }

    #[test]
    fn a_pod_gets_the_number_of_its_class_and_may_preempt() {
        let mut pod = json!({ "spec": {} });
        set(&mut pod, &class("", 0)).unwrap();
        assert_eq!(pod["spec"], json!({ "priority": 0, "preemptionPolicy": "PreemptLowerPriority" }));
        let mut pod = json!({ "spec": { "priority": 7 } });
        set(&mut pod, &class("gold", 7)).unwrap();
        assert_eq!((&pod["spec"]["priorityClassName"], &pod["spec"]["priority"]), (&json!("gold"), &json!(7)));
    }

    #[test]
    fn a_number_of_the_users_own_is_refused_and_a_change_keeps_the_one_there_is() {
        let why = set(&mut json!({ "spec": { "priority": 7 } }), &class("", 0)).unwrap_err();
        assert!(why.starts_with("the integer value of priority (7) must not be provided"), "{why}");
        let mut pod = json!({ "spec": {} });
        keep(&mut pod, &json!({ "spec": { "priority": 5, "preemptionPolicy": "Never" } }));
        assert_eq!(pod["spec"], json!({ "priority": 5, "preemptionPolicy": "Never" }));
    }
}
