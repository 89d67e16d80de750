//! Follows APIServices, definitions, Services and their endpoints, and does what follows from each change.
//!
//! One task, woken by the cache; it acts on the newest state of things, never on an event's content. Each other server
//! has a task of its own, which is told when something about it changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use reeve_store::Revision;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use super::Aggregator;
use super::authentication::Authentication;
use super::available::{Facts, Verdict};
use super::register::{self, Memory, Step};
use super::table::{Backend, Table};
use super::tend::{self, Seen};
use crate::cache::Snapshot;
use crate::custom::{DEFINITIONS, own_request};
use crate::pki::Pki;
use crate::registry::{Body, Preconditions, Registry, Resource, meta};
use crate::status::ApiError;

/// Pause after something could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Makes what there must be, then follows the changes.
pub(super) async fn start(aggregator: &Arc<Aggregator>, registry: &Arc<Registry>, pki: &Pki) -> Result<(), ApiError> {
    let mut keeper = Keeper {
        aggregator: Arc::clone(aggregator),
        authentication: Authentication::new(pki),
        memory: Memory::default(),
        seen: Snapshots::default(),
        definitions: HashMap::new(),
        tended: HashMap::new(),
    };
    if let Some(table) = aggregator.table() {
        keeper.memory.at_start = table.listed.iter().map(super::table::Listed::name).collect();
    }
    keeper.round(registry).await?;
    registry.fresh().await?;
    let (stop, registry) = (registry.cache.stop.clone(), Arc::downgrade(registry));
    tokio::spawn(async move { stop.run_until_cancelled(keeper.follow(registry)).await });
    Ok(())
}

/// What was looked at last.
#[derive(Default, Clone)]
struct Snapshots {
    api_services: Option<Arc<Snapshot>>,
    definitions: Option<Arc<Snapshot>>,
    services: Option<Arc<Snapshot>>,
    slices: Option<Arc<Snapshot>>,
}

impl Snapshots {
    fn of(registry: &Registry) -> Self {
        let snapshot = |group: &str, plural: &str| Some(registry.resource(group, "v1", plural)?.storage.snapshot());
        Self {
            api_services: snapshot(super::API_SERVICES.0, super::API_SERVICES.1),
            definitions: snapshot(DEFINITIONS.0, DEFINITIONS.1),
            services: snapshot("", "services"),
            slices: snapshot("discovery.k8s.io", "endpointslices"),
        }
    }
}

fn same(one: Option<&Arc<Snapshot>>, other: Option<&Arc<Snapshot>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// Another server that is asked again and again.
struct Tended {
    seen: watch::Sender<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    aggregator: Arc<Aggregator>,
    authentication: Authentication,
    memory: Memory,
    seen: Snapshots,
    /// Group and versions of each definition, as of its revision: definitions are large, and most stay as they are.
    definitions: HashMap<Bytes, (Revision, Value)>,
    tended: HashMap<String, Tended>,
}

impl Keeper {
    async fn follow(mut self, registry: Weak<Registry>) {
        let Some(mut progress) = registry.upgrade().map(|registry| registry.cache.progress()) else { return };
        while let Some(strong) = registry.upgrade() {
            let round = self.round(&strong).await;
            drop(strong);
            if let Err(error) = round {
                warn!(%error, "An APIService cannot be brought into form; trying again.");
                self.seen = Snapshots::default();
                tokio::time::sleep(RETRY).await;
            } else if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Looks at what has changed. A change that comes meanwhile wakes it again.
    async fn round(&mut self, registry: &Arc<Registry>) -> Result<(), ApiError> {
        let (new, old) = (Snapshots::of(registry), self.seen.clone());
        let is_known = same(new.api_services.as_ref(), old.api_services.as_ref());
        self.authentication.ensure(registry).await?;
        let Some(table) = self.aggregator.table() else { return Ok(()) };
        if !is_known || !same(new.definitions.as_ref(), old.definitions.as_ref()) {
            self.register(registry, &new).await?;
            self.local(registry, &table).await?;
        }
        let same_services = same(new.services.as_ref(), old.services.as_ref());
        if !is_known || (table.has_backends() && !(same_services && same(new.slices.as_ref(), old.slices.as_ref()))) {
            self.tend(registry, &table, &new);
        }
        self.seen = new;
        Ok(())
    }

    /// Makes, corrects and removes the APIServices of what this server serves.
    async fn register(&mut self, registry: &Arc<Registry>, now: &Snapshots) -> Result<(), ApiError> {
        let (Some(resource), Some(found)) = (self.aggregator.services.clone(), &now.api_services) else {
            return Ok(());
        };
        if let Some(definitions) = &now.definitions {
            self.read_definitions(definitions);
        }
        let resources = registry.resources();
        let serves = |group: &str, version: &str| {
            let is_it = |one: &Arc<Resource>| one.names().group == group && one.names().version == version;
            resources.iter().any(is_it) || crate::http::has_review(group, version)
        };
        let wanted = register::wanted(serves, self.definitions.values().map(|(_, definition)| definition));
        let found: BTreeMap<String, Value> = found
            .objects
            .values()
            .map(|object| object.value())
            .map(|object| (meta::text(&object, "name").to_owned(), object))
            .collect();
        let names = wanted.keys().chain(found.keys().filter(|name| !wanted.contains_key(*name)));
        let steps = names.map(|name| {
            let step = register::step(name, wanted.get(name), found.get(name), &self.memory);
            take(registry, &resource, name, step)
        });
        for (name, done) in join_all(steps).await {
            if done? {
                self.memory.settled.insert(name);
            }
        }
        Ok(())
    }

    fn read_definitions(&mut self, now: &Snapshot) {
        self.definitions.retain(|key, _| now.objects.contains_key(key));
        for (key, object) in &now.objects {
            if self.definitions.get(key).is_some_and(|(revision, _)| *revision == object.revision) {
                continue;
            }
            let spec = object.value()["spec"].take();
            let versions = spec["versions"].as_array().into_iter().flatten();
            let versions: Vec<Value> =
                versions.map(|one| json!({"name": one["name"], "served": one["served"]})).collect();
            let short = json!({"spec": {"group": spec["group"], "versions": versions}});
            self.definitions.insert(key.clone(), (object.revision, short));
        }
    }

    /// Says that what this server serves itself is available.
    async fn local(&self, registry: &Arc<Registry>, table: &Table) -> Result<(), ApiError> {
        for object in table.of.objects.values() {
            if object.value()["spec"]["service"].is_object() {
                continue;
            }
            match tend::say(&self.aggregator, registry, object, &Verdict::local()).await {
                Err(error) if !error.is_conflict() && !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        self.aggregator.metrics.keep(|name| table.of.objects.contains_key(name.as_bytes()));
        Ok(())
    }

    /// Tells each other server's task what has changed; starts and ends tasks.
    fn tend(&mut self, registry: &Arc<Registry>, table: &Table, now: &Snapshots) {
        let is_there = |name: &str| table.backends().any(|backend| backend.name == name);
        self.tended.retain(|name, _| is_there(name));
        let known: Vec<String> = self.aggregator.learned().keys().cloned().collect();
        known.iter().filter(|name| !is_there(name)).for_each(|name| self.aggregator.forget(name));
        for backend in table.backends() {
            let Some(object) = table.of.objects.get(backend.name.as_bytes()).cloned() else { continue };
            let facts = Arc::new(facts(registry, backend, now));
            let seen = Seen { backend: Arc::clone(backend), object, facts };
            match self.tended.get(&backend.name) {
                Some(tended) => drop(tended.seen.send_if_modified(|old| {
                    let is_new = old.object.revision != seen.object.revision || old.facts != seen.facts;
                    if is_new {
                        *old = seen;
                    }
                    is_new
                })),
                None => {
                    let (sender, receiver) = watch::channel(seen);
                    let work = tend::tend(Arc::clone(&self.aggregator), Arc::downgrade(registry), receiver);
                    let tended = Tended { seen: sender, task: tokio::spawn(work) };
                    self.tended.insert(backend.name.clone(), tended);
                }
            }
        }
    }
}

/// Carries out one step; whether the APIService is settled by it.
async fn take(
    registry: &Arc<Registry>,
    resource: &Arc<Resource>,
    name: &str,
    step: Option<Step>,
) -> (String, Result<bool, ApiError>) {
    let done = match step {
        None => Ok(()),
        Some(Step::Create(object)) => {
            registry.create(&own_request(Arc::clone(resource), ""), Body::from(object)).await.map(drop)
        }
        Some(Step::Update(object)) => {
            registry.update(&own_request(Arc::clone(resource), name), Body::from(object)).await.map(drop)
        }
        Some(Step::Delete { uid }) => {
            let mut request = own_request(Arc::clone(resource), name);
            request.options.preconditions = Preconditions { uid: Some(uid), resource_version: None };
            registry.delete(&request).await.map(drop)
        }
    };
    let done = match done {
        Ok(()) => Ok(true),
        // Somebody was faster: the cache will show it, and it is looked at again.
        Err(error) if error.is_conflict() || error.is_not_found() || error.is_already_exists() => Ok(true),
        Err(error) => Err(error),
    };
    (name.to_owned(), done)
}

/// What the cluster knows of a server's Service.
fn facts(registry: &Registry, backend: &Backend, now: &Snapshots) -> Facts {
    let (namespace, name) = (&backend.target.namespace, &backend.target.service);
    let service = now.services.as_ref().and_then(|snapshot| {
        let key = registry.core("services")?.cache_key(namespace, name);
        Some(snapshot.objects.get(key.as_bytes())?.value()["spec"].clone())
    });
    let scope = format!("{namespace}/");
    let slices = now.slices.iter().flat_map(|snapshot| snapshot.scan(&scope, b"").map(|(_, slice)| slice.value()));
    let slices = slices.filter(|slice| meta::get(slice, "labels")[SERVICE_NAME] == name.as_str());
    let told = |slice: Value| json!({"endpoints": slice["endpoints"], "ports": slice["ports"]});
    Facts { service, slices: slices.map(told).collect() }
}
