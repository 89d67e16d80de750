//! Watchers: how long an event takes to reach all of them, and what they and many objects cost in memory.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{Target, collection, config_map};
use crate::process::Reading;

/// Before the number that says when the event's change was sent, in the body of `config_map`.
const MARK: &[u8] = br#""at":""#;
/// How long a watcher may be silent before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Memory of a server before and after it was given many objects.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Proportional set size after all objects were made, with the watchers there.
    pub pss_bytes: u64,
    /// What one object added to it.
    pub per_object: u64,
    /// The object as a client reads it.
    pub json: usize,
}

/// Watches of one namespace's ConfigMaps, each with a connection of its own.
pub(crate) struct Watchers {
    tasks: JoinSet<anyhow::Result<()>>,
    delays: mpsc::Receiver<Duration>,
    count: usize,
    started: Instant,
}

impl Target {
    /// Starts that many watches.
    pub(crate) async fn watch(&self, namespace: &str, count: usize) -> anyhow::Result<Watchers> {
        let started = Instant::now();
        // One event of each is under way at a time; a watcher waits while it is full.
        let (sender, delays) = mpsc::channel(count);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let mut connection = self.server.connect().await?;
            let path = format!("{}?watch=true", collection(namespace));
            let body = connection.send(Method::GET, &path, Bytes::new()).await?.into_body();
            let sender = sender.clone();
            tasks.spawn(async move {
                // The connection lives as long as its sender.
                let _connection = connection;
                follow(body, started, &sender).await
            });
        }
        Ok(Watchers { tasks, delays, count, started })
    }

    /// What `objects` ConfigMaps of 1 KB cost while `watchers` watch them.
    pub(crate) async fn memory(&self, objects: usize, watchers: usize) -> anyhow::Result<Memory> {
        self.namespace("bench-memory").await?;
        let watchers = self.watch("bench-memory", watchers).await?;
        let before = Reading::of(&[self.pid])?.pss_bytes;
        self.fill("bench-memory", objects).await?;
        // Freed memory goes back to the kernel with a delay.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = Reading::of(&[self.pid])?.pss_bytes;
        let mut connection = self.server.connect().await?;
        let one = format!("{}/bench-0-0", collection("bench-memory"));
        let json = connection.ask(Method::GET, &one, Bytes::new()).await?;
        drop(watchers);
        connection.ask(Method::DELETE, &collection("bench-memory"), Bytes::new()).await?;
        let per_object = after.saturating_sub(before) / objects as u64;
        Ok(Memory { pss_bytes: after, per_object, json })
    }

    /// Changes one ConfigMap that many times, one change each `every`; how long each took to reach each watcher.
    pub(crate) async fn delays(
        &self,
        watchers: usize,
        changes: usize,
        every: Duration,
    ) -> anyhow::Result<Vec<Duration>> {
        let namespace = format!("bench-watch-{watchers}");
        self.namespace(&namespace).await?;
        let mut watchers = self.watch(&namespace, watchers).await?;
        let mut connection = self.server.connect().await?;
        let path = collection(&namespace);
        let at = |started: Instant| started.elapsed().as_nanos().to_string();
        let body = config_map("changed", &at(watchers.started), 'a');
        connection.ask(Method::POST, &path, body).await?;
        watchers.receive().await?;
        let mut delays = Vec::new();
        for _ in 0..changes {
            tokio::time::sleep(every).await;
            let body = config_map("changed", &at(watchers.started), 'b');
            connection.ask(Method::PUT, &format!("{path}/changed"), body).await?;
            delays.append(&mut watchers.receive().await?);
        }
        Ok(delays)
    }
}

impl Watchers {
    /// One event by every watcher.
    async fn receive(&mut self) -> anyhow::Result<Vec<Duration>> {
        let mut delays = Vec::with_capacity(self.count);
        while delays.len() < self.count {
            tokio::select! {
                Some(delay) = self.delays.recv() => delays.push(delay),
                Some(ended) = self.tasks.join_next() => ended?.and_then(|()| anyhow::bail!("a watch ended"))?,
                () = tokio::time::sleep(PATIENCE) => anyhow::bail!("an event reached {} watchers", delays.len()),
            }
        }
        Ok(delays)
    }
}

/// Reads events until the stream ends. A frame may hold several, or a part of one: the mark is looked for over seams.
async fn follow(mut body: Incoming, started: Instant, sent: &mpsc::Sender<Duration>) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        rest.extend_from_slice(data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Some(begin) = line.windows(MARK.len()).position(|window| window == MARK) else { continue };
            let number = line[begin + MARK.len()..].split(|byte| *byte == b'"').next().unwrap_or_default();
            let Ok(at) = std::str::from_utf8(number).unwrap_or_default().parse() else { continue };
            let delay = started.elapsed().saturating_sub(Duration::from_nanos(at));
            sent.send(delay).await.ok().context("nobody listens")?;
        }
    }
    Ok(())
}
