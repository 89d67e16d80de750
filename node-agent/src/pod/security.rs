//! From a pod's and a container's security contexts to what the engine enforces. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};
use reeve_engine::engine::{Image, Seccomp, Security};

use super::app_armor;
use super::state::{pod_text, spec};

/// Why a container may not run as its pod says. The texts are the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecurityError {
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageIsRoot { pod: String, container: String },
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    UserIsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is \
         non-root (pod: \"{pod}\", container: {container})"
    )]
    UserIsAName { user: String, pod: String, container: String },
    #[error("{field} {value} is out of range")]
    Range { field: &'static str, value: i64 },
    #[error("unknown seccomp profile type {0:?}")]
    Seccomp(String),
}

/// What a container is and may do; the container's context goes before the pod's.
pub(crate) fn security(
    pod: &Pod,
    container: &Container,
    image: &Image,
    seccomp_root: &std::path::Path,
) -> Result<Security, SecurityError> {
    let own = container.security_context.clone().unwrap_or_default();
    let shared = spec(pod).security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let user = own.run_as_user.or(shared.run_as_user);
    let non_root = own.run_as_non_root.or(shared.run_as_non_root) == Some(true);
    if non_root {
        check_non_root(pod, container, image, user)?;
    }
    let profile = own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref());
    let capabilities = own.capabilities.clone().unwrap_or_default();
    Ok(Security {
        privileged,
        run_as_user: user.map(|user| id("runAsUser", user)).transpose()?,
        run_as_group: own.run_as_group.or(shared.run_as_group).map(|group| id("runAsGroup", group)).transpose()?,
        run_as_non_root: non_root,
        supplemental_groups: groups(&shared)?,
        strict_groups: shared.supplemental_groups_policy.as_deref() == Some("Strict"),
        capabilities_add: plain_names(capabilities.add),
        capabilities_drop: plain_names(capabilities.drop),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        read_only_rootfs: own.read_only_root_filesystem == Some(true),
        seccomp: seccomp(privileged, profile, seccomp_root)?,
        app_armor: app_armor::wanted(pod, container).unwrap_or_default(),
        unmasked_proc: is_unmasked(&own),
        masked_paths: None,
        read_only_paths: None,
        run_as_username: None,
    })
}

fn is_unmasked(own: &SecurityContext) -> bool {
    own.proc_mount.as_deref() == Some("Unmasked")
}

/// Source: kubelet `verifyRunAsNonRoot`.
fn check_non_root(pod: &Pod, container: &Container, image: &Image, user: Option<i64>) -> Result<(), SecurityError> {
    let (pod, container) = (pod_text(pod), container.name.clone());
    if let Some(user) = user {
        return if user == 0 { Err(SecurityError::UserIsRoot { pod, container }) } else { Ok(()) };
    }
    let name = image.user.split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        Ok(0) => Err(SecurityError::ImageIsRoot { pod, container }),
        Ok(_) => Ok(()),
        Err(_) if name.is_empty() => Err(SecurityError::ImageIsRoot { pod, container }),
        Err(_) => Err(SecurityError::UserIsAName { user: name.to_owned(), pod, container }),
    }
}

fn groups(shared: &PodSecurityContext) -> Result<Vec<u32>, SecurityError> {
    let all = shared.supplemental_groups.iter().flatten().copied().chain(shared.fs_group);
    let mut groups = all.map(|group| id("supplementalGroups", group)).collect::<Result<Vec<_>, _>>()?;
    groups.dedup();
    Ok(groups)
}

fn id(field: &'static str, value: i64) -> Result<u32, SecurityError> {
    u32::try_from(value).map_err(|_| SecurityError::Range { field, value })
}

fn plain_names(names: Option<Vec<String>>) -> Vec<String> {
    let plain = |name: String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    names.into_iter().flatten().map(plain).collect()
}

fn seccomp(
    privileged: bool,
    profile: Option<&SeccompProfile>,
    root: &std::path::Path,
) -> Result<Seccomp, SecurityError> {
    match profile.map(|profile| profile.type_.as_str()) {
        _ if privileged => Ok(Seccomp::Unconfined),
        None | Some("RuntimeDefault") => Ok(Seccomp::RuntimeDefault),
        Some("Unconfined") => Ok(Seccomp::Unconfined),
        Some("Localhost") => {
            let relative = profile.and_then(|profile| profile.localhost_profile.as_deref()).unwrap_or_default();
            Ok(Seccomp::Localhost(root.join(relative.trim_start_matches('/'))))
        }
        Some(other) => Err(SecurityError::Seccomp(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod_context: serde_json::Value, own: serde_json::Value, user: &str) -> Result<Security, String> {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "securityContext": pod_context, "containers": [{ "name": "c", "securityContext": own }] },
        }))
        .unwrap();
        let image = Image {
            id: "sha256:1".to_owned(),
            tags: vec![],
            digests: vec![],
            size_bytes: 0,
            created_at: None,
            user: user.to_owned(),
        };
        let root = std::path::Path::new("/seccomp");
        security(&pod, &spec(&pod).containers[0], &image, root).map_err(|error| error.to_string())
    }

    #[test]
    fn the_containers_word_goes_before_the_pods() {
        let security = check(
            serde_json::json!({ "runAsUser": 1000, "runAsGroup": 7, "fsGroup": 9 }),
            serde_json::json!({ "runAsUser": 2000, "capabilities": { "add": ["CAP_NET_ADMIN"], "drop": ["all"] } }),
            "",
        )
        .unwrap();
        assert_eq!((security.run_as_user, security.run_as_group), (Some(2000), Some(7)));
        assert_eq!(security.supplemental_groups, [9]);
        assert_eq!(
            (security.capabilities_add, security.capabilities_drop),
            (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()])
        );
        assert!(!security.no_new_privs);
    }

    #[test]
    fn without_a_word_system_calls_are_filtered_and_for_privileged_ones_they_are_not() {
        let none = serde_json::json!({});
        assert_eq!(check(none.clone(), none.clone(), "").unwrap().seccomp, Seccomp::RuntimeDefault);
        let privileged = serde_json::json!({ "privileged": true });
        assert_eq!(check(none.clone(), privileged, "").unwrap().seccomp, Seccomp::Unconfined);
        let local = serde_json::json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "a.json" } });
        assert_eq!(check(local, none, "").unwrap().seccomp, Seccomp::Localhost("/seccomp/a.json".into()));
    }

    #[test]
    fn run_as_non_root_is_refused_for_root_in_the_kubelets_words() {
        let non_root = serde_json::json!({ "runAsNonRoot": true });
        let none = serde_json::json!({});
        for (user, error) in [
            ("", "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"),
            ("0:0", "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"),
            (
                "app",
                "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root \
                 (pod: \"p_n(u)\", container: c)",
            ),
        ] {
            assert_eq!(check(non_root.clone(), none.clone(), user).unwrap_err(), error);
        }
        assert!(check(non_root.clone(), none.clone(), "1000").is_ok());
        let root = serde_json::json!({ "runAsUser": 0 });
        let error = check(non_root, root, "1000").unwrap_err();
        assert_eq!(error, "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)");
    }
}
