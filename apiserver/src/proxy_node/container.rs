//! Which container of a pod a request means. Texts as in Kubernetes' `pkg/registry/core/pod`.

use serde_json::Value;

use crate::status::ApiError;

const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

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
    let own = names(pod, "containers");
    if let [only] = own[..] {
        return Ok(only.to_owned());
    }
    let mut message = format!("a container name must be specified for pod {pod_name}");
    if !own.is_empty() {
        message.push_str(&format!(", choose one of: [{}]", own.join(" ")));
    }
    let init = names(pod, "initContainers");
    if !own.is_empty() && !init.is_empty() {
        message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(ApiError::bad_request(message))
}

/// Whether the pod's status shows the container running.
pub(super) fn is_running(pod: &Value, name: &str) -> bool {
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"].iter().any(|list| {
        let statuses = pod.get("status").and_then(|status| status.get(list)).and_then(Value::as_array);
        statuses.into_iter().flatten().any(|status| {
            status.get("name").and_then(Value::as_str) == Some(name) && status.pointer("/state/running").is_some()
        })
    })
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
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(choose(&two, "p", "i").unwrap(), "i");
    }

    #[test]
    fn running_is_what_the_status_says() {
        let pod = json!({"status": {"containerStatuses": [
            {"name": "a", "state": {"running": {}}}, {"name": "b", "state": {"waiting": {"reason": "ContainerCreating"}}},
        ]}});
        assert!(is_running(&pod, "a") && !is_running(&pod, "b") && !is_running(&pod, "c"));
    }
}
