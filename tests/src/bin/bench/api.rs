//! Requests: latency, throughput and the server's CPU time of plain ConfigMap traffic over TLS.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::sample;

/// Requests of each verb with one client; with more, each makes its share of `REQUESTS_SHARED`.
const REQUESTS_ALONE: usize = 300;
const REQUESTS_SHARED: usize = 2048;
/// What a ConfigMap holds.
const VALUE_LEN: usize = 1000;

/// One verb with one number of clients.
#[derive(Debug)]
pub(crate) struct Figure {
    /// create, get or update.
    pub verb: &'static str,
    /// Whether it must reach the disk.
    pub writes: bool,
    /// How many requests were made.
    pub requests: usize,
    /// Half of them took no longer.
    pub p50: Duration,
    /// All clients together.
    pub per_second: f64,
    /// The main process's CPU time, divided by the requests.
    pub cpu_each: Duration,
}

fn config_map(name: &str, filler: char) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some(BTreeMap::from([("value".to_owned(), filler.to_string().repeat(VALUE_LEN))]));
    map
}

/// Creates, reads and updates ConfigMaps with that many clients, each with connections of its own; removes them.
pub(crate) async fn measure(
    client: &Client,
    clients: usize,
    cpu: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<Vec<Figure>> {
    let each = if clients == 1 { REQUESTS_ALONE } else { REQUESTS_SHARED / clients };
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    warm_up(&api, clients).await?;
    let create = |name: String| async move {
        api_of(client).create(&PostParams::default(), &config_map(&name, 'a')).await.map(drop)
    };
    let get = |name: String| async move { api_of(client).get(&name).await.map(drop) };
    let update = |name: String| async move {
        api_of(client).replace(&name, &PostParams::default(), &config_map(&name, 'b')).await.map(drop)
    };
    let load = Load { clients, each };
    let figures = vec![
        load.run("create", true, &cpu, create).await?,
        load.run("get", false, &cpu, get).await?,
        load.run("update", true, &cpu, update).await?,
    ];
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("!kept")).await?;
    Ok(figures)
}

fn api_of(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

/// Opens the connections.
async fn warm_up(api: &Api<ConfigMap>, clients: usize) -> anyhow::Result<()> {
    let params = ListParams::default();
    let lists = (0..clients).map(|_| api.list(&params));
    futures::future::try_join_all(lists).await.context("list ConfigMaps").map(drop)
}

struct Load {
    clients: usize,
    each: usize,
}

impl Load {
    async fn run<Fut: Future<Output = kube::Result<()>>>(
        &self,
        verb: &'static str,
        writes: bool,
        cpu: &impl Fn() -> anyhow::Result<Duration>,
        request: impl Fn(String) -> Fut,
    ) -> anyhow::Result<Figure> {
        let one_client = async |number: usize| {
            let mut took = Vec::with_capacity(self.each);
            for index in 0..self.each {
                let started = Instant::now();
                request(format!("bench-{number}-{index}")).await?;
                took.push(started.elapsed());
            }
            kube::Result::<_>::Ok(took)
        };
        let (cpu_before, started) = (cpu()?, Instant::now());
        let took = futures::future::try_join_all((0..self.clients).map(one_client)).await;
        let mut took = took.with_context(|| format!("{verb} ConfigMaps"))?.concat();
        let (wall, cpu) = (started.elapsed(), cpu()?.saturating_sub(cpu_before));
        let requests = u32::try_from(took.len()).unwrap_or(u32::MAX).max(1);
        Ok(Figure {
            verb,
            writes,
            requests: took.len(),
            p50: sample::median(&mut took),
            per_second: f64::from(requests) / wall.as_secs_f64(),
            cpu_each: cpu / requests,
        })
    }
}
