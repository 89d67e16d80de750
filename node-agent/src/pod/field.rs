//! The downward API: fields of a pod and resources of its containers as text.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectFieldSelector, Pod, ResourceFieldSelector};
use reeve_api::quantity::Quantity;

use super::resources::amount;
use super::state::{containers, spec};

/// What is known about a pod's surroundings besides its object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    pub(crate) pod_ips: Vec<IpAddr>,
    pub(crate) node_ip: Option<IpAddr>,
    /// What `limits.cpu` and `limits.memory` mean for a container without limits.
    pub(crate) allocatable_cpu_milli: u64,
    pub(crate) allocatable_memory: u64,
    pub(crate) allocatable_storage: u64,
}

/// Why a field has no value. The texts are the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Unsupported(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("divisor {0} is no quantity greater than zero")]
    Divisor(String),
}

/// The value of a pod field.
pub(crate) fn field(pod: &Pod, selector: &ObjectFieldSelector, around: &Surroundings) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let ips = || around.pod_ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let path = selector.field_path.as_str();
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => map_lines(meta.labels.as_ref()),
        "metadata.annotations" => map_lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(&spec(pod).node_name),
        "spec.serviceAccountName" => text(&spec(pod).service_account_name),
        "status.hostIP" | "status.hostIPs" => around.node_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        "status.podIP" => around.pod_ips.first().map(IpAddr::to_string).unwrap_or_default(),
        "status.podIPs" => ips(),
        _ => return subscript(pod, path).ok_or_else(|| FieldError::Unsupported(path.to_owned())),
    })
}

/// `metadata.labels['key']` and `metadata.annotations['key']`.
fn subscript(pod: &Pod, path: &str) -> Option<String> {
    let (map, rest) = if let Some(rest) = path.strip_prefix("metadata.labels") {
        (&pod.metadata.labels, rest)
    } else {
        (&pod.metadata.annotations, path.strip_prefix("metadata.annotations")?)
    };
    let key = rest.strip_prefix("['")?.strip_suffix("']")?;
    Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
}

fn map_lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", go_quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Go's `%q`.
fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a container's resource, in units of the divisor, rounded up.
/// `own` is the container that asks, for selectors that name none.
pub(crate) fn resource(
    pod: &Pod,
    own: Option<&str>,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Result<String, FieldError> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).or(own).unwrap_or_default();
    let found = containers(spec(pod)).find(|(container, _)| container.name == name);
    let (container, _) = found.ok_or_else(|| FieldError::NoContainer(name.to_owned()))?;
    let asked = selector.resource.as_str();
    let unsupported = || FieldError::Resource(asked.to_owned());
    let (list, resource) = asked.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.clone().unwrap_or_default();
    let set = match list {
        "limits" => amount(&resources.limits, resource).or_else(|| allocatable(resource, around)),
        "requests" => amount(&resources.requests, resource).or_else(|| amount(&resources.limits, resource)),
        _ => return Err(unsupported()),
    };
    if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") && !resource.starts_with("hugepages-") {
        return Err(unsupported());
    }
    divided(set.unwrap_or(Quantity::ZERO), selector, resource == "cpu")
}

fn allocatable(resource: &str, around: &Surroundings) -> Option<Quantity> {
    let bytes = |bytes: u64| bytes.to_string().parse().ok();
    match resource {
        "cpu" => Some(Quantity::from_milli(i64::try_from(around.allocatable_cpu_milli).ok()?)),
        "memory" => bytes(around.allocatable_memory),
        "ephemeral-storage" => bytes(around.allocatable_storage),
        _ => None,
    }
}

fn divided(value: Quantity, selector: &ResourceFieldSelector, milli: bool) -> Result<String, FieldError> {
    let divisor = selector.divisor.as_ref().map_or("1", |divisor| divisor.0.as_str());
    let divisor = if divisor.is_empty() || divisor == "0" { "1" } else { divisor };
    let parsed: Quantity = divisor.parse().map_err(|_| FieldError::Divisor(divisor.to_owned()))?;
    let (value, by) = if milli { (value.milli_value(), parsed.milli_value()) } else { (value.value(), parsed.value()) };
    if by <= 0 {
        return Err(FieldError::Divisor(divisor.to_owned()));
    }
    Ok((value / by + i64::from(value % by > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "a": "x \"y\"" } },
            "spec": {
                "nodeName": "node1",
                "serviceAccountName": "default",
                "containers": [{ "name": "c", "resources": { "limits": { "cpu": "1500m", "memory": "100Mi" } } }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn fields_have_the_values_kubernetes_gives_them() {
        let around = Surroundings { pod_ips: vec!["10.0.0.2".parse().unwrap()], ..Surroundings::default() };
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("metadata.labels", "a=\"x \\\"y\\\"\""),
            ("metadata.labels['a']", "x \"y\""),
            ("metadata.annotations['none']", ""),
            ("spec.nodeName", "node1"),
            ("status.podIP", "10.0.0.2"),
        ] {
            let selector = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
            assert_eq!(field(&pod(), &selector, &around).as_deref(), Ok(value), "{path}");
        }
        let selector = ObjectFieldSelector { field_path: "spec.foo".to_owned(), ..ObjectFieldSelector::default() };
        assert!(field(&pod(), &selector, &around).is_err());
    }

    #[test]
    fn resources_are_rounded_up_to_their_divisor() {
        let around = Surroundings { allocatable_cpu_milli: 4000, ..Surroundings::default() };
        for (resource_name, divisor, value) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("limits.memory", Some("1Mi"), "100"),
            ("requests.cpu", Some("1m"), "1500"),
            ("limits.memory", None, "104857600"),
        ] {
            let selector = ResourceFieldSelector {
                resource: resource_name.to_owned(),
                divisor: divisor.map(|d: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.to_owned())),
                ..ResourceFieldSelector::default()
            };
            assert_eq!(resource(&pod(), Some("c"), &selector, &around).as_deref(), Ok(value), "{resource_name}");
        }
    }
}
