//! Ports of the node that lead to pods (`hostPort`): an nftables table of their own, and relays on 127.0.0.1.
//!
//! The table is made anew, in one transaction, whenever a pod with such ports comes or goes; connections that stand
//! keep their translation. It is there only while a pod wants it. What is published is written down, so that a new
//! agent does not take it away. The kernel's translation does not work for 127.0.0.0/8 without opening the node's
//! loopback services to pods (CVE-2020-8558): there a TCP port has a listener that passes connections on, and UDP
//! ports do not answer.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Pod;
use reeve_nft::expr::{ADDRESS_LOCAL, Reg, STATUS_DNAT};
use reeve_nft::ops::DataSpec;
use reeve_nft::{Chain, Data, Element, Expr, Hook, NftError, NftSocket, Op, SetSpec, Verdict};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::pod::state::{containers, spec};

/// Local connections passed on at once, over all ports; further ones wait in the kernel's queue.
const RELAYED_MAX: usize = 256;
/// How long a pod may take to accept.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;

/// nft's numbers of the types in keys, for whoever lists the ruleset: six bits each in a concatenation.
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;

/// `protocol . port` on any address of the node → where.
const PORTS: &str = "ports";
/// `address . protocol . port` → where.
const BOUND_PORTS: &str = "bound-ports";
/// `address . address`: a pod that reaches itself through the node.
const HAIRPIN: &str = "hairpin";

const ADDRESS: Reg = Reg(0);
const PROTOCOL: Reg = Reg(1);
const PORT: Reg = Reg(2);
const TARGET: Reg = Reg(8);
const SCRATCH: Reg = Reg(10);

/// One port of the node and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostPort {
    /// Its IP protocol.
    protocol: u8,
    /// The node's address; `None` for all.
    address: Option<Ipv4Addr>,
    port: u16,
    target_port: u16,
}

/// The ports that a pod wants of the node. None on the node's network: there its own ports are the node's.
pub(crate) fn wanted(pod: &Pod) -> Vec<HostPort> {
    if spec(pod).host_network == Some(true) {
        return Vec::new();
    }
    let ports = containers(spec(pod)).flat_map(|(container, _)| container.ports.iter().flatten());
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    let wanted = ports.filter_map(|port| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => UDP,
            Some("SCTP") => SCTP,
            _ => TCP,
        };
        let address = port.host_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        Some(HostPort {
            protocol,
            address: address.filter(|address| !address.is_unspecified()),
            port: number(port.host_port?)?,
            target_port: number(port.container_port)?,
        })
    });
    wanted.collect()
}

/// What one sandbox has published.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Published {
    address: Ipv4Addr,
    ports: Vec<HostPort>,
}

/// The ports of the node that lead to pods.
#[derive(Debug)]
pub(crate) struct HostPorts {
    table: String,
    path: PathBuf,
    by_sandbox: BTreeMap<String, Published>,
    relays: BTreeMap<SocketAddrV4, (SocketAddrV4, DropGuard)>,
    relayed: Arc<Semaphore>,
}

/// Name of a cluster's table.
fn table(cluster: &str) -> String {
    format!("reeve-{cluster}-ports")
}

impl HostPorts {
    /// Takes up what an earlier agent has published. Call it inside a runtime, in the node's network namespace.
    pub(crate) fn open(path: PathBuf, cluster: &str) -> Result<Self, NftError> {
        // A record that is missing or torn: its pods publish anew when they get their next sandbox.
        let by_sandbox = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut ports = Self {
            table: table(cluster),
            path,
            by_sandbox,
            relays: BTreeMap::new(),
            relayed: Arc::new(Semaphore::new(RELAYED_MAX)),
        };
        if !ports.by_sandbox.is_empty() {
            ports.apply()?;
        }
        Ok(ports)
    }

    /// Leads ports of the node to a sandbox. Idempotent.
    pub(crate) fn publish(&mut self, sandbox: &str, address: Ipv4Addr, ports: Vec<HostPort>) -> Result<(), NftError> {
        if ports.is_empty() {
            return Ok(());
        }
        self.by_sandbox.insert(sandbox.to_owned(), Published { address, ports });
        self.apply()
    }

    /// Takes a sandbox's ports back. Idempotent.
    pub(crate) fn withdraw(&mut self, sandbox: &str) -> Result<(), NftError> {
        if self.by_sandbox.remove(sandbox).is_none() {
            return Ok(());
        }
        self.apply()
    }

    fn apply(&mut self) -> Result<(), NftError> {
        if let Err(error) = self.save() {
            tracing::warn!(%error, path = %self.path.display(), "host ports will not outlive the agent");
        }
        NftSocket::open()?.apply(&self.table, &ruleset(self.by_sandbox.values()))?;
        self.relay();
        Ok(())
    }

    fn save(&self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(&self.by_sandbox)?)?;
        fs::rename(&fresh, &self.path)
    }

    /// Listens on 127.0.0.1 for exactly what is published.
    fn relay(&mut self) {
        let wanted = local_ports(self.by_sandbox.values());
        self.relays.retain(|place, (target, _)| wanted.get(place) == Some(target));
        for (place, target) in wanted {
            if self.relays.contains_key(&place) {
                continue;
            }
            match listen(place) {
                Ok(listener) => {
                    let stop = CancellationToken::new();
                    let relay = pass_on_all(listener, target, Arc::clone(&self.relayed));
                    tokio::spawn(stop.clone().run_until_cancelled_owned(relay));
                    self.relays.insert(place, (target, stop.drop_guard()));
                }
                Err(error) => tracing::warn!(%error, %place, "a hostPort does not answer on this address"),
            }
        }
    }
}

/// Removes a cluster's table. Idempotent.
pub(crate) fn remove(cluster: &str) -> Result<(), NftError> {
    NftSocket::open()?.apply(&table(cluster), &[Op::AddTable, Op::DeleteTable]).map(drop)
}

/// The TCP ports that answer on loopback addresses, and where they lead.
fn local_ports<'p>(published: impl Iterator<Item = &'p Published>) -> BTreeMap<SocketAddrV4, SocketAddrV4> {
    let mut found = BTreeMap::new();
    for pod in published {
        for port in pod.ports.iter().filter(|port| port.protocol == TCP) {
            let address = port.address.unwrap_or(Ipv4Addr::LOCALHOST);
            if address.is_loopback() {
                let target = SocketAddrV4::new(pod.address, port.target_port);
                found.insert(SocketAddrV4::new(address, port.port), target);
            }
        }
    }
    found
}

fn listen(place: SocketAddrV4) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(place)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn pass_on_all(listener: TcpListener, target: SocketAddrV4, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on a hostPort");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        tokio::spawn(async move {
            if let Err(error) = pass_on(client, target).await {
                tracing::debug!(%target, %error, "a local connection to a hostPort ended");
            }
            drop(place);
        });
    }
}

async fn pass_on(mut client: TcpStream, target: SocketAddrV4) -> io::Result<()> {
    let mut pod = match tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(target)).await {
        Ok(Ok(pod)) => pod,
        refused => {
            // Closed with a reset, as if the port itself had refused.
            client.set_zero_linger()?;
            return refused?.map(drop);
        }
    };
    tokio::io::copy_bidirectional(&mut client, &mut pod).await.map(drop)
}

/// Everything of the table; without any port, its removal.
fn ruleset<'p>(published: impl Iterator<Item = &'p Published>) -> Vec<Op> {
    let (mut ports, mut bound, mut hairpin) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for pod in published {
        for port in &pod.ports {
            let target = Data::Bytes([&pod.address.octets()[..], &port_field(port.target_port)].concat());
            let key = [&[port.protocol, 0, 0, 0][..], &port_field(port.port)].concat();
            match port.address {
                None => drop(ports.insert(key, target)),
                Some(address) if address.is_loopback() => {}
                Some(address) => drop(bound.insert([&address.octets()[..], &key].concat(), target)),
            }
            hairpin.insert([pod.address.octets(), pod.address.octets()].concat(), Data::None);
        }
    }
    // Added first so that there is a table to remove: the kernel knows no "remove if it exists".
    let mut ops = vec![Op::AddTable, Op::DeleteTable];
    if hairpin.is_empty() {
        return ops;
    }
    ops.push(Op::AddTable);
    let place = [TYPE_PROTOCOL, TYPE_PORT];
    let bound_place = [TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT];
    let target = DataSpec::Bytes(concatenation(&[TYPE_ADDRESS, TYPE_PORT]), 8);
    ops.extend([
        set(PORTS, &place, target),
        set(BOUND_PORTS, &bound_place, target),
        set(HAIRPIN, &[TYPE_ADDRESS, TYPE_ADDRESS], DataSpec::None),
    ]);
    ops.extend(chains());
    let elements = |all: BTreeMap<Vec<u8>, Data>| all.into_iter().map(|(key, data)| Element { key, data }).collect();
    ops.push(Op::AddElements(PORTS, elements(ports)));
    ops.push(Op::AddElements(BOUND_PORTS, elements(bound)));
    ops.push(Op::AddElements(HAIRPIN, elements(hairpin)));
    ops
}

/// A port as a register holds it.
fn port_field(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn concatenation(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| (all << 6) | one)
}

fn set(name: &'static str, key: &[u32], data: DataSpec) -> Op {
    let key_len = 4 * u32::try_from(key.len()).unwrap_or(0);
    Op::AddSet(SetSpec { name, key_type: concatenation(key), key_len, data, dynamic: None })
}

fn chains() -> Vec<Op> {
    let mut ops = Vec::new();
    let mut chain = |name: &str, base: Option<(&'static str, Hook, i32)>, rules: Vec<Vec<Expr>>| {
        ops.push(Op::AddChain(Chain { name: name.to_owned(), base }));
        ops.extend(rules.into_iter().map(|rule| Op::AddRule(name.to_owned(), rule)));
    };
    chain("translate", None, translate_rules());
    let jump = || vec![vec![Expr::Verdict(Verdict::Jump("translate".to_owned()))]];
    chain("prerouting", Some(("nat", Hook::Prerouting, PRIORITY_DSTNAT)), jump());
    chain("output", Some(("nat", Hook::Output, PRIORITY_DSTNAT)), jump());
    let dnat = STATUS_DNAT.to_ne_bytes();
    let to_itself = vec![
        Expr::CtStatus(SCRATCH),
        Expr::Bitwise(SCRATCH, dnat, [0; 4]),
        Expr::Equal(SCRATCH, dnat.to_vec()),
        Expr::SourceAddress(ADDRESS),
        Expr::DestinationAddress(PROTOCOL),
        Expr::In(ADDRESS, HAIRPIN),
        Expr::Masquerade,
    ];
    chain("postrouting", Some(("nat", Hook::Postrouting, PRIORITY_SRCNAT)), vec![to_itself]);
    ops
}

/// First what is meant for one address of the node, then what is for any.
fn translate_rules() -> Vec<Vec<Expr>> {
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let mut to_node = vec![Expr::DestinationAddress(SCRATCH)];
    to_node.extend(Expr::not_in_range(SCRATCH, loopback));
    to_node.extend([Expr::DestinationType(SCRATCH), Expr::Equal(SCRATCH, ADDRESS_LOCAL.to_ne_bytes().to_vec())]);
    let load = [Expr::DestinationAddress(ADDRESS), Expr::Protocol(PROTOCOL), Expr::DestinationPort(PORT)];
    let translate = |key: Reg, map: &'static str| {
        let found = [Expr::Map { key, map, data: TARGET }, Expr::DestinationNat(TARGET)];
        [&to_node[..], &load, &found].concat()
    };
    vec![translate(ADDRESS, BOUND_PORTS), translate(PROTOCOL, PORTS)]
}

/// Where the record of published ports lies.
pub(super) fn record(data_dir: &Path) -> PathBuf {
    data_dir.join("host-ports.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_all_containers_unless_the_pod_is_on_the_nodes_network() {
        let pod = |host_network: bool| -> Pod {
            serde_json::from_value(serde_json::json!({ "spec": { "hostNetwork": host_network, "containers": [
                { "name": "a", "ports": [
                    { "containerPort": 80, "hostPort": 8080 },
                    { "containerPort": 81 },
                    { "containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.1" },
                ] },
                { "name": "b", "ports": [{ "containerPort": 9, "hostPort": 9, "hostIP": "0.0.0.0" }] },
            ]}}))
            .unwrap()
        };
        let port = |protocol, address: Option<[u8; 4]>, port, target_port| HostPort {
            protocol,
            address: address.map(Ipv4Addr::from),
            port,
            target_port,
        };
        let all = [port(TCP, None, 8080, 80), port(UDP, Some([192, 0, 2, 1]), 5353, 53), port(TCP, None, 9, 9)];
        assert_eq!(wanted(&pod(false)), all);
        assert_eq!(wanted(&pod(true)), []);
    }

    #[test]
    fn only_tcp_ports_of_any_or_a_loopback_address_answer_on_loopback() {
        let port = |protocol, address: Option<[u8; 4]>, port| HostPort {
            protocol,
            address: address.map(Ipv4Addr::from),
            port,
            target_port: 80,
        };
        let ports = vec![port(TCP, None, 1), port(UDP, None, 2), port(TCP, Some([127, 0, 0, 2]), 3)];
        let ports = [ports, vec![port(TCP, Some([192, 0, 2, 1]), 4)]].concat();
        let published = Published { address: Ipv4Addr::new(10, 0, 0, 2), ports };
        let places: Vec<String> = local_ports([&published].into_iter()).keys().map(ToString::to_string).collect();
        assert_eq!(places, ["127.0.0.1:1", "127.0.0.2:3"]);
    }
}
