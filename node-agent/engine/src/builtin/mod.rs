//! The built-in engine: images and snapshots of this crate, containers through the supervisor.
//!
//! This half lives in the agent and may die at any moment; records on disk and the supervisor remember. Each verb
//! is in the file of its subject: [`sandboxes`], [`containers`], [`update`], [`exec`]; what happens after a death is in
//! [`recover`], the end of a whole cluster in [`purge`].

mod checkpoint;
mod config;
mod containers;
mod exec;
mod hooks;
mod image_volumes;
mod link;
mod purge;
mod records;
mod recover;
mod restore;
mod sandboxes;
mod state;
mod streams;
mod update;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{broadcast, mpsc, watch};

pub use self::config::EngineConfig;
use self::config::Layout;
pub(crate) use self::containers::{Base, parse_signal};
use self::link::{Link, LinkError, News};
use self::state::State;
use crate::disk_usage::disk_usage;
use crate::engine::{
    AttachConfig, Connection, Container, ContainerConfig, Engine, EngineError, EngineEvent, ExecConfig, ExecSession,
    Features, FsUsage, Image, ProcessUsage, RegistryAuth, Resources, Sandbox, SandboxConfig, Usage,
};
use crate::images::{ImageStore, StoreOptions};
use crate::runtime::caps::CapabilitySet;
use crate::runtime::cgroup::{self, Cgroups};
use crate::runtime::seccomp::Filters;
use crate::snapshot::Snapshots;

/// Events a subscriber may fall behind; then its stream ends (see [`Engine::events`]).
const EVENTS_BEHIND_MAX: usize = 1024;
/// News that may wait for the engine's task; then the supervisor keeps the rest.
const NEWS_MAX: usize = 1024;
/// How long a request waits for a supervisor that is being replaced.
const SUPERVISOR_WAIT_MAX: Duration = Duration::from_secs(10);

/// Runs containers through the supervisor of its run folder. Cheap to clone; all clones are one engine.
#[derive(Debug, Clone)]
pub struct BuiltinEngine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EngineConfig,
    layout: Layout,
    boot_id: String,
    images: ImageStore,
    snapshots: Snapshots,
    cgroups: Cgroups,
    own_capabilities: CapabilitySet,
    features: Features,
    filters: Arc<Filters>,
    state: Mutex<State>,
    events: broadcast::Sender<EngineEvent>,
    link: watch::Sender<Option<Link>>,
}

impl BuiltinEngine {
    /// Opens the engine of a data folder: connects to its supervisor or starts one, and takes up every sandbox
    /// and container of earlier lives.
    ///
    /// # Errors
    /// When a folder cannot be used, cgroups are missing, or no supervisor can be started.
    pub async fn open(config: EngineConfig) -> Result<Self, EngineError> {
        Self::open_with(config, StoreOptions::default()).await
    }

    /// [`BuiltinEngine::open`] with other limits of images or registries.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with(config: EngineConfig, images: StoreOptions) -> Result<Self, EngineError> {
        let (news, queue) = mpsc::channel(NEWS_MAX);
        Self::begin(blocking(move || Inner::open(config, images)).await?, news, queue).await
    }

    /// [`BuiltinEngine::open`] on images that are not in its data folder: they are somebody else's, too.
    pub(crate) async fn open_on(
        config: EngineConfig,
        images: ImageStore,
        snapshots: Snapshots,
    ) -> Result<Self, EngineError> {
        let (news, queue) = mpsc::channel(NEWS_MAX);
        Self::begin(blocking(move || Inner::open_on(config, images, snapshots)).await?, news, queue).await
    }

    async fn begin(inner: Inner, news: mpsc::Sender<News>, queue: mpsc::Receiver<News>) -> Result<Self, EngineError> {
        let engine = Self { inner: Arc::new(inner) };
        engine.take_up_patiently(&news).await?;
        engine.sweep().await;
        tokio::spawn(engine.clone().follow(queue, news));
        Ok(engine)
    }

    /// The images that this engine runs.
    #[must_use]
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Process id of the supervisor, for those who measure or look after it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn supervisor_pid(&self) -> Result<i32, EngineError> {
        Ok(recover::hello(&self.inner.link().await?).await?.pid)
    }

    /// Reacts to the supervisor's news for as long as anybody uses the engine.
    async fn follow(self, mut queue: mpsc::Receiver<News>, news: mpsc::Sender<News>) {
        while let Some(item) = queue.recv().await {
            match item {
                News::Exited(id, exit) => self.inner.on_exit(&id, exit),
                News::Closed => {
                    if self.inner.is_closing() {
                        return;
                    }
                    // News of a connection that has been replaced already.
                    if self.inner.link.borrow().as_ref().is_some_and(Link::is_open) {
                        continue;
                    }
                    self.inner.link.send_replace(None);
                    tracing::warn!("the supervisor is gone; starting another one and adopting what runs");
                    if let Err(err) = self.take_up_patiently(&news).await {
                        tracing::error!(%err, "no supervisor can be started; containers cannot be started or stopped");
                    }
                }
            }
        }
    }
}

impl Inner {
    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection; waits while the supervisor is being replaced.
    async fn link(&self) -> Result<Link, EngineError> {
        let mut link = self.link.subscribe();
        let found = tokio::time::timeout(SUPERVISOR_WAIT_MAX, link.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(link)) => link.clone().ok_or_else(|| LinkError.into()),
            _ => Err(LinkError.into()),
        }
    }

    /// 64 hexadecimal digits.
    fn new_id(&self) -> String {
        (0..4).map(|_| format!("{:016x}", self.config.rng.next_u64())).collect()
    }

    /// Tells subscribers; nobody listening is fine.
    fn tell(&self, event: Option<EngineEvent>) {
        if let Some(event) = event {
            let _ = self.events.send(event);
        }
    }

    fn on_exit(&self, id: &str, exit: crate::supervisor::plan::ExitRecord) {
        // In this order: whoever counts starts and ends must miss neither.
        let (start, end) = self.state(|state| (state.overtaken(id, &exit), state.change(id, state::exited(exit))));
        self.tell(start);
        self.tell(end);
    }
}

/// Runs file system and kernel work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(err) => Err(EngineError::Io { step: "run blocking work".to_owned(), source: std::io::Error::other(err) }),
    }
}

fn measured(dir: &Path) -> Result<FsUsage, EngineError> {
    disk_usage(dir).map_err(|source| EngineError::Io { step: format!("look at {}", dir.display()), source })
}

#[async_trait::async_trait]
impl Engine for BuiltinEngine {
    fn version(&self) -> String {
        format!("reeve://{}", env!("CARGO_PKG_VERSION"))
    }

    fn features(&self) -> Features {
        self.inner.features
    }

    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, EngineError> {
        self.run_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), EngineError> {
        self.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), EngineError> {
        self.remove_sandbox(id).await
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, EngineError> {
        Ok(self.inner.state(|state| state.sandboxes.values().cloned().collect()))
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<String, EngineError> {
        self.create(sandbox, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        self.start(id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        self.stop(id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        self.remove(id).await
    }

    async fn list_containers(&self) -> Result<Vec<Container>, EngineError> {
        Ok(self.inner.state(|state| state.containers.values().map(|entry| entry.container.clone()).collect()))
    }

    async fn container_status(&self, id: &str) -> Result<Container, EngineError> {
        self.inner.state(|state| state.container(id).map(|entry| entry.container.clone()))
    }

    async fn usage(&self) -> Result<BTreeMap<String, Usage>, EngineError> {
        self.look_at_running(cgroup::usage::read).await
    }

    async fn processes(&self) -> Result<BTreeMap<String, ProcessUsage>, EngineError> {
        self.look_at_running(cgroup::usage::processes).await
    }

    async fn pod_sandbox_usage(&self, id: &str) -> Result<Usage, EngineError> {
        self.sandbox_usage(id).await
    }

    async fn signal_container(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        self.signal(id, signal).await
    }

    async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        self.set_paused(id, true).await
    }

    async fn resume_container(&self, id: &str) -> Result<(), EngineError> {
        self.set_paused(id, false).await
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        self.update_container(id, resources, annotations).await
    }

    async fn update_pod_sandbox_resources(&self, id: &str, resources: Resources) -> Result<(), EngineError> {
        self.update_sandbox(id, resources).await
    }

    async fn exec(&self, id: &str, config: ExecConfig) -> Result<ExecSession, EngineError> {
        self.run_exec(id, config).await
    }

    async fn attach(&self, id: &str, config: AttachConfig) -> Result<ExecSession, EngineError> {
        self.join_streams(id, config).await
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Connection, EngineError> {
        let sandbox = self.inner.ready_sandbox(sandbox)?;
        let stream = crate::loopback::connect(sandbox.netns.as_deref(), port).await.map_err(EngineError::Invalid)?;
        Ok(Box::new(stream))
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), EngineError> {
        self.reopen_log(id).await
    }

    async fn writable_layer(&self, id: &str) -> Result<FsUsage, EngineError> {
        let (inner, id) = (Arc::clone(&self.inner), id.to_owned());
        blocking(move || {
            let rootfs = inner.snapshots.get(&id)?.ok_or_else(|| state::not_found("container", &id))?;
            measured(&rootfs.upper)
        })
        .await
    }

    async fn image_fs_usage(&self) -> Result<FsUsage, EngineError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || measured(inner.images.dir())).await
    }

    async fn checkpoint_container(&self, id: &str, path: &Path, timeout: Option<Duration>) -> Result<(), EngineError> {
        self.checkpoint(id, path, timeout).await
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
        Ok(self.inner.images.pull(image, auth).await?)
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, EngineError> {
        let (images, image) = (self.inner.images.clone(), image.to_owned());
        blocking(move || Ok(images.get(&image)?)).await
    }

    async fn image_config(&self, image: &str) -> Result<Option<serde_json::Value>, EngineError> {
        let (images, image) = (self.inner.images.clone(), image.to_owned());
        blocking(move || match images.config_document(&image) {
            Ok(document) => Ok(Some(document)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }

    async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        let images = self.inner.images.clone();
        blocking(move || Ok(images.list()?)).await
    }

    fn image_changes(&self) -> BoxStream<'static, ()> {
        self.inner.images.changes().unwrap_or_else(|error| {
            tracing::warn!(%error, "nobody will be told of images that come or go");
            futures::stream::empty().boxed()
        })
    }

    async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let (images, image) = (self.inner.images.clone(), image.to_owned());
        blocking(move || Ok(images.remove(&image)?)).await
    }
}
