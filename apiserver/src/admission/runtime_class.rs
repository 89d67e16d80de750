//! RuntimeClass: pods that name a class get its overhead, its node selector and its tolerations; a class that does not
//! exist is forbidden.
//!
//! Source: Kubernetes' plugin `runtimeclass`.

use serde_json::{Map, Value, json};

use super::{Attributes, forbidden};
use crate::registry::Registry;
use crate::status::ApiError;

/// Adds what the class brings to a new pod.
pub(super) async fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    let Some(class) = class_of(registry, attributes).await? else { return Ok(()) };
    let mut pod = std::mem::take(&mut attributes.object);
    let done = bring(&mut pod, &class);
    attributes.object = pod;
    done.map_err(|why| forbidden(attributes, &why))
}

/// Overhead comes from the class and from nowhere else.
pub(super) async fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let class = class_of(registry, attributes).await?;
    let wanted = class.as_ref().map_or(&Value::Null, |class| &class["overhead"]);
    let stated = &attributes.object["spec"]["overhead"];
    let why = if wanted.is_null() {
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        (!stated.is_null()).then_some(why)
    } else {
        (!is_same(&wanted["podFixed"], stated)).then_some(MISMATCH)
    };
    why.map_or(Ok(()), |why| Err(forbidden(attributes, why)))
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

async fn class_of(registry: &Registry, attributes: &Attributes<'_>) -> Result<Option<Value>, ApiError> {
    let Some(name) = attributes.object["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    let Some(classes) = registry.resource("node.k8s.io", "v1", "runtimeclasses") else { return Ok(None) };
    let mut found = registry.peek(&classes, "", name);
    if found.is_none() {
        registry.fresh().await?;
        found = registry.peek(&classes, "", name);
    }
    let why = || forbidden(attributes, &format!("pod rejected: RuntimeClass {name:?} not found"));
    found.map(|class| class.value()).ok_or_else(why).map(Some)
}

fn is_same(a: &Value, b: &Value) -> bool {
    reeve_api::quota::amounts(a) == reeve_api::quota::amounts(b)
}

fn bring(pod: &mut Value, class: &Value) -> Result<(), String> {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let fixed = &class["overhead"]["podFixed"];
    if !class["overhead"].is_null() {
        let stated = spec.get("overhead").unwrap_or(&Value::Null);
        if stated.as_object().is_some_and(|stated| !stated.is_empty()) && !is_same(stated, fixed) {
            return Err(MISMATCH.to_owned());
        }
        if !fixed.is_null() {
            spec.insert("overhead".to_owned(), fixed.clone());
        }
    }
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let selector = spec.entry("nodeSelector").or_insert_with(|| json!({}));
        if selector.is_null() {
            *selector = Value::Object(Map::new());
        }
        let Some(selector) = selector.as_object_mut() else { continue };
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            ));
        }
        selector.insert(key.clone(), value.clone());
    }
    let brought = scheduling["tolerations"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !brought.is_empty() {
        let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
        if let Some(list) = tolerations.as_array_mut() {
            let new: Vec<Value> = brought.iter().filter(|one| !list.contains(one)).cloned().collect();
            list.extend(new);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_brings_overhead_selector_and_tolerations() {
        let class = json!({ "overhead": { "podFixed": { "cpu": "10m" } }, "scheduling": {
            "nodeSelector": { "a": "b" }, "tolerations": [{ "key": "k", "operator": "Exists" }] } });
        let mut pod = json!({ "spec": { "nodeSelector": { "c": "d" }, "tolerations": [] } });
        bring(&mut pod, &class).unwrap();
        assert_eq!(
            pod["spec"],
            json!({ "nodeSelector": { "a": "b", "c": "d" }, "overhead": { "cpu": "10m" },
                "tolerations": [{ "key": "k", "operator": "Exists" }] })
        );
        let refusal = |spec: Value| bring(&mut json!({ "spec": spec }), &class).unwrap_err();
        assert_eq!(refusal(json!({ "overhead": { "cpu": "1" } })), MISMATCH);
        assert_eq!(
            refusal(json!({ "nodeSelector": { "a": "x" } })),
            "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x"
        );
    }
}
