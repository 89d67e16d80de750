//! The heart of the API server: what happens to an object between the decoded request and the store.
//!
//! Generic over kinds: names, rules and defaults come from [`reeve_kinds::Kind`]. The HTTP side routes,
//! authenticates and authorizes, then calls one verb here with a [`Request`]; what it gets back is JSON ready
//! to be sent. Nothing here knows HTTP.

mod answer;
mod request;
mod resource;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;
use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use reeve_kinds::Kind;
use reeve_store::SharedKv;

pub use answer::{EventType, List, Object, Watch, WatchEvent, Written};
pub use request::{
    Body, FieldValidation, Options, Patch, Preconditions, Propagation, Request, Subresource, UserInfo, VersionMatch,
};
pub use resource::Resource;

use crate::status::ApiError;

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
}

/// What the registry stands on.
#[derive(Clone)]
pub struct RegistryParts {
    /// The store.
    pub kv: SharedKv,
    /// The kinds that are served, in the order of discovery; usually `reeve_kinds::builtin()`.
    pub kinds: &'static [&'static dyn Kind],
    /// Time, for timestamps in objects.
    pub clock: SharedClock,
    /// Randomness, for uids and generated names.
    pub rng: SharedRng,
}

/// All served resources and their objects. One per API server; share it in an [`Arc`].
pub struct Registry {
    resources: Vec<Arc<Resource>>,
}

impl Registry {
    /// Reads the whole store into the watch cache, makes the objects that every cluster has (system namespaces,
    /// the `kubernetes` Service) and follows the store's changes until it is dropped.
    pub async fn start(config: RegistryConfig, parts: RegistryParts) -> Result<Arc<Self>, ApiError> {
        let _ = config;
        let resources =
            parts.kinds.iter().enumerate().map(|(index, kind)| Arc::new(Resource::new(*kind, index))).collect();
        Ok(Arc::new(Self { resources }))
    }

    /// The served resources, in the order of discovery.
    #[must_use]
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resource of that group, version and plural name.
    #[must_use]
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| resource.is(group, plural) && resource.names().version == version)
    }

    /// The object from the cache as it is now, without any wait: for checks by the server itself (tokens, nodes).
    #[must_use]
    pub fn peek(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Object> {
        let _ = (resource, namespace, name);
        None
    }

    /// Reads one object, or its scale.
    pub async fn get(&self, request: &Request) -> Result<Object, ApiError> {
        Err(absent(request))
    }

    /// Reads a collection.
    pub async fn list(&self, request: &Request) -> Result<List, ApiError> {
        Err(absent(request))
    }

    /// Follows a collection (or one object: the HTTP side then sets the field selector `metadata.name=…`).
    pub async fn watch(&self, request: &Request) -> Result<Watch, ApiError> {
        Err(absent(request))
    }

    /// Creates an object, or binds a pod.
    pub async fn create(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        let _ = body;
        Err(absent(request))
    }

    /// Replaces an object, its status, its scale or its finalizers.
    pub async fn update(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        let _ = body;
        Err(absent(request))
    }

    /// Changes an object, its status or its scale by a patch.
    pub async fn patch(&self, request: &Request, patch: Patch) -> Result<Written, ApiError> {
        let _ = patch;
        Err(absent(request))
    }

    /// Deletes an object, or begins to. The options of a `DeleteOptions` body are already in the request.
    pub async fn delete(&self, request: &Request) -> Result<Written, ApiError> {
        Err(absent(request))
    }

    /// Deletes every object of a collection that the selectors match; answers what was deleted.
    pub async fn delete_collection(&self, request: &Request) -> Result<List, ApiError> {
        Err(absent(request))
    }
}

fn absent(request: &Request) -> ApiError {
    ApiError::new(503, "ServiceUnavailable", format!("{} are not served yet", request.resource.qualified()))
}
