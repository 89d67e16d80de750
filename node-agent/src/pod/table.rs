//! All pods of the node: hands each its news, decides what it is granted, starts actors for new ones, clears away what
//! belongs to none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use reeve_api::quantity::{Format, Quantity};
use reeve_client::{Change, EventType, Informer};
use reeve_engine::engine::EngineEvent;
use tokio::sync::{Notify, mpsc};

use super::actor::{self, Beginning, Input, PodHandle, PodNews};
use super::admission::Room;
use super::adopt::{PodRemains, Remains, adopt};
use super::allocation::Allocation;
use super::app_armor;
use super::backoff::step_retry;
use super::container::POD_UID;
use super::context::{NodeContext, about};
use super::huge_pages::{bytes, resource};
use super::ledger::{Ledger, Place, Verdict, is_over};
use super::resize::event;
use super::state::{End, PodState, Why, spec};
use super::view::Views;
use crate::volume;

/// Ends of actors that wait to be noticed. A full queue makes the actors wait, which are over anyway.
const ENDED_LEN: usize = 64;

/// The newest version of every pod that changed, until it is handed on. At most one entry per pod.
#[derive(Default)]
struct News {
    changed: Mutex<BTreeMap<String, Option<Arc<Pod>>>>,
    notify: Notify,
}

impl News {
    fn put(&self, pod: &Arc<Pod>, gone: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let news = (!gone).then(|| Arc::clone(pod));
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, news);
        self.notify.notify_one();
    }

    fn on_change(&self, change: &Change<'_, Pod>) {
        match change {
            Change::Added(pod) => self.put(pod, false),
            Change::Updated { old, new } => {
                if old.metadata.uid != new.metadata.uid {
                    self.put(old, true);
                }
                self.put(new, false);
            }
            Change::Removed(pod) => self.put(pod, true),
        }
    }

    fn take(&self) -> BTreeMap<String, Option<Arc<Pod>>> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The pods of the node, by UID.
pub(crate) struct PodTable {
    node: Arc<NodeContext>,
    views: Views,
    pods: HashMap<String, PodHandle>,
    /// What each was granted. A pod that the node refused has no account.
    ledger: Ledger,
    /// What the engine had when the agent started, until its pod shows up.
    remains: Remains,
    ended: mpsc::Sender<String>,
}

/// Runs all pods until the agent stops. `pods` is the watch of this node's pods.
pub(crate) async fn run(node: Arc<NodeContext>, pods: Informer<Pod>, views: Views) {
    let news = Arc::new(News::default());
    let (ended, mut over) = mpsc::channel(ENDED_LEN);
    // Events are followed before the list is taken, so that nothing falls between the two.
    let mut events = node.engine.events();
    let remains = listed(&node).await;
    let mut table = PodTable { remains, node, views, pods: HashMap::new(), ledger: Ledger::default(), ended };
    let mut synced = pods.synced();
    if synced.wait_for(|synced| *synced).await.is_err() {
        return;
    }
    // Before any pod begins: a folder that is made from here on belongs to one.
    let folders = pod_folders(&table.node).await;
    recall_user_ids(&table.node, folders.clone()).await;
    let handler = Arc::clone(&news);
    pods.on_change(move |change| handler.on_change(change));
    table.hand_on(news.take()).await;
    table.clear_orphans(&pods, folders);
    loop {
        tokio::select! {
            () = news.notify.notified() => table.hand_on(news.take()).await,
            event = events.next() => match event {
                Some(event) => table.on_engine(event).await,
                // Too far behind: follow anew, then tell every pod how its containers are.
                None => {
                    events = table.node.engine.events();
                    table.resync().await;
                }
            },
            Some(uid) = over.recv() => table.on_over(&uid).await,
        }
    }
}

async fn listed(node: &NodeContext) -> Remains {
    loop {
        match (node.engine.list_pod_sandboxes().await, node.engine.list_containers().await) {
            (Ok(sandboxes), Ok(containers)) => return Remains::new(sandboxes, containers),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "failed to list what the engine has, trying again");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

impl PodTable {
    /// What is known is entered first: whether a resize fits is decided with the whole node in view.
    async fn hand_on(&mut self, news: BTreeMap<String, Option<Arc<Pod>>>) {
        let mut known = self.allocations(news.iter()).await;
        self.ledger.enter(&news);
        for (uid, pod) in news.iter().filter_map(|(uid, pod)| pod.as_ref().map(|pod| (uid, pod))) {
            if !self.pods.contains_key(uid) && self.was_here(uid, pod) {
                self.ledger.recall(pod, known.remove(uid));
            }
        }
        let mut verdicts = self.review().await;
        for (uid, pod) in news {
            let granted = verdicts.remove(&uid) == Some(true);
            match (pod, self.pods.contains_key(&uid)) {
                (Some(pod), true) => self.tell(&uid, &pod, granted).await,
                (Some(pod), false) => self.start(uid, &pod, granted).await,
                (None, _) => self.send(&uid, Input::Gone).await,
            }
        }
        self.tell_verdicts(verdicts).await;
    }

    /// Whether the node had taken a pod before this agent began.
    fn was_here(&self, uid: &str, pod: &Pod) -> bool {
        self.remains.knows(uid) || is_over(pod) || pod.metadata.deletion_timestamp.is_some()
    }

    /// What pods were granted before this agent began.
    async fn allocations<'n>(
        &self,
        news: impl Iterator<Item = (&'n String, &'n Option<Arc<Pod>>)>,
    ) -> HashMap<String, Allocation> {
        let fresh = news.filter(|(uid, pod)| pod.is_some() && self.remains.knows(uid));
        let dirs: Vec<_> = fresh.map(|(uid, _)| (uid.clone(), self.node.config.pod_dir(uid))).collect();
        if dirs.is_empty() {
            return HashMap::new();
        }
        let load = move || dirs.into_iter().filter_map(|(uid, dir)| Some((uid, Allocation::load(&dir)?))).collect();
        tokio::task::spawn_blocking(load).await.unwrap_or_default()
    }

    /// Looks at the resizes that wait. Returns the pods of which something has changed, and whether they were granted
    /// what they want.
    async fn review(&mut self) -> BTreeMap<String, bool> {
        let own = self.node.node.get("", &self.node.config.node_name);
        let verdicts = self.ledger.review(Place { room: &self.room(), node: own.as_deref() }, self.node.now());
        let mut granted = BTreeMap::new();
        for (uid, verdict) in verdicts {
            let Some(pod) = self.ledger.wanted(&uid).cloned() else { continue };
            let about = about(&pod);
            let generation = pod.metadata.generation;
            match verdict {
                Verdict::Granted(allocation) => {
                    self.keep(&uid, allocation).await;
                    let message = event("Pod resize started", &pod, generation, "");
                    self.node.events.record(&about, EventType::Normal, "ResizeStarted", message);
                    granted.insert(uid, true);
                }
                Verdict::Pending { told } => {
                    if let Some(refusal) = told {
                        let what = format!("Pod resize {}", refusal.reason);
                        let message = event(&what, &pod, generation, &refusal.message);
                        self.node.events.record(&about, EventType::Warning, "ResizeDeferred", message);
                    }
                    granted.insert(uid, false);
                }
            }
        }
        granted
    }

    /// So that the next agent knows. Without it that one takes the spec for granted, if it fits.
    async fn keep(&self, uid: &str, allocation: Allocation) {
        let dir = self.node.config.pod_dir(uid);
        let kept = tokio::task::spawn_blocking(move || allocation.save(&dir)).await;
        if let Err(error) = kept.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            tracing::warn!(%error, uid, "failed to keep what a pod was granted");
        }
    }

    async fn tell_verdicts(&self, verdicts: BTreeMap<String, bool>) {
        for (uid, granted) in verdicts {
            if let Some(pod) = self.ledger.wanted(&uid) {
                self.tell(&uid, pod, granted).await;
            }
        }
    }

    async fn tell(&self, uid: &str, pod: &Arc<Pod>, granted: bool) {
        let pending = self.ledger.pending(uid).cloned();
        self.send(uid, Input::Pod(PodNews { pod: self.ledger.granted(pod), pending, granted })).await;
    }

    /// An actor that has ended needs no news.
    async fn send(&self, uid: &str, input: Input) {
        if let Some(handle) = self.pods.get(uid) {
            let _ = handle.inputs.send(input).await;
        }
    }

    async fn start(&mut self, uid: String, pod: &Arc<Pod>, granted: bool) {
        let was_here = self.was_here(&uid, pod);
        let remains = self.remains.take(&uid);
        let now = self.node.now();
        let known = !remains.sandboxes.is_empty();
        let shown = self.ledger.granted(pod);
        let mut beginning = if known || is_over(pod) {
            adopt(Arc::clone(&shown), &remains, &self.addresses(pod, &remains).await, now)
        } else {
            Beginning { state: PodState::new(shown, now), dead: HashMap::new() }
        };
        beginning.state.resize.pending = self.ledger.pending(&uid).cloned();
        if granted {
            // It tells anew of what it is granted now.
            beginning.state.resize.in_progress = None;
        }
        if !was_here && beginning.state.end.is_none() {
            self.admit(pod, &mut beginning, now);
        }
        self.clear_old_sandboxes(&remains);
        let (ended, name) = (self.ended.clone(), uid.clone());
        let handle = actor::start(&self.node, &self.views, beginning, move || {
            tokio::spawn(async move {
                // Without a receiver the agent is stopping.
                let _ = ended.send(name).await;
            });
        });
        self.pods.insert(uid, handle);
    }

    /// The addresses of a pod whose sandbox still stands.
    async fn addresses(&self, pod: &Pod, remains: &PodRemains) -> Vec<std::net::IpAddr> {
        if spec(pod).host_network == Some(true) {
            return vec![self.node.config.node_ip];
        }
        let Some(sandbox) = remains.sandboxes.last() else { return Vec::new() };
        if !sandbox.ips.is_empty() {
            return sandbox.ips.clone();
        }
        let Some(network) = self.node.network().await else { return Vec::new() };
        network.address_of(&sandbox.id).await.into_iter().collect()
    }

    /// What the node has for pods.
    fn room(&self) -> Room {
        let allocatable = self.node.capacity.less(&self.node.config.reserved);
        Room {
            cpu: Quantity::from_milli(i64::try_from(allocatable.cpu_milli).unwrap_or(i64::MAX)),
            memory: Quantity::new(i64::try_from(allocatable.memory_bytes).unwrap_or(i64::MAX), Format::BinarySi),
            pods: usize::try_from(self.node.config.max_pods).unwrap_or(usize::MAX),
            huge_pages: allocatable.huge_pages.iter().map(|(size, all)| (resource(*size), bytes(*all))).collect(),
        }
    }

    fn admit(&mut self, pod: &Arc<Pod>, beginning: &mut Beginning, now: jiff::Timestamp) {
        let own = self.node.node.get("", &self.node.config.node_name);
        let room = self.room();
        let place = Place { room: &room, node: own.as_deref() };
        let admitted = self.ledger.admit(pod, place).and_then(|()| {
            let refused = app_armor::admit(pod, reeve_engine::runtime::app_armor::is_enabled);
            refused.inspect_err(|_| self.ledger.remove(pod.metadata.uid.as_deref().unwrap_or_default()))
        });
        if let Err(refusal) = admitted {
            self.node.events.warning(&about(pod), &refusal.reason, refusal.message.clone());
            let why = Why::Failed { reason: refusal.reason.clone(), message: refusal.message.clone() };
            beginning.state.failed = Some((refusal.reason, refusal.message));
            beginning.state.end = Some(End::new(why, super::plan::grace(pod), now));
        }
    }

    /// Removes all sandboxes of a pod but the newest.
    fn clear_old_sandboxes(&self, remains: &PodRemains) {
        let stale = remains.sandboxes.iter().rev().skip(1).map(|sandbox| sandbox.id.clone());
        for id in stale {
            let node = Arc::clone(&self.node);
            self.node.component.spawn("sandbox garbage", async move { remove_for_good(&node, &id).await });
        }
    }

    /// Stops and removes what the engine has of pods that are no longer in the API.
    fn clear_orphans(&mut self, pods: &Informer<Pod>, mut folders: Vec<String>) {
        let known: Vec<String> = pods.store().list().iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        folders.retain(|uid| !known.contains(uid));
        // Of a pod that the engine does not know nothing runs that could have ids.
        folders.iter().filter(|uid| !self.remains.knows(uid)).for_each(|uid| self.node.user_ids.release(uid));
        for (uid, remains) in std::mem::take(&mut self.remains).into_orphans() {
            tracing::info!(uid, "removing what is left of a pod that is gone");
            let node = Arc::clone(&self.node);
            self.node.component.spawn("orphan", async move {
                for sandbox in &remains.sandboxes {
                    remove_for_good(&node, &sandbox.id).await;
                }
                node.user_ids.release(&uid);
            });
        }
        let node = Arc::clone(&self.node);
        self.node.component.spawn("orphan folders", async move { clear_folders(&node, folders).await });
    }

    async fn on_engine(&mut self, event: EngineEvent) {
        let uid = event.container.config.labels.get(POD_UID).cloned().unwrap_or_default();
        self.send(&uid, Input::Engine(Box::new(event.container))).await;
    }

    async fn resync(&mut self) {
        tracing::warn!("fell behind the engine's events, listing its containers");
        match self.node.engine.list_containers().await {
            Ok(containers) => {
                for container in containers {
                    self.on_engine(EngineEvent { sandbox: container.sandbox.clone(), container }).await;
                }
            }
            Err(error) => tracing::error!(%error, "failed to list containers"),
        }
    }

    /// An actor has ended: nothing of its pod is left.
    async fn on_over(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.ledger.remove(uid);
        let verdicts = self.review().await;
        self.tell_verdicts(verdicts).await;
    }
}

/// Stops and removes a sandbox that belongs to no pod, with its network; says whether nothing is left.
pub(crate) async fn remove_sandbox(node: &NodeContext, id: &str) -> bool {
    let mut clean = true;
    if let Err(error) = node.engine.stop_pod_sandbox(id).await {
        tracing::warn!(%error, id, "failed to stop a sandbox that belongs to no pod");
        clean = false;
    }
    if let Some(network) = node.network().await
        && let Err(error) = network.detach(id).await
    {
        tracing::warn!(%error, id, "failed to release the network of a sandbox");
        clean = false;
    }
    if let Err(error) = node.engine.remove_pod_sandbox(id).await {
        tracing::warn!(%error, id, "failed to remove a sandbox that belongs to no pod");
        clean = false;
    }
    clean
}

/// [`remove_sandbox`] until nothing is left: nobody else will come by.
async fn remove_for_good(node: &NodeContext, id: &str) {
    let mut failures = 0_u32;
    while !remove_sandbox(node, id).await {
        failures = failures.saturating_add(1);
        tokio::time::sleep(step_retry(failures)).await;
    }
}

/// Names of the pods' folders: their UIDs.
async fn pod_folders(node: &NodeContext) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(node.config.data_dir.join("pods")).await else { return names };
    while let Ok(Some(entry)) = entries.next_entry().await {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names
}

/// Before anybody is given ids: those of earlier pods are taken.
async fn recall_user_ids(node: &Arc<NodeContext>, folders: Vec<String>) {
    let node = Arc::clone(node);
    let recall = move || folders.iter().for_each(|uid| node.user_ids.recall(uid, &node.config.pod_dir(uid)));
    if let Err(error) = tokio::task::spawn_blocking(recall).await {
        tracing::error!(%error, "the ids of earlier pods are not known");
    }
}

/// Removes the folders of pods that are no longer in the API; again, where that fails.
async fn clear_folders(node: &NodeContext, mut uids: Vec<String>) {
    let mut failures = 0_u32;
    loop {
        let mut left = Vec::new();
        for uid in uids {
            if let Err(error) = volume::tear_down(node.config.pod_dir(&uid)).await {
                tracing::warn!(%error, uid, "failed to remove the folder of a pod that is gone");
                left.push(uid);
            }
        }
        if left.is_empty() {
            return;
        }
        uids = left;
        failures = failures.saturating_add(1);
        tokio::time::sleep(step_retry(failures)).await;
    }
}
