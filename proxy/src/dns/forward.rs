//! Passing on queries for names that are not the cluster's, to the servers of the node's `resolv.conf`.
//!
//! Bounded: at most [`IN_FLIGHT_MAX`] at once, two tries, a few seconds. Nothing is cached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::Message;
use reeve_api::rng::SharedRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::Transport;

/// Queries forwarded at once; further ones fail at once, so that a dead upstream cannot eat the memory.
const IN_FLIGHT_MAX: usize = 512;
/// How long one upstream may take.
const UPSTREAM_WAIT: Duration = Duration::from_secs(2);
/// How many upstreams are tried for one query (`resolv.conf` has at most three).
const TRIES_MAX: usize = 3;
const DNS_PORT: u16 = 53;

/// Asks the upstream servers.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Vec<SocketAddr>,
    in_flight: Semaphore,
    rng: SharedRng,
}

impl Forwarder {
    /// A forwarder to these servers, in this order.
    #[must_use]
    pub fn new(upstreams: Vec<SocketAddr>, rng: SharedRng) -> Self {
        Self { upstreams, in_flight: Semaphore::new(IN_FLIGHT_MAX), rng }
    }

    /// The upstream's answer, with the query's own id; `None` when nobody answers.
    pub async fn ask(&self, mut query: Message, transport: Transport) -> Option<Vec<u8>> {
        let _place = self.in_flight.try_acquire().ok()?;
        let own_id = query.metadata.id;
        for upstream in self.upstreams.iter().take(TRIES_MAX) {
            // An id of our own: whoever sits beside the pod must not be able to guess it.
            let id = u16::try_from(self.rng.next_u64() & 0xffff).unwrap_or(0);
            query.metadata.id = id;
            let Ok(packet) = query.to_vec() else { return None };
            let asked = match transport {
                Transport::Udp => timeout(UPSTREAM_WAIT, over_udp(*upstream, &packet, &query)).await,
                Transport::Tcp => timeout(UPSTREAM_WAIT, over_tcp(*upstream, &packet)).await,
            };
            if let Ok(Ok(mut answer)) = asked
                && is_answer_to(&answer, &query)
            {
                answer[..2].copy_from_slice(&own_id.to_be_bytes());
                return Some(answer);
            }
        }
        None
    }
}

fn is_answer_to(packet: &[u8], query: &Message) -> bool {
    Message::from_vec(packet).is_ok_and(|answer| {
        answer.metadata.id == query.metadata.id
            && answer.metadata.message_type == hickory_proto::op::MessageType::Response
            && answer.queries == query.queries
    })
}

async fn over_udp(upstream: SocketAddr, packet: &[u8], query: &Message) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = match upstream.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; 4096];
    loop {
        // Strays and forgeries are passed over; the caller's timeout bounds the wait.
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).filter(|answer| is_answer_to(answer, query)) {
            return Ok(answer.to_vec());
        }
    }
}

async fn over_tcp(upstream: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(packet.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], packet].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The servers a `resolv.conf` names, without `own`: forwarding to ourselves would loop.
#[must_use]
pub fn upstreams(resolv_conf: &Path, own: IpAddr) -> Vec<SocketAddr> {
    parse(&std::fs::read_to_string(resolv_conf).unwrap_or_default(), own)
}

fn parse(text: &str, own: IpAddr) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses.filter(|ip| *ip != own).map(|ip| (ip, DNS_PORT).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_of_resolv_conf_are_asked_in_order_and_never_ourselves() {
        let text = "# made by hand\nsearch lan\nnameserver 10.0.0.10\nnameserver 192.0.2.1\nnameserver nonsense\n";
        let own = "10.0.0.10".parse().expect("an address");
        assert_eq!(parse(text, own), ["192.0.2.1:53".parse().expect("an address")]);
    }
}
