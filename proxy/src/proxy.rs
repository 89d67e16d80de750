//! The proxy of one node: follows Services and slices, and keeps the kernel in step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use kube::Resource as _;
use reeve_api::drain::EndpointDrain;
use reeve_client::{Component, EventRecorder, NeverSynced, ObjectKey};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};

use crate::cache::{self, Cache};
use crate::conntrack::Conntrack;
use crate::dns::{DnsConfig, DnsError, DnsServer, forward};
use crate::link::{LinkError, ServiceLink};
use crate::nft::NftError;
use crate::services::flows;
use crate::services::health::{Health, HealthPorts};
use crate::services::layout::Surroundings;
use crate::services::loopback::{Conflict, LoopbackPorts};
use crate::services::plan::{Entries, Refused, plan};
use crate::services::rules::Rules;

/// Pause before the kernel is tried again after it refused; the rules in force stay meanwhile.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Pause before NodePorts that others hold are tried again. Nobody tells when a port becomes free.
const HELD_PORT_PAUSE: Duration = Duration::from_secs(10);
/// Nftables chains and links are named after the cluster; a longer name would not fit a link.
const LINK_SUFFIX: &str = "svc";

/// What the proxy must know of its node and cluster.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The cluster's name: names the nftables table, `reeve-NAME`.
    pub cluster: String,
    /// Prefix of the names of the cluster's links, at most 12 bytes.
    pub link_prefix: String,
    /// What the names of the pods' links begin with: pods may send from their own addresses only.
    pub pod_links: String,
    /// The node's name: local traffic policies ask for it.
    pub node: String,
    /// The node's address: source of the host's own packets to Services.
    pub node_address: Ipv4Addr,
    /// Addresses of all pods.
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
    /// Address of the cluster DNS, inside the service range.
    pub dns_address: Ipv4Addr,
    /// `cluster.local`
    pub domain: String,
    /// Where the servers for foreign names are read from, once.
    pub resolv_conf: PathBuf,
}

impl ProxyConfig {
    fn table(&self) -> String {
        format!("reeve-{}", self.cluster)
    }

    fn link(&self) -> String {
        format!("{}{LINK_SUFFIX}", self.link_prefix)
    }
}

/// Why a proxy could not be started. All of it is the machine's fault; retrying without a change does not help.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// nftables is missing or refuses.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The device of the service range could not be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The DNS server could not be bound.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The proxy was told to stop before it had begun.
    #[error(transparent)]
    NeverSynced(#[from] NeverSynced),
}

/// A proxy that is ready to run.
pub struct Proxy {
    config: ProxyConfig,
    component: Component,
    cache: Cache,
    dirty: Arc<Dirty>,
    drain: Arc<Drain>,
}

/// Services to look at again. Bounded by the number of Services.
#[derive(Default)]
struct Dirty {
    keys: Mutex<BTreeSet<ObjectKey>>,
    changed: Notify,
}

impl Dirty {
    fn mark(&self, key: ObjectKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.changed.notify_one();
    }

    fn take(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Knows which addresses the rules lead to.
struct Drain {
    in_use: watch::Sender<BTreeSet<Ipv4Addr>>,
}

#[async_trait::async_trait]
impl EndpointDrain for Drain {
    async fn drained(&self, pod_ips: &[IpAddr]) {
        let own: Vec<Ipv4Addr> = pod_ips
            .iter()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        let mut in_use = self.in_use.subscribe();
        // An error means that the proxy has ended: then nothing will change any more.
        drop(in_use.wait_for(|in_use| !own.iter().any(|ip| in_use.contains(ip))).await);
    }
}

impl Proxy {
    /// Starts to watch; nothing is changed in the kernel yet.
    #[must_use]
    pub fn new(config: ProxyConfig, component: Component) -> Self {
        let cache = Cache::start(&component);
        let dirty = Arc::new(Dirty::default());
        let marks = Arc::clone(&dirty);
        cache.services.on_change(move |change| marks.mark(ObjectKey::of(change.object().as_ref())));
        let marks = Arc::clone(&dirty);
        cache.slices.on_change(move |change| {
            for slice in [change.old(), change.new()].into_iter().flatten() {
                if let Some(key) = cache::owner(slice) {
                    marks.mark(key);
                }
            }
        });
        let drain = Arc::new(Drain { in_use: watch::Sender::new(BTreeSet::new()) });
        Self { config, component, cache, dirty, drain }
    }

    /// Answers the node agent when a pod gets no new connections any more.
    #[must_use]
    pub fn drain(&self) -> Arc<dyn EndpointDrain> {
        Arc::clone(&self.drain) as Arc<dyn EndpointDrain>
    }

    /// Makes the table, the device and the DNS server, then follows the cluster until told to stop. The rules stay
    /// in the kernel when it returns: connections and Services go on while the proxy is away.
    ///
    /// # Errors
    /// When the kernel or the machine cannot do what is needed.
    pub async fn run(self) -> Result<(), ProxyError> {
        let link = ServiceLink {
            name: self.config.link(),
            service_cidr: self.config.service_cidr,
            dns_address: self.config.dns_address,
            node_address: self.config.node_address,
        };
        link.ensure().await?;
        self.serve_dns().await?;
        self.cache.synced(&self.component).await?;
        let surroundings = Surroundings {
            cluster: self.config.cluster_cidr,
            service: self.config.service_cidr,
            pod_links: self.config.pod_links.clone(),
        };
        let mut rules = Rules::new(self.config.table(), surroundings)?;
        let mut ports = Ports { node: LoopbackPorts::new(), health: HealthPorts::new(), refused: Refused::new() };
        let recorder = EventRecorder::start(&self.component, "reeve-proxy", Some(&self.config.node));
        // A kernel that refuses at once will not do better later.
        self.sync(&mut rules, &mut ports, &recorder)?;
        info!(table = self.config.table(), "proxying Services");
        loop {
            let pause = if let Err(err) = self.sync(&mut rules, &mut ports, &recorder) {
                error!(%err, "cannot bring the Services' rules up to date");
                RETRY_PAUSE
            } else if !ports.refused.is_empty() {
                HELD_PORT_PAUSE
            } else {
                Duration::MAX
            };
            tokio::select! {
                () = self.component.shutdown.cancelled() => return Ok(()),
                () = self.dirty.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn serve_dns(&self) -> Result<(), DnsError> {
        let config = DnsConfig {
            address: self.config.dns_address,
            port: 53,
            domain: self.config.domain.clone(),
            upstreams: forward::upstreams(&self.config.resolv_conf, self.config.dns_address.into()),
        };
        let records = Arc::new(self.cache.clone());
        let server = DnsServer::bind(config, records, Arc::clone(&self.component.rng)).await?;
        self.component.spawn_vital("dns", server.run(self.component.shutdown.clone()));
        Ok(())
    }

    /// Brings ports and rules of the Services that have changed up to date. After an error, called again, it tries all
    /// that has failed.
    fn sync(&self, rules: &mut Rules, ports: &mut Ports, recorder: &EventRecorder) -> Result<(), NftError> {
        let dirty = self.dirty.take();
        let mut plans: BTreeMap<_, _> = dirty.into_iter().map(|key| (key.clone(), self.plan(&key, ports))).collect();
        // The ports first: what comes in on a port that others hold is theirs.
        for key in self.hold_ports(ports, rules, &plans, recorder) {
            let planned = self.plan(&key, ports);
            plans.insert(key, planned);
        }
        let bytes = rules.sync(plans.into_iter().collect())?;
        debug!(bytes, "the Services' rules are up to date");
        forget_flows(rules);
        self.drain.in_use.send_if_modified(|in_use| {
            let now = rules.lasting();
            let changed = *in_use != now;
            *in_use = now;
            changed
        });
        Ok(())
    }

    fn plan(&self, key: &ObjectKey, ports: &Ports) -> Option<Entries> {
        let service = self.cache.get(key)?;
        Some(plan(&service, &self.cache.slices_of(key), &self.config.node, &ports.refused))
    }

    /// Holds the node's ports of all Services; returns those Services that got one or lost it since the last time.
    fn hold_ports(
        &self,
        ports: &mut Ports,
        rules: &Rules,
        plans: &BTreeMap<ObjectKey, Option<Entries>>,
        recorder: &EventRecorder,
    ) -> Vec<ObjectKey> {
        let unchanged = rules.services().filter(|(key, _)| !plans.contains_key(*key));
        let planned = plans.iter().filter_map(|(key, entries)| Some((key, entries.as_ref()?)));
        let all: Vec<(&ObjectKey, &Entries)> = unchanged.chain(planned).collect();
        let wanted = all.iter().flat_map(|(_, entries)| entries.node_ports.iter().copied()).collect();
        let health = all.iter().filter_map(|(key, entries)| {
            let check = entries.health_check?;
            Some((check.port, Health { service: (*key).clone(), local: check.local }))
        });
        let conflicts = [ports.node.sync(&wanted), ports.health.sync(health.collect())].concat();
        let owners = |protocol, port| all.iter().filter(move |(_, own)| own.holds(protocol, port)).map(|(key, _)| *key);
        for conflict in &conflicts {
            let owner = owners(conflict.protocol, conflict.port).next();
            if let Some(service) = owner.and_then(|key| self.cache.get(key)) {
                recorder.warning(&service.object_ref(&()), "NodePortInUse", conflict_message(conflict, &self.config));
            }
        }
        let refused = conflicts.iter().map(|conflict| (conflict.protocol, conflict.port)).collect();
        let changed = ports.refused.symmetric_difference(&refused);
        let keys = changed.flat_map(|(protocol, port)| owners(*protocol, *port).cloned()).collect();
        ports.refused = refused;
        keys
    }
}

/// The ports of the node that Services have.
struct Ports {
    node: LoopbackPorts,
    health: HealthPorts,
    /// Those that others hold.
    refused: Refused,
}

/// Lets UDP clients of endpoints that are gone begin anew.
fn forget_flows(rules: &mut Rules) {
    let redirected = rules.take_redirected();
    if redirected.is_empty() {
        return;
    }
    let own_addresses = own_addresses();
    let stale = |flow: &_| flows::is_stale(flow, &redirected, &own_addresses);
    match Conntrack::open().and_then(|conntrack| conntrack.forget(stale)) {
        Ok(0) => {}
        Ok(forgotten) => debug!(forgotten, "UDP flows that led elsewhere"),
        // They end by themselves when their clients are silent for two minutes.
        Err(err) => warn!(%err, "cannot make the kernel forget UDP flows to endpoints that are gone"),
    }
}

/// The addresses of this network namespace.
fn own_addresses() -> BTreeSet<Ipv4Addr> {
    let links = nix::ifaddrs::getifaddrs().into_iter().flatten();
    links.filter_map(|link| link.address?.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip)).collect()
}

fn conflict_message(conflict: &Conflict, config: &ProxyConfig) -> String {
    let Conflict { protocol, port, .. } = conflict;
    format!("nodePort {port}/{protocol} cannot be used on node {}: {} holds it", config.node, conflict.holder)
}

/// Removes what a cluster's proxy put into the kernel. Idempotent.
///
/// # Errors
/// When the kernel refuses.
pub async fn cleanup(cluster: &str, link_prefix: &str) -> Result<(), ProxyError> {
    Rules::remove(&format!("reeve-{cluster}"))?;
    ServiceLink::remove(&format!("{link_prefix}{LINK_SUFFIX}")).await?;
    Ok(())
}
