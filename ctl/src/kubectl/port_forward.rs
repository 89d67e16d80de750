//! `port-forward`: local ports that lead to ports of a pod, over the API server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::api::{Api, Url};
use super::error::CliError;
use super::logs::pod_of;

/// How long a client that has said all may wait for the rest of the answer.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(300);
/// Pause after a connection could not be accepted (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `port-forward`
#[derive(Debug, Clone, Args)]
pub(crate) struct PortForwardArgs {
    /// POD or TYPE/NAME
    pub target: String,
    /// [LOCAL:]REMOTE; :REMOTE takes any free local port
    #[arg(required = true)]
    pub ports: Vec<String>,
    /// Where to listen: addresses or localhost, separated by commas
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    pub address: Vec<String>,
}

/// A local port (0: any) and the pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    local: u16,
    remote: u16,
}

/// Forwards until it is ended.
pub(crate) async fn run(args: PortForwardArgs, api: &Api) -> Result<(), CliError> {
    let (pod, _) = pod_of(api, &args.target).await?;
    let service = match args.target.split_once('/') {
        Some(("service" | "services" | "svc", name)) => Some(
            api.get(&Url::new(format!("/api/v1/namespaces/{}/services/{}", api.namespace, super::api::encode(name))))
                .await?,
        ),
        _ => None,
    };
    let forwards = args.ports.iter().map(|spec| forward(spec, &pod, service.as_ref()));
    let forwards = forwards.collect::<Result<Vec<_>, String>>().map_err(CliError::plain)?;
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    if phase != "Running" {
        return Err(CliError::plain(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut running = tokio::task::JoinSet::new();
    for forward in forwards {
        for listener in listen(&args.address, forward.local).await? {
            let local = listener.local_addr().map_err(|err| CliError::plain(err.to_string()))?;
            println!("Forwarding from {local} -> {}", forward.remote);
            running.spawn(accept(listener, api.client().clone(), api.namespace.clone(), name.clone(), forward.remote));
        }
    }
    while running.join_next().await.is_some() {}
    Ok(())
}

/// Listens on every address; of `localhost`, one of the two families is enough.
async fn listen(addresses: &[String], port: u16) -> Result<Vec<TcpListener>, CliError> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let both: Vec<IpAddr> = match address.as_str() {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            other => vec![other.parse().map_err(|_| CliError::plain(format!("{other} is not a valid IP")))?],
        };
        let mut failed = None;
        let before = listeners.len();
        for ip in both {
            // The second family takes the port that the first one has got.
            let taken = listeners.get(before).and_then(|first| first.local_addr().ok()).map(|own| own.port());
            match TcpListener::bind(SocketAddr::new(ip, taken.unwrap_or(port))).await {
                Ok(listener) => listeners.push(listener),
                Err(err) => failed = Some(format!("unable to listen on port {port}: {ip}: {err}")),
            }
        }
        if let Some(failed) = failed.filter(|_| listeners.len() == before) {
            return Err(CliError::plain(failed));
        }
    }
    Ok(listeners)
}

async fn accept(listener: TcpListener, client: kube::Client, namespace: String, pod: String, port: u16) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                println!("Handling connection for {}", listener.local_addr().map_or(port, |own| own.port()));
                let pods: kube::Api<Pod> = kube::Api::namespaced(client.clone(), &namespace);
                let pod = pod.clone();
                tokio::spawn(async move {
                    if let Err(text) = carry(stream, &pods, &pod, port).await {
                        eprintln!("error: an error occurred forwarding {port}: {text}");
                    }
                });
            }
            Err(err) => {
                eprintln!("error: failed to accept a connection: {err}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, on an upgraded connection of its own.
async fn carry(mut local: TcpStream, pods: &kube::Api<Pod>, pod: &str, port: u16) -> Result<(), String> {
    let mut forwarder = pods.portforward(pod, &[port]).await.map_err(|err| err.to_string())?;
    let remote = forwarder.take_stream(port).ok_or("the port is not forwarded")?;
    let failed = forwarder.take_error(port).ok_or("the port is not forwarded")?;
    let (mut from_local, mut to_local) = local.split();
    let (mut from_remote, mut to_remote) = tokio::io::split(remote);
    let outwards = async {
        // What ends the one direction must not end the other: a client may say all first and read later.
        let _ = copy(&mut from_local, &mut to_remote).await;
        tokio::time::sleep(HALF_CLOSED_MAX).await;
    };
    let inwards = async {
        let _ = copy(&mut from_remote, &mut to_local).await;
        let _ = to_local.shutdown().await;
    };
    let told = async {
        match failed.await {
            Some(text) => text,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        biased;
        text = told => Err(text),
        () = inwards => Ok(()),
        () = outwards => Ok(()),
    };
    forwarder.abort();
    outcome
}

/// Copies and flushes piece by piece, until the end of what is read.
async fn copy(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let mut chunk = vec![0; 32 * 1024];
    loop {
        let len = from.read(&mut chunk).await?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..len]).await?;
        to.flush().await?;
    }
}

/// Reads `[LOCAL:]REMOTE`. The remote port may be named; of a Service it is the Service's port.
fn forward(spec: &str, pod: &Value, service: Option<&Value>) -> Result<Forward, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (local, remote) = match parts[..] {
        [both] => (both, both),
        ["", remote] => ("0", remote),
        [local, remote] => (local, remote),
        _ => return Err(format!("invalid port format '{spec}'")),
    };
    let number = match service {
        Some(service) => of_service(service, pod, remote)?,
        None => of_pod(pod, remote)?,
    };
    let local = if local == remote && parts.len() == 1 {
        // A Service's own number is what users know.
        remote.parse().unwrap_or(number)
    } else {
        local.parse().map_err(|err| format!("error parsing local port '{local}': {err}"))?
    };
    Ok(Forward { local, remote: number })
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["/spec/containers", "/spec/initContainers"];
    lists.into_iter().flat_map(|list| pod.pointer(list).and_then(Value::as_array).into_iter().flatten())
}

fn of_pod(pod: &Value, port: &str) -> Result<u16, String> {
    if let Ok(number) = port.parse::<u16>() {
        return if number > 0 { Ok(number) } else { Err("remote port must be > 0".to_owned()) };
    }
    let ports = containers(pod).flat_map(|own| own["ports"].as_array().into_iter().flatten());
    let found = ports.into_iter().find(|own| own["name"] == port);
    let number = found.and_then(|own| own["containerPort"].as_u64()).and_then(|number| u16::try_from(number).ok());
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    number.ok_or_else(|| format!("Pod '{name}' does not have a named port '{port}'"))
}

fn of_service(service: &Value, pod: &Value, port: &str) -> Result<u16, String> {
    let name = service.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number: Option<u64> = port.parse().ok();
    let found = ports.iter().find(|own| match number {
        Some(number) => own["port"].as_u64() == Some(number),
        None => own["name"] == port,
    });
    let missing = || match number {
        Some(_) => format!("Service {name} does not have a service port {port}"),
        None => format!("Service '{name}' does not have a named port '{port}'"),
    };
    let found = found.ok_or_else(missing)?;
    let own = found["port"].to_string();
    // Without a virtual address there is nobody who would lead from one port to the other.
    if service.pointer("/spec/clusterIP").and_then(Value::as_str) == Some("None") {
        return of_pod(pod, &own);
    }
    match &found["targetPort"] {
        Value::String(name) => of_pod(pod, name),
        Value::Number(number) if number.as_u64() != Some(0) => of_pod(pod, &number.to_string()),
        _ => of_pod(pod, &own),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_numbers_names_and_those_of_services() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.9", "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 81, "targetPort": 9000}]}});
        let read =
            |spec: &str, service: Option<&Value>| forward(spec, &pod, service).map(|found| (found.local, found.remote));
        assert_eq!(read("5000", None), Ok((5000, 5000)));
        assert_eq!(read("5000:http", None), Ok((5000, 8080)));
        assert_eq!(read("http", None), Ok((8080, 8080)));
        assert_eq!(read(":8080", None), Ok((0, 8080)));
        assert_eq!(read("80", Some(&service)), Ok((80, 8080)));
        assert_eq!(read("5000:raw", Some(&service)), Ok((5000, 9000)));
        assert_eq!(read("1:2:3", None), Err("invalid port format '1:2:3'".to_owned()));
        assert_eq!(read("none", None), Err("Pod 'p' does not have a named port 'none'".to_owned()));
        assert_eq!(read("82", Some(&service)), Err("Service s does not have a service port 82".to_owned()));
        assert_eq!(read("0", None), Err("remote port must be > 0".to_owned()));
    }
}
