//! Sees to it that a container's image is here, by its pull policy and in the kubelet's words.

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use reeve_client::EventType;
use reeve_engine::engine::{Image, RegistryAuth};
use reeve_engine::images::{DockerConfig, Reference, ReferenceError};

use super::context::{NodeContext, about_container};
use super::env::Lookup;
use super::state::spec;
use crate::objects::PodObjects;

/// Why an image is not here: `reason` is what the container waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageFailure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The image of a container; pulls it where the policy says so.
pub(crate) async fn fetch(
    node: &NodeContext,
    pod: &Pod,
    container: &Container,
    objects: &PodObjects,
) -> Result<Image, ImageFailure> {
    let image = container.image.as_deref().unwrap_or_default();
    let say = |kind: EventType, reason: &str, message: String| {
        node.events.record(&about_container(pod, &container.name), kind, reason, message);
    };
    let policy = pull_policy(container, image);
    let failed_look = |reason: &'static str, message: String| {
        say(EventType::Warning, "InspectFailed", message.clone());
        say(EventType::Warning, "Failed", format!("Error: {reason}"));
        ImageFailure { reason, message }
    };
    if let Err(error) = Reference::parse(image) {
        return Err(failed_look("InvalidImageName", invalid_name(image, &error)));
    }
    let present = node.engine.image_status(image).await;
    let present = present
        .map_err(|error| failed_look("ImageInspectError", format!("Failed to inspect image \"{image}\": {error}")))?;
    if let Some(present) = present.filter(|_| policy != "Always") {
        let message = format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
        say(EventType::Normal, "Pulled", message);
        return Ok(present);
    }
    if policy == "Never" {
        let message = format!("Container image \"{image}\" is not present with pull policy of Never");
        say(EventType::Warning, "ErrImageNeverPull", message.clone());
        say(EventType::Warning, "Failed", "Error: ErrImageNeverPull".to_owned());
        return Err(ImageFailure { reason: "ErrImageNeverPull", message });
    }
    say(EventType::Normal, "Pulling", format!("Pulling image \"{image}\""));
    objects.synced().await;
    let began = node.component.clock.monotonic();
    match node.engine.pull_image(image, credentials(pod, objects, image)).await {
        Ok(pulled) => {
            let took = super::hooks::go_seconds(node.component.clock.monotonic().saturating_sub(began));
            let size = pulled.size_bytes;
            let message = format!(
                "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes."
            );
            say(EventType::Normal, "Pulled", message);
            Ok(pulled)
        }
        Err(error) => {
            let message = error.to_string();
            say(EventType::Warning, "Failed", format!("Failed to pull image \"{image}\": {message}"));
            say(EventType::Warning, "Failed", "Error: ErrImagePull".to_owned());
            Err(ImageFailure { reason: "ErrImagePull", message })
        }
    }
}

/// Source: kubelet `applyDefaultImageTag`.
fn invalid_name(image: &str, error: &ReferenceError) -> String {
    format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {error}")
}

/// The policy, or Kubernetes' default: `Always` for `:latest` and names without a tag.
pub(crate) fn pull_policy<'c>(container: &'c Container, image: &str) -> &'c str {
    if let Some(policy) = container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty()) {
        return policy;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    let latest = name.ends_with(":latest") || !name.contains(':');
    if latest && !image.contains('@') { "Always" } else { "IfNotPresent" }
}

/// What the pod's `imagePullSecrets` say about the registry of `image`.
fn credentials(pod: &Pod, objects: &PodObjects, image: &str) -> Option<RegistryAuth> {
    let names = spec(pod).image_pull_secrets.iter().flatten();
    names.filter_map(|reference| objects.secret(&reference.name)).find_map(|secret| from_secret(&secret, image))
}

fn from_secret(secret: &Secret, image: &str) -> Option<RegistryAuth> {
    let data = secret.data.as_ref()?;
    let config = match data.get(".dockerconfigjson") {
        Some(config) => DockerConfig::parse(&config.0),
        None => DockerConfig::parse_entries(&data.get(".dockercfg")?.0),
    };
    config?.written_for(&Reference::parse(image).ok()?)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn the_default_policy_pulls_latest_only() {
        let container = Container::default();
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(&container, image), policy, "{image}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_told_in_the_kubelets_words() {
        let said = |image: &str| invalid_name(image, &Reference::parse(image).unwrap_err());
        let start = |image: &str| format!("Failed to apply default image tag \"{image}\": couldn't parse image name");
        assert_eq!(said("a b"), format!("{} \"a b\": invalid reference format", start("a b")));
        let capital = "invalid reference format: repository name (library/Nginx) must be lowercase";
        assert_eq!(said("Nginx:1"), format!("{} \"Nginx:1\": {capital}", start("Nginx:1")));
    }

    #[test]
    fn credentials_are_those_of_the_images_registry() {
        let config = serde_json::json!({ "auths": {
            "registry.example:5000": { "username": "u", "password": "p" },
            "https://index.docker.io/v1/": { "auth": base64::engine::general_purpose::STANDARD.encode("hub:secret:x") },
        }});
        let encoded = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret: Secret =
            serde_json::from_value(serde_json::json!({ "data": { ".dockerconfigjson": encoded } })).unwrap();
        let of = |image: &str| from_secret(&secret, image).map(|auth| (auth.username, auth.password));
        assert_eq!(of("registry.example:5000/a:1"), Some(("u".to_owned(), "p".to_owned())));
        assert_eq!(of("nginx:1"), Some(("hub".to_owned(), "secret:x".to_owned())));
        assert_eq!(of("other.example/a"), None);
    }
}
