//! The process that a cluster is: sockets, components, readiness, signals, end.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::UpArgs;
use super::components::{self, Running, Surroundings};
use super::config::{self, ClusterConfig, Paths};
use super::error::{ClusterError, at};
use super::kubeconfig::{self, Entry};
use super::state::{ClusterLock, MainLock, Process, RunState};
use super::up::{FAILED_PREFIX, READY_LINE};
use super::{files, identity, machine, memory, netns};

/// How long the node may take to become ready before `up` gives up.
const READY_WAIT: Duration = Duration::from_secs(60);

/// How the process was asked to end.
enum End {
    /// Stop; containers go on.
    Stop,
    /// Ctrl-C in the foreground: the whole cluster goes down.
    Down,
}

/// The background process of `reeve up`: says on standard output whether it is ready, once.
pub(crate) fn run_child(args: &UpArgs) -> Result<(), ClusterError> {
    // An own session: the terminal's signals do not reach it.
    nix::unistd::setsid().map_err(|err| ClusterError::io("leave the terminal", err))?;
    let paths = super::up::paths_of(args)?;
    let outcome = match config::load(&paths)? {
        Some(config) => become_main(&paths).and_then(|main| {
            let_go_of_cluster_lock()?;
            run(&paths, &config, main, &mut || tell(READY_LINE)).map(drop)
        }),
        None => Err(ClusterError::NoCluster { name: args.name.clone(), hint: String::new() }),
    };
    if let Err(err) = &outcome {
        tell(&format!("{FAILED_PREFIX}{err}"));
    }
    outcome
}

/// From now on `up` and `down` find this process.
fn become_main(paths: &Paths) -> Result<MainLock, ClusterError> {
    let main = MainLock::take(&paths.run_dir)?;
    main.ok_or_else(|| ClusterError::component("cluster", "another process of it runs already"))
}

/// The launcher's lock came as standard input: had the launcher been killed before this process could be found,
/// another `up` or `down` would still have waited.
fn let_go_of_cluster_lock() -> Result<(), ClusterError> {
    let null = std::fs::File::open("/dev/null").map_err(|err| ClusterError::io("open /dev/null", err))?;
    rustix::stdio::dup2_stdin(null).map_err(|err| ClusterError::io("close standard input", err))
}

/// One line to the launcher. It may be gone: then nobody minds.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// `reeve up --foreground`: the same in the terminal; Ctrl-C brings the cluster down.
pub(crate) fn run_foreground(
    args: &UpArgs,
    paths: &Paths,
    config: &ClusterConfig,
    lock: ClusterLock,
) -> Result<(), ClusterError> {
    let mut lock = Some(lock);
    let mut ready = || {
        if let Err(err) = super::up::finish(args, paths) {
            let _ = writeln!(std::io::stderr(), "error: {err}");
        }
        // A reader that has gone away is no reason to fail.
        let _ = writeln!(std::io::stdout(), "Cluster {:?} is up; Ctrl-C brings it down.", config.name);
        // From here on others may look at the cluster.
        drop(lock.take());
    };
    if let End::Down = run(paths, config, become_main(paths)?, &mut ready)? {
        super::down::stop_in_child(paths, config)?;
    }
    Ok(())
}

/// Everything from the sockets to the end. `ready` is called once, when the node is ready.
fn run(paths: &Paths, config: &ClusterConfig, _main: MainLock, ready: &mut dyn FnMut()) -> Result<End, ClusterError> {
    memory::avoid_huge_pages();
    crate::logging::init();
    // The first listener stays in the network namespace that the process came from.
    let mut api_listeners = vec![listen(Ipv4Addr::LOCALHOST, config.api_port)?];
    if config.netns {
        netns::enter(&paths.run_dir)?;
    }
    let machines = machine::node_address().filter(|address| !config.netns && *address != config.own_node_address());
    let node_ip = machines.unwrap_or(config.own_node_address());
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("reeve")
        .enable_all()
        .build()
        .map_err(|err| ClusterError::io("start the runtime", err))?;
    runtime.block_on(async {
        if machines.is_none() {
            netns::prepare(node_ip).await?;
        }
        if config.netns {
            api_listeners.push(listen(Ipv4Addr::LOCALHOST, config.api_port)?);
        }
        api_listeners.push(listen(node_ip, config.api_port)?);
        let surroundings = Surroundings {
            paths: paths.clone(),
            config: config.clone(),
            node_name: machine::node_name(),
            node_ip,
            api_listeners,
            kubelet_listener: listen(Ipv4Addr::UNSPECIFIED, config.kubelet_port)?,
            clock: RealClock::shared(),
            rng: SeededRng::shared(),
        };
        run_components(surroundings, ready).await
    })
}

fn listen(address: Ipv4Addr, port: u16) -> Result<TcpListener, ClusterError> {
    let address = SocketAddr::from((address, port));
    TcpListener::bind(address).map_err(|err| ClusterError::io(format!("listen on {address}"), err))
}

async fn run_components(own: Surroundings, ready: &mut dyn FnMut()) -> Result<End, ClusterError> {
    let failed = |err| ClusterError::io("wait for signals", err);
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (paths, config, node) = (own.paths.clone(), own.config.clone(), own.node_name.clone());
    let node_ip = IpAddr::V4(own.node_ip);
    let began = own.clock.now();
    let mut running = components::start(own).await?;
    write_kubeconfig(&paths, &config, &running)?;
    let process = Process::own().ok_or_else(|| ClusterError::component("run state", "/proc is not readable"))?;
    RunState {
        process,
        data_dir: paths.data_dir.clone(),
        config: config.clone(),
        node_ip,
        ending: false,
        stopped: false,
    }
    .save(&paths.run_dir)?;
    ensure_dns_service(running.client(identity::admin()), config.dns_address()).await?;
    tokio::select! {
        outcome = tokio::time::timeout(READY_WAIT, all_ready(&running, &node, began)) => match outcome {
            Ok(outcome) => outcome?,
            Err(_) => return Err(not_ready(running, &node).await),
        },
        end = asked_to_end(&mut term, &mut interrupt) => {
            running.stop().await;
            return Ok(end);
        }
    }
    ready();
    let outcome = tokio::select! {
        err = running.failed() => Err(err),
        end = asked_to_end(&mut term, &mut interrupt) => Ok(end),
    };
    running.stop().await;
    outcome
}

async fn asked_to_end(term: &mut Signal, interrupt: &mut Signal) -> End {
    tokio::select! {
        _ = term.recv() => End::Stop,
        _ = interrupt.recv() => End::Down,
    }
}

fn write_kubeconfig(paths: &Paths, config: &ClusterConfig, running: &Running) -> Result<(), ClusterError> {
    let admin = running.pki.admin();
    let entry = Entry {
        name: format!("reeve-{}", config.name),
        server: format!("https://127.0.0.1:{}", config.api_port),
        ca_pem: running.pki.ca_pem().to_owned(),
        cert_pem: admin.cert_pem.clone(),
        key_pem: admin.key_pem.clone(),
    };
    let path = paths.kubeconfig();
    let text = kubeconfig::standalone(&entry)?;
    files::replace(&path, text.as_bytes(), 0o600).map_err(|err| ClusterError::io(at("write", &path), err))
}

/// The Service that tells people and programs where the cluster DNS is. The proxy answers on its address itself.
pub(super) async fn ensure_dns_service(admin: kube::Client, address: Ipv4Addr) -> Result<(), ClusterError> {
    let made = make_dns_service(admin, address).await;
    made.map_err(|err| ClusterError::component("cluster DNS", err))
}

/// Makes the Service, if there is none.
pub(super) async fn make_dns_service(admin: kube::Client, address: Ipv4Addr) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(admin, "kube-system");
    if services.get_opt("kube-dns").await?.is_some() {
        return Ok(());
    }
    let port = |name: &str, protocol: &str| serde_json::json!({"name": name, "port": 53, "protocol": protocol});
    let service = serde_json::json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {"clusterIP": address, "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]},
    });
    let service: Service = serde_json::from_value(service).map_err(kube::Error::SerdeError)?;
    match services.create(&PostParams::default(), &service).await {
        // Another server was faster.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        created => created.map(drop),
    }
}

/// Why the node is not ready, in its own words.
async fn not_ready(running: Running, name: &str) -> ClusterError {
    let node = Api::<Node>::all(running.client(identity::admin())).get(name).await;
    let conditions = node.ok().and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    let message = ready.and_then(|ready| ready.message).unwrap_or_else(|| "it has said nothing".to_owned());
    running.stop().await;
    ClusterError::component("node", format!("not ready after {READY_WAIT:?}: {message}"))
}

/// Returns when whoever asks, the next `up` included, finds both API server and node ready.
async fn all_ready(running: &Running, node: &str, since: Timestamp) -> Result<(), ClusterError> {
    node_ready(running, node, since).await?;
    running.roles_made().await;
    Ok(())
}

/// Returns when the node says it is ready, in this life: what it said before the last death does not count, so its
/// heartbeat must be younger than `since`.
async fn node_ready(running: &Running, name: &str, since: Timestamp) -> Result<(), ClusterError> {
    let client = running.client(identity::admin());
    let selected = || watcher::Config::default().fields(&format!("metadata.name={name}"));
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let mut beats = watcher(leases, selected()).default_backoff().applied_objects().boxed();
    let young = |lease: &Lease| {
        lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).is_some_and(|time| time.0 >= since)
    };
    loop {
        match beats.next().await {
            Some(Ok(lease)) if young(&lease) => break,
            Some(_) => {}
            None => return Err(ClusterError::component("node", "the watch of its heartbeat ended")),
        }
    }
    let mut changes = watcher(Api::<Node>::all(client), selected()).default_backoff().applied_objects().boxed();
    while let Some(node) = changes.next().await {
        let Ok(node) = node else { continue };
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|own| own.type_ == "Ready" && own.status == "True") {
            return Ok(());
        }
    }
    Err(ClusterError::component("node", "its watch ended"))
}
