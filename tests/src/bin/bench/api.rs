//! Requests: latency, throughput, and the CPU time of server and generator, of plain ConfigMap traffic over TLS.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::Method;
use tokio::time::Instant;

use crate::http::{Connection, Server};
use crate::process;
use crate::sample;

/// Requests of each verb with one client; with more, each makes its share of `REQUESTS_SHARED`.
const REQUESTS_ALONE: usize = 500;
const REQUESTS_SHARED: usize = 12_800;
/// How many ConfigMaps a list has, and how often it is asked for, by one client and by several.
const LISTED: usize = 5_000;
const LISTS_ALONE: usize = 20;
const LISTS_SHARED: usize = 96;
/// What a ConfigMap holds.
const VALUE_LEN: usize = 1000;
/// Connections that fill a namespace.
const FILLERS: usize = 16;

/// One verb with one number of clients.
#[derive(Debug)]
pub(crate) struct Figure {
    /// create, get, update or list.
    pub verb: &'static str,
    /// Whether it must reach the disk.
    pub writes: bool,
    /// How many requests were made.
    pub requests: usize,
    /// Half of them took no longer.
    pub p50: Duration,
    /// All clients together.
    pub per_second: f64,
    /// The server's CPU time, divided by the requests.
    pub server_each: Duration,
    /// The generator's.
    pub generator_each: Duration,
    /// Bytes of one answer.
    pub answer: usize,
}

/// A server under load, and the process it is.
pub(crate) struct Target {
    /// Where it is.
    pub server: Server,
    /// Whose CPU time and memory count.
    pub pid: u32,
}

/// The path of the namespace's ConfigMaps.
pub(crate) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// The body of a ConfigMap of 1 KB; `at` is a text of its own beside the filler.
pub(crate) fn config_map(name: &str, at: &str, filler: char) -> Bytes {
    let value = filler.to_string().repeat(VALUE_LEN);
    let (kind, meta) = (r#""kind":"ConfigMap","apiVersion":"v1""#, format!(r#""metadata":{{"name":"{name}"}}"#));
    Bytes::from(format!(r#"{{{kind},{meta},"data":{{"at":"{at}","value":"{value}"}}}}"#))
}

impl Target {
    /// Makes a namespace of the bench's own.
    pub(crate) async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let body = format!(r#"{{"kind":"Namespace","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        self.server.connect().await?.ask(Method::POST, "/api/v1/namespaces", body.into()).await.map(drop)
    }

    /// Creates, reads and updates ConfigMaps with that many clients, each with a connection of its own.
    pub(crate) async fn requests(&self, clients: usize) -> anyhow::Result<Vec<Figure>> {
        let namespace = format!("bench-{clients}");
        self.namespace(&namespace).await?;
        let all = collection(&namespace);
        let each = if clients == 1 { REQUESTS_ALONE } else { REQUESTS_SHARED / clients };
        let create = |name: &str| (Method::POST, all.clone(), config_map(name, "a", 'a'));
        let get = |name: &str| (Method::GET, format!("{all}/{name}"), Bytes::new());
        let update = |name: &str| (Method::PUT, format!("{all}/{name}"), config_map(name, "b", 'b'));
        let mut connections = self.connections(clients).await?;
        let figures = vec![
            self.run("create", each, &mut connections, create).await?,
            self.run("get", each, &mut connections, get).await?,
            self.run("update", each, &mut connections, update).await?,
        ];
        connections[0].ask(Method::DELETE, &all, Bytes::new()).await?;
        Ok(figures)
    }

    /// Lists five thousand ConfigMaps, with one client and with 16.
    pub(crate) async fn lists(&self) -> anyhow::Result<Vec<Figure>> {
        self.namespace("bench-lists").await?;
        self.fill("bench-lists", LISTED).await?;
        let all = collection("bench-lists");
        let list = |_: &str| (Method::GET, format!("{all}?resourceVersion=0"), Bytes::new());
        let mut figures = Vec::new();
        for (clients, lists) in [(1, LISTS_ALONE), (16, LISTS_SHARED)] {
            let mut connections = self.connections(clients).await?;
            figures.push(self.run("list", lists / clients, &mut connections, list).await?);
        }
        self.server.connect().await?.ask(Method::DELETE, &all, Bytes::new()).await?;
        Ok(figures)
    }

    /// Creates that many ConfigMaps.
    pub(crate) async fn fill(&self, namespace: &str, count: usize) -> anyhow::Result<()> {
        let all = collection(namespace);
        let create = |name: &str| (Method::POST, all.clone(), config_map(name, "a", 'a'));
        let mut connections = self.connections(FILLERS).await?;
        self.run("create", count / FILLERS, &mut connections, create).await.map(drop)
    }

    async fn connections(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(self.server.connect().await?);
        }
        Ok(connections)
    }

    async fn run(
        &self,
        verb: &'static str,
        each: usize,
        connections: &mut [Connection],
        request: impl Fn(&str) -> (Method, String, Bytes),
    ) -> anyhow::Result<Figure> {
        let one_client = async |(number, connection): (usize, &mut Connection)| {
            let (mut took, mut answer) = (Vec::with_capacity(each), 0);
            for index in 0..each {
                let (method, path, body) = request(&format!("bench-{number}-{index}"));
                let started = Instant::now();
                answer = connection.ask(method, &path, body).await?;
                took.push(started.elapsed());
            }
            anyhow::Ok((took, answer))
        };
        let own = std::process::id();
        let (server, generator, started) = (process::cpu(self.pid)?, process::cpu(own)?, Instant::now());
        let done = futures::future::try_join_all(connections.iter_mut().enumerate().map(one_client)).await;
        let wall = started.elapsed();
        let (server, generator) = (process::cpu(self.pid)? - server, process::cpu(own)? - generator);
        let done = done.with_context(|| format!("{verb} ConfigMaps"))?;
        let answer = done.first().map_or(0, |(_, answer)| *answer);
        let mut took: Vec<Duration> = done.into_iter().flat_map(|(took, _)| took).collect();
        let requests = u32::try_from(took.len()).unwrap_or(u32::MAX).max(1);
        Ok(Figure {
            verb,
            writes: matches!(verb, "create" | "update"),
            requests: took.len(),
            p50: sample::median(&mut took),
            per_second: f64::from(requests) / wall.as_secs_f64(),
            server_each: server / requests,
            generator_each: generator / requests,
            answer,
        })
    }
}
