//! `reeve engine`: the container engine without a cluster, for `crictl` and stock kubelets, in the foreground, as
//! systemd likes it.
//!
//! It may end and start again at any moment: containers run on under the supervisor, and the next one of the same data
//! folder takes them over. What it serves is in `reeve-cri`; here are the flags, the folders and the process's life.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nix::fcntl::{Flock, FlockArg};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_cri::cni::CniConfig;
use reeve_cri::server::{CriConfig, CriServer, bind};
use reeve_engine::builtin::{BuiltinEngine, EngineConfig};
use reeve_engine::images::StoreOptions;
use reeve_engine::runtime::{cdi, hooks};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::server::notify;
use crate::cluster::{ClusterError, avoid_huge_pages};

/// Where run folders lie: sockets, namespaces, FIFOs. Short, because a socket's path may have 107 bytes.
const RUN_DIR: &str = "/run/reeve-engine";
/// What an engine's data folder holds, and nobody else's.
const OWN: [&str; 4] = ["cri", "engine", "images", LOCK];
const LOCK: &str = "engine.lock";

/// `reeve engine`
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArgs {
    /// The socket to serve CRI v1 on
    #[arg(long, value_name = "unix://PATH", default_value = "unix:///run/reeve/engine.sock")]
    pub listen: String,
    /// Where images, records and containers' files lie
    #[arg(long, value_name = "DIR", default_value = "/var/lib/reeve-engine")]
    pub data_dir: PathBuf,
    /// Where network configurations lie
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Where CNI plugins lie; may be repeated
    #[arg(long = "cni-bin-dir", value_name = "DIR", default_values = ["/opt/cni/bin", "/usr/lib/cni"])]
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where clients of exec, attach and port forwarding connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub stream_address: SocketAddr,
    /// The file that says where images of a registry come from [default: as for clusters]
    #[arg(long, value_name = "FILE")]
    pub registries: Option<PathBuf>,
    /// Instead of serving, end all containers and remove everything of this engine, images included
    #[arg(long)]
    pub purge: bool,
}

/// Runs the verb to its end.
pub(crate) fn run(args: &EngineArgs) -> Result<(), ClusterError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ClusterError::NotRoot { verb: "engine" });
    }
    let socket = socket_path(&args.listen)?;
    avoid_huge_pages();
    crate::logging::init();
    let place = Place::open(&args.data_dir)?;
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("reeve")
        .enable_all()
        .build()
        .map_err(|err| ClusterError::io("start the runtime", err))?;
    let outcome = runtime
        .block_on(async { if args.purge { purge(args, &place).await } else { live(args, &place, &socket).await } });
    runtime.shutdown_background();
    outcome
}

/// `unix:///run/x.sock`, or the path alone.
fn socket_path(listen: &str) -> Result<PathBuf, ClusterError> {
    let path = PathBuf::from(listen.strip_prefix("unix://").unwrap_or(listen));
    if path.is_absolute() {
        return Ok(path);
    }
    let rule = "unix:// and an absolute path".to_owned();
    Err(ClusterError::Invalid { what: "--listen", value: listen.to_owned(), rule })
}

/// An engine's folders, held against other engines.
struct Place {
    data_dir: PathBuf,
    /// What tells this engine from others of the machine.
    name: String,
    _lock: Flock<File>,
}

impl Place {
    fn open(data_dir: &Path) -> Result<Self, ClusterError> {
        let at = |step: &str, path: &Path| format!("{step} {}", path.display());
        std::fs::create_dir_all(data_dir).map_err(|err| ClusterError::io(at("make", data_dir), err))?;
        let data_dir = data_dir.canonicalize().map_err(|err| ClusterError::io(at("look at", data_dir), err))?;
        let path = data_dir.join(LOCK);
        let file = File::create(&path).map_err(|err| ClusterError::io(at("open", &path), err))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, err)| match err {
            nix::errno::Errno::EWOULDBLOCK => {
                ClusterError::Told(format!("another reeve engine uses {}", data_dir.display()))
            }
            err => ClusterError::io(at("lock", &path), err),
        })?;
        let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        let name = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { data_dir, name, _lock: lock })
    }

    fn run_dir(&self) -> PathBuf {
        Path::new(RUN_DIR).join(&self.name)
    }

    fn engine_config(&self) -> EngineConfig {
        EngineConfig {
            data_dir: self.data_dir.clone(),
            run_dir: self.run_dir(),
            cgroup_root: format!("reeve-engine-{}", self.name),
            supervisor_program: "/proc/self/exe".into(),
            ends_with_engine: false,
            hook_dirs: hooks::DIRS.map(PathBuf::from).to_vec(),
            clock: RealClock::shared(),
            rng: SeededRng::shared(),
        }
    }

    async fn open_engine(&self, args: &EngineArgs) -> Result<BuiltinEngine, ClusterError> {
        let mut options = StoreOptions::default();
        if let Some(registries) = &args.registries {
            options.registries.clone_from(registries);
        }
        let engine = BuiltinEngine::open_with(self.engine_config(), options).await;
        engine.map_err(|err| ClusterError::component("container engine", err))
    }

    async fn server(&self, args: &EngineArgs, engine: BuiltinEngine) -> Result<CriServer, ClusterError> {
        let dir = self.data_dir.join("cri");
        let config = CriConfig {
            engine: Arc::new(engine),
            cdi_dirs: cdi::DIRS.map(PathBuf::from).to_vec(),
            cni: CniConfig {
                conf_dir: args.cni_conf_dir.clone(),
                bin_dirs: args.cni_bin_dirs.clone(),
                record_dir: dir.join("networks"),
            },
            dir,
            clock: RealClock::shared(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let address = args.stream_address;
        let streams =
            TcpListener::bind(address).map_err(|err| ClusterError::io(format!("listen on {address}"), err))?;
        CriServer::new(config, streams).await.map_err(|err| ClusterError::component("CRI server", err))
    }
}

async fn live(args: &EngineArgs, place: &Place, socket: &Path) -> Result<(), ClusterError> {
    let failed = |err| ClusterError::io("wait for signals", err);
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let listener = bind(socket).map_err(|err| ClusterError::io(format!("listen on {}", socket.display()), err))?;
    let server = place.server(args, place.open_engine(args).await?).await?;
    server.serve(listener).map_err(|err| ClusterError::io("serve", err))?;
    tracing::info!(socket = %socket.display(), streams = %server.stream_address(), "serving CRI v1");
    notify::ready();
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    notify::stopping();
    server.stop().await;
    remove(socket)
}

/// Networks first: their plugins need the namespaces.
async fn purge(args: &EngineArgs, place: &Place) -> Result<(), ClusterError> {
    let engine = place.open_engine(args).await?;
    let server = place.server(args, engine.clone()).await?;
    server.remove_all().await.map_err(|err| ClusterError::component("CRI server", err.message().to_owned()))?;
    server.stop().await;
    engine.purge().await.map_err(|err| ClusterError::component("container engine", err))?;
    for name in OWN {
        remove(&place.data_dir.join(name))?;
    }
    remove(&place.run_dir())
}

/// Removes a file or folder; what is gone is fine.
fn remove(path: &Path) -> Result<(), ClusterError> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(ClusterError::io(format!("remove {}", path.display()), err))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_an_absolute_path_with_or_without_its_scheme() {
        let path = |listen| socket_path(listen).map_err(|err| err.to_string());
        assert_eq!(path("unix:///run/x.sock"), Ok("/run/x.sock".into()));
        assert_eq!(path("/run/x.sock"), Ok("/run/x.sock".into()));
        assert!(path("unix://x.sock").is_err() && path("tcp://127.0.0.1:1").is_err());
    }

    #[test]
    fn two_engines_never_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::open(dir.path()).unwrap();
        let second = Place::open(&dir.path().join(".")).err().expect("refused").to_string();
        assert!(second.contains("another reeve engine uses"), "{second}");
        let name = first.name.clone();
        drop(first);
        assert_eq!(Place::open(dir.path()).unwrap().name, name, "a later life finds its supervisor");
    }
}
