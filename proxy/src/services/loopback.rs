//! NodePorts on 127.0.0.1, and NodePorts held against other programs.
//!
//! The kernel's translation does not work for 127.0.0.0/8 without opening the node's loopback services to the
//! network (CVE-2020-8558). So every NodePort has a socket: it serves local clients by passing connections and
//! datagrams on to the Service's own address, and while it is open no other program can have the port. Packets
//! from elsewhere are translated before they reach it. UDP answers come from 127.0.0.1, whatever address of
//! 127.0.0.0/8 was asked. SCTP ports are neither held nor served on 127.0.0.1: not every kernel has such sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::datagrams;
use super::plan::{NodePort, Protocol};

/// Local connections passed on at once, over all ports; further ones wait in the kernel's queue.
const RELAYED_MAX: usize = 1024;
/// How long the Service may take to accept.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// A port of the node that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// Who has it, as far as can be seen.
    pub holder: String,
}

/// The ports this node holds for its cluster.
pub(crate) struct LoopbackPorts {
    held: BTreeMap<(Protocol, u16), Held>,
    relayed: Arc<Semaphore>,
}

/// What holds a port; dropping it lets the port go, while connections that were passed on go on.
#[expect(dead_code, reason = "some are held for what dropping them does")]
enum Held {
    /// Where connections or datagrams are passed on to, and what ends the relay.
    Relay(watch::Sender<SocketAddr>, DropGuard),
    Nothing,
}

impl LoopbackPorts {
    /// Holds nothing yet.
    pub(crate) fn new() -> Self {
        Self { held: BTreeMap::new(), relayed: Arc::new(Semaphore::new(RELAYED_MAX)) }
    }

    /// Holds exactly these ports; returns those that others hold. Called again, it tries those again.
    pub(crate) fn sync(&mut self, wanted: &BTreeSet<NodePort>) -> Vec<Conflict> {
        let places: BTreeSet<_> = wanted.iter().map(|port| (port.protocol, port.port)).collect();
        self.held.retain(|place, _| places.contains(place));
        let mut conflicts = Vec::new();
        for port in wanted {
            let place = (port.protocol, port.port);
            if let Some(held) = self.held.get(&place) {
                // A Service with another address takes the port over; nobody else gets it in between.
                if let Held::Relay(service, _) = held {
                    service.send_replace(port.service.into());
                }
                continue;
            }
            match self.hold(*port) {
                Ok(held) => {
                    self.held.insert(place, held);
                }
                Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
                    let holder = holder(port.protocol, port.port).unwrap_or_else(|| "another program".to_owned());
                    conflicts.push(Conflict { protocol: port.protocol, port: port.port, holder });
                }
                Err(err) => warn!(port = port.port, %err, "cannot hold a NodePort"),
            }
        }
        conflicts
    }

    fn hold(&self, port: NodePort) -> io::Result<Held> {
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port.port);
        let stop = CancellationToken::new();
        let (service, target) = watch::channel(port.service.into());
        match port.protocol {
            Protocol::Tcp => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let relay = relay(TcpListener::from_std(listener)?, target, Arc::clone(&self.relayed));
                tokio::spawn(stop.clone().run_until_cancelled_owned(relay));
            }
            Protocol::Udp => {
                let socket = std::net::UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                let relay = datagrams::relay(UdpSocket::from_std(socket)?, target);
                tokio::spawn(stop.clone().run_until_cancelled_owned(relay));
            }
            Protocol::Sctp => return Ok(Held::Nothing),
        }
        Ok(Held::Relay(service, stop.drop_guard()))
    }
}

async fn relay(listener: TcpListener, target: watch::Receiver<SocketAddr>, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let client = match listener.accept().await {
            Ok((client, from)) if from.ip().is_loopback() => client,
            // Came in before the rules did: there is nothing here for strangers.
            Ok(_) => continue,
            Err(err) => {
                warn!(%err, "cannot accept on a NodePort");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = *target.borrow();
        tokio::spawn(async move {
            if let Err(err) = pass_on(client, service).await {
                debug!(%service, %err, "a local connection to a NodePort ended");
            }
            drop(place);
        });
    }
}

async fn pass_on(mut client: TcpStream, service: SocketAddr) -> io::Result<()> {
    let mut backend = match tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(service)).await {
        Ok(Ok(backend)) => backend,
        refused => {
            // Closed with a reset, as if the port itself had refused.
            client.set_zero_linger()?;
            return refused?.map(drop);
        }
    };
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut backend).await.map(drop)
}

/// Which process holds a port, in words: found through its socket's inode.
pub(crate) fn holder(protocol: Protocol, port: u16) -> Option<String> {
    let tables: &[&str] = match protocol {
        Protocol::Tcp => &["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => &["/proc/net/udp", "/proc/net/udp6"],
        Protocol::Sctp => &[],
    };
    let inodes: BTreeSet<String> = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|text| listening_inodes(&text, protocol, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let holds = open
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| inodes.contains(target)));
        holds.then(|| describe(pid))
    })
}

fn describe(pid: u32) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = raw
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|w| String::from_utf8_lossy(w).into())
        .collect();
    let cluster = words.iter().position(|word| word == "--name").and_then(|at| words.get(at + 1));
    let is_reeve = words.first().is_some_and(|program| program.rsplit('/').next() == Some("reeve"));
    // However the program is called: nobody else has this flag.
    let is_main_process = words.iter().any(|word| word == "--background-child");
    if let Some(cluster) = cluster.filter(|_| is_reeve || is_main_process) {
        return format!("the Reeve cluster {cluster:?} (process {pid})");
    }
    let command: String = words.join(" ").chars().take(80).collect();
    format!("process {pid} ({command})")
}

/// Inodes of the sockets that listen on (TCP) or are bound to (UDP) the port: lines of `/proc/net/tcp` and its kin.
fn listening_inodes(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, number) = fields.get(1)?.rsplit_once(':')?;
        let listens = protocol != Protocol::Tcp || fields.get(3) == Some(&LISTEN);
        let own = listens && u16::from_str_radix(number, 16) == Ok(port);
        if own { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_port(port: u16, service: (Ipv4Addr, u16)) -> NodePort {
        NodePort { protocol: Protocol::Tcp, port, service }
    }

    #[tokio::test]
    async fn a_port_that_another_program_holds_is_refused_with_its_holder() {
        let other = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let port = other.local_addr().expect("an address").port();
        let mut ports = LoopbackPorts::new();
        let conflicts = ports.sync(&BTreeSet::from([node_port(port, (Ipv4Addr::LOCALHOST, 1))]));
        assert!(conflicts[0].holder.contains(&format!("process {}", std::process::id())), "{conflicts:?}");
        drop(other);
        // A process that another test is just starting may still hold a copy of the socket, until it executes.
        tokio::time::timeout(Duration::from_secs(5), async {
            while !ports.sync(&BTreeSet::from([node_port(port, (Ipv4Addr::LOCALHOST, 1))])).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the port can be had once it is free");
    }

    #[tokio::test]
    async fn a_port_whose_service_changes_its_address_is_kept() {
        use tokio::io::AsyncReadExt as _;
        let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let target = (Ipv4Addr::LOCALHOST, service.local_addr().expect("an address").port());
        let free = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let mut ports = LoopbackPorts::new();
        assert_eq!(ports.sync(&BTreeSet::from([node_port(port, (Ipv4Addr::LOCALHOST, 1))])), []);
        assert_eq!(ports.sync(&BTreeSet::from([node_port(port, target)])), []);
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
        drop(service.accept().await.expect("passed on to the new address"));
        assert_eq!(client.read(&mut [0; 1]).await.expect("read"), 0);
    }

    #[tokio::test]
    async fn a_udp_port_answers_local_clients_and_is_held_against_others() {
        let service = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let free = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let port = free.local_addr().expect("an address").port();
        let target = (Ipv4Addr::LOCALHOST, service.local_addr().expect("an address").port());
        let wanted = BTreeSet::from([NodePort { protocol: Protocol::Udp, port, service: target }]);
        let mut ports = LoopbackPorts::new();
        let conflicts = ports.sync(&wanted);
        assert!(conflicts[0].holder.contains(&format!("process {}", std::process::id())), "{conflicts:?}");
        drop(free);
        tokio::time::timeout(Duration::from_secs(5), async {
            while !ports.sync(&wanted).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the port can be had once it is free");
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        client.connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
        client.send(b"hello").await.expect("sent");
        let mut buffer = [0; 16];
        let (length, from) = service.recv_from(&mut buffer).await.expect("passed on");
        service.send_to(&buffer[..length], from).await.expect("answered");
        let length = client.recv(&mut buffer).await.expect("heard");
        assert_eq!(&buffer[..length], b"hello");
        assert!(std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_err(), "held");
    }

    #[tokio::test]
    async fn a_local_client_reaches_the_service_and_a_freed_port_is_free() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let free = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let target = (Ipv4Addr::LOCALHOST, service.local_addr().expect("an address").port());
        tokio::spawn(async move {
            let (mut stream, _) = service.accept().await.expect("accepted");
            stream.write_all(b"hello").await.expect("sent");
        });
        let mut ports = LoopbackPorts::new();
        assert_eq!(ports.sync(&BTreeSet::from([node_port(port, target)])), []);
        let mut said = String::new();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
        client.read_to_string(&mut said).await.expect("read");
        assert_eq!(said, "hello");
        ports.sync(&BTreeSet::new());
        tokio::task::yield_now().await;
        tokio::time::timeout(Duration::from_secs(5), async {
            while std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the port is free again");
    }
}
