//! The runtime's side: gRPC on a Unix socket, streams on a port of this machine.
//!
//! `runtime.rs` and `images.rs` are the two services, verb by verb; what a verb does is in the file of its subject.
//! All that this half knows beyond the engine lies in the engine's own records ([`crate::convert::RECORD`]), in the
//! network's, and in each sandbox's folder: it may die at any moment.

mod containers;
mod error;
mod events;
mod exec;
mod files;
mod images;
mod information;
mod metrics;
mod runtime;
mod sandboxes;
mod stats;
mod status;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use reeve_api::clock::SharedClock;
use reeve_engine::engine::{EngineEvent, SharedEngine};
use reeve_proto::cri::image_service_server::ImageServiceServer;
use reeve_proto::cri::runtime_service_server::RuntimeServiceServer;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::cni::{Cni, CniConfig};
use events::Events;
use stats::Seen;
use stream::Streams;

/// Connections at once; a kubelet has a few. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Calls at once on one connection.
const CALLS_MAX: u32 = 1024;
/// Largest request and answer: the kubelet's number.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Wait after the system could not accept a connection (no descriptors left): accepting at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long calls that are under way may take at the end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How a server is made.
pub struct CriConfig {
    /// What runs the containers.
    pub engine: SharedEngine,
    /// Where what this half keeps lies: the sandboxes' files.
    pub dir: PathBuf,
    /// Networks.
    pub cni: CniConfig,
    /// Folders of files that describe CDI devices.
    pub cdi_dirs: Vec<PathBuf>,
    /// Time.
    pub clock: SharedClock,
    /// Version of the runtime, as it is told.
    pub version: String,
}

impl std::fmt::Debug for CriConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CriConfig").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What all verbs share.
pub(crate) struct Shared {
    pub(crate) engine: SharedEngine,
    pub(crate) dir: PathBuf,
    pub(crate) cdi_dirs: Vec<PathBuf>,
    pub(crate) cni: Cni,
    pub(crate) clock: SharedClock,
    pub(crate) version: String,
    pub(crate) events: Events,
    pub(crate) streams: Streams,
    pub(crate) seen: Seen,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// Now, in CRI's time.
    pub(crate) fn now(&self) -> i64 {
        crate::convert::nanoseconds(self.clock.now())
    }
}

/// Serves CRI until [`CriServer::stop`].
pub struct CriServer {
    shared: Arc<Shared>,
    routes: Routes,
    tasks: TaskTracker,
}

impl std::fmt::Debug for CriServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CriServer").finish_non_exhaustive()
    }
}

impl CriServer {
    /// A server that listens nowhere yet; `streams` is where clients of exec, attach and port forwarding connect.
    /// Sandboxes whose making was cut off by the death of an earlier life are taken away first.
    ///
    /// # Errors
    /// When a folder or the listener cannot be used.
    pub async fn new(config: CriConfig, streams: std::net::TcpListener) -> io::Result<Self> {
        let CriConfig { engine, dir, cni, cdi_dirs, clock, version } = config;
        std::fs::create_dir_all(&dir)?;
        streams.set_nonblocking(true)?;
        let address = streams.local_addr()?;
        let shared = Arc::new(Shared {
            engine,
            dir,
            cdi_dirs,
            cni: Cni::new(cni)?,
            events: Events::new(),
            streams: Streams::new(address, Arc::clone(&clock)),
            seen: Seen::default(),
            stop: CancellationToken::new(),
            clock,
            version,
        });
        shared.take_up().await;
        let images = ImageServiceServer::new(images::Images(Arc::clone(&shared)));
        let runtime = RuntimeServiceServer::new(runtime::Runtime(Arc::clone(&shared)));
        let images = images.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let runtime = runtime.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let routes = Routes::new(runtime).add_service(images).prepare();
        let server = Self { shared, routes, tasks: TaskTracker::new() };
        server.follow_engine();
        let serving = stream::serve(TcpListener::from_std(streams)?, Arc::clone(&server.shared), server.tasks.clone());
        server.spawn(serving);
        Ok(server)
    }

    /// Where clients of exec, attach and port forwarding connect.
    #[must_use]
    pub fn stream_address(&self) -> std::net::SocketAddr {
        self.shared.streams.address()
    }

    /// Serves on a socket that is already bound.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn serve(&self, listener: std::os::unix::net::UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        self.spawn(accept(listener, self.routes.clone(), self.tasks.clone()));
        Ok(())
    }

    /// Accepts nothing more and ends all connections, after a moment for what is under way. Containers run on.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await;
    }

    /// Removes all sandboxes, with what was made of their networks.
    ///
    /// # Errors
    /// Of the first that cannot be removed; the others stay, too.
    pub async fn remove_all(&self) -> Result<(), tonic::Status> {
        for own in self.shared.list_sandboxes(None).await? {
            self.shared.remove_pod_sandbox(&own.id).await?;
        }
        Ok(())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.shared.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Passes on what happens to containers.
    fn follow_engine(&self) {
        let shared = Arc::clone(&self.shared);
        // Now, not when the task first runs: nothing of what a first call does may be missed.
        let mut events = shared.engine.events();
        self.spawn(async move {
            loop {
                while let Some(EngineEvent { container, .. }) = events.next().await {
                    shared.on_container(&container).await;
                }
                // Fell behind; who follows us is told so by the end of its own stream.
                events = shared.engine.events();
                shared.events.break_off();
            }
        });
    }
}

impl Drop for CriServer {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn accept(listener: UnixListener, routes: Routes, tasks: TaskTracker) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let ended = CancellationToken::new();
    let _ends = ended.clone().drop_guard();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the CRI socket could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (routes, ended) = (routes.clone(), ended.clone());
        tasks.spawn(async move {
            if let Err(error) = speak(stream, routes, ended).await {
                tracing::debug!(%error, "a connection to the CRI socket has ended");
            }
            drop(permit);
        });
    }
}

/// One connection; told to end, it answers what it has heard.
async fn speak(stream: UnixStream, routes: Routes, ended: CancellationToken) -> Result<(), hyper::Error> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(CALLS_MAX);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        () = ended.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    serving.await
}

/// Binds the socket for root alone, in the place of one that nobody serves any more.
///
/// # Errors
/// When somebody serves it, or the folder cannot be used.
pub fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket"));
    }
    // Bound beside and then renamed: under its own name nobody finds it with other rights than its last.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_socket_is_roots_alone_and_taken_over_only_when_nobody_serves_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/engine.sock");
        let first = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&path).unwrap();
    }
}
