//! Further objects that every cluster has: those of flow control, the default ServiceCIDR; and whether a FlowSchema
//! refers to a level that exists.
//!
//! Source: `pkg/registry/scheduling/rest`, `pkg/registry/flowcontrol/ensurer` and the service CIDR controller of
//! Kubernetes v1.36. Made at the start, all at once, and again when somebody deletes or changes them.

use std::sync::Arc;

use futures::future::join_all;
use reeve_kinds::Part;
use reeve_kinds::bootstrap::{self, AUTO_UPDATE};
use reeve_store::Revision;
use serde_json::{Value, json};

use super::bootstrap::{create_missing, request};
use super::request::{Body, Subresource};
use super::resource::Resource;
use super::{Registry, RegistryConfig, encode, meta};
use crate::status::ApiError;

const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: (&str, &str) = (FLOW, "prioritylevelconfigurations");
const SCHEMAS: (&str, &str) = (FLOW, "flowschemas");
const CLASSES: (&str, &str) = ("scheduling.k8s.io", "priorityclasses");
const RANGES: (&str, &str) = ("networking.k8s.io", "servicecidrs");

/// The ServiceCIDR that is made of the server's own setting.
const DEFAULT_RANGE: &str = "kubernetes";
/// Whose the conditions are.
const SCHEMA_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const RANGE_MANAGER: &str = "kubernetes-service-cidr-controller";

/// The level of which the shares may be changed.
const EXEMPT: &str = "exempt";

/// How an object is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// It is there.
    Present,
    /// It also says what it said, as long as nobody has changed it.
    Suggested,
    /// It always says what it said.
    Mandatory,
}

fn wanted(config: &RegistryConfig) -> Vec<((&'static str, &'static str), Keep, Value)> {
    let range = json!({"metadata": {"name": DEFAULT_RANGE}, "spec": {"cidrs": [config.service_cidr.to_string()]}});
    let all = [
        (LEVELS, Keep::Mandatory, bootstrap::mandatory_priority_levels()),
        (LEVELS, Keep::Suggested, bootstrap::suggested_priority_levels()),
        (SCHEMAS, Keep::Mandatory, bootstrap::mandatory_flow_schemas()),
        (SCHEMAS, Keep::Suggested, bootstrap::suggested_flow_schemas()),
        (RANGES, Keep::Present, vec![range]),
    ];
    all.into_iter().flat_map(|(what, keep, objects)| objects.into_iter().map(move |one| (what, keep, one))).collect()
}

fn resource(registry: &Registry, (group, plural): (&str, &str)) -> Option<Arc<Resource>> {
    registry.resource(group, "v1", plural)
}

/// When any of them last changed.
pub(super) fn versions(registry: &Registry) -> Vec<Option<Revision>> {
    let version = |what| Some(resource(registry, what)?.storage.snapshot().revision);
    [CLASSES, LEVELS, SCHEMAS, RANGES].map(version).to_vec()
}

/// Makes what is missing and corrects what may not differ. All at once: they share the store's syncs.
pub(super) async fn ensure(registry: &Registry, config: &RegistryConfig) -> Result<(), ApiError> {
    let all = wanted(config);
    for done in join_all(all.iter().map(|(what, keep, object)| ensure_one(registry, *what, *keep, object))).await {
        done?;
    }
    registry.fresh().await?;
    let schemas = resource(registry, SCHEMAS).map(|schemas| schemas.storage.snapshot());
    let schemas = schemas.iter().flat_map(|snapshot| snapshot.objects.values());
    for done in join_all(schemas.map(|schema| judge(registry, encode::bare(schema)))).await {
        done?;
    }
    ready(registry).await
}

async fn ensure_one(registry: &Registry, what: (&str, &str), keep: Keep, object: &Value) -> Result<(), ApiError> {
    let Some(resource) = resource(registry, what) else { return Ok(()) };
    let name = meta::text(object, "name");
    let Some(there) = registry.peek(&resource, "", name) else {
        return create_missing(registry, &resource, "", name, object.clone()).await;
    };
    let Some(revised) = revised(&encode::bare(&there), object, keep) else { return Ok(()) };
    registry.update(&request(&resource, "", name), Body::from(revised)).await.map(|_| ())
}

/// What an object of flow control is to be instead, if it is not as it should be.
fn revised(there: &Value, built_in: &Value, keep: Keep) -> Option<Value> {
    if keep == Keep::Present {
        return None;
    }
    let said = there["metadata"]["annotations"][AUTO_UPDATE].as_str();
    let said = match said {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    // Who has never changed it does not mind.
    let automatic = keep == Keep::Mandatory || said.unwrap_or(meta::get(there, "generation") == 1);
    let mut spec = built_in["spec"].clone();
    if meta::text(there, "name") == EXEMPT && !there["spec"]["exempt"].is_null() {
        spec["exempt"] = there["spec"]["exempt"].clone();
    }
    let differs = automatic && there["spec"] != spec;
    if said == Some(automatic) && !differs {
        return None;
    }
    let mut revised = there.clone();
    if differs {
        revised["spec"] = spec;
    }
    if !revised["metadata"]["annotations"].is_object() {
        revised["metadata"]["annotations"] = json!({});
    }
    revised["metadata"]["annotations"][AUTO_UPDATE] = json!(automatic.to_string());
    Some(revised)
}

/// Says of a FlowSchema whether its level exists.
async fn judge(registry: &Registry, schema: Value) -> Result<(), ApiError> {
    let (Some(levels), Some(schemas)) = (resource(registry, LEVELS), resource(registry, SCHEMAS)) else {
        return Ok(());
    };
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let exists = registry.peek(&levels, "", level).is_some();
    let what = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match exists {
        true => ("False", "Found", format!("{what} and it exists")),
        false => ("True", "NotFound", format!("{what} but there is no such object")),
    };
    let condition = json!({
        "type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::time(registry.clock.now()),
    });
    let is_known = has_condition(&schema, &condition);
    if is_known { Ok(()) } else { apply_condition(registry, &schemas, (&schema, condition), SCHEMA_MANAGER).await }
}

/// Says of the default range that it is used.
async fn ready(registry: &Registry) -> Result<(), ApiError> {
    let Some(ranges) = resource(registry, RANGES) else { return Ok(()) };
    let Some(there) = registry.peek(&ranges, "", DEFAULT_RANGE) else { return Ok(()) };
    let range = encode::bare(&there);
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": meta::time(registry.clock.now()),
    });
    let is_known = has_condition(&range, &condition);
    if is_known { Ok(()) } else { apply_condition(registry, &ranges, (&range, condition), RANGE_MANAGER).await }
}

/// Whether the object has a condition that says the same.
fn has_condition(object: &Value, condition: &Value) -> bool {
    let same =
        |one: &Value| ["type", "status", "reason", "message"].iter().all(|field| one[*field] == condition[*field]);
    object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(same))
}

/// Applies a condition to the status of an object, in the name of who does so in Kubernetes. One that is gone needs
/// none.
async fn apply_condition(
    registry: &Registry,
    resource: &Arc<Resource>,
    (object, condition): (&Value, Value),
    manager: &str,
) -> Result<(), ApiError> {
    let (names, name) = (resource.names(), meta::text(object, "name"));
    let config = json!({
        "apiVersion": names.api_version(), "kind": names.kind,
        "metadata": {"name": name}, "status": {"conditions": [condition]},
    });
    let mut request = request(resource, "", name);
    request.subresource = Subresource::Part(Part::Status);
    manager.clone_into(&mut request.options.field_manager);
    request.options.force = Some(true);
    match registry.apply_object(&request, &Body::from(config)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(generation: u64, annotation: Option<&str>, shares: u64) -> Value {
        let mut level = json!({
            "metadata": {"name": "system", "generation": generation},
            "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares}},
        });
        if let Some(annotation) = annotation {
            level["metadata"]["annotations"] = json!({AUTO_UPDATE: annotation});
        }
        level
    }

    #[test]
    fn a_suggestion_that_somebody_took_over_stays_as_they_made_it() {
        let built_in = level(1, Some("true"), 30);
        assert_eq!(revised(&level(1, Some("true"), 30), &built_in, Keep::Suggested), None);
        assert_eq!(revised(&level(3, Some("false"), 7), &built_in, Keep::Suggested), None);
        let kept = revised(&level(3, None, 7), &built_in, Keep::Suggested).unwrap();
        assert_eq!(kept["metadata"]["annotations"][AUTO_UPDATE], "false");
        assert_eq!(kept["spec"]["limited"]["nominalConcurrencyShares"], 7);
        let reset = revised(&level(3, Some("true"), 7), &built_in, Keep::Suggested).unwrap();
        assert_eq!(reset["spec"]["limited"]["nominalConcurrencyShares"], 30);
        let reset = revised(&level(3, Some("false"), 7), &built_in, Keep::Mandatory).unwrap();
        assert_eq!(reset["metadata"]["annotations"][AUTO_UPDATE], "true");
        assert_eq!(reset["spec"], built_in["spec"]);
    }

    #[test]
    fn a_condition_that_says_nothing_new_is_not_written() {
        let ready = |time: &str| json!({"type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": time});
        assert!(!has_condition(&json!({"status": {}}), &ready("a")));
        assert!(has_condition(&json!({"status": {"conditions": [ready("a")]}}), &ready("b")));
    }
}
