//! Health check ports: where load balancers ask whether this node has endpoints of a Service.
//!
//! For Services with `externalTrafficPolicy: Local` and `spec.healthCheckNodePort`: 200 with endpoints on this node,
//! 503 without. Status, headers and body are kube-proxy's. Any request gets the answer; one per connection.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use reeve_client::ObjectKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::loopback::{Conflict, holder};
use super::plan::Protocol;

/// Questions answered at once, over all ports; further ones wait in the kernel's queue.
const ASKED_MAX: usize = 64;
/// How long one may take.
const CLIENT_WAIT: Duration = Duration::from_secs(5);
/// Longest question that is read; the rest of a longer one is not waited for.
const REQUEST_MAX: usize = 8 * 1024;

/// The health of one Service on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    /// Whose.
    pub service: ObjectKey,
    /// How many ready endpoints this node has.
    pub local: usize,
}

/// The ports that are answered on this node.
pub(crate) struct HealthPorts {
    held: BTreeMap<u16, (watch::Sender<Health>, DropGuard)>,
    places: Arc<Semaphore>,
}

impl HealthPorts {
    /// Answers nowhere yet.
    pub(crate) fn new() -> Self {
        Self { held: BTreeMap::new(), places: Arc::new(Semaphore::new(ASKED_MAX)) }
    }

    /// Answers on exactly these ports; returns those that others hold. Called again, it tries those again.
    pub(crate) fn sync(&mut self, wanted: BTreeMap<u16, Health>) -> Vec<Conflict> {
        self.held.retain(|port, _| wanted.contains_key(port));
        let mut conflicts = Vec::new();
        for (port, health) in wanted {
            if let Some((told, _)) = self.held.get(&port) {
                told.send_if_modified(|now| {
                    let changed = *now != health;
                    *now = health;
                    changed
                });
                continue;
            }
            match self.hold(port, health) {
                Ok(held) => drop(self.held.insert(port, held)),
                Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
                    let holder = holder(Protocol::Tcp, port).unwrap_or_else(|| "another program".to_owned());
                    conflicts.push(Conflict { protocol: Protocol::Tcp, port, holder });
                }
                Err(err) => warn!(port, %err, "cannot listen for health checks"),
            }
        }
        conflicts
    }

    fn hold(&self, port: u16, health: Health) -> io::Result<(watch::Sender<Health>, DropGuard)> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        listener.set_nonblocking(true)?;
        let (told, health) = watch::channel(health);
        let stop = CancellationToken::new();
        let serve = serve(TcpListener::from_std(listener)?, health, Arc::clone(&self.places));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve));
        Ok((told, stop.drop_guard()))
    }
}

async fn serve(listener: TcpListener, health: watch::Receiver<Health>, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                warn!(%err, "cannot accept a health check");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let health = health.clone();
        tokio::spawn(async move {
            match timeout(CLIENT_WAIT, converse(stream, &health)).await {
                Ok(Err(err)) => debug!(%err, "a health check broke off"),
                Err(_) => debug!("a health check took too long"),
                Ok(Ok(())) => {}
            }
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, health: &watch::Receiver<Health>) -> io::Result<()> {
    let mut request = Vec::with_capacity(512);
    while request.len() < REQUEST_MAX && !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let answer = answer(&health.borrow());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn answer(health: &Health) -> String {
    let Health { service, local } = health;
    let status = if *local > 0 { "200 OK" } else { "503 Service Unavailable" };
    let (namespace, name) = (&service.namespace, &service.name);
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
         \"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {local}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(port: u16) -> (String, serde_json::Value) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("asked");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answered");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        (head.lines().next().expect("a status").to_owned(), serde_json::from_str(body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_load_balancer_hears_whether_this_node_has_endpoints() {
        let free = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let health = |local| {
            let service = ObjectKey::new("shop", "web");
            BTreeMap::from([(port, Health { service, local })])
        };
        let mut ports = HealthPorts::new();
        assert_eq!(ports.sync(health(2)), []);
        let (status, body) = ask(port).await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert_eq!((&body["localEndpoints"], &body["service"]["name"]), (&2.into(), &"web".into()));
        assert_eq!(ports.sync(health(0)), []);
        assert_eq!(ask(port).await.0, "HTTP/1.1 503 Service Unavailable");
        let conflicts = HealthPorts::new().sync(health(1));
        assert!(conflicts[0].holder.contains(&format!("process {}", std::process::id())), "{conflicts:?}");
    }
}
