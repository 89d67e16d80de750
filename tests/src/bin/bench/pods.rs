//! Pods: from the create request to Running, as a watcher sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use crate::cluster::IMAGE;

/// Longest wait for one thing that should happen to pods.
const WAIT: Duration = Duration::from_secs(60);
/// Pods started before the measurement begins: the first brings up what all later ones share.
const WARM_UP: usize = 3;

fn pod(name: &str) -> anyhow::Result<Pod> {
    let pod = serde_json::json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "sleep", "image": IMAGE, "command": ["/bin/busybox", "sleep", "3600"]}],
        },
    });
    serde_json::from_value(pod).context("a pod")
}

/// What a client sees of the pods, in order.
struct Watcher {
    events: BoxStream<'static, kube::Result<WatchEvent<Pod>>>,
}

impl Watcher {
    async fn start(pods: &Api<Pod>) -> anyhow::Result<Self> {
        let list = pods.list(&ListParams::default()).await.context("list pods")?;
        let from = list.metadata.resource_version.unwrap_or_default();
        let params = WatchParams::default().timeout(290);
        Ok(Self { events: pods.watch(&params, &from).await.context("watch pods")?.boxed() })
    }

    /// Returns when each of these has been seen in the wanted state.
    async fn all(&mut self, mut names: BTreeSet<String>, wanted: fn(&WatchEvent<Pod>) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + WAIT;
        while !names.is_empty() {
            let missing = || format!("{} of the pods are not there after {WAIT:?}", names.len());
            let event = tokio::time::timeout_at(deadline, self.events.next()).await.with_context(missing)?;
            let event = event.context("the watch ended")?.context("watch pods")?;
            if let (true, Some(name)) = (wanted(&event), name_of(&event)) {
                names.remove(&name);
            }
        }
        Ok(())
    }
}

fn name_of(event: &WatchEvent<Pod>) -> Option<String> {
    match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => Some(pod.name_any()),
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => None,
    }
}

fn is_running(event: &WatchEvent<Pod>) -> bool {
    let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { return false };
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn is_gone(event: &WatchEvent<Pod>) -> bool {
    matches!(event, WatchEvent::Deleted(_))
}

/// Starts one pod after the other, each when the one before is gone; how long each took to Running.
pub(crate) async fn one_by_one(client: &Client, times: usize) -> anyhow::Result<Vec<Duration>> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut watcher = Watcher::start(&pods).await?;
    let mut took = Vec::with_capacity(times);
    for number in 0..WARM_UP + times {
        let name = format!("one-{number}");
        let pod = pod(&name)?;
        let started = Instant::now();
        pods.create(&PostParams::default(), &pod).await.context("create a pod")?;
        watcher.all(BTreeSet::from([name.clone()]), is_running).await?;
        if number >= WARM_UP {
            took.push(started.elapsed());
        }
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await.context("delete a pod")?;
        watcher.all(BTreeSet::from([name]), is_gone).await?;
    }
    Ok(took)
}

/// Starts many pods at once and leaves them; how long it took until all were Running.
pub(crate) async fn at_once(client: &Client, count: usize) -> anyhow::Result<Duration> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut watcher = Watcher::start(&pods).await?;
    let names: BTreeSet<String> = (0..count).map(|number| format!("many-{number}")).collect();
    let wanted: Vec<Pod> = names.iter().map(|name| pod(name)).collect::<anyhow::Result<_>>()?;
    let params = PostParams::default();
    let started = Instant::now();
    let creates = futures::future::try_join_all(wanted.iter().map(|pod| pods.create(&params, pod)));
    let (created, seen) = tokio::join!(creates, watcher.all(names, is_running));
    created.context("create pods")?;
    seen?;
    Ok(started.elapsed())
}

/// Deletes all pods; how long it took until the last was gone.
pub(crate) async fn delete_all(client: &Client) -> anyhow::Result<Duration> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut watcher = Watcher::start(&pods).await?;
    let list = pods.list(&ListParams::default()).await.context("list pods")?;
    let names: BTreeSet<String> = list.items.iter().map(kube::ResourceExt::name_any).collect();
    let started = Instant::now();
    let params = DeleteParams::default().grace_period(0);
    pods.delete_collection(&params, &ListParams::default()).await.context("delete pods")?;
    watcher.all(names, is_gone).await?;
    Ok(started.elapsed())
}
