//! Sees to it that an image is here, a container's or a volume's, by its pull policy and in the kubelet's words.

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Secret};
use reeve_client::EventType;
use reeve_engine::engine::{EngineError, Image, RegistryAuth};
use reeve_engine::images::{DockerConfig, Reference, ReferenceError};

use super::context::{NodeContext, about, about_container};
use super::env::Lookup;
use super::image_volumes::ImageUse;
use super::state::{PodState, spec};
use crate::objects::PodObjects;
use crate::peers::ImagePeers;

/// Why an image is not here: `reason` is what the container waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageFailure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// An image that a pod needs, and whom to tell of it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// As the pod names it.
    pub(crate) image: String,
    pub(crate) policy: String,
    /// Whose it is: the container's that stands on it, or the pod's, for a volume.
    pub(crate) about: ObjectReference,
    /// The containers that cannot start without it.
    pub(crate) waiting: Vec<ObjectReference>,
}

impl Wanted {
    /// What a pod wants now; `None` where it does not want it any more.
    pub(crate) fn of(state: &PodState, of: ImageUse) -> Option<Self> {
        let (image, policy) = state.image_wanted(of)?;
        let pod = &state.pod;
        Some(Self {
            image: image.to_owned(),
            policy: pull_policy(policy, image).to_owned(),
            about: match of {
                ImageUse::Container(slot) => about_container(pod, &state.slots.get(slot)?.name),
                ImageUse::Volume(_) => about(pod),
            },
            waiting: state.waiting_for(of).iter().map(|name| about_container(pod, name)).collect(),
        })
    }

    fn say(&self, node: &NodeContext, kind: EventType, reason: &str, message: String) {
        node.events.record(&self.about, kind, reason, message);
    }

    /// Tells each container that waits what it waits for.
    fn hold_up(&self, node: &NodeContext, reason: &str) {
        for container in &self.waiting {
            node.events.record(container, EventType::Warning, "Failed", format!("Error: {reason}"));
        }
    }

    /// Tells that its pull waits.
    pub(crate) fn tell_backoff(&self, node: &NodeContext) {
        self.say(node, EventType::Normal, "BackOff", format!("Back-off pulling image \"{}\"", self.image));
        self.hold_up(node, "ImagePullBackOff");
    }
}

/// An image; pulls it where the policy says so.
pub(crate) async fn fetch(
    node: &NodeContext,
    pod: &Pod,
    wanted: &Wanted,
    objects: &PodObjects,
) -> Result<Image, ImageFailure> {
    let (image, policy) = (wanted.image.as_str(), wanted.policy.as_str());
    let say = |kind: EventType, reason: &str, message: String| wanted.say(node, kind, reason, message);
    let failed_look = |reason: &'static str, message: String| {
        say(EventType::Warning, "InspectFailed", message.clone());
        wanted.hold_up(node, reason);
        ImageFailure { reason, message }
    };
    if let Err(error) = Reference::parse(image) {
        return Err(failed_look("InvalidImageName", invalid_name(image, &error)));
    }
    let present = node.engine.image_status(image).await;
    let present = present
        .map_err(|error| failed_look("ImageInspectError", format!("Failed to inspect image \"{image}\": {error}")))?;
    if let Some(present) = present.filter(|_| policy != "Always") {
        say(EventType::Normal, "Pulled", present_message(image));
        return Ok(present);
    }
    if policy == "Never" {
        let message = format!("Container image \"{image}\" is not present with pull policy of Never");
        say(EventType::Warning, "ErrImageNeverPull", message.clone());
        wanted.hold_up(node, "ErrImageNeverPull");
        return Err(ImageFailure { reason: "ErrImageNeverPull", message });
    }
    say(EventType::Normal, "Pulling", format!("Pulling image \"{image}\""));
    let began = node.component.clock.monotonic();
    match obtain(node, pod, objects, image, policy).await {
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
            // No registry has ever had it, so the newest there is is here.
            if let Some(made) = made_here(node, image).await {
                say(EventType::Normal, "Pulled", present_message(image));
                return Ok(made);
            }
            let message = error.to_string();
            say(EventType::Warning, "Failed", format!("Failed to pull image \"{image}\": {message}"));
            wanted.hold_up(node, "ErrImagePull");
            Err(ImageFailure { reason: "ErrImagePull", message })
        }
    }
}

/// The image from wherever the policy lets it come. What was made on another node comes from there: with `Always` after
/// the registry was asked, else before, for so it is where the image is here already.
async fn obtain(
    node: &NodeContext,
    pod: &Pod,
    objects: &PodObjects,
    image: &str,
    policy: &str,
) -> Result<Image, EngineError> {
    let peers = node.peers.as_ref();
    let first = peers.filter(|_| policy != "Always");
    if let Some(peers) = first
        && let Some(found) = peers.fetch(image).await
    {
        return Ok(found);
    }
    objects.synced().await;
    let pulled = tokio::select! {
        pulled = pull(node, pod, objects, image) => pulled,
        found = appears(first, image) => return Ok(found),
    };
    let (Err(_), Some(peers)) = (&pulled, peers) else { return pulled };
    let found = match peers.fetch(image).await {
        Some(found) => Some(found),
        None => peers.search(image).await,
    };
    found.map_or(pulled, Ok)
}

/// Returns when another node has made the image while a registry was being asked for it.
async fn appears(peers: Option<&ImagePeers>, image: &str) -> Image {
    match peers {
        Some(peers) => peers.appears(image).await,
        None => std::future::pending().await,
    }
}

/// The image, if it is here and only because it was built or loaded.
async fn made_here(node: &NodeContext, image: &str) -> Option<Image> {
    let present = node.engine.image_status(image).await.ok().flatten();
    present.filter(|image| image.digests.is_empty())
}

/// Source: kubelet `EnsureImageExists`.
fn present_message(image: &str) -> String {
    format!("Container image \"{image}\" already present on machine and can be accessed by the pod")
}

/// Source: kubelet `applyDefaultImageTag`.
fn invalid_name(image: &str, error: &ReferenceError) -> String {
    format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {error}")
}

/// The policy, or Kubernetes' default: `Always` for `:latest` and names without a tag.
pub(crate) fn pull_policy<'p>(given: Option<&'p str>, image: &str) -> &'p str {
    if let Some(policy) = given.filter(|policy| !policy.is_empty()) {
        return policy;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    let latest = name.ends_with(":latest") || !name.contains(':');
    if latest && !image.contains('@') { "Always" } else { "IfNotPresent" }
}

/// The image from its registry, with whatever credentials it gives it for. Source: kubelet `PullImage`.
async fn pull(node: &NodeContext, pod: &Pod, objects: &PodObjects, image: &str) -> Result<Image, EngineError> {
    let all = credentials(node, pod, objects, image).await;
    if all.is_empty() {
        return node.engine.pull_image(image, None).await;
    }
    let mut reasons: Vec<String> = Vec::new();
    for auth in all {
        match node.engine.pull_image(image, Some(auth)).await {
            Ok(pulled) => return Ok(pulled),
            Err(error) => {
                let reason = error.to_string();
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
    }
    let reason = if let [only] = reasons.as_slice() { only.clone() } else { format!("[{}]", reasons.join(", ")) };
    Err(EngineError::Pull { image: image.to_owned(), reason })
}

/// Who one may be at the registry of `image`: what the pod's `imagePullSecrets` say, then what credential providers do.
async fn credentials(node: &NodeContext, pod: &Pod, objects: &PodObjects, image: &str) -> Vec<RegistryAuth> {
    let Ok(image) = Reference::parse(image) else { return Vec::new() };
    let names = spec(pod).image_pull_secrets.iter().flatten();
    let secrets = names.filter_map(|reference| objects.secret(&reference.name));
    let secrets: Vec<DockerConfig> = secrets.filter_map(|secret| from_secret(&secret)).collect();
    let mut all = fitting(secrets.iter(), &image);
    if let Some(providers) = &node.credentials {
        let said = providers.provide(&node.component, pod, &image).await;
        all.extend(fitting(said.iter().map(AsRef::as_ref), &image));
    }
    all
}

/// What configurations say about an image, the entry that says most of its name first. Source: `BasicDockerKeyring`.
fn fitting<'c>(configs: impl Iterator<Item = &'c DockerConfig>, image: &Reference) -> Vec<RegistryAuth> {
    let mut found: Vec<(String, RegistryAuth)> = configs.flat_map(|config| config.all_written_for(image)).collect();
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn from_secret(secret: &Secret) -> Option<DockerConfig> {
    let data = secret.data.as_ref()?;
    match data.get(".dockerconfigjson") {
        Some(config) => DockerConfig::parse(&config.0),
        None => DockerConfig::parse_entries(&data.get(".dockercfg")?.0),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn the_default_policy_pulls_latest_only() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(None, image), policy, "{image}");
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
        let (config, more) = (from_secret(&secret).unwrap(), [("registry.example:5000/a", "most", "m")]);
        let more = more.map(|(key, user, password)| (key.to_owned(), user.to_owned(), password.to_owned()));
        let more = DockerConfig::of_entries(more.into_iter());
        let of = |image: &str| {
            let all = fitting([&config, &more].into_iter(), &Reference::parse(image).unwrap());
            all.into_iter().map(|auth| format!("{}:{}", auth.username, auth.password)).collect::<Vec<_>>()
        };
        assert_eq!(of("registry.example:5000/b:1"), ["u:p"]);
        assert_eq!(of("registry.example:5000/a:1"), ["most:m", "u:p"], "all are tried, what says most first");
        assert_eq!(of("nginx:1"), ["hub:secret:x"]);
        assert_eq!(of("other.example/a"), Vec::<String>::new());
    }
}
