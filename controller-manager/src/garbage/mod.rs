//! Garbage collector: objects whose owners are gone go too; objects that wait for their dependents are told when.
//!
//! A graph of all objects is kept from watches of their metadata. What it suggests is checked live before
//! anything is deleted: the watches of different kinds are not in step with each other. Kinds that appear and
//! vanish with CustomResourceDefinitions and APIServices are followed.

mod apply;
mod graph;
mod kinds;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use reeve_client::watch::follow;
use reeve_client::{Backoff, Component, EventRecorder, NeverSynced, Next, WorkQueue, wait_for_sync, work};
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::discovery::{self, Kind, discover};
use graph::{FOREGROUND, Graph, Identity, ORPHAN, View, Work};
use kinds::{Change, Kinds};
use plan::{Owner, Verdict, plan};

/// Objects looked at at the same time. Source: `concurrent-gc-syncs`.
const PARALLEL: usize = 20;

/// Owners known to be absent that are remembered; the oldest is forgotten first. Source: `absentOwnerCache`.
const ABSENT_LEN: usize = 500;

/// When the kinds are looked at after something has happened to them: a moment later, as much comes at once, and then
/// for what the server is slow with.
const SETTLING: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];

/// Told the namespace of every object that is gone; `None` once a kind is watched: what went of it before, in any
/// namespace, was not seen.
pub(crate) type OnGone = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// Watches the metadata of everything that can be deleted.
pub(crate) struct GarbageCollector {
    component: Component,
    kinds: Kinds,
    state: Arc<State>,
    synced: Vec<watch::Receiver<bool>>,
    events: EventRecorder,
}

struct State {
    graph: Mutex<Graph>,
    queue: WorkQueue<Work>,
    absent: Mutex<Absent>,
    on_gone: OnGone,
    /// Whether every kind of the start is watched.
    complete: AtomicBool,
    /// Told when something has happened that may have changed the kinds.
    kinds_changed: Notify,
}

/// Owners that are not there. Whole identities: a reference that gives a living owner's uid but another kind,
/// namespace or name must not make that owner absent for its real dependents.
#[derive(Default)]
struct Absent {
    owners: HashSet<Identity>,
    order: VecDeque<Identity>,
}

#[derive(Debug, thiserror::Error)]
enum ExamineError {
    #[error(transparent)]
    Request(#[from] kube::Error),
}

impl GarbageCollector {
    /// Finds out which kinds there are and starts to watch them.
    pub(crate) async fn start(component: &Component, on_gone: OnGone) -> Self {
        let kinds = Kinds::default();
        let all = all_kinds(component).await;
        let state = Arc::new(State::new(on_gone));
        if !all.failures.is_empty() {
            warn!(failures = ?all.failures, "not all kinds are known yet, looking again");
            state.kinds_changed.notify_one();
        }
        let found = kinds.update(all);
        let events = EventRecorder::start(component, "garbage-collector-controller", None);
        let mut collector = Self { component: component.clone(), kinds, state, synced: Vec::new(), events };
        collector.synced = found.added.iter().filter_map(|index| collector.watch_kind(*index)).collect();
        collector
    }

    fn watch_kind(&self, index: usize) -> Option<watch::Receiver<bool>> {
        let (kind, end) = (self.kinds.get(index)?, self.kinds.end(index)?);
        let (sender, receiver) = watch::channel(false);
        let (api, component) = (kind.metadata_api(&self.component.client), self.component.until(end));
        let mut feed = Feed {
            kind: index,
            makes_kinds: kinds::makes_kinds(&kind),
            state: Arc::clone(&self.state),
            synced: sender,
            missing: HashSet::new(),
        };
        self.component.spawn_vital("garbage watch", async move {
            follow(&component, api, Config::default(), |event| feed.on_event(event)).await;
        });
        Some(receiver)
    }

    /// Collects until dropped.
    ///
    /// # Errors
    /// [`NeverSynced`] if the component is shut down before the graph is complete.
    pub(crate) async fn run(self) -> Result<(), NeverSynced> {
        wait_for_sync(&self.component, &self.synced).await?;
        self.state.complete();
        let collecting = work("garbage", &self.state.queue, PARALLEL, |item| self.look(item));
        tokio::join!(collecting, self.follow_kinds());
        Ok(())
    }

    /// Looks which kinds there are whenever one may have come or gone, and a few times after that: it takes the
    /// server a moment to serve what was defined.
    async fn follow_kinds(&self) {
        let mut looks = SETTLING.iter();
        loop {
            let changed = self.state.kinds_changed.notified();
            let pause = looks.next().copied().unwrap_or(Duration::MAX);
            tokio::select! {
                () = changed => looks = SETTLING.iter(),
                () = tokio::time::sleep(pause) => self.look_for_kinds().await,
            }
        }
    }

    async fn look_for_kinds(&self) {
        let found = match discover(&self.component.client).await {
            Ok(found) => found,
            Err(error) => return warn!(%error, "the kinds cannot be looked up"),
        };
        let Change { added, gone } = self.kinds.update(found);
        for index in gone {
            let objects = self.state.graph().of_kind(index);
            objects.iter().for_each(|uid| self.state.remove(uid));
        }
        for index in added {
            let Some(kind) = self.kinds.get(index) else { continue };
            self.watch_kind(index);
            let owned = self.state.graph().owned_by(|owner| kind.is_meant_by(owner));
            self.state.enqueue(owned);
        }
    }

    async fn look(&self, item: Work) -> Result<Next, ExamineError> {
        match item {
            Work::Examine(uid) => self.examine(&uid).await?,
            Work::Orphan(uid) => self.orphan(&uid).await?,
        }
        Ok(Next::Done)
    }

    async fn examine(&self, uid: &str) -> Result<(), ExamineError> {
        let Some((view, kind)) = self.find(uid) else { return Ok(()) };
        if view.deleting && !view.foreground {
            return Ok(());
        }
        let client = &self.component.client;
        let Some(meta) = apply::live(client, &kind, &view.identity).await? else { return Ok(()) };
        if is_waiting(&meta) {
            return self.release(&view.identity, &kind, &meta).await;
        }
        if meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut owners = Vec::new();
        for owner in meta.owner_references.iter().flatten() {
            owners.push((owner.clone(), self.look_up(owner, &view.identity).await?));
        }
        let dependents = self.state.graph().dependents(uid);
        match plan(&meta, &owners, !dependents.is_empty()) {
            Verdict::Keep => {}
            Verdict::DropOwners(gone) => apply::drop_owners(client, &kind, &view.identity, &meta, &gone).await?,
            Verdict::Delete { policy, unblock } => {
                if unblock {
                    self.unblock(uid, &dependents).await?;
                }
                apply::delete(client, &kind, &view.identity, &meta, policy).await?;
            }
        }
        Ok(())
    }

    /// An object in foreground deletion goes when nothing blocks it any more; until then its dependents are
    /// looked at.
    async fn release(&self, identity: &Identity, kind: &Kind, meta: &ObjectMeta) -> Result<(), ExamineError> {
        let blocking = self.state.graph().blocking_dependents(&identity.uid, |owner| kind.is_meant_by(owner));
        if blocking.is_empty() {
            apply::remove_finalizer(&self.component.client, kind, identity, meta, FOREGROUND).await?;
        }
        for dependent in blocking.into_iter().filter(|dependent| !dependent.foreground) {
            self.state.queue.add(Work::Examine(dependent.identity.uid));
        }
        Ok(())
    }

    async fn unblock(&self, uid: &str, dependents: &[View]) -> Result<(), ExamineError> {
        for dependent in dependents.iter().filter(|dependent| dependent.foreground) {
            let Some(kind) = self.kinds.get(dependent.identity.kind) else { continue };
            if let Some(meta) = apply::live(&self.component.client, &kind, &dependent.identity).await? {
                apply::unblock(&self.component.client, &kind, &dependent.identity, &meta, uid).await?;
            }
        }
        Ok(())
    }

    /// Lets all dependents go, then the object itself.
    async fn orphan(&self, uid: &str) -> Result<(), ExamineError> {
        let Some((view, kind)) = self.find(uid) else { return Ok(()) };
        let client = &self.component.client;
        let gone = [uid.to_owned()];
        let dependents = self.state.graph().dependents(uid);
        for dependent in dependents {
            let Some(kind) = self.kinds.get(dependent.identity.kind) else { continue };
            if let Some(meta) = apply::live(client, &kind, &dependent.identity).await? {
                apply::drop_owners(client, &kind, &dependent.identity, &meta, &gone).await?;
            }
        }
        if let Some(meta) = apply::live(client, &kind, &view.identity).await? {
            apply::remove_finalizer(client, &kind, &view.identity, &meta, ORPHAN).await?;
        }
        Ok(())
    }

    /// What became of an owner. One that a reference cannot mean counts as solid: nothing is deleted for it.
    async fn look_up(&self, owner: &OwnerReference, dependent: &Identity) -> Result<Owner, ExamineError> {
        if self.state.graph().is_elsewhere(owner, dependent) {
            self.report_elsewhere(owner, dependent);
        }
        let Some((index, kind)) = self.kinds.meant_by(owner) else { return Ok(Owner::Solid) };
        if kind.namespaced && dependent.namespace.is_empty() {
            return Ok(Owner::Solid);
        }
        let namespace = if kind.namespaced { dependent.namespace.clone() } else { String::new() };
        let identity = Identity { kind: index, namespace, name: owner.name.clone(), uid: owner.uid.clone() };
        if self.state.absent().owners.contains(&identity) {
            return Ok(Owner::Absent);
        }
        match apply::live(&self.component.client, &kind, &identity).await? {
            Some(meta) if is_waiting(&meta) => Ok(Owner::Waiting),
            Some(_) => Ok(Owner::Solid),
            None => {
                self.state.absent().add(identity);
                Ok(Owner::Absent)
            }
        }
    }

    /// Tells users why a reference does nothing, or deletes what carries it. Kubernetes' words.
    fn report_elsewhere(&self, owner: &OwnerReference, dependent: &Identity) {
        let Some(kind) = self.kinds.get(dependent.kind) else { return };
        let Identity { namespace, name, uid, .. } = dependent;
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let about = ObjectReference {
            api_version: Some(kind.resource.api_version.clone()),
            kind: Some(kind.resource.kind.clone()),
            namespace: some(namespace),
            name: some(name),
            uid: some(uid),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
            owner.api_version, owner.kind, owner.name, owner.uid
        );
        self.events.warning(&about, "OwnerRefInvalidNamespace", message);
    }

    fn find(&self, uid: &str) -> Option<(View, Arc<Kind>)> {
        let view = self.state.graph().view(uid)?;
        let kind = self.kinds.get(view.identity.kind)?;
        Some((view, kind))
    }
}

fn is_waiting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().any(|name| name == FOREGROUND)
}

/// All kinds of the groups that answer.
async fn all_kinds(component: &Component) -> discovery::Kinds {
    let (initial, max) = (std::time::Duration::from_millis(50), std::time::Duration::from_secs(30));
    let mut backoff = Backoff::new(initial, max, component.rng.clone());
    loop {
        match discover(&component.client).await {
            Ok(kinds) => return kinds,
            Err(error) => warn!(%error, "the kinds are not known yet, trying again"),
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}

impl State {
    fn new(on_gone: OnGone) -> Self {
        Self {
            graph: Mutex::default(),
            queue: WorkQueue::default(),
            absent: Mutex::default(),
            on_gone,
            complete: AtomicBool::new(false),
            kinds_changed: Notify::new(),
        }
    }

    /// Every kind of the start is watched from here on.
    fn complete(&self) {
        self.complete.store(true, Ordering::SeqCst);
        (self.on_gone)(None);
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn absent(&self) -> MutexGuard<'_, Absent> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            self.queue.add(item);
        }
    }

    fn remove(&self, uid: &str) {
        let mut graph = self.graph();
        let Some(View { identity, .. }) = graph.view(uid) else { return };
        let work = graph.remove(uid);
        drop(graph);
        let namespace = identity.namespace.clone();
        self.absent().add(identity);
        self.enqueue(work);
        if !namespace.is_empty() {
            (self.on_gone)(Some(&namespace));
        }
    }
}

impl Absent {
    fn add(&mut self, owner: Identity) {
        if !self.owners.insert(owner.clone()) {
            return;
        }
        self.order.push_back(owner);
        if self.order.len() > ABSENT_LEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }
}

/// One kind's way into the graph.
struct Feed {
    kind: usize,
    /// Whether its objects make kinds appear and vanish.
    makes_kinds: bool,
    state: Arc<State>,
    synced: watch::Sender<bool>,
    /// During a list: what the graph has and the list has not shown yet.
    missing: HashSet<String>,
}

impl Feed {
    fn on_event(&mut self, event: Event<PartialObjectMeta<DynamicObject>>) {
        if self.makes_kinds && matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
            self.state.kinds_changed.notify_one();
        }
        match event {
            Event::Init => self.missing = self.state.graph().of_kind(self.kind).into_iter().collect(),
            Event::InitApply(object) => {
                self.missing.remove(object.metadata.uid.as_deref().unwrap_or_default());
                self.put(&object.metadata);
            }
            Event::InitDone => {
                for uid in std::mem::take(&mut self.missing) {
                    self.state.remove(&uid);
                }
                let is_first = !self.synced.send_replace(true);
                if is_first && self.state.complete.load(Ordering::SeqCst) {
                    (self.state.on_gone)(None);
                }
            }
            Event::Apply(object) => self.put(&object.metadata),
            Event::Delete(object) => self.state.remove(object.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    fn put(&self, meta: &ObjectMeta) {
        let identity = Identity {
            kind: self.kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        };
        let work = self.state.graph().put(identity, meta);
        self.state.enqueue(work);
    }
}
