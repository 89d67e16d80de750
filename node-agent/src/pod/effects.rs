//! Carries out what the plan decided. Every effect runs in a task of its own and ends in one input of the actor.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use reeve_api::drain::DRAIN_WAIT_MAX;
use reeve_client::EventType;
use reeve_engine::engine::{self, ContainerState, EngineError, Image, ImageSource, Sandbox};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::allocation::Allocation;
use super::container::{ConfigError, ContainerInputs, container_config, sandbox_config};
use super::context::{NodeContext, about, about_container};
use super::files::PodFiles;
use super::hooks::{self, HookTarget};
use super::image::{ImageFailure, Wanted};
use super::resize::{Action, Job, Resized, annotation};
use super::state::spec;
use crate::net::host_ports;
use crate::objects::PodObjects;
use crate::volume::token::IssuedTokens;
use crate::volume::{self, Mounted, VolumeInputs, VolumesReady};

/// A container gets at least this long after a `preStop` hook used the grace up.
/// Source: kubelet `minimumGracePeriodInSeconds`.
const GRACE_AFTER_HOOK_MIN: Duration = Duration::from_secs(2);

/// The longest a start may take. Source: kubelet `runtimeRequestTimeout`.
const START_MAX: Duration = Duration::from_secs(120);
/// What is left to a start when the pod is to end.
const START_AT_END_MAX: Duration = Duration::from_secs(10);
/// Pause before a refused deletion is tried again.
const DELETE_RETRY: Duration = Duration::from_secs(1);

/// What the effects of one pod share.
#[derive(Clone)]
pub(crate) struct PodEffects {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) objects: Arc<PodObjects>,
    pub(crate) tokens: Arc<IssuedTokens>,
    /// Cancelled when the pod is to end.
    pub(crate) ending: CancellationToken,
    pub(crate) ips: Vec<IpAddr>,
}

/// A sandbox that is ready, and its addresses.
#[derive(Debug)]
pub(crate) struct NewSandbox {
    pub(crate) id: String,
    pub(crate) ips: Vec<IpAddr>,
    /// What the pod's group may use.
    pub(crate) resources: engine::Resources,
}

/// Why a container did not start: what it waits for, and why.
#[derive(Debug)]
pub(crate) struct StartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The container, where it came into being and ended at once.
    pub(crate) exited: Option<Box<engine::Container>>,
}

/// One start of a container.
pub(crate) struct StartJob {
    pub(crate) sandbox: String,
    pub(crate) container: Container,
    pub(crate) attempt: u32,
    pub(crate) image: Image,
    pub(crate) mounted: Arc<Mounted>,
    /// What its volumes show that are images, by their names.
    pub(crate) images: BTreeMap<String, ImageSource>,
    /// Dead lives of this container that are no longer kept.
    pub(crate) remove: Vec<String>,
    /// The running container whose processes it is to see, and its name.
    pub(crate) target: Option<(Option<String>, String)>,
}

impl PodEffects {
    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn say(&self, kind: EventType, reason: &str, message: String) {
        self.node.events.record(&about(&self.pod), kind, reason, message);
    }

    fn say_of(&self, container: &str, kind: EventType, reason: &str, message: String) {
        self.node.events.record(&about_container(&self.pod, container), kind, reason, message);
    }

    /// Makes the sandbox, then its network; writes the pod's own files.
    pub(crate) async fn create_sandbox(&self, attempt: u32) -> Result<NewSandbox, String> {
        let result = self.try_create_sandbox(attempt).await;
        if let Err(message) = &result {
            let message = format!("Failed to create pod sandbox: {message}");
            self.say(EventType::Warning, "FailedCreatePodSandBox", message);
        }
        result
    }

    async fn try_create_sandbox(&self, attempt: u32) -> Result<NewSandbox, String> {
        let host_network = spec(&self.pod).host_network == Some(true);
        let config = sandbox_config(&self.node, &self.pod, attempt, self.own_users().await?);
        let sandbox = self.node.engine.run_pod_sandbox(config).await.map_err(|error| error.to_string())?;
        match self.furnish(&sandbox, host_network).await {
            Ok(ips) => Ok(NewSandbox { id: sandbox.id, ips, resources: sandbox.config.resources }),
            Err(message) => {
                // Half a sandbox is of no use; the next attempt makes another one.
                super::table::remove_sandbox(&self.node, &sandbox.id).await;
                Err(message)
            }
        }
    }

    /// The ids of a pod that is to have users of its own.
    async fn own_users(&self) -> Result<Option<engine::UserNamespace>, String> {
        if spec(&self.pod).host_users != Some(false) {
            return Ok(None);
        }
        if !self.node.engine.features().user_namespaces {
            return Err("can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned());
        }
        let (node, uid) = (Arc::clone(&self.node), self.uid().to_owned());
        let given = tokio::task::spawn_blocking(move || node.user_ids.of_pod(&uid, &node.config.pod_dir(&uid))).await;
        given.map_err(|error| error.to_string())?.map(Some).map_err(|error| error.to_string())
    }

    /// Leads the pod's ports of the node to its address.
    async fn publish(&self, sandbox: &str, address: Option<IpAddr>) -> Result<(), String> {
        let (ports, Some(address)) = (host_ports::wanted(&self.pod), address) else { return Ok(()) };
        let Some(network) = self.node.network().await else { return Err("the agent is stopping".to_owned()) };
        let published = network.publish(sandbox, address, ports).await;
        published.map_err(|error| format!("failed to setup network for sandbox \"{sandbox}\": {error}"))
    }

    /// Gives a sandbox its network and the pod its files; returns its addresses.
    async fn furnish(&self, sandbox: &Sandbox, host_network: bool) -> Result<Vec<IpAddr>, String> {
        let ips = match &sandbox.netns {
            // The engine has wired it; what is left is ours.
            _ if !sandbox.ips.is_empty() => {
                self.publish(&sandbox.id, sandbox.ips.first().copied()).await?;
                sandbox.ips.clone()
            }
            Some(netns) if !host_network => {
                let Some(network) = self.node.network().await else { return Err("the agent is stopping".to_owned()) };
                let failed = |error| format!("failed to setup network for sandbox \"{}\": {error}", sandbox.id);
                let address = network.attach(&sandbox.id, netns).await.map_err(failed)?;
                self.publish(&sandbox.id, Some(address)).await?;
                vec![address]
            }
            _ => vec![self.node.config.node_ip],
        };
        let dir = self.node.config.pod_dir(self.uid());
        let (pod, addresses, config) = (Arc::clone(&self.pod), ips.clone(), self.node.config.clone());
        let write = move || {
            PodFiles::of(&dir).write(&pod, &addresses, &config)?;
            Allocation::of(&pod).save(&dir)
        };
        let written = tokio::task::spawn_blocking(write).await;
        written
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("failed to write the pod's files: {error}"))?;
        Ok(ips)
    }

    /// Makes all volumes, or brings them up to date.
    pub(crate) async fn set_up_volumes(&self) -> Result<VolumesReady, String> {
        let inputs = VolumeInputs {
            pod: Arc::clone(&self.pod),
            objects: Arc::clone(&self.objects),
            around: self.node.surroundings(&self.ips),
            tokens: Arc::clone(&self.tokens),
        };
        let result = volume::set_up(&self.node, inputs).await.map_err(|error| error.to_string());
        if let Err(message) = &result {
            self.say(EventType::Warning, "FailedMount", message.clone());
        }
        result
    }

    /// An image that the pod needs.
    pub(crate) async fn fetch_image(&self, wanted: &Wanted) -> Result<Image, ImageFailure> {
        super::image::fetch(&self.node, &self.pod, wanted, &self.objects).await
    }

    /// Creates and starts a container.
    pub(crate) async fn start(&self, job: StartJob) -> Result<Box<engine::Container>, StartError> {
        self.objects.synced().await;
        let name = job.container.name.clone();
        let fail = |reason: &'static str, message: String| {
            self.say_of(&name, EventType::Warning, "Failed", format!("Error: {message}"));
            StartError { reason, message, exited: None }
        };
        let config = match self.config(&job) {
            Ok(config) => config,
            Err(error) => return Err(fail("CreateContainerConfigError", error.to_string())),
        };
        let engine = &self.node.engine;
        let id = match engine.create_container(&job.sandbox, config).await {
            Ok(id) => id,
            Err(error) => return Err(fail("CreateContainerError", error.to_string())),
        };
        self.say_of(&name, EventType::Normal, "Created", "Container created".to_owned());
        let started = self.start_in_time(&id).await;
        let container =
            engine.container_status(&id).await.map_err(|error| fail("RunContainerError", error.to_string()))?;
        self.remove_old(job.remove);
        match started {
            Ok(()) => {
                self.say_of(&name, EventType::Normal, "Started", "Container started".to_owned());
                Ok(Box::new(container))
            }
            Err(error) => {
                let exited = matches!(container.state, ContainerState::Exited { .. }).then(|| Box::new(container));
                Err(StartError { exited, ..fail("RunContainerError", error.to_string()) })
            }
        }
    }

    /// Starts a container, but not for ever: a mount of a file server that is away may hold its process up.
    async fn start_in_time(&self, id: &str) -> Result<(), EngineError> {
        let start = self.node.engine.start_container(id);
        tokio::pin!(start);
        let pod_ends = async {
            self.ending.cancelled().await;
            tokio::time::sleep(START_AT_END_MAX).await;
        };
        tokio::select! {
            started = &mut start => return started,
            () = tokio::time::sleep(START_MAX) => {}
            () = pod_ends => {}
        }
        if let Err(error) = self.node.engine.stop_container(id, Duration::ZERO).await {
            tracing::warn!(%error, id, "failed to cut a start off");
        }
        // It may have begun in the last moment; then it has been stopped and its end tells so.
        start.await.and_then(|()| Err(EngineError::Start("context deadline exceeded".to_owned())))
    }

    fn config(&self, job: &StartJob) -> Result<engine::ContainerConfig, ConfigError> {
        let pid_of = match &job.target {
            Some((None, name)) => return Err(ConfigError::Target(name.clone())),
            Some((Some(id), _)) => Some(id.clone()),
            None => None,
        };
        let config = container_config(&ContainerInputs {
            node: &self.node,
            pod: &self.pod,
            container: &job.container,
            attempt: job.attempt,
            image: &job.image,
            mounted: &job.mounted,
            images: &job.images,
            objects: &self.objects,
            around: &self.node.surroundings(&self.ips),
        })?;
        Ok(engine::ContainerConfig { pid_of, ..config })
    }

    /// Removes dead lives beside the start: nobody waits for it.
    fn remove_old(&self, ids: Vec<String>) {
        let engine = Arc::clone(&self.node.engine);
        if ids.is_empty() {
            return;
        }
        self.node.component.spawn("container garbage", async move {
            for id in ids {
                if let Err(error) = engine.remove_container(&id).await {
                    tracing::warn!(%error, id, "failed to remove a dead container");
                }
            }
        });
    }

    /// Runs a container's `postStart` hook.
    pub(crate) async fn post_start(&self, container: &Container, id: &str) -> Result<(), String> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let result = hooks::run(hook, &self.hook_target(container, id)).await.map_err(|error| error.to_string());
        if let Err(message) = &result {
            let message = format!("PostStartHook failed: {message}");
            self.say_of(&container.name, EventType::Warning, "FailedPostStartHook", message);
        }
        result
    }

    fn hook_target<'h>(&'h self, container: &'h Container, id: &'h str) -> HookTarget<'h> {
        HookTarget { engine: &self.node.engine, container_id: id, container, pod_ip: self.ips.first().copied() }
    }

    /// Runs the `preStop` hook within the grace, then stops the container within the rest.
    /// Returns the container as it ended; `None` if the engine does not know it any more.
    pub(crate) async fn stop(&self, container: &Container, id: &str, grace: Duration) -> Option<engine::Container> {
        let clock = &self.node.component.clock;
        let began = clock.monotonic();
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let mut rest = grace;
        if let Some(hook) = hook {
            match timeout(grace, hooks::run(hook, &self.hook_target(container, id))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.say_of(
                        &container.name,
                        EventType::Warning,
                        "FailedPreStopHook",
                        format!("PreStopHook failed: {error}"),
                    );
                }
                Err(_) => tracing::info!(container = container.name, "preStop hook used the whole grace period"),
            }
            rest = grace.saturating_sub(clock.monotonic().saturating_sub(began)).max(GRACE_AFTER_HOOK_MIN.min(grace));
        }
        match self.node.engine.stop_container(id, rest).await {
            Ok(()) | Err(EngineError::NotFound { .. }) => {}
            Err(error) => {
                let message = format!("error killing pod: failed to stop container \"{}\": {error}", container.name);
                self.say(EventType::Warning, "FailedKillPod", message);
            }
        }
        match self.node.engine.container_status(id).await {
            Ok(container) => Some(container),
            Err(error) => {
                tracing::warn!(%error, id, "a stopped container cannot be found");
                None
            }
        }
    }

    /// Gives pod and containers what they were granted, as far as that goes.
    pub(crate) async fn resize(&self, job: &Job) -> Resized {
        let mut done = Resized { group: job.group_now.clone(), sizes: Vec::new(), error: None };
        done.error = self.try_resize(job, &mut done).await.err();
        done
    }

    async fn try_resize(&self, job: &Job, done: &mut Resized) -> Result<(), String> {
        let engine = &self.node.engine;
        let text = |error: EngineError| error.to_string();
        if job.gives_memory() {
            let pod = engine.pod_sandbox_usage(&job.sandbox).await.map_err(text)?.memory_bytes;
            let used = engine.usage().await.map_err(text)?;
            let used = used.into_iter().map(|(id, usage)| (id, usage.memory_bytes)).collect();
            if let Some(refusal) = job.refusal(pod, &used) {
                return Err(refusal);
            }
        }
        for action in job.actions() {
            match action {
                Action::Group(resources) => {
                    let updated = done.group.clone().updated(&resources);
                    engine.update_pod_sandbox_resources(&job.sandbox, resources).await.map_err(text)?;
                    done.group = updated;
                }
                Action::Container { change, resources, size } => {
                    let Some(change) = job.containers.get(change) else { continue };
                    let annotations = [annotation(size)].into();
                    match engine.update_container_resources(&change.container, resources, annotations).await {
                        Ok(()) => done.sizes.push((change.slot, change.container.clone(), size)),
                        // It has ended meanwhile; its next life begins with what was granted.
                        Err(EngineError::WrongState { .. } | EngineError::NotFound { .. }) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until this node's proxy sends no new connections to the pod, but not for long.
    pub(crate) async fn drain(&self) {
        if spec(&self.pod).host_network != Some(true) && !self.ips.is_empty() {
            // A proxy that is slow does not keep the pod from ending.
            let _ = timeout(DRAIN_WAIT_MAX, self.node.drain.drained(&self.ips)).await;
        }
    }

    /// Stops (or removes) the sandbox, gives its address back, takes volumes away.
    pub(crate) async fn tear_down(&self, sandbox: Option<String>, remove: bool) -> Result<(), String> {
        if let Some(id) = &sandbox {
            self.node
                .engine
                .stop_pod_sandbox(id)
                .await
                .map_err(|error| format!("failed to stop the sandbox: {error}"))?;
            let network = self.node.network.borrow().clone();
            if let Some(network) = network {
                network.detach(id).await.map_err(|error| format!("failed to release the network: {error}"))?;
            }
            if remove {
                let removed = self.node.engine.remove_pod_sandbox(id).await;
                removed.map_err(|error| format!("failed to remove the sandbox: {error}"))?;
            }
        }
        let dir = self.node.config.pod_dir(self.uid());
        volume::tear_down(dir).await.map_err(|error| format!("failed to remove the pod's volumes: {error}"))?;
        self.node.user_ids.release(self.uid());
        if remove {
            self.remove_logs().await;
        }
        Ok(())
    }

    async fn remove_logs(&self) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let meta = &self.pod.metadata;
        let dir = self.node.config.log_dir(&text(&meta.namespace), &text(&meta.name), self.uid());
        match tokio::fs::remove_dir_all(&dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, dir = %dir.display(), "failed to remove a pod's logs");
            }
            _ => {}
        }
    }

    /// Deletes the pod's object, unless another pod has its name by now.
    pub(crate) async fn delete_object(&self) -> Result<(), String> {
        let meta = &self.pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.node.component.client.clone(), namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: meta.uid.clone(), ..Preconditions::default() }),
            ..DeleteParams::default()
        };
        let name = meta.name.as_deref().unwrap_or_default();
        let error = match api.delete(name, &params).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let gone = match &error {
            kube::Error::Api(refused) if refused.code == 404 => true,
            // Either another pod has the name by now, or somebody wrote at the same moment.
            kube::Error::Api(refused) if refused.code == 409 => is_another(api.get_opt(name).await, meta.uid.as_ref()),
            _ => false,
        };
        if gone {
            return Ok(());
        }
        tokio::time::sleep(DELETE_RETRY).await;
        Err(error.to_string())
    }

    /// Tells that a restart waits.
    pub(crate) fn tell_crash_backoff(&self, container: &str) {
        let pod = super::state::pod_text(&self.pod);
        let message = format!("Back-off restarting failed container {container} in pod {pod}");
        self.say_of(container, EventType::Warning, "BackOff", message);
    }

    /// Tells that a container is stopped.
    pub(crate) fn tell_killing(&self, container: &str, message: String) {
        self.say_of(container, EventType::Normal, "Killing", message);
    }
}

/// Whether what the API has under a pod's name is not that pod; an answer that did not come says nothing.
fn is_another(found: kube::Result<Option<Pod>>, uid: Option<&String>) -> bool {
    match found {
        Ok(None) => true,
        Ok(Some(pod)) => pod.metadata.uid.as_ref() != uid,
        Err(_) => false,
    }
}
