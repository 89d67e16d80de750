//! Startup, liveness and readiness probes: one task per probe of a running container.

pub(crate) mod exec;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod thresholds;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reeve_client::EventType;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::pod::actor::Input;
use crate::pod::context::{NodeContext, about_container};
use crate::pod::state::probe;
use thresholds::{Thresholds, Verdict};

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// The word in the kubelet's events: `Liveness probe failed: …`.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one probe of a container found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The container answered, and the answer was no; with its words.
    Failure(String),
    /// The question could not be put.
    Unknown(String),
}

/// A running container that is probed.
#[derive(Clone)]
pub(crate) struct ProbeTarget {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Arc<Container>,
    pub(crate) container_id: String,
    pub(crate) slot: usize,
    pub(crate) pod_ip: Option<IpAddr>,
}

/// Probes until `stop`; changes of mind come back as [`Input::Probe`].
pub(crate) fn start(target: ProbeTarget, kind: ProbeKind, inputs: mpsc::Sender<Input>, stop: CancellationToken) {
    let node = Arc::clone(&target.node);
    node.component.spawn("probe", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work(&target, kind, &inputs) => {}
        }
    });
}

async fn work(target: &ProbeTarget, kind: ProbeKind, inputs: &mpsc::Sender<Input>) {
    let Some(probe) = probe(&target.container, kind) else { return };
    let seconds =
        |value: Option<i32>, default: u64| u64::try_from(value.unwrap_or(0)).ok().filter(|s| *s > 0).unwrap_or(default);
    let delay = Duration::from_secs(seconds(probe.initial_delay_seconds, 0));
    let period = Duration::from_secs(seconds(probe.period_seconds, 10));
    let limit = Duration::from_secs(seconds(probe.timeout_seconds, 1));
    let mut thresholds = Thresholds::of(probe);
    let mut ticks = tokio::time::interval_at(Instant::now() + delay, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let outcome = once(target, probe, limit).await;
        target.node.probes.count(&target.pod, &target.container.name, kind, &outcome, began.elapsed());
        tell(target, kind, &outcome);
        let healthy = match thresholds.on(&outcome) {
            None => continue,
            Some(Verdict::Healthy) => true,
            Some(Verdict::Unhealthy) => false,
        };
        let container = target.container_id.clone();
        let input = Input::Probe { slot: target.slot, container, kind, healthy };
        if inputs.send(input).await.is_err() || is_last_word(kind, healthy) {
            return;
        }
    }
}

/// Whether this life of the container is not asked again: it has started, or it will be killed.
/// Source: kubelet `prober/worker.go`, which puts a failed liveness or startup probe on hold until the next life.
fn is_last_word(kind: ProbeKind, healthy: bool) -> bool {
    match kind {
        ProbeKind::Startup => true,
        ProbeKind::Liveness => !healthy,
        ProbeKind::Readiness => false,
    }
}

fn tell(target: &ProbeTarget, kind: ProbeKind, outcome: &Outcome) {
    let message = match outcome {
        Outcome::Success => return,
        Outcome::Failure(output) => format!("{} probe failed: {output}", kind.title()),
        Outcome::Unknown(error) => format!("{} probe errored and resulted in unknown state: {error}", kind.title()),
    };
    let about = about_container(&target.pod, &target.container.name);
    target.node.events.record(&about, EventType::Warning, "Unhealthy", message);
}

async fn once(target: &ProbeTarget, probe: &Probe, limit: Duration) -> Outcome {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return exec::probe(&target.node.engine, &target.container_id, &command, limit).await;
    }
    if let Some(get) = &probe.http_get {
        return match http::HttpTarget::of(get, &target.container, target.pod_ip) {
            Ok(request) => http::probe(&request, limit).await,
            Err(error) => Outcome::Unknown(error.to_string()),
        };
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.clone().filter(|host| !host.is_empty());
        let host = host.or_else(|| target.pod_ip.map(|ip| ip.to_string())).unwrap_or_default();
        return match port(&socket.port, &target.container) {
            Ok(port) => tcp(&host, port, limit).await,
            Err(error) => Outcome::Unknown(error.to_string()),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        return match (target.pod_ip, port(&IntOrString::Int(action.port), &target.container)) {
            (Some(ip), Ok(port)) => grpc::probe(ip, port, service, limit).await,
            (None, _) => Outcome::Unknown("the pod has no address".to_owned()),
            (_, Err(error)) => Outcome::Unknown(error.to_string()),
        };
    }
    Outcome::Unknown("missing probe handler for this container".to_owned())
}

async fn tcp(host: &str, port: u16, limit: Duration) -> Outcome {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match timeout(limit, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {address}: {}", dial_error(&error))),
        Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// A connection error in Go's words, as they stand in kubelet events.
pub(crate) fn dial_error(error: &std::io::Error) -> String {
    let text = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0));
    match error.raw_os_error() {
        Some(_) => format!("connect: {}", lower_first(text.desc())),
        None => error.to_string(),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().collect::<String>() + chars.as_str())
}

/// A port that cannot be asked. The pod's fault; the texts are Go's, as they stand in kubelet events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    #[error("strconv.Atoi: parsing \"{0}\": invalid syntax")]
    Name(String),
    #[error("invalid port number: {0}")]
    Number(i32),
}

/// A port's number; names are those of the container's ports. Source: Kubernetes `probe.ResolveContainerPort`.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, PortError> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| PortError::Name(name.clone()))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or(PortError::Number(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_ports_are_those_of_the_container() {
        let container: Container = serde_json::from_value(
            serde_json::json!({ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }),
        )
        .unwrap();
        let of = |text: &str| port(&IntOrString::String(text.to_owned()), &container).map_err(|err| err.to_string());
        let unknown = "strconv.Atoi: parsing \"x\": invalid syntax".to_owned();
        assert_eq!((of("http"), of("81"), of("x")), (Ok(8080), Ok(81), Err(unknown)));
        assert_eq!(port(&IntOrString::Int(0), &container), Err(PortError::Number(0)));
    }

    #[test]
    fn a_container_that_will_be_killed_is_not_asked_again() {
        for (kind, healthy, last) in [
            (ProbeKind::Startup, true, true),
            (ProbeKind::Startup, false, true),
            (ProbeKind::Liveness, true, false),
            (ProbeKind::Liveness, false, true),
            (ProbeKind::Readiness, true, false),
            (ProbeKind::Readiness, false, false),
        ] {
            assert_eq!(is_last_word(kind, healthy), last, "{kind:?} {healthy}");
        }
    }

    #[tokio::test]
    async fn a_tcp_probe_says_what_the_kernel_said() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().port();
        assert_eq!(tcp("127.0.0.1", open, Duration::from_secs(1)).await, Outcome::Success);
        drop(listener);
        let refused = tcp("127.0.0.1", open, Duration::from_secs(1)).await;
        assert_eq!(refused, Outcome::Failure(format!("dial tcp 127.0.0.1:{open}: connect: connection refused")));
    }
}
