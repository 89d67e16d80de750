//! The DNS server's sockets: UDP and TCP on the cluster DNS address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reeve_api::rng::SharedRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::answer::{Transport, Verdict, Zone, failure};
use super::forward::Forwarder;
use super::wire;
use super::zone::Records;

/// TCP connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long a TCP client may stay silent.
const CLIENT_WAIT: Duration = Duration::from_secs(10);
/// Largest query taken.
const QUERY_MAX: usize = 4096;
/// Queries of one TCP connection that are worked on at once (RFC 7766, section 6.2.1.1); further ones are not read.
const PIPELINED_MAX: usize = 16;

/// Where the server listens and what it answers for.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// The cluster DNS address; it must be an address of this node.
    pub address: Ipv4Addr,
    /// Port, 53 but in tests.
    pub port: u16,
    /// The cluster domain, `cluster.local`.
    pub domain: String,
    /// Servers for names that are not the cluster's.
    pub upstreams: Vec<SocketAddr>,
}

/// Why the server could not be started: the address is not there or the port is taken.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen for DNS on {address}: {source}")]
pub struct DnsError {
    /// Where.
    pub address: SocketAddr,
    /// The operating system's words.
    #[source]
    pub source: io::Error,
}

/// A bound DNS server.
pub struct DnsServer {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    records: Arc<dyn Records>,
    domain: String,
    address: Ipv4Addr,
    forwarder: Forwarder,
}

impl DnsServer {
    /// Binds both sockets.
    ///
    /// # Errors
    /// When the address is not one of this node's or the port is taken.
    pub async fn bind(config: DnsConfig, records: Arc<dyn Records>, rng: SharedRng) -> Result<Self, DnsError> {
        let address = SocketAddr::from((config.address, config.port));
        let failed = |source| DnsError { address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let local = udp.local_addr().map_err(failed)?;
        let tcp = TcpListener::bind(local).await.map_err(failed)?;
        let forwarder = Forwarder::new(config.upstreams, rng);
        let shared = Shared { records, domain: config.domain, address: config.address, forwarder };
        Ok(Self { udp: Arc::new(udp), tcp, shared: Arc::new(shared) })
    }

    /// Where the server listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        let udp = serve_udp(Arc::clone(&self.udp), Arc::clone(&self.shared));
        let tcp = serve_tcp(self.tcp, Arc::clone(&self.shared), shutdown.clone());
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = udp => {}
            () = tcp => {}
        }
    }
}

impl Shared {
    fn decide(&self, packet: &[u8], transport: Transport) -> Verdict {
        Zone { records: &*self.records, domain: &self.domain, address: self.address }.decide(packet, transport)
    }

    /// What is sent back, maybe after others were asked.
    async fn answer(&self, verdict: Verdict, transport: Transport) -> Option<Vec<u8>> {
        match verdict {
            Verdict::Answer(answer) => Some(answer),
            Verdict::Ignore => None,
            Verdict::Forward(query) => {
                let failed = failure(&query, transport);
                self.forwarder.ask(*query, transport).await.or(failed)
            }
            Verdict::Follow(alias) => {
                let mut upstream = self.forwarder.ask(alias.question(), Transport::Udp).await;
                if upstream.as_deref().is_some_and(wire::is_truncated) {
                    upstream = self.forwarder.ask(alias.question(), Transport::Tcp).await.or(upstream);
                }
                alias.answer(upstream.as_deref(), transport)
            }
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; QUERY_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // ICMP errors of earlier answers come back here; they concern nobody.
            Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(err) => {
                warn!(%err, "DNS over UDP failed to receive");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match shared.decide(&buffer[..length], Transport::Udp) {
            Verdict::Answer(answer) => drop(socket.send_to(&answer, client).await),
            Verdict::Ignore => {}
            elsewhere => {
                let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
                // Bounded by the forwarder: beyond its limit the task ends at once.
                tokio::spawn(async move {
                    if let Some(answer) = shared.answer(elsewhere, Transport::Udp).await {
                        drop(socket.send_to(&answer, client).await);
                    }
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                warn!(%err, "DNS over TCP failed to accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                // A client that breaks off is no error of ours.
                _ = converse(stream, shared) => {}
            }
            drop(place);
        });
    }
}

/// Answers the queries of one connection, each as soon as it can be: a client may send the next before it has the
/// answer to the last (RFC 7766, section 6.2.1.1).
async fn converse(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    // Full when the client does not read: then its queries wait too.
    let (answers, outgoing) = mpsc::channel(PIPELINED_MAX);
    let (read, written) = tokio::join!(read_queries(reader, shared, answers), write_answers(writer, outgoing));
    read.and(written)
}

async fn read_queries(
    mut reader: OwnedReadHalf,
    shared: Arc<Shared>,
    answers: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(PIPELINED_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let length = usize::from(timeout(CLIENT_WAIT, reader.read_u16()).await??);
        if length > QUERY_MAX || answers.is_closed() {
            return Ok(());
        }
        let mut packet = vec![0; length];
        timeout(CLIENT_WAIT, reader.read_exact(&mut packet)).await??;
        let verdict = shared.decide(&packet, Transport::Tcp);
        if let Verdict::Ignore = verdict {
            return Ok(());
        }
        let (shared, answers) = (Arc::clone(&shared), answers.clone());
        tokio::spawn(async move {
            if let Some(answer) = shared.answer(verdict, Transport::Tcp).await {
                // The client has gone.
                let _ = answers.send(answer).await;
            }
            drop(place);
        });
    }
}

async fn write_answers(mut writer: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(answer) = outgoing.recv().await {
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        timeout(CLIENT_WAIT, writer.write_all(&[&length.to_be_bytes()[..], &answer].concat())).await??;
    }
    Ok(())
}
