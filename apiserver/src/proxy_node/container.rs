//! Which container of a pod a request means. Texts as in Kubernetes' `pkg/registry/core/pod`.

use serde_json::Value;

use crate::status::ApiError;

/// In the order in which they are listed.
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn names<'p>(pod: &'p Value, list: &str) -> Vec<&'p str> {
    let containers = pod.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
    containers.into_iter().flatten().filter_map(|container| container.get("name")?.as_str()).collect()
}

/// The container's name: the one asked for, if the pod has it, or the only one there is.
pub(super) fn choose(pod: &Value, pod_name: &str, asked: &str) -> Result<String, ApiError> {
    if !asked.is_empty() {
        let known = LISTS.iter().any(|list| names(pod, list).contains(&asked));
        let message = || format!("container {asked} is not valid for pod {pod_name}");
        return if known { Ok(asked.to_owned()) } else { Err(ApiError::bad_request(message())) };
    }
    if let [only] = names(pod, "containers")[..] {
        return Ok(only.to_owned());
    }
    let mut message = format!("a container name must be specified for pod {pod_name}");
    let all: Vec<&str> = LISTS.iter().flat_map(|list| names(pod, list)).collect();
    if !names(pod, "containers").is_empty() {
        message.push_str(&format!(", choose one of: [{}]", all.join(" ")));
    }
    Err(ApiError::bad_request(message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_only_container_needs_no_name_and_several_do() {
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(choose(&one, "p", "").unwrap(), "a");
        assert_eq!(choose(&one, "p", "x").unwrap_err().message, "container x is not valid for pod p");
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            choose(&two, "p", "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [i a b]"
        );
        assert_eq!(choose(&two, "p", "i").unwrap(), "i");
    }
}
