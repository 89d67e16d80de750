//! LimitRanger: containers get the requests and limits that the namespace's LimitRanges have for them, and what asks
//! for too little or too much is not let through.
//!
//! Source: Kubernetes' plugin `limitranger`.

use reeve_api::quantity::Quantity;
use reeve_api::quota::{self, Amounts};
use serde_json::{Map, Value, json};

use super::{Attributes, Operation, forbidden};
use crate::registry::{Registry, meta};
use crate::status::ApiError;

/// Says what was set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Above this a quantity is not looked at in thousandths.
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

/// Gives containers what they do not say.
pub(super) fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) {
    if !attributes.request.resource.is("", "pods") {
        return;
    }
    for range in ranges(registry, attributes) {
        set_defaults(&mut attributes.object, &range);
    }
}

/// Refuses what breaks a limit.
pub(super) fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let is_pod = attributes.request.resource.is("", "pods");
    for range in ranges(registry, attributes) {
        let complaints = if is_pod { pod(&attributes.object, &range) } else { claim(&attributes.object, &range) };
        match complaints.as_slice() {
            [] => {}
            [one] => return Err(forbidden(attributes, one)),
            several => return Err(forbidden(attributes, &format!("[{}]", several.join(", ")))),
        }
    }
    Ok(())
}

/// The LimitRanges that have a say; none for what they are not about.
fn ranges(registry: &Registry, attributes: &Attributes<'_>) -> Vec<Value> {
    let resource = &attributes.request.resource;
    let concerns = match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => resource.is("", "pods") || resource.is("", "persistentvolumeclaims"),
        (Operation::Update, "") => resource.is("", "persistentvolumeclaims"),
        (Operation::Update, "resize") => resource.is("", "pods"),
        _ => false,
    };
    let Some(ranges) = registry.core("limitranges").filter(|_| concerns) else { return Vec::new() };
    if attributes.old.is_some_and(meta::is_terminating) {
        return Vec::new();
    }
    registry.peek_all(&ranges, &attributes.request.namespace).iter().map(|range| range.value()).collect()
}

fn limits<'r>(range: &'r Value, kind: &'static str) -> impl Iterator<Item = &'r Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |limit| limit["type"] == kind)
}

fn set_defaults(pod: &mut Value, range: &Value) {
    let (mut requests, mut maxima) = (Map::new(), Map::new());
    for limit in limits(range, "Container") {
        requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
        maxima.extend(limit["default"].as_object().cloned().unwrap_or_default());
    }
    let mut told = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, defaults, word) in [("requests", &requests, "request"), ("limits", &maxima, "limit")] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    told.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if told.is_empty() {
        return;
    }
    let mut annotations = meta::get(pod, "annotations").as_object().cloned().unwrap_or_default();
    annotations.insert(ANNOTATION.to_owned(), format!("LimitRanger plugin set: {}", told.join("; ")).into());
    meta::set(pod, "annotations", annotations);
}

/// Sets what is missing; gives its names.
fn fill(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let there = &container["resources"][field];
    let mut missing: Vec<String> = defaults.keys().filter(|name| there.get(name.as_str()).is_none()).cloned().collect();
    missing.sort();
    if missing.is_empty() {
        return missing;
    }
    let Some(fields) = container.as_object_mut() else { return Vec::new() };
    let resources = fields.entry("resources").or_insert_with(|| json!({}));
    let Some(resources) = resources.as_object_mut() else { return Vec::new() };
    let amounts = resources.entry(field).or_insert_with(|| json!({}));
    if amounts.is_null() {
        *amounts = json!({});
    }
    if let Some(amounts) = amounts.as_object_mut() {
        for name in &missing {
            amounts.insert(name.clone(), defaults[name].clone());
        }
    }
    missing
}

fn pod(pod: &Value, range: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
        match limit["type"].as_str().unwrap_or_default() {
            "Container" => {
                let lists = ["containers", "initContainers"];
                for container in lists.iter().filter_map(|list| pod["spec"][*list].as_array()).flatten() {
                    let of = |field: &str| quota::amounts(&container["resources"][field]);
                    Checked { kind: "Container", requests: of("requests"), limits: of("limits") }
                        .against(limit, &mut complaints);
                }
            }
            "Pod" => {
                let mut bare = pod.clone();
                for (part, field) in [("spec", "overhead"), ("status", "containerStatuses")] {
                    bare.get_mut(part).and_then(Value::as_object_mut).map(|fields| fields.remove(field));
                }
                let (requests, limits) = (quota::pod_requests(&bare), quota::pod_limits(&bare));
                Checked { kind: "Pod", requests, limits }.against(limit, &mut complaints);
            }
            _ => {}
        }
    }
    complaints
}

fn claim(claim: &Value, range: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let mut complaints = Vec::new();
    let requests = quota::amounts(&claim["spec"]["resources"]["requests"]);
    let checked = Checked { kind: KIND, requests, limits: Amounts::new() };
    for limit in limits(range, KIND) {
        complaints.extend(quota::amounts(&limit["min"]).iter().filter_map(|(name, bound)| checked.min(name, *bound)));
        complaints
            .extend(quota::amounts(&limit["max"]).iter().filter_map(|(name, bound)| checked.max_request(name, *bound)));
    }
    complaints
}

/// What is held against a limit.
struct Checked {
    kind: &'static str,
    requests: Amounts,
    limits: Amounts,
}

impl Checked {
    fn against(&self, limit: &Value, complaints: &mut Vec<String>) {
        let bounds = |field: &str| quota::amounts(&limit[field]);
        complaints.extend(bounds("min").iter().filter_map(|(name, bound)| self.min(name, *bound)));
        complaints.extend(bounds("max").iter().filter_map(|(name, bound)| self.max(name, *bound)));
        let ratios = bounds("maxLimitRequestRatio");
        complaints.extend(ratios.iter().filter_map(|(name, bound)| self.ratio(name, *bound)));
    }

    fn min(&self, name: &str, bound: Quantity) -> Option<String> {
        let start = format!("minimum {name} usage per {} is {bound}", self.kind);
        match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => Some(format!("{start}.  No request is specified")),
            (Some(request), _) if *request < bound => Some(format!("{start}, but request is {request}")),
            (_, Some(limit)) if *limit < bound => Some(format!("{start}, but limit is {limit}")),
            _ => None,
        }
    }

    fn max(&self, name: &str, bound: Quantity) -> Option<String> {
        let start = format!("maximum {name} usage per {} is {bound}", self.kind);
        match (self.limits.get(name), self.requests.get(name)) {
            (None, _) => Some(format!("{start}.  No limit is specified")),
            (Some(limit), _) if *limit > bound => Some(format!("{start}, but limit is {limit}")),
            (_, Some(request)) if *request > bound => Some(format!("{start}, but request is {request}")),
            _ => None,
        }
    }

    fn max_request(&self, name: &str, bound: Quantity) -> Option<String> {
        let start = format!("maximum {name} usage per {} is {bound}", self.kind);
        match self.requests.get(name) {
            None => Some(format!("{start}.  No request is specified")),
            Some(request) if *request > bound => Some(format!("{start}, but request is {request}")),
            Some(_) => None,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "the ratio is told with six digits, as Kubernetes computes it")]
    fn ratio(&self, name: &str, bound: Quantity) -> Option<String> {
        let start = format!("{name} max limit to request ratio per {} is {bound}", self.kind);
        let is_some = |amount: &&Quantity| !amount.is_zero();
        let Some(request) = self.requests.get(name).filter(is_some) else {
            return Some(format!("{start}, but no request is specified or request is 0"));
        };
        let Some(limit) = self.limits.get(name).filter(is_some) else {
            return Some(format!("{start}, but no limit is specified or limit is 0"));
        };
        let is_small = [request, limit].iter().all(|amount| amount.value() <= MILLI_VALUE_MAX);
        let of = |amount: &Quantity| if is_small { amount.milli_value() } else { amount.value() };
        let ratio = of(limit) as f64 / of(request) as f64;
        let exceeds = ratio * 1000.0 > bound.milli_value() as f64;
        exceeds.then(|| format!("{start}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn range(limit: Value) -> Value {
        json!({ "spec": { "limits": [limit] } })
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let range = range(json!({ "type": "Container", "default": { "cpu": "500m", "memory": "1Gi" },
            "defaultRequest": { "cpu": "100m" } }));
        let mut pod = json!({ "metadata": {}, "spec": { "containers": [
            { "name": "a", "resources": { "limits": { "cpu": "1" } } }, { "name": "b" } ] } });
        set_defaults(&mut pod, &range);
        let containers = &pod["spec"]["containers"];
        assert_eq!(containers[0]["resources"]["limits"], json!({ "cpu": "1", "memory": "1Gi" }));
        assert_eq!(containers[1]["resources"]["requests"], json!({ "cpu": "100m" }));
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; memory limit for container a; cpu request for \
             container b; cpu, memory limit for container b"
        );
    }

    #[test]
    fn what_breaks_a_limit_is_told_in_kubernetes_words() {
        let resources = json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "900m" } });
        let own = json!({ "spec": { "containers": [{ "name": "a", "resources": resources }] } });
        let limit = json!({ "type": "Container", "min": { "cpu": "200m", "memory": "1Mi" }, "max": { "cpu": "500m" },
            "maxLimitRequestRatio": { "cpu": "2" } });
        assert_eq!(
            pod(&own, &range(limit)),
            [
                "minimum cpu usage per Container is 200m, but request is 100m",
                "minimum memory usage per Container is 1Mi.  No request is specified",
                "maximum cpu usage per Container is 500m, but limit is 900m",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 9.000000",
            ]
        );
        let whole = json!({ "type": "Pod", "max": { "memory": "1Gi" } });
        assert_eq!(pod(&own, &range(whole)), ["maximum memory usage per Pod is 1Gi.  No limit is specified"]);
        let storage = json!({ "type": "PersistentVolumeClaim", "min": { "storage": "2Gi" } });
        let wanted = json!({ "spec": { "resources": { "requests": { "storage": "1Gi" } } } });
        assert_eq!(
            claim(&wanted, &range(storage)),
            ["minimum storage usage per PersistentVolumeClaim is 2Gi, but request is 1Gi"]
        );
    }
}
