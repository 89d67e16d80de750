//! From a target to a connection, with reasons in Go's words.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::target::Target;
use crate::outbound::{Trust, told_io, told_tls};
use crate::proxy_node::Nodes;

/// How long a connection may take to come about, and a handshake; Go's numbers.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Both directions of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects; the text says why not.
pub(super) async fn connect(nodes: &Nodes, target: &Target) -> Result<Box<dyn Stream>, String> {
    match target {
        Target::Kubelet(node) => Ok(Box::new(nodes.dial(node).await?)),
        Target::Address { is_tls, ip, port } => {
            let default = if *is_tls { 443 } else { 80 };
            let number = if port.is_empty() { Some(default) } else { port.parse().ok() };
            let number = number.ok_or_else(|| format!("dial tcp: lookup tcp/{port}: unknown port"))?;
            let address = SocketAddr::new(*ip, number);
            let stream = tcp(address).await?;
            if *is_tls { Ok(Box::new(tls(address, stream).await?)) } else { Ok(Box::new(stream)) }
        }
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = match timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("dial tcp {address}: {}", told_io(&error))),
        Err(_) => return Err(format!("dial tcp {address}: i/o timeout")),
    };
    // A terminal's small writes must not wait for each other.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Nobody vouches for what runs in pods: any certificate will do, as in Kubernetes.
async fn tls(address: SocketAddr, stream: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let trust = Trust { insecure: true, ..Trust::default() };
    let connector = trust.connector(false).map_err(|error| error.to_string())?;
    match timeout(HANDSHAKE_TIME_MAX, connector.connect(ServerName::from(address.ip()), stream)).await {
        Ok(shaken) => shaken.map_err(|error| told_tls(&error)),
        Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
    }
}

/// Why an open connection brought no answer.
pub(super) fn told_http(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() {
        return "EOF".to_owned();
    }
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    match io {
        Some(io) if io.kind() == std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        Some(io) => io.to_string(),
        None if error.is_parse() => format!("net/http: HTTP/1.x transport connection broken: {error}"),
        None => error.to_string(),
    }
}
