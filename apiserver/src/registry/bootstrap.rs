//! The objects every cluster has: the system namespaces and PriorityClasses, and the Service by which pods reach the
//! API server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use reeve_store::Revision;
use serde_json::{Value, json};
use tracing::warn;

use super::answer::Object;
use super::request::{Body, Options, Request, Subresource, UserInfo, Warnings};
use super::resource::Resource;
use super::{Registry, RegistryConfig, builtin, encode, meta};
use crate::status::ApiError;

/// As Kubernetes makes them.
const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// The name of the Service and of what belongs to it.
const NAME: &str = "kubernetes";

/// Makes the objects again when somebody has deleted or changed them, as soon as the cache shows it; ends when the
/// registry is stopped.
pub(super) fn spawn(registry: &Arc<Registry>, config: RegistryConfig) {
    let (stop, registry) = (registry.cache.stop.clone(), Arc::downgrade(registry));
    tokio::spawn(async move { stop.run_until_cancelled(keep(registry, config)).await });
}

async fn keep(registry: Weak<Registry>, config: RegistryConfig) {
    let Some(mut progress) = registry.upgrade().map(|registry| registry.cache.progress()) else { return };
    let mut settled = Vec::new();
    if let Some(registry) = registry.upgrade()
        && let Err(error) = registry.make_up_addresses().await
    {
        warn!(%error, "An IPAddress of a Service cannot be made.");
    }
    while let Some(registry) = registry.upgrade() {
        // Looked at before the repair: what changes during it is looked at again.
        let found = versions(&registry);
        if found != settled {
            let made = ensure(&registry, &config).await;
            let made = if made.is_ok() { builtin::ensure(&registry, &config).await } else { made };
            if let Err(error) = made {
                warn!(%error, "An object that every cluster has cannot be made; trying again when it changes.");
            }
            settled = found;
        }
        drop(registry);
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// In which versions the objects are there.
fn versions(registry: &Registry) -> Vec<Option<Revision>> {
    let version = |resource: Option<Arc<Resource>>, namespace: &str, name: &str| {
        resource.and_then(|resource| registry.peek(&resource, namespace, name)).map(|object| object.revision)
    };
    let namespaces = NAMESPACES.map(|name| version(registry.core("namespaces"), "", name));
    let others = [registry.core("services"), registry.core("endpoints")];
    let others = others.map(|resource| version(resource, "default", NAME));
    let slices = slices(registry).into_iter().map(|(_, slice)| Some(slice.revision));
    namespaces.into_iter().chain(others).chain(slices).chain(builtin::versions(registry)).collect()
}

/// Makes what is missing and corrects the endpoints.
pub(super) async fn ensure(registry: &Registry, config: &RegistryConfig) -> Result<(), ApiError> {
    if let Some(namespaces) = registry.core("namespaces") {
        for name in NAMESPACES {
            let namespace = json!({ "metadata": { "name": name } });
            create_missing(registry, &namespaces, "", name, namespace).await?;
        }
    }
    if let Some(classes) = registry.resource("scheduling.k8s.io", "v1", "priorityclasses") {
        for class in reeve_kinds::bootstrap::system_classes() {
            let name = meta::text(&class, "name").to_owned();
            create_missing(registry, &classes, "", &name, class).await?;
        }
    }
    if let Some(services) = registry.core("services") {
        create_missing(registry, &services, "default", NAME, service(config)).await?;
    }
    let address = config.advertise.ip();
    if address.is_loopback() || address.is_unspecified() {
        warn!(%address, "No pod can reach this address: the kubernetes Service stays without endpoints.");
        return Ok(());
    }
    let there = if config.several { servers(registry) } else { BTreeSet::new() };
    if there.contains(&config.advertise) {
        // Who else is in the slices is not for this server to say: one may just have been taken out.
        return write_endpoints(registry, &by_port(there)).await;
    }
    write_servers(registry, there.into_iter().chain([config.advertise]).collect()).await
}

/// The slices that lead to the API servers, by name. There is one for each port that servers have.
fn slices(registry: &Registry) -> Vec<(String, Object)> {
    let Some(slices) = registry.resource("discovery.k8s.io", "v1", "endpointslices") else { return Vec::new() };
    let snapshot = slices.storage.snapshot();
    let name_of = |key: &[u8]| {
        let name = std::str::from_utf8(key).ok()?.strip_prefix("default/")?;
        let port = name.strip_prefix(NAME)?;
        let is_ours = port.is_empty() || port.strip_prefix('-').is_some_and(|port| port.parse::<u16>().is_ok());
        is_ours.then(|| name.to_owned())
    };
    let scope = format!("default/{NAME}");
    let found = snapshot.scan(&scope, b"");
    found.filter_map(|(key, slice)| Some((name_of(key)?, slice.clone()))).collect()
}

/// The servers that the `kubernetes` Service leads to, as of the cache.
fn servers(registry: &Registry) -> BTreeSet<SocketAddr> {
    let mut servers = BTreeSet::new();
    for (_, slice) in slices(registry) {
        let slice = slice.value();
        let port = slice["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let addresses: Vec<IpAddr> =
            endpoints.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok()).collect();
        servers.extend(port.into_iter().flat_map(|port| addresses.iter().map(move |ip| SocketAddr::new(*ip, port))));
    }
    servers
}

/// The servers by their ports.
type ByPort = BTreeMap<u16, BTreeSet<IpAddr>>;

fn by_port(servers: BTreeSet<SocketAddr>) -> ByPort {
    let mut by_port = ByPort::new();
    for server in servers {
        by_port.entry(server.port()).or_default().insert(server.ip());
    }
    by_port
}

/// First the slices, which say who there is, then the Endpoints that are made of them.
async fn write_servers(registry: &Registry, servers: BTreeSet<SocketAddr>) -> Result<(), ApiError> {
    let by_port = by_port(servers);
    write_slices(registry, &by_port).await?;
    write_endpoints(registry, &by_port).await
}

async fn write_endpoints(registry: &Registry, by_port: &ByPort) -> Result<(), ApiError> {
    let Some(endpoints) = registry.core("endpoints") else { return Ok(()) };
    keep_true(registry, &endpoints, NAME, endpoints_object(by_port), &["subsets"]).await
}

async fn write_slices(registry: &Registry, by_port: &ByPort) -> Result<(), ApiError> {
    let Some(resource) = registry.resource("discovery.k8s.io", "v1", "endpointslices") else { return Ok(()) };
    let mut names = Vec::new();
    for (index, (port, servers)) in by_port.iter().enumerate() {
        let name = if index == 0 { NAME.to_owned() } else { format!("{NAME}-{port}") };
        keep_true(registry, &resource, &name, slice(&name, *port, servers), &["endpoints", "ports"]).await?;
        names.push(name);
    }
    for (name, _) in slices(registry).into_iter().filter(|(name, _)| !names.contains(name)) {
        match registry.delete(&request(&resource, "default", &name)).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Registry {
    /// Takes those out of the `kubernetes` Service that are no servers, or dead. For one server at a time: the others
    /// only see to it that they are in it themselves.
    pub(crate) async fn keep_servers(&self, alive: &BTreeSet<SocketAddr>) -> Result<(), ApiError> {
        let there = servers(self);
        let kept: BTreeSet<SocketAddr> = there.intersection(alive).copied().collect();
        // Nobody at all: better a dead address than none.
        if kept == there || kept.is_empty() { Ok(()) } else { write_servers(self, kept).await }
    }
}

pub(super) fn request(resource: &Arc<Resource>, namespace: &str, name: &str) -> Request {
    Request {
        user: UserInfo::new("system:apiserver", &["system:masters", "system:authenticated"]),
        resource: Arc::clone(resource),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: Subresource::None,
        options: Options::default(),
        warnings: Warnings::default(),
    }
}

pub(super) async fn create_missing(
    registry: &Registry,
    resource: &Arc<Resource>,
    namespace: &str,
    name: &str,
    object: Value,
) -> Result<(), ApiError> {
    if registry.peek(resource, namespace, name).is_some() {
        return Ok(());
    }
    match registry.create(&request(resource, namespace, name), Body::from(object)).await {
        Err(error) if !error.is_already_exists() => Err(error),
        // The next object may need this one (its namespace) in the cache.
        _ => registry.fresh().await,
    }
}

/// Creates the object, or sets the fields that do not say what they should.
async fn keep_true(
    registry: &Registry,
    resource: &Arc<Resource>,
    name: &str,
    object: Value,
    fields: &[&str],
) -> Result<(), ApiError> {
    let Some(there) = registry.peek(resource, "default", name) else {
        return create_missing(registry, resource, "default", name, object).await;
    };
    let mut wanted = encode::bare(&there);
    for field in fields {
        if let Some(wanted) = wanted.as_object_mut() {
            wanted.insert((*field).to_owned(), object[*field].clone());
        }
    }
    registry.update(&request(resource, "default", name), Body::from(wanted)).await.map(|_| ())
}

fn service(config: &RegistryConfig) -> Value {
    let first = config.service_cidr.hosts().next().unwrap_or(config.service_cidr.addr());
    json!({
        "metadata": { "name": NAME, "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": {
            "type": "ClusterIP", "clusterIP": first.to_string(), "sessionAffinity": "None",
            "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": config.advertise.port() }],
        },
    })
}

fn ports(port: u16) -> Value {
    json!([{ "name": "https", "protocol": "TCP", "port": port }])
}

fn endpoints_object(servers: &ByPort) -> Value {
    let addresses = |servers: &BTreeSet<IpAddr>| servers.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>();
    let subset = |(port, servers): (&u16, _)| json!({ "addresses": addresses(servers), "ports": ports(*port) });
    json!({
        "metadata": { "name": NAME, "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": servers.iter().map(subset).collect::<Vec<_>>(),
    })
}

fn slice(name: &str, port: u16, servers: &BTreeSet<IpAddr>) -> Value {
    let endpoint = |ip: &IpAddr| json!({ "addresses": [ip], "conditions": { "ready": true } });
    let mut slice = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": NAME } },
        "addressType": if servers.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" },
        "endpoints": servers.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": ports(port),
    });
    meta::set(&mut slice, "namespace", "default");
    slice
}
