//! Passing on queries for names that are not the cluster's, to the servers of the node's `resolv.conf`.
//!
//! Bounded: so many questions at once, so many tries, a few seconds. The same question asked again while it is on its
//! way waits for the same answer: many pods that start together ask once, and a server that forwards to whoever asks
//! it gets its own question back only once. Nothing is cached.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::Message;
use reeve_api::rng::SharedRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::answer::{Transport, UDP_PAYLOAD_MAX};
use super::wire;

/// Different questions on their way at once; further ones fail at once, so that a dead upstream cannot eat the memory.
const IN_FLIGHT_MAX: usize = 512;
/// Clients that wait for answers at once; further ones are told at once that it failed.
const WAITING_MAX: usize = 4096;
/// How long one upstream may take.
const UPSTREAM_WAIT: Duration = Duration::from_secs(2);
/// How many upstreams are tried for one query (`resolv.conf` has at most three).
const TRIES_MAX: usize = 3;
/// How long the upstream that answered last is asked first, although it stands behind one that did not.
const PREFERENCE: Duration = Duration::from_secs(30);
/// More than an upstream may send over UDP, as it is told.
const DATAGRAM_MAX: usize = 4096;
const DNS_PORT: u16 = 53;

/// Asks the upstream servers.
#[derive(Debug)]
pub struct Forwarder {
    asking: Arc<Asking>,
    waiting: Semaphore,
}

/// A question on its way: the packet without its id, and how it is asked.
type Question = (Vec<u8>, Transport);
/// `None` until it is over.
type Outcome = Option<Option<Arc<Vec<u8>>>>;

#[derive(Debug)]
struct Asking {
    upstreams: Vec<SocketAddr>,
    rng: SharedRng,
    places: Arc<Semaphore>,
    on_their_way: Mutex<HashMap<Question, watch::Receiver<Outcome>>>,
    /// The upstream to begin with, and until when.
    preferred: Mutex<Option<(usize, Instant)>>,
}

impl Forwarder {
    /// A forwarder to these servers, in this order.
    #[must_use]
    pub fn new(upstreams: Vec<SocketAddr>, rng: SharedRng) -> Self {
        let (places, on_their_way) = (Arc::new(Semaphore::new(IN_FLIGHT_MAX)), Mutex::default());
        let asking = Asking { upstreams, rng, places, on_their_way, preferred: Mutex::default() };
        Self { asking: Arc::new(asking), waiting: Semaphore::new(WAITING_MAX) }
    }

    /// The upstream's answer, with the query's own id and never longer than the transport allows; `None` when nobody
    /// answers.
    pub async fn ask(&self, mut query: Message, transport: Transport) -> Option<Vec<u8>> {
        let _place = self.waiting.try_acquire().ok()?;
        let limit = transport.limit(&query);
        if let Some(edns) = &mut query.edns {
            edns.set_max_payload(edns.max_payload().min(UDP_PAYLOAD_MAX));
        }
        let own_id = query.metadata.id;
        query.metadata.id = 0;
        let mut outcome = self.asking.begin((query.to_vec().ok()?, transport))?;
        let answer = outcome.wait_for(Option::is_some).await.ok()?.clone().flatten()?;
        let mut answer = if answer.len() <= limit { answer.to_vec() } else { wire::truncated(&answer)? };
        answer.get_mut(..2)?.copy_from_slice(&own_id.to_be_bytes());
        Some(answer)
    }
}

impl Asking {
    /// Joins the same question on its way, or sends it out.
    fn begin(self: &Arc<Self>, question: Question) -> Option<watch::Receiver<Outcome>> {
        let mut on_their_way = self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = on_their_way.get(&question) {
            return Some(outcome.clone());
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let (told, outcome) = watch::channel(None);
        on_their_way.insert(question.clone(), outcome.clone());
        let own = Arc::clone(self);
        // Bounded by the places. Goes on when whoever asked has gone: others may have joined.
        tokio::spawn(async move {
            let answer = own.resolve(&question).await;
            own.on_their_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&question);
            told.send_replace(Some(answer.map(Arc::new)));
            drop(place);
        });
        Some(outcome)
    }

    /// Asks one upstream after the other. One that answers "not me" or "cannot" is not the last word while there is
    /// another.
    async fn resolve(&self, (packet, transport): &Question) -> Option<Vec<u8>> {
        let (first, mut last_word) = (self.first(), None);
        for step in 0..self.upstreams.len().min(TRIES_MAX) {
            let index = (first + step) % self.upstreams.len();
            let upstream = *self.upstreams.get(index)?;
            // An id of our own: whoever sits beside the pod must not be able to guess it.
            let id = u16::try_from(self.rng.next_u64() & 0xffff).unwrap_or(0);
            let packet = [&id.to_be_bytes(), packet.get(2..)?].concat();
            let asked = match transport {
                Transport::Udp => timeout(UPSTREAM_WAIT, over_udp(upstream, &packet)).await,
                Transport::Tcp => timeout(UPSTREAM_WAIT, over_tcp(upstream, &packet)).await,
            };
            let Ok(Ok(answer)) = asked else { continue };
            if wire::is_refusal(&answer) {
                last_word = Some(answer);
                continue;
            }
            self.prefer(index);
            return Some(answer);
        }
        last_word
    }

    fn first(&self) -> usize {
        let preferred = *self.preferred.lock().unwrap_or_else(PoisonError::into_inner);
        preferred.filter(|(_, until)| Instant::now() < *until).map_or(0, |(index, _)| index)
    }

    fn prefer(&self, index: usize) {
        let mut preferred = self.preferred.lock().unwrap_or_else(PoisonError::into_inner);
        // Not prolonged by success: the one that stands first is tried again now and then.
        if index == 0 {
            *preferred = None;
        } else if preferred.is_none_or(|(own, until)| own != index || until <= Instant::now()) {
            *preferred = Some((index, Instant::now() + PREFERENCE));
        }
    }
}

async fn over_udp(upstream: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = match upstream.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // Strays and forgeries are passed over; the caller's timeout bounds the wait.
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).filter(|answer| wire::is_answer_to(answer, packet)) {
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
    if wire::is_answer_to(&answer, packet) {
        Ok(answer)
    } else {
        Err(std::io::Error::other("an answer to another question"))
    }
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
