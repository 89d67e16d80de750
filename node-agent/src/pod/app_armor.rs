//! Which AppArmor profiles a pod's containers are to have, and whether the node can enforce them. Pure.
//!
//! Source: Kubernetes `pkg/security/apparmor`.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};
use reeve_engine::engine::AppArmor;

use super::admission::Refusal;
use super::state::{containers, spec};

/// The older way to say it, by the container's name.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a container asks for; `None` where nothing is said.
pub(crate) fn wanted(pod: &Pod, container: &Container) -> Option<AppArmor> {
    let own = container.security_context.as_ref().and_then(|own| own.app_armor_profile.as_ref());
    let shared = || spec(pod).security_context.as_ref()?.app_armor_profile.as_ref();
    own.map(of_field).or_else(|| annotated(pod, container)).or_else(|| shared().map(of_field))
}

fn of_field(profile: &AppArmorProfile) -> AppArmor {
    match profile.type_.as_str() {
        "Localhost" => AppArmor::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        "Unconfined" => AppArmor::Unconfined,
        _ => AppArmor::RuntimeDefault,
    }
}

fn annotated(pod: &Pod, container: &Container) -> Option<AppArmor> {
    let text = pod.metadata.annotations.as_ref()?.get(&format!("{ANNOTATION}{}", container.name))?;
    match text.as_str() {
        "runtime/default" => Some(AppArmor::RuntimeDefault),
        "unconfined" => Some(AppArmor::Unconfined),
        other => other.strip_prefix("localhost/").map(|name| AppArmor::Localhost(name.to_owned())),
    }
}

/// Refuses a pod that counts on profiles which a node cannot enforce.
pub(crate) fn admit(pod: &Pod, is_enabled: impl Fn() -> bool) -> Result<(), Refusal> {
    let all = || containers(spec(pod)).filter_map(|(container, _)| wanted(pod, container));
    let why = if all().all(|own| own == AppArmor::Unconfined) {
        return Ok(());
    } else if !is_enabled() {
        "AppArmor is not enabled on the host"
    } else if all().any(|own| matches!(own, AppArmor::Localhost(name) if name.trim().is_empty())) {
        "invalid empty AppArmor profile name: \"\""
    } else {
        return Ok(());
    };
    let message = format!("Pod was rejected: Cannot enforce AppArmor: {why}");
    Err(Refusal { reason: "AppArmor".to_owned(), message })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(note: &str, shared: Value, own: Value) -> Pod {
        let annotations = if note.is_empty() { json!({}) } else { json!({ format!("{ANNOTATION}c"): note }) };
        serde_json::from_value(json!({
            "metadata": { "annotations": annotations },
            "spec": {
                "securityContext": { "appArmorProfile": shared },
                "containers": [{ "name": "c", "securityContext": { "appArmorProfile": own } }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_containers_word_goes_before_its_annotation_and_that_before_the_pods_word() {
        let localhost = |name: &str| json!({ "type": "Localhost", "localhostProfile": name });
        let named = |name: &str| Some(AppArmor::Localhost(name.to_owned()));
        for (pod, wanted_of_it) in [
            (pod("localhost/b", localhost("a"), localhost("c")), named("c")),
            (pod("localhost/b", localhost("a"), Value::Null), named("b")),
            (pod("", localhost("a"), Value::Null), named("a")),
            (pod("", Value::Null, Value::Null), None),
            (pod("unconfined", Value::Null, Value::Null), Some(AppArmor::Unconfined)),
            (pod("", Value::Null, json!({ "type": "RuntimeDefault" })), Some(AppArmor::RuntimeDefault)),
        ] {
            assert_eq!(wanted(&pod, &spec(&pod).containers[0]), wanted_of_it);
        }
    }

    #[test]
    fn a_pod_that_counts_on_a_profile_is_refused_where_nobody_enforces_it() {
        let default = pod("", json!({ "type": "RuntimeDefault" }), Value::Null);
        let refusal = admit(&default, || false).unwrap_err();
        assert_eq!(refusal.reason, "AppArmor");
        let message = "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host";
        assert_eq!(refusal.message, message);
        assert_eq!(admit(&default, || true), Ok(()));
        for free in [pod("", Value::Null, Value::Null), pod("unconfined", Value::Null, Value::Null)] {
            assert_eq!(admit(&free, || false), Ok(()), "who asks for nothing runs anywhere");
        }
        let empty = pod("", Value::Null, json!({ "type": "Localhost", "localhostProfile": " " }));
        let refusal = admit(&empty, || true).unwrap_err();
        assert!(refusal.message.ends_with("invalid empty AppArmor profile name: \"\""), "{refusal:?}");
    }
}
