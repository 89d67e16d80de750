//! The engine's verbs, each a call or two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use reeve_engine::engine::{
    AttachConfig, Connection, Container, ContainerConfig, Engine, EngineError, EngineEvent, ExecConfig, ExecSession,
    Features, FsUsage, Image, RegistryAuth, Resources, Sandbox, SandboxConfig, Usage,
};
use reeve_proto::cri::{
    AttachRequest, CheckpointContainerRequest, ContainerStatsFilter, ContainerStatsRequest, CreateContainerRequest,
    ExecRequest, FilesystemUsage, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListContainerStatsRequest,
    ListImagesRequest, PodSandboxStatsRequest, PortForwardRequest, PullImageRequest, RemoveContainerRequest,
    RemoveImageRequest, RemovePodSandboxRequest, ReopenContainerLogRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest, UpdateContainerResourcesRequest,
    UpdatePodSandboxResourcesRequest,
};
use reeve_streaming::client;
use reeve_streaming::remote::{Kind, StreamOptions};
use tokio_util::sync::CancellationToken;

use super::notes::Note;
use super::{CriEngine, error, version};
use crate::convert::{image, resources, stats};

#[async_trait::async_trait]
impl Engine for CriEngine {
    fn version(&self) -> String {
        self.inner.version.clone()
    }

    fn features(&self) -> Features {
        self.inner.features
    }

    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, EngineError> {
        make_dir(&config.log_dir)?;
        let request =
            RunPodSandboxRequest { config: Some(self.sandbox_request(&config)?), runtime_handler: String::new() };
        let made = self.runtime().run_pod_sandbox(request).await;
        let made = made.map_err(|status| error::of(&status, "run sandbox", &config.name))?;
        self.sandbox(&made.into_inner().pod_sandbox_id).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), EngineError> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        error::unless_gone(self.runtime().stop_pod_sandbox(request).await, "stop sandbox", id)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), EngineError> {
        self.stop_pod_sandbox(id).await?;
        let containers = self.containers().await?;
        for own in containers.iter().filter(|own| own.sandbox == id) {
            self.remove_container(&own.id).await?;
        }
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        error::unless_gone(self.runtime().remove_pod_sandbox(request).await, "remove sandbox", id)
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, EngineError> {
        self.sandboxes().await
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<String, EngineError> {
        let shows_image = config.mounts.iter().any(|mount| mount.image.is_some());
        if let Some(why) = version::no_image_volumes(&self.inner.version).filter(|_| shows_image) {
            return Err(EngineError::Unsupported(why));
        }
        let pod = self.sandbox(sandbox).await?;
        if let Some(dir) = config.log_path.parent() {
            make_dir(&dir.to_owned())?;
        }
        let request: CreateContainerRequest = self.container_request(&pod, &config)?;
        let made = self.runtime().create_container(request).await;
        let made = made.map_err(|status| error::of(&status, "create container", &config.name))?;
        Ok(made.into_inner().container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        let started = self.runtime().start_container(request).await;
        started.map(drop).map_err(|status| match error::of(&status, "start container", id) {
            // The container's own fault, as far as anybody can tell.
            EngineError::Io { .. } => EngineError::Start(status.message().to_owned()),
            other => other,
        })
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        // Whole seconds, and never less than was given.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let timeout = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        error::unless_gone(self.runtime().stop_container(request).await, "stop container", id)
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        self.stop_container(id, Duration::ZERO).await?;
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        error::unless_gone(self.runtime().remove_container(request).await, "remove container", id)?;
        self.inner.notes.forget(id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<Container>, EngineError> {
        self.containers().await
    }

    async fn container_status(&self, id: &str) -> Result<Container, EngineError> {
        self.container(id).await
    }

    async fn usage(&self) -> Result<BTreeMap<String, Usage>, EngineError> {
        let filter = ContainerStatsFilter { label_selector: self.ours(), ..ContainerStatsFilter::default() };
        let listed = self.runtime().list_container_stats(ListContainerStatsRequest { filter: Some(filter) }).await;
        let listed = listed.map_err(|status| error::of(&status, "list", "usage"))?.into_inner();
        let used = listed.stats.into_iter().filter_map(|own| {
            let used = stats::of_container(&own);
            Some((own.attributes?.id, used))
        });
        Ok(used.collect())
    }

    async fn pod_sandbox_usage(&self, id: &str) -> Result<Usage, EngineError> {
        let request = PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
        let used = self.runtime().pod_sandbox_stats(request).await;
        let used = used.map_err(|status| error::of(&status, "look at sandbox", id))?.into_inner();
        Ok(stats::of_pod(&used.stats.and_then(|stats| stats.linux).unwrap_or_default()))
    }

    async fn signal_container(&self, _id: &str, _signal: &str) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("CRI has no word for a signal to a container".to_owned()))
    }

    async fn pause_container(&self, _id: &str) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("CRI has no word for pausing a container".to_owned()))
    }

    async fn resume_container(&self, _id: &str) -> Result<(), EngineError> {
        Err(EngineError::Unsupported("CRI has no word for resuming a container".to_owned()))
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        // The whole of them: some runtimes take what is not said as nothing.
        let whole = self.container(id).await?.config.resources.updated(&resources);
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources::to_cri(&whole)),
            annotations: annotations.clone().into_iter().collect(),
        };
        let updated = self.runtime().update_container_resources(request).await;
        updated.map_err(|status| error::of(&status, "update container", id))?;
        let kept = self.inner.notes.add(id, Note { resources, annotations });
        kept.map_err(|source| EngineError::Io { step: format!("note the new limits of container {id}"), source })
    }

    async fn update_pod_sandbox_resources(&self, id: &str, resources: Resources) -> Result<(), EngineError> {
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            overhead: None,
            resources: Some(resources::to_cri(&resources)),
        };
        match self.runtime().update_pod_sandbox_resources(request).await {
            // Older than this verb: such runtimes limit containers only.
            Err(status) if error::is_unknown_verb(&status) => Ok(()),
            other => other.map(drop).map_err(|status| error::of(&status, "update sandbox", id)),
        }
    }

    async fn exec(&self, id: &str, config: ExecConfig) -> Result<ExecSession, EngineError> {
        if config.command.first().is_none_or(String::is_empty) {
            return Err(EngineError::Invalid("no command specified".to_owned()));
        }
        let ExecConfig { command, stdin, stdout, stderr, tty, timeout } = config;
        // Runtimes want one stream at least; what nobody reads is dropped.
        let stdout = stdout || !(stdin || stderr);
        let options = StreamOptions { command: command.clone(), stdin, stdout, stderr: stderr && !tty, tty };
        let request = ExecRequest {
            container_id: id.to_owned(),
            cmd: command.clone(),
            tty,
            stdin,
            stdout,
            stderr: options.stderr,
        };
        let url = self.runtime().exec(request).await.map_err(|status| error::of(&status, "exec in container", id))?;
        let mut session = client::remote(&url.into_inner().url, Kind::Exec, &options).await?;
        if let Some(limit) = timeout {
            let exit = session.exit;
            session.exit = Box::pin(async move {
                let late = EngineError::ExecTimeout { command: command.join(" "), seconds: limit.as_secs() };
                // Its connection ends with the future, and the command with the connection.
                tokio::time::timeout(limit, exit).await.unwrap_or(Err(late))
            });
        }
        Ok(session)
    }

    async fn attach(&self, id: &str, config: AttachConfig) -> Result<ExecSession, EngineError> {
        let own = self.container(id).await?.config;
        let options = StreamOptions {
            command: Vec::new(),
            stdin: config.stdin && own.stdin,
            stdout: config.stdout,
            stderr: config.stderr && !own.tty,
            tty: own.tty,
        };
        let request = AttachRequest {
            container_id: id.to_owned(),
            stdin: options.stdin,
            tty: options.tty,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let url =
            self.runtime().attach(request).await.map_err(|status| error::of(&status, "attach to container", id))?;
        let session = client::remote(&url.into_inner().url, Kind::Attach, &options).await?;
        let ends_with_input = options.stdin && (own.tty || !own.stdin_once);
        Ok(ExecSession { ends_with_input, ..session })
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Connection, EngineError> {
        let request = PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: vec![port.into()] };
        let url = self.runtime().port_forward(request).await;
        let url = url.map_err(|status| error::of(&status, "forward a port of sandbox", sandbox))?;
        client::port(&url.into_inner().url, port).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), EngineError> {
        let request = ReopenContainerLogRequest { container_id: id.to_owned() };
        let reopened = self.runtime().reopen_container_log(request).await;
        reopened.map(drop).map_err(|status| error::of(&status, "reopen the log of container", id))
    }

    async fn writable_layer(&self, id: &str) -> Result<FsUsage, EngineError> {
        let answer = self.runtime().container_stats(ContainerStatsRequest { container_id: id.to_owned() }).await;
        let answer = answer.map_err(|status| error::of(&status, "look at container", id))?.into_inner();
        Ok(folder(answer.stats.and_then(|stats| stats.writable_layer)))
    }

    async fn image_fs_usage(&self) -> Result<FsUsage, EngineError> {
        let answer = self.image_service().image_fs_info(ImageFsInfoRequest {}).await;
        let answer = answer.map_err(|status| error::of(&status, "look at", "images"))?.into_inner();
        Ok(folder(answer.image_filesystems.into_iter().next()))
    }

    async fn checkpoint_container(&self, id: &str, path: &Path, timeout: Option<Duration>) -> Result<(), EngineError> {
        let request = CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: path.to_string_lossy().into_owned(),
            timeout: timeout.map_or(0, |own| i64::try_from(own.as_secs()).unwrap_or(i64::MAX)),
        };
        let made = self.runtime().checkpoint_container(request).await;
        made.map(drop).map_err(|status| error::of(&status, "checkpoint container", id))
    }

    fn events(&self) -> BoxStream<'static, EngineEvent> {
        let receiver = self.inner.events.subscribe();
        // An error means closed, or too far behind: both end the stream.
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.ok().map(|event| (event, receiver))
        })
        .boxed()
    }

    async fn pull_image(&self, image: &str, auth: Option<RegistryAuth>) -> Result<Image, EngineError> {
        let request = PullImageRequest {
            image: Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() }),
            auth: auth.map(image::to_auth),
            sandbox_config: None,
        };
        let failed = |reason: String| EngineError::Pull { image: image.to_owned(), reason };
        let pulled = self.image_service().pull_image(request).await;
        let pulled = pulled.map_err(|status| failed(status.message().to_owned()))?.into_inner().image_ref;
        self.inner.images.send_modify(|changes| *changes += 1);
        self.image_status(&pulled).await?.ok_or_else(|| failed("it was removed at once".to_owned()))
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, EngineError> {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let answer = self.image_service().image_status(ImageStatusRequest { image: Some(spec), verbose: false }).await;
        let answer = answer.map_err(|status| error::of(&status, "look at image", image))?.into_inner();
        Ok(answer.image.map(image::to_engine))
    }

    async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        let answer = self.image_service().list_images(ListImagesRequest { filter: None }).await;
        let answer = answer.map_err(|status| error::of(&status, "list", "images"))?.into_inner();
        Ok(answer.images.into_iter().map(image::to_engine).collect())
    }

    fn image_changes(&self) -> BoxStream<'static, ()> {
        let changes = self.inner.images.subscribe();
        futures::stream::unfold(
            changes,
            |mut changes| async move { changes.changed().await.ok().map(|()| ((), changes)) },
        )
        .boxed()
    }

    async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let removed = self.image_service().remove_image(RemoveImageRequest { image: Some(spec) }).await;
        removed.map_err(|status| error::of(&status, "remove image", image))?;
        self.inner.images.send_modify(|changes| *changes += 1);
        Ok(())
    }
}

impl CriEngine {
    /// Told when the engine is of no more use.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }
}

/// The kubelet makes logs' folders, not the runtime.
fn make_dir(dir: &PathBuf) -> Result<(), EngineError> {
    std::fs::create_dir_all(dir).map_err(|source| EngineError::Io { step: format!("make {}", dir.display()), source })
}

fn folder(usage: Option<FilesystemUsage>) -> FsUsage {
    let usage = usage.unwrap_or_default();
    FsUsage {
        path: usage.fs_id.map(|id| id.mountpoint.into()).unwrap_or_default(),
        used_bytes: usage.used_bytes.map(|value| value.value).unwrap_or_default(),
        inodes: usage.inodes_used.map(|value| value.value).unwrap_or_default(),
    }
}
