//! Aggregation: groups and versions of the API that other servers serve, each named by an APIService.
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | the APIServices made ready: who serves a group and version, and the order of groups |
//! | `priorities.rs` | the places of this server's own groups in that order |
//! | `register.rs` | which APIServices there must be for what this server serves: pure |
//! | `available.rs` | whether a server can be used: the judgement (pure), and asking it |
//! | `keep.rs` | follows APIServices, definitions and Services and does what follows from each change |
//! | `tend.rs` | one server: asks again and again whether it is there and what it serves |
//! | `proxy.rs` | passes a request on, with the user's name in it |
//! | `discovery.rs`, `openapi.rs` | what a server tells of itself |
//! | `swagger.rs` | OpenAPI v2 of several servers made one: pure |
//! | `authentication.rs` | the ConfigMap by which such servers recognize this one |
//! | `metrics.rs` | who is unavailable |
//!
//! A group and version that an APIService gives to a Service is that Service's alone, also where this server would have
//! something to answer. Without such an APIService a request pays for one comparison of pointers. Source of rules and
//! words: `k8s.io/kube-aggregator`. What is not here: the certificates ([`crate::pki`]), finding a Service's endpoints
//! and TLS ([`crate::outbound`]).

mod authentication;
mod available;
mod discovery;
mod keep;
mod metrics;
mod openapi;
pub(crate) mod priorities;
mod proxy;
mod register;
pub(crate) mod swagger;
pub(crate) mod table;
mod tend;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::sync::Semaphore;

pub(crate) use discovery::Told;
pub(crate) use metrics::Availability;
pub(crate) use openapi::Swagger;
pub(crate) use proxy::Passed;

use crate::outbound::Services;
use crate::pki::{LiveCertificate, Pki};
use crate::registry::{Registry, Resource};
use crate::status::ApiError;
use table::{Backend, Table};

/// Group and resource of APIServices.
const API_SERVICES: (&str, &str) = ("apiregistration.k8s.io", "apiservices");

/// Most upgraded connections at once through which bytes are passed.
const TUNNELS_MAX: usize = 1000;

/// What was learned of a server about one of its versions.
#[derive(Default)]
struct Learned {
    told: Option<Arc<Told>>,
    /// Its OpenAPI documents, by path.
    documents: BTreeMap<String, Value>,
    /// What its document of version 2 says of this version.
    swagger: Option<Arc<Swagger>>,
}

/// The aggregation of one API server.
pub(crate) struct Aggregator {
    /// The APIServices; without the kind there is no aggregation.
    services: Option<Arc<Resource>>,
    outbound: Option<Arc<Services>>,
    /// What this server shows to others.
    own: Arc<LiveCertificate>,
    table: ArcSwapOption<Table>,
    /// Held while a table is made: once per change, without waiting for anything.
    making: Mutex<()>,
    /// By the APIService's name.
    learned: Mutex<HashMap<String, Learned>>,
    /// Counts the changes of what was learned.
    generation: AtomicU64,
    tunnels: Arc<Semaphore>,
    pub(crate) metrics: Availability,
}

impl Aggregator {
    /// Nothing is asked or made yet: see [`Aggregator::start`].
    pub(crate) fn new(registry: &Registry, own: Arc<LiveCertificate>) -> Arc<Self> {
        let find = |group: &str, plural: &str| registry.resource(group, "v1", plural);
        let outbound = find("", "services").zip(find("discovery.k8s.io", "endpointslices"));
        Arc::new(Self {
            services: find(API_SERVICES.0, API_SERVICES.1),
            outbound: outbound.map(|(services, slices)| Arc::new(Services::new(services, slices))),
            own,
            table: ArcSwapOption::empty(),
            making: Mutex::default(),
            learned: Mutex::default(),
            generation: AtomicU64::new(0),
            tunnels: Arc::new(Semaphore::new(TUNNELS_MAX)),
            metrics: Availability::default(),
        })
    }

    /// Registers what this server serves, then follows the changes until the registry is stopped.
    ///
    /// # Errors
    /// When the APIServices that there must be cannot be made.
    pub(crate) async fn start(self: &Arc<Self>, registry: &Arc<Registry>, pki: &Pki) -> Result<(), ApiError> {
        keep::start(self, registry, pki).await
    }

    /// The APIServices as they are now; `None` without the kind.
    pub(crate) fn table(&self) -> Option<Arc<Table>> {
        let snapshot = self.services.as_ref()?.storage.snapshot();
        let known = |table: &Arc<Table>| Arc::ptr_eq(&table.of, &snapshot);
        if let Some(table) = self.table.load_full().filter(known) {
            return Some(table);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.table.load_full();
        if let Some(table) = before.clone().filter(known) {
            return Some(table);
        }
        let made = Arc::new(Table::new(snapshot, before.as_deref(), (self.outbound.as_ref(), &self.own)));
        self.table.store(Some(Arc::clone(&made)));
        Some(made)
    }

    /// Who serves a group and version instead of this server.
    pub(crate) fn backend(&self, group: &str, version: &str) -> Option<Arc<Backend>> {
        // Every request comes by here.
        let snapshot = self.services.as_ref()?.storage.snapshot();
        if let Some(table) = self.table.load().as_ref().filter(|table| Arc::ptr_eq(&table.of, &snapshot)) {
            return table.backend(group, version).cloned();
        }
        self.table()?.backend(group, version).cloned()
    }

    /// Who answers for a path that is no resource: the root of a group and version, or an OpenAPI document that
    /// `is_own` says is not this server's.
    pub(crate) fn backend_of_path(
        &self,
        segments: &[String],
        is_own: impl FnOnce(&str) -> bool,
    ) -> Option<Arc<Backend>> {
        match segments {
            [apis, group, version] if apis == "apis" => self.backend(group, version),
            [openapi, v3, rest @ ..] if openapi == "openapi" && v3 == "v3" && !rest.is_empty() => {
                let table = self.table().filter(|table| table.has_backends())?;
                let path = rest.join("/");
                let name = self.learned().iter().find(|(_, one)| one.documents.contains_key(&path))?.0.clone();
                let found = table.backends().find(|backend| backend.name == name).cloned();
                found.filter(|_| !is_own(&path))
            }
            _ => None,
        }
    }

    /// Counts the changes of [`Aggregator::told`] and [`Aggregator::documents`].
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What the server behind an APIService tells of itself; `None`: nobody could ask yet.
    pub(crate) fn told(&self, name: &str) -> Option<Arc<Told>> {
        self.learned().get(name).and_then(|learned| learned.told.clone())
    }

    /// What all servers' OpenAPI documents of version 2 say, in the order of their names.
    pub(crate) fn swaggers(&self) -> Vec<Arc<Swagger>> {
        let learned = self.learned();
        let all: BTreeMap<&String, &Learned> = learned.iter().collect();
        all.values().filter_map(|learned| learned.swagger.clone()).collect()
    }

    /// The entries of all servers' OpenAPI documents in the index.
    pub(crate) fn documents(&self) -> BTreeMap<String, Value> {
        self.learned().values().flat_map(|learned| learned.documents.clone()).collect()
    }

    fn learned(&self) -> MutexGuard<'_, HashMap<String, Learned>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was learned of a server.
    fn learn(&self, name: &str, change: impl FnOnce(&mut Learned)) {
        change(self.learned().entry(name.to_owned()).or_default());
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Forgets a server.
    fn forget(&self, name: &str) {
        if self.learned().remove(name).is_some() {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}
