//! The heart of the API server: what happens to an object between the decoded request and the store.
//!
//! Generic over kinds: names, rules and defaults come from [`reeve_kinds::Kind`]. The HTTP side routes,
//! authenticates and authorizes, then calls one verb here with a [`Request`]; what it gets back is JSON ready
//! to be sent. Nothing here knows HTTP.
//!
//! A write, step by step:
//!
//! | step | file |
//! |---|---|
//! | the body is an object of the kind, with the kind's fields only | `accept.rs` (text to value: [`crate::decode`]) |
//! | a patch becomes the wanted object | `patch.rs`, `scale.rs` |
//! | who manages which field; server-side apply | `managed.rs`, [`reeve_kinds::managed`] |
//! | identity, times, what an update cannot change | `meta.rs` |
//! | defaults, the kind's own rules | [`reeve_kinds::Kind`], called from `create.rs` and `update.rs` |
//! | what the cluster adds and forbids | `crate::admission` |
//! | what a role or binding may grant | `grants.rs` |
//! | cluster IPs and node ports | `services.rs` |
//! | mark or remove | `deletion.rs` (decision), `delete.rs`, `delete_options.rs` |
//! | bodies of which nothing is stored: reviews, bindings, evictions, token requests | `transient.rs` |
//! | a pod's deletion that its budget has a say in | `evict.rs`, `budget.rs` (decision) |
//! | one transaction: the object, what must still hold, what is claimed | `commit.rs` |
//! | the text that is stored, and with its revision the text that is sent | `encode.rs` |
//!
//! Reads (`read.rs`, `page.rs`) and watches (`watching.rs`) are answered from `crate::cache`. `bootstrap.rs` makes
//! what every cluster has, `roles.rs` its roles, `housekeeping.rs` drops old history and events.

mod accept;
mod addresses;
mod answer;
mod attribution;
mod bind;
mod bootstrap;
mod budget;
mod builtin;
mod commit;
mod create;
mod delete;
mod delete_options;
mod deletion;
pub(crate) mod encode;
mod evict;
mod grants;
mod housekeeping;
mod json_patch;
mod managed;
pub(crate) mod meta;
mod page;
mod patch;
mod read;
mod request;
mod resource;
pub(crate) mod roles;
mod scale;
mod services;
mod transient;
mod update;
mod versions;
mod watching;

#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ipnet::Ipv4Net;
use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use reeve_kinds::Kind;
use reeve_store::SharedKv;
use tokio::sync::watch;

pub(crate) use self::json_patch::{Fault as PatchFault, apply_told as apply_json_patch, found as json_type};
pub use answer::{EventType, List, Object, Watch, WatchEvent, Written};
pub use housekeeping::HISTORY;
#[cfg(test)]
pub(crate) use page::Token;
pub use request::{
    Body, FieldValidation, Options, Patch, Preconditions, Propagation, Request, Subresource, UserInfo, VersionMatch,
    Warnings,
};
pub use resource::{Convert, Resource, Resources};
pub(crate) use transient::Part as TransientPart;

use crate::admission::{self, Figures, PolicyBook, Webhooks};
use crate::auth::rbac;
use crate::cache::{Cache, Feed, Ingest};
use crate::status::ApiError;
use services::{Allocations, Allocators};

/// What the registry must know about the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Where cluster IPs come from. Its first address is the `kubernetes` Service's.
    pub service_cidr: Ipv4Net,
    /// An address of the service range that only a Service that asks for it gets: the cluster DNS.
    pub dns_address: Option<IpAddr>,
    /// Where node ports come from; Kubernetes' default is 30000–32767.
    pub node_ports: RangeInclusive<u16>,
    /// Where the API server is reached by pods: the endpoint of the `kubernetes` Service.
    pub advertise: SocketAddr,
    /// How long old versions of objects are kept at least, as long as the store keeps so many; [`HISTORY`] is
    /// Kubernetes'.
    pub history: Duration,
    /// Whether there may be other servers on the store: then the Service leads to them too, see
    /// [`Registry::keep_servers`].
    pub several: bool,
}

/// What the registry stands on.
#[derive(Clone)]
pub struct RegistryParts {
    /// The store.
    pub kv: SharedKv,
    /// The kinds that are served, in the order of discovery; usually `reeve_kinds::builtin()`.
    pub kinds: Vec<Arc<dyn Kind>>,
    /// Time, for timestamps in objects.
    pub clock: SharedClock,
    /// Randomness, for uids and generated names.
    pub rng: SharedRng,
}

/// What a CustomResourceDefinition makes, see [`Registry::offer`].
pub struct Offer {
    /// A kind for each served version, the preferred one first.
    pub kinds: Vec<Arc<dyn Kind>>,
    /// Goes between the versions.
    pub convert: Arc<dyn Convert>,
    /// What stored objects pass through as they enter the cache: defaults and pruning of their version's schema.
    pub ingest: Option<Ingest>,
    /// Whether `ingest` has changed: the objects are read anew and watches begin again.
    pub reload: bool,
}

/// All served resources and their objects. One per API server; share it in an [`Arc`].
pub struct Registry {
    pub(crate) cache: Arc<Cache>,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    kv: SharedKv,
    resources: ArcSwap<Resources>,
    /// Told the generation of what is served.
    served: watch::Sender<u64>,
    services: Allocators,
    /// Who is asked before an object is written.
    pub(crate) webhooks: Webhooks,
    /// The policies in force.
    pub(crate) policies: PolicyBook,
    /// What admission counts.
    pub(crate) figures: Figures,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Registry {
    /// Reads the whole store into the watch cache, makes the objects that every cluster has (system namespaces,
    /// the `kubernetes` Service) and follows the store's changes until it is stopped.
    pub async fn start(config: RegistryConfig, parts: RegistryParts) -> Result<Arc<Self>, ApiError> {
        let RegistryParts { kv, kinds, clock, rng } = parts;
        let (cache, orders) = Cache::new(Arc::clone(&kv));
        let cache = Arc::new(cache);
        let resource = |kind: Arc<dyn Kind>| {
            let storage = cache.storage_at_start(&resource::prefix_of(&*kind));
            Arc::new(Resource::new(kind, storage, None))
        };
        let resources = Resources::builtin(kinds.into_iter().map(resource).collect());
        let feed = Feed::load(&cache, orders).await.map_err(|error| ApiError::store(&error))?;
        feed.spawn(&cache);
        let (webhooks, policies) = (Webhooks::new(&resources), PolicyBook::new(&resources));
        let (resources, served) = (ArcSwap::from_pointee(resources), watch::Sender::new(0));
        let (services, figures) = (Allocators::new(&config), Figures::default());
        let registry =
            Arc::new(Self { cache, clock, rng, kv, resources, served, services, webhooks, policies, figures });
        bootstrap::ensure(&registry, &config).await?;
        builtin::ensure(&registry, &config).await?;
        registry.webhooks.open();
        registry.policies.open();
        crate::custom::start(&registry).await?;
        housekeeping::spawn(&registry, config.history);
        bootstrap::spawn(&registry, config);
        admission::spawn_type_checks(&registry);
        Ok(registry)
    }

    /// What is served now.
    #[must_use]
    pub fn resources(&self) -> Arc<Resources> {
        self.resources.load_full()
    }

    /// Told the generation of what is served whenever that changes.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<u64> {
        self.served.subscribe()
    }

    /// The resource of that group, version and plural name.
    #[must_use]
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources.load().get(group, version, plural).cloned()
    }

    /// Serves the kinds of a CustomResourceDefinition, all on one storage, instead of what it had served; none
    /// withdraws it, and ends its watches. For one definition one call at a time.
    pub async fn offer(&self, owner: &str, offer: Offer) -> Result<(), ApiError> {
        let before: Option<Bytes> = self.resources.load().of_owner(owner).first().map(|one| one.prefix().clone());
        let Offer { kinds, convert, ingest, reload } = offer;
        let mut offered = Vec::new();
        if let Some(first) = kinds.first() {
            let prefix = resource::custom_prefix(&**first);
            let known = self.resources.load().of_owner(owner).first().map(|one| Arc::clone(&one.storage));
            let storage = match known.filter(|known| !reload && *known.prefix() == prefix) {
                Some(known) => known,
                None => self.cache.open_storage(&prefix, ingest).await?,
            };
            let resource = |kind| Arc::new(Resource::new(kind, Arc::clone(&storage), Some(Arc::clone(&convert))));
            offered = kinds.into_iter().map(resource).collect();
        }
        let after = offered.first().map(|one: &Arc<Resource>| one.prefix().clone());
        self.resources.rcu(|now| now.with(owner, offered.clone()));
        if let Some(gone) = before.filter(|before| Some(before) != after.as_ref()) {
            self.cache.close_storage(&gone).await?;
        }
        self.served.send_replace(self.resources.load().generation);
        Ok(())
    }

    /// The object from the cache as it is now, without any wait: for checks by the server itself (tokens, nodes).
    #[must_use]
    pub fn peek(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Object> {
        resource.storage.get(resource.cache_key(namespace, name).as_bytes())
    }

    /// All objects of a namespace (empty: of a cluster-wide kind) from the cache as it is now, without any wait.
    pub(crate) fn peek_all(&self, resource: &Resource, namespace: &str) -> Vec<Object> {
        let scope = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let snapshot = resource.storage.snapshot();
        snapshot.scan(&scope, b"").map(|(_, object)| object.clone()).collect()
    }

    /// Reads one object, or its scale.
    pub async fn get(&self, request: &Request) -> Result<Object, ApiError> {
        check_part(request)?;
        self.get_object(request).await
    }

    /// Reads a collection.
    pub async fn list(&self, request: &Request) -> Result<List, ApiError> {
        self.list_objects(request).await
    }

    /// Follows a collection (or one object: the HTTP side then sets the field selector `metadata.name=…`).
    pub async fn watch(&self, request: &Request) -> Result<Watch, ApiError> {
        self.watch_objects(request).await
    }

    /// Creates an object, binds a pod or evicts it.
    pub async fn create(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        check_part(request)?;
        let written = match request.subresource {
            Subresource::None => self.create_object(request, body).await,
            Subresource::Binding => self.bind(request, body).await,
            Subresource::Eviction => self.evict(request, body).await,
            _ => Err(ApiError::method_not_supported(request.resource.names(), "create")),
        };
        self.acknowledge(request, written).await
    }

    /// Replaces an object, its status, its scale or its finalizers.
    pub async fn update(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        check_part(request)?;
        let written = match request.subresource {
            Subresource::Scale => self.update_scale(request, body).await,
            Subresource::Binding | Subresource::Eviction => {
                Err(ApiError::method_not_supported(request.resource.names(), "update"))
            }
            _ => self.update_object(request, body).await,
        };
        self.acknowledge(request, written).await
    }

    /// Changes an object, its status or its scale by a patch.
    pub async fn patch(&self, request: &Request, patch: Patch) -> Result<Written, ApiError> {
        check_part(request)?;
        let written = match request.subresource {
            Subresource::None | Subresource::Part(_) => self.patch_object(request, &patch).await,
            Subresource::Scale => self.patch_scale(request, &patch).await,
            _ => Err(ApiError::method_not_supported(request.resource.names(), "patch")),
        };
        self.acknowledge(request, written).await
    }

    /// Deletes an object, or begins to. The options of a `DeleteOptions` body are already in the request.
    pub async fn delete(&self, request: &Request) -> Result<Written, ApiError> {
        let written = match request.subresource {
            Subresource::None => self.delete_object(request).await,
            _ => Err(ApiError::method_not_supported(request.resource.names(), "delete")),
        };
        self.acknowledge(request, written).await
    }

    /// Deletes every object of a collection that the selectors match; answers what was deleted.
    pub async fn delete_collection(&self, request: &Request) -> Result<List, ApiError> {
        let deleted = self.delete_matching(request).await;
        self.acknowledge(request, deleted).await
    }

    /// What decides about other requests holds for the next one: a role, a binding and a configuration of admission are
    /// only acknowledged when they are in the cache, from which they are read.
    async fn acknowledge<T>(&self, request: &Request, written: Result<T, ApiError>) -> Result<T, ApiError> {
        if written.is_ok() && request.resource.names().group == rbac::GROUP {
            self.cache.fresh().await?;
        } else if admission::is_configuration(&request.resource) && written.is_ok() {
            self.cache.fresh().await?;
            self.policies.refresh();
        }
        written
    }

    /// Ends all watches and stops following the store: for a shutdown. Reads and writes must have ended before.
    pub fn stop(&self) {
        self.cache.stop.cancel();
    }

    /// Waits until reads see every write that was acknowledged before the call.
    pub async fn fresh(&self) -> Result<(), ApiError> {
        self.cache.fresh().await
    }

    /// The core resource of that name, if it is served.
    pub(crate) fn core(&self, plural: &str) -> Option<Arc<Resource>> {
        self.resource("", "v1", plural)
    }

    /// How many cluster IPs and node ports are taken and free.
    pub(crate) fn allocations(&self) -> Allocations {
        self.services.count(&self.cache)
    }

    fn cache_key(&self, request: &Request, name: &str) -> String {
        request.resource.cache_key(&request.namespace, name)
    }
}

/// A part that the kind does not have is not found.
fn check_part(request: &Request) -> Result<(), ApiError> {
    if request.resource.has(request.subresource) { Ok(()) } else { Err(ApiError::no_such_path()) }
}
