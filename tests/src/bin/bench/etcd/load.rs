//! Load on a server that speaks etcd's protocol: so many clients, each of which makes one call after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use reeve_proto::etcd::etcdserverpb::request_op::Request;
use reeve_proto::etcd::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wire::{Heard, Wire, message};

/// What is kept under each key.
const VALUE_LEN: usize = 1024;
/// Clients that share a connection, about as in etcd's own published measurements (1,000 clients, 100 connections).
const CLIENTS_PER_CONNECTION: usize = 8;
/// Keys that one transaction of [`Call::Fill`] writes: they fit into the window that a connection begins with.
pub(crate) const FILLED_AT_ONCE: u64 = 32;
/// What is read of a connection at once.
const READ_BYTES: usize = 64 * 1024;
/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A put of 1 KB.
    Put,
    /// A linearizable get of one key.
    Get,
    /// A transaction that makes several keys.
    Fill,
    /// Any linearizable get: whether there is somebody who answers.
    Ask,
}

impl Call {
    fn path(self) -> &'static str {
        match self {
            Self::Put => "/etcdserverpb.KV/Put",
            Self::Get | Self::Ask => "/etcdserverpb.KV/Range",
            Self::Fill => "/etcdserverpb.KV/Txn",
        }
    }
}

/// How much is called, and with which keys.
#[derive(Debug)]
pub(crate) struct Job {
    call: Call,
    /// How many keys there are; they take turns.
    keys: u64,
    next: AtomicU64,
    /// How many calls are made at most, all clients together.
    calls: u64,
    until: Instant,
    value: Bytes,
}

impl Job {
    /// So many calls, or as many as can be made until a moment.
    pub(crate) fn new(call: Call, keys: u64, calls: u64, until: Instant) -> Self {
        let value = vec![b'v'; VALUE_LEN].into();
        Self { call, keys, next: AtomicU64::new(0), calls, until, value }
    }

    /// The next call's message; none when it is enough.
    fn take(&self, now: Instant) -> Option<Vec<u8>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.calls || now >= self.until {
            return None;
        }
        let put = |number| PutRequest { key: key(number), value: self.value.clone(), ..PutRequest::default() };
        Some(match self.call {
            Call::Put => put(self.spread(number)).encode_to_vec(),
            Call::Get | Call::Ask => {
                RangeRequest { key: key(self.spread(number)), ..RangeRequest::default() }.encode_to_vec()
            }
            Call::Fill => {
                let numbers = number * FILLED_AT_ONCE..((number + 1) * FILLED_AT_ONCE).min(self.keys);
                let op = |number| RequestOp { request: Some(Request::RequestPut(put(number))) };
                TxnRequest { success: numbers.map(op).collect(), ..TxnRequest::default() }.encode_to_vec()
            }
        })
    }

    /// Neighbours in time are no neighbours among the keys.
    fn spread(&self, number: u64) -> u64 {
        number.wrapping_mul(7919) % self.keys
    }

    fn check(&self, body: &[u8]) -> anyhow::Result<()> {
        let message = message(body)?;
        anyhow::ensure!(self.call != Call::Get || message.len() > VALUE_LEN, "a key has not been found");
        Ok(())
    }
}

/// Key and value of one object.
pub(crate) fn object_bytes() -> u64 {
    (key(0).len() + VALUE_LEN) as u64
}

fn key(number: u64) -> Bytes {
    format!("/registry/configmaps/bench/object-{number:06}").into()
}

/// Where a server is, and as whom it is called.
#[derive(Clone)]
pub(crate) struct Caller {
    /// "host:port".
    pub address: String,
    /// Shows the client's certificate.
    pub tls: TlsConnector,
}

struct Connection {
    stream: TlsStream<TcpStream>,
    wire: Wire,
    input: BytesMut,
}

impl Caller {
    async fn connect(&self, path: &'static str) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await.with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let (host, _) = self.address.split_once(':').context("a port")?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = self.tls.connect(name, stream).await.context("TLS")?;
        Ok(Connection { stream, wire: Wire::new(path, &self.address), input: BytesMut::new() })
    }
}

/// Clients that are connected, and for which call.
pub(crate) struct Clients(Vec<(Connection, usize)>);

/// What came of a job.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// How long each call took.
    pub took: Vec<Duration>,
    /// How long all of them took together.
    pub wall: Duration,
}

impl Clients {
    /// So many, spread over all servers of a group.
    pub(crate) async fn connect(callers: &[Caller], count: usize, call: Call) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        let mut left = count;
        for caller in callers.iter().cycle() {
            if left == 0 {
                break;
            }
            let share = left.min(CLIENTS_PER_CONNECTION);
            connections.push((caller.connect(call.path()).await?, share));
            left -= share;
        }
        Ok(Self(connections))
    }

    /// Does a job.
    pub(crate) async fn work(self, job: Job) -> anyhow::Result<Work> {
        let (job, began) = (Arc::new(job), Instant::now());
        let mut tasks = JoinSet::new();
        for (connection, share) in self.0 {
            tasks.spawn(connection.drive(Arc::clone(&job), share));
        }
        let mut took = Vec::new();
        while let Some(done) = tasks.join_next().await {
            took.append(&mut done??);
        }
        Ok(Work { took, wall: began.elapsed() })
    }
}

/// A call under way.
struct Pending {
    stream: u32,
    began: Instant,
    body: Vec<Bytes>,
}

impl Connection {
    async fn drive(mut self, job: Arc<Job>, clients: usize) -> anyhow::Result<Vec<Duration>> {
        let (mut took, mut heard) = (Vec::new(), Vec::new());
        let mut pending: Vec<Pending> = Vec::with_capacity(clients);
        let mut held: Option<Vec<u8>> = None;
        let mut done = false;
        loop {
            let now = Instant::now();
            while pending.len() < clients && !done {
                let Some(message) = held.take().or_else(|| job.take(now)) else {
                    done = true;
                    break;
                };
                match self.wire.call(&message) {
                    Some(stream) => pending.push(Pending { stream, began: now, body: Vec::new() }),
                    None => {
                        held = Some(message);
                        break;
                    }
                }
            }
            if pending.is_empty() && held.is_none() {
                return Ok(took);
            }
            self.talk().await?;
            self.wire.hear(&mut self.input, &mut heard)?;
            for said in heard.drain(..) {
                let (Heard::Data(stream, _) | Heard::End(stream)) = &said;
                let Some(at) = pending.iter().position(|own| own.stream == *stream) else { continue };
                match said {
                    Heard::Data(_, piece) => pending[at].body.push(piece),
                    Heard::End(_) => {
                        let own = pending.swap_remove(at);
                        match own.body.as_slice() {
                            [whole] => job.check(whole)?,
                            pieces => job.check(&pieces.concat())?,
                        }
                        took.push(own.began.elapsed());
                    }
                }
            }
        }
    }

    /// Sends what there is and waits for something to come.
    async fn talk(&mut self) -> anyhow::Result<()> {
        if !self.wire.out.is_empty() {
            self.stream.write_all(&self.wire.out).await.context("send")?;
            self.stream.flush().await.context("send")?;
            self.wire.out.clear();
        }
        self.input.reserve(READ_BYTES);
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
        let read = read.context("the server says nothing any more")?.context("receive")?;
        anyhow::ensure!(read > 0, "the server has closed the connection");
        Ok(())
    }
}
