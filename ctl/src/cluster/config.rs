//! What a dev cluster is made of: addresses, ports and folders, chosen once and kept in its data folder.
//!
//! The choice is pure ([`choose`]): it is given what the machine uses already and returns the first set of
//! ranges that collides with nothing. What is not here: anything that is only true while the cluster runs
//! (that is `state`).

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::error::{ClusterError, at};
use super::etcd::EtcdChoice;
pub(crate) use super::store::StoreChoices;

/// The lasting choices' file in the data folder.
pub(crate) const FILE: &str = "cluster.json";
/// How many dev clusters one machine can hold: one /16 of pods each in 10.64.0.0–10.127.255.255.
const CLUSTERS_MAX: u8 = 64;
/// Where the API server's port is looked for first, and how many further ports are tried.
const API_PORT: u16 = 6443;
const KUBELET_PORT: u16 = 10250;
/// What the names of all clusters' links begin with.
pub(crate) const LINK_PREFIX: &str = "rv";
const PORTS_TRIED: u16 = 200;

/// The lasting choices of one dev cluster. Unknown fields are refused: a newer Reeve wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ClusterConfig {
    /// The cluster's name.
    pub name: String,
    /// Its number on this machine: names links and ranges.
    pub index: u8,
    /// Addresses of pods.
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
    /// Port of the API server on 127.0.0.1 and on the node's address.
    pub api_port: u16,
    /// Port of the node agent's server.
    pub kubelet_port: u16,
    /// Whether the node has a network namespace of its own.
    pub netns: bool,
    /// What the store keeps, and the backups that are made of it.
    #[serde(default, skip_serializing_if = "StoreChoices::is_default")]
    pub store: StoreChoices,
    /// The etcd that holds the cluster's state, if it does not lie in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdChoice>,
    /// Where clients of etcd reach the cluster's own store, if they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_port: Option<u16>,
    /// The container runtime that runs the containers, if not the built-in engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Who is asked who one is at images' registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<super::runtime::CredentialChoice>,
}

impl ClusterConfig {
    /// Address of the cluster DNS.
    pub(crate) fn dns_address(&self) -> Ipv4Addr {
        super::control::dns_address(self.service_cidr)
    }

    /// Prefix of the names of this cluster's links (at most 15 bytes with what is added).
    pub(crate) fn link_prefix(&self) -> String {
        format!("{LINK_PREFIX}{}", self.index)
    }

    /// The node's address where the machine gives it none: in a network namespace of its own, or without a network.
    pub(crate) fn own_node_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 28, self.index, 1)
    }
}

/// Folders and files of one dev cluster.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Everything that lasts.
    pub data_dir: PathBuf,
    /// Everything that ends with the machine's uptime.
    pub run_dir: PathBuf,
}

impl Paths {
    /// Where running clusters are found.
    pub(crate) const RUN_ROOT: &'static str = "/run/reeve";
    /// Where clusters live unless `--data-dir` says otherwise.
    pub(crate) const DATA_ROOT: &'static str = "/var/lib/reeve";

    /// The folders of the cluster `name`.
    pub(crate) fn of(name: &str, data_dir: Option<&Path>) -> Self {
        let data_dir = data_dir.map_or_else(|| Path::new(Self::DATA_ROOT).join(name), Path::to_path_buf);
        Self { data_dir, run_dir: Path::new(Self::RUN_ROOT).join(name) }
    }

    /// The lasting choices.
    pub(crate) fn config(&self) -> PathBuf {
        self.data_dir.join(FILE)
    }

    /// What the background process prints.
    pub(crate) fn log(&self) -> PathBuf {
        self.data_dir.join("reeve.log")
    }

    /// A kubeconfig with the admin's identity.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }
}

/// What the machine uses already.
#[derive(Debug, Default, Clone)]
pub(crate) struct InUse {
    /// Ranges that are routed or addressed on the node's network, and other clusters' ranges.
    pub ranges: Vec<Ipv4Net>,
    /// Numbers of other clusters.
    pub indexes: Vec<u8>,
}

/// The first number whose ranges overlap nothing, with its ranges; `None` when all are taken.
pub(crate) fn choose(in_use: &InUse) -> Option<(u8, Ipv4Net, Ipv4Net)> {
    (0..CLUSTERS_MAX).filter(|index| !in_use.indexes.contains(index)).find_map(|index| {
        let pods = Ipv4Net::new_assert(Ipv4Addr::new(10, 64 + index, 0, 0), 16);
        let services = Ipv4Net::new_assert(Ipv4Addr::new(10, 128 + index, 0, 0), 20);
        let free = |range: &Ipv4Net| {
            !in_use.ranges.iter().any(|used| {
                used.prefix_len() > 0 && (used.contains(&range.network()) || range.contains(&used.network()))
            })
        };
        (free(&pods) && free(&services)).then_some((index, pods, services))
    })
}

/// Refuses names that cannot name folders, links and contexts.
pub(crate) fn validate_name(name: &str) -> Result<(), ClusterError> {
    let fits = !name.is_empty()
        && name.len() <= 32
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(ClusterError::Invalid {
        what: "cluster name",
        value: name.to_owned(),
        rule: "1 to 32 lower-case letters, digits or '-', starting and ending with a letter or digit".to_owned(),
    })
}

/// The first free TCP port of all addresses from `first` on that no other cluster has claimed.
pub(crate) fn free_port(first: u16, claimed: &[u16]) -> Result<u16, ClusterError> {
    (first..first.saturating_add(PORTS_TRIED))
        .filter(|port| !claimed.contains(port))
        .find(|port| TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port)).is_ok())
        .ok_or_else(|| ClusterError::Invalid {
            what: "port",
            value: format!("{first}–{}", first.saturating_add(PORTS_TRIED)),
            rule: "one of these ports must be free".to_owned(),
        })
}

/// The choices of an existing cluster, if there is one in that folder.
pub(crate) fn load(paths: &Paths) -> Result<Option<ClusterConfig>, ClusterError> {
    load_from(&paths.config())
}

/// The choices that stand in that file, if there is one.
pub(crate) fn load_from(path: &Path) -> Result<Option<ClusterConfig>, ClusterError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(ClusterError::io(at("read", path), err)),
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|err| ClusterError::Invalid {
        what: "cluster file",
        value: path.display().to_string(),
        rule: err.to_string(),
    })
}

/// Keeps the choices, atomically.
pub(crate) fn save(paths: &Paths, config: &ClusterConfig) -> Result<(), ClusterError> {
    save_to(&paths.config(), config)
}

/// Keeps the choices in that file, atomically.
pub(crate) fn save_to(path: &Path, config: &ClusterConfig) -> Result<(), ClusterError> {
    let text = serde_json::to_vec_pretty(config).map_err(|err| ClusterError::component("configuration", err))?;
    super::files::replace(path, &text, 0o600).map_err(|err| ClusterError::io(at("write", path), err))
}

/// Makes the choices for a new cluster. `others` are the clusters of this machine.
pub(crate) fn create(
    name: &str,
    netns: bool,
    mut in_use: InUse,
    others: &[ClusterConfig],
) -> Result<ClusterConfig, ClusterError> {
    in_use.indexes.extend(others.iter().map(|other| other.index));
    in_use.ranges.extend(others.iter().flat_map(|other| [other.cluster_cidr, other.service_cidr]));
    let (index, cluster_cidr, service_cidr) = choose(&in_use).ok_or_else(|| ClusterError::Invalid {
        what: "machine",
        value: format!("{} clusters", others.len()),
        rule:
            "a range of pods in 10.64.0.0–10.127.255.255 and one of Services in 10.128.0.0–10.191.255.255 must be free"
                .to_owned(),
    })?;
    let claimed = claimed_ports(others);
    let api_port = free_port(API_PORT, &claimed)?;
    let kubelet_port = if netns { KUBELET_PORT } else { free_port(KUBELET_PORT, &claimed)? };
    Ok(ClusterConfig {
        name: name.to_owned(),
        index,
        cluster_cidr,
        service_cidr,
        api_port,
        kubelet_port,
        netns,
        store: StoreChoices::default(),
        etcd: None,
        etcd_port: None,
        runtime: None,
        credentials: None,
    })
}

/// The choices of a cluster that was stopped, with the next free port for one that somebody else took meanwhile.
pub(crate) fn with_free_ports(own: ClusterConfig, others: &[ClusterConfig]) -> Result<ClusterConfig, ClusterError> {
    let claimed = claimed_ports(others);
    let api_port = free_port(own.api_port, &claimed)?;
    let kubelet_port = if own.netns { own.kubelet_port } else { free_port(own.kubelet_port, &claimed)? };
    Ok(ClusterConfig { api_port, kubelet_port, ..own })
}

fn claimed_ports(others: &[ClusterConfig]) -> Vec<u16> {
    others.iter().flat_map(|other| [other.api_port, other.kubelet_port]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().expect("a range")
    }

    fn config() -> ClusterConfig {
        ClusterConfig {
            name: "dev".to_owned(),
            index: 0,
            cluster_cidr: net("10.64.0.0/16"),
            service_cidr: net("10.128.0.0/20"),
            api_port: 1,
            kubelet_port: 2,
            netns: true,
            store: StoreChoices::default(),
            etcd: None,
            etcd_port: None,
            runtime: None,
            credentials: None,
        }
    }

    #[test]
    fn the_first_cluster_gets_the_first_ranges() {
        let (index, pods, services) = choose(&InUse::default()).expect("free");
        assert_eq!((index, pods, services), (0, net("10.64.0.0/16"), net("10.128.0.0/20")));
    }

    #[test]
    fn ranges_that_the_machine_routes_and_other_clusters_are_stepped_over() {
        let in_use = InUse { ranges: vec![net("10.64.3.0/24"), net("0.0.0.0/0")], indexes: vec![1] };
        assert_eq!(choose(&in_use).expect("free").0, 2);
        let all = InUse { ranges: vec![net("10.0.0.0/8")], indexes: vec![] };
        assert_eq!(choose(&all), None);
    }

    #[test]
    fn names_that_cannot_name_a_link_are_refused() {
        assert!(validate_name("dev-2").is_ok());
        for bad in ["", "Dev", "-a", "a/b", "..", "a b", &"x".repeat(33)] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stopped_cluster_keeps_its_ports_unless_they_were_taken() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let api_port = taken.local_addr().expect("an address").port();
        let own = ClusterConfig { api_port, ..config() };
        let moved = with_free_ports(own.clone(), &[]).expect("ports");
        assert!(moved.api_port > api_port, "{moved:?}");
        drop(taken);
        assert_eq!(with_free_ports(own.clone(), &[]).expect("ports"), own);
    }

    #[test]
    fn dns_is_the_tenth_service_address() {
        assert_eq!(config().dns_address(), Ipv4Addr::new(10, 128, 0, 10));
    }
}
