//! A pod's own loopback: connections are made inside its network namespace.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::server::Backend;

/// How long a connection to a pod may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Where a pod listens.
#[derive(Debug)]
pub(super) struct Place {
    sandbox: String,
    /// `None` on the node's network.
    netns: Option<PathBuf>,
}

impl Place {
    /// The sandbox of a pod of this node; `None` when it has none.
    pub(super) async fn of(backend: &Backend, namespace: &str, pod: &str) -> Option<Self> {
        let id = backend.views.get(namespace, pod)?.borrow().sandbox.clone()?;
        let sandboxes = backend.node.engine.list_pod_sandboxes().await.ok()?;
        let found = sandboxes.into_iter().find(|sandbox| sandbox.id == id)?;
        Some(Self { sandbox: id, netns: found.netns })
    }

    #[cfg(test)]
    pub(super) fn test(netns: Option<PathBuf>) -> Self {
        Self { sandbox: "s1".to_owned(), netns }
    }

    /// Its id, for messages.
    pub(super) fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// Connects to a port on `localhost`, IPv4 first.
    pub(super) async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let v4 = match self.dial((Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => told("tcp4", (Ipv4Addr::LOCALHOST, port).into(), &error),
        };
        let v6 = match self.dial((Ipv6Addr::LOCALHOST, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => told("tcp6", (Ipv6Addr::LOCALHOST, port).into(), &error),
        };
        let inside = self.netns.as_deref().map_or_else(|| "host".into(), Path::to_string_lossy);
        Err(format!("failed to connect to localhost:{port} inside namespace {inside:?}, IPv4: {v4} IPv6 {v6} "))
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match &self.netns {
            None => socket(address)?,
            Some(netns) => socket_in(netns, address).await?,
        };
        let stream = timeout(CONNECT_TIME_MAX, socket.connect(address)).await;
        let stream = stream.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn told(network: &str, address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => format!("connect: {error}"),
    };
    format!("dial {network} {address}: {why}")
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// A socket stays in the namespace it was made in, so a short-lived thread makes it there.
async fn socket_in(netns: &Path, address: SocketAddr) -> io::Result<TcpSocket> {
    let inside = std::fs::File::open(netns)?;
    let (runtime, (sender, receiver)) = (tokio::runtime::Handle::current(), tokio::sync::oneshot::channel());
    let thread = move || {
        let _entered = runtime.enter();
        let entered = nix::sched::setns(&inside, nix::sched::CloneFlags::CLONE_NEWNET);
        // Without a receiver the client has gone.
        let _ = sender.send(entered.map_err(io::Error::from).and_then(|()| socket(address)));
    };
    std::thread::Builder::new().name("netns".to_owned()).spawn(thread)?;
    receiver.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
}
