//! Any CRI runtime as an [`Engine`]: what `--container-runtime-endpoint` puts under the node agent.
//!
//! What the engine's terms say beyond CRI's lies with the runtime, as an annotation of each sandbox and container, and
//! what changes later in a folder of ours (`notes.rs`). A label says whose they are: several agents may share a
//! runtime, and what others have made there is none of theirs. What happens comes as the runtime's events, or by
//! listing where it has none (`follow.rs`). Pods' networks are the runtime's.

mod error;
mod follow;
mod notes;
mod objects;
mod verbs;
mod version;

use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use reeve_api::clock::SharedClock;
use reeve_engine::engine::{EngineError, EngineEvent, Features};
use reeve_proto::cri::image_service_client::ImageServiceClient;
use reeve_proto::cri::runtime_service_client::RuntimeServiceClient;
use reeve_proto::cri::{StatusRequest, StatusResponse, VersionRequest};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use notes::Notes;

/// Largest answer: the kubelet's number.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Events a subscriber may fall behind; then its stream ends.
const EVENTS_BEHIND_MAX: usize = 1024;
/// Calls at once for the parts of a list.
const CALLS_AT_ONCE: usize = 16;

/// Whose a sandbox or container is.
const OWNER: &str = "reeve.dev/owner";
/// What it is in the engine's terms.
const CONFIG: &str = "reeve.dev/config";

/// Where a runtime is, and how it is used.
#[derive(Debug, Clone)]
pub struct CriClientConfig {
    /// `unix:///run/containerd/containerd.sock`
    pub endpoint: String,
    /// Who uses it; a label's value. Nobody else on this runtime may have the same.
    pub owner: String,
    /// Group below which pods' groups lie: `reeve-dev`.
    pub cgroup_root: String,
    /// Where what changes after a creation is kept.
    pub dir: PathBuf,
    /// Time.
    pub clock: SharedClock,
}

/// Runs containers by a CRI runtime. Cheap to clone; all clones are one engine.
#[derive(Debug, Clone)]
pub struct CriEngine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channel: Channel,
    version: String,
    features: Features,
    config: CriClientConfig,
    notes: Notes,
    events: broadcast::Sender<EngineEvent>,
    /// Counts the changes of images that are known.
    images: watch::Sender<u64>,
    /// Ends what follows the runtime, with the last clone.
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl CriEngine {
    /// Connects to a runtime. When it is restarted later, calls fail until it is back.
    ///
    /// # Errors
    /// When it cannot be reached, does not speak CRI v1, or the folder cannot be used.
    pub async fn connect(config: CriClientConfig) -> Result<Self, EngineError> {
        let io = |step: String| move |source| EngineError::Io { step, source };
        let path = config.endpoint.strip_prefix("unix://").unwrap_or(&config.endpoint).to_owned();
        if !path.starts_with('/') {
            let endpoint = &config.endpoint;
            return Err(EngineError::Invalid(format!("runtime endpoint {endpoint:?} must be unix:// and a path")));
        }
        let notes = Notes::open(config.dir.clone()).map_err(io(format!("use {}", config.dir.display())))?;
        // The address is for the protocol's sake only.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
        }));
        let mut runtime = RuntimeServiceClient::new(channel.clone());
        let about = runtime.version(VersionRequest { version: String::new() }).await;
        let about = about.map_err(|status| error::of(&status, "ask for the version of", &config.endpoint))?;
        let about = about.into_inner();
        // One that does not say what it can is not asked for it.
        let features = runtime.status(StatusRequest { verbose: false }).await;
        let features = features.map(|answer| features_of(answer.into_inner())).unwrap_or_default();
        let engine = Self {
            inner: Arc::new(Inner {
                channel,
                version: format!("{}://{}", about.runtime_name, about.runtime_version),
                features,
                config,
                notes,
                events: broadcast::Sender::new(EVENTS_BEHIND_MAX),
                images: watch::Sender::new(0),
                stop: CancellationToken::new(),
            }),
        };
        follow::start(&engine);
        Ok(engine)
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.inner.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn image_service(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.inner.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// What a runtime says of the one kind of containers that we ask for.
fn features_of(status: StatusResponse) -> Features {
    let own = status.runtime_handlers.into_iter().find(|handler| handler.name.is_empty());
    let own = own.and_then(|handler| handler.features).unwrap_or_default();
    Features {
        user_namespaces: own.user_namespaces,
        recursive_read_only_mounts: own.recursive_read_only_mounts,
        supplemental_groups_policy: status.features.unwrap_or_default().supplemental_groups_policy,
    }
}
