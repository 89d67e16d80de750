//! The fixed part of the table: chains, rules, and how keys and data are laid out in registers.
//!
//! ```text
//! prerouting, output (nat):  DESTINATION = cluster-ips[address . protocol . port] -> goto pick-N
//!                            local address?  node-ports[protocol . port]          -> goto node-N
//! pick-N:   endpoints[address . protocol . port . random below N] -> dnat to address : port
//! node-N:   mark for masquerading, then endpoints[0.0.0.0 . protocol . port . random below N] -> dnat
//! node-local-N: as node-N, without the mark
//! postrouting (nat):         marked, hairpin, or leaving the cluster from a pod -> masquerade
//! forward, output (filter):  still in the service range -> reject
//! input (filter):            rejected-node-ports[protocol . port] -> reject
//! ```
//!
//! A packet picks its slot once, when its connection begins: connection tracking carries the choice. Up to 16
//! endpoints have a slot each, more have at least four each in a power of two, so that shares stay even.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::plan::Protocol;
use crate::nft::expr::{ADDRESS_LOCAL, Reg, STATUS_DNAT};
use crate::nft::ops::DataSpec;
use crate::nft::{Chain, Expr, Hook, Op, SetSpec, Verdict};

/// Up to here every number of endpoints has a chain of its own.
const EXACT_MAX: u32 = 16;
/// The largest number of slots; more endpoints than this are not used.
const SLOTS_MAX: u32 = 4096;
/// The packet mark's bit that asks for masquerading: the one kube-proxy uses.
const MASQUERADE_MARK: u32 = 0x4000;

const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

/// nft's numbers of the types in keys, for whoever lists the ruleset: six bits each in a concatenation.
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_NUMBER: u32 = 19;

/// The maps and sets of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Map {
    /// `address . protocol . port` of a Service → its chain.
    ClusterIps,
    /// `protocol . port` of a NodePort → its chain.
    NodePorts,
    /// `address . protocol . port . slot` → an endpoint.
    Endpoints,
    /// `address . address`: a pod that reaches itself through a Service.
    Hairpin,
    /// `protocol . port` of a NodePort without endpoints.
    RejectedNodePorts,
}

impl Map {
    /// Every one of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::ClusterIps, Self::NodePorts, Self::Endpoints, Self::Hairpin, Self::RejectedNodePorts];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::NodePorts => "node-ports",
            Self::Endpoints => "endpoints",
            Self::Hairpin => "hairpin",
            Self::RejectedNodePorts => "rejected-node-ports",
        }
    }

    fn spec(self) -> SetSpec {
        let concat = |types: &[u32]| types.iter().fold(0, |all, one| (all << 6) | one);
        let service = [TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT];
        let (key, data): (&[u32], DataSpec) = match self {
            Self::ClusterIps => (&service, DataSpec::Verdict),
            Self::NodePorts => (&[TYPE_PROTOCOL, TYPE_PORT], DataSpec::Verdict),
            Self::Endpoints => (
                &[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT, TYPE_NUMBER],
                DataSpec::Bytes(concat(&[TYPE_ADDRESS, TYPE_PORT]), 8),
            ),
            Self::Hairpin => (&[TYPE_ADDRESS, TYPE_ADDRESS], DataSpec::None),
            Self::RejectedNodePorts => (&[TYPE_PROTOCOL, TYPE_PORT], DataSpec::None),
        };
        let key_len = 4 * u32::try_from(key.len()).unwrap_or(0);
        SetSpec { name: self.name(), key_type: concat(key), key_len, data }
    }
}

/// How many slots so many endpoints get; `None` for none.
pub(crate) fn slots_for(endpoints: usize) -> Option<u32> {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    match endpoints {
        0 => None,
        1..=EXACT_MAX => Some(endpoints),
        _ => Some(endpoints.saturating_mul(4).checked_next_power_of_two().unwrap_or(SLOTS_MAX).min(SLOTS_MAX)),
    }
}

fn all_slots() -> impl Iterator<Item = u32> {
    (1..=EXACT_MAX).chain((7..=12).map(|power| 1 << power))
}

/// The verdict that leads to the chain with so many slots.
pub(crate) fn goto_slots(chain: &str, slots: u32) -> Verdict {
    Verdict::Goto(format!("{chain}-{slots}"))
}

/// `protocol . port`
pub(crate) fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, port[0], port[1], 0, 0]
}

/// `address . protocol . port`
pub(crate) fn service_key(ip: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    [&ip.octets()[..], &port_key(protocol, port)].concat()
}

/// `address . protocol . port . slot`; the slot in host order, as `numgen` makes it.
pub(crate) fn slot_key(ip: Ipv4Addr, protocol: Protocol, port: u16, slot: u32) -> Vec<u8> {
    [&service_key(ip, protocol, port)[..], &slot.to_ne_bytes()].concat()
}

/// `address . port`
pub(crate) fn target_data(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    [&ip.octets()[..], &[port[0], port[1], 0, 0]].concat()
}

/// `address . address`
pub(crate) fn hairpin_key(ip: Ipv4Addr) -> Vec<u8> {
    [ip.octets(), ip.octets()].concat()
}

/// The ranges the rules speak of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranges {
    /// Addresses of all pods.
    pub cluster: Ipv4Net,
    /// Addresses of Services.
    pub service: Ipv4Net,
}

const ADDRESS: Reg = Reg(0);
const PROTOCOL: Reg = Reg(1);
const PORT: Reg = Reg(2);
const SLOT: Reg = Reg(3);
const TARGET: Reg = Reg(8);
const SCRATCH: Reg = Reg(10);

/// Everything but elements, for a table that was just made.
pub(crate) fn base(ranges: Ranges) -> Vec<Op> {
    let mut ops: Vec<Op> = Map::ALL.iter().map(|map| Op::AddSet(map.spec())).collect();
    for slots in all_slots() {
        slot_chains(&mut ops, slots);
    }
    chain(&mut ops, "services", None, service_rules());
    let jump = vec![Expr::Verdict(Verdict::Jump("services".to_owned()))];
    chain(&mut ops, "prerouting", Some(("nat", Hook::Prerouting, PRIORITY_DSTNAT)), vec![jump.clone()]);
    chain(&mut ops, "output", Some(("nat", Hook::Output, PRIORITY_DSTNAT)), vec![jump]);
    chain(&mut ops, "postrouting", Some(("nat", Hook::Postrouting, PRIORITY_SRCNAT)), masquerade_rules(ranges));
    chain(&mut ops, "reject", None, reject_rules());
    let stray = vec![unserved_rule(ranges)];
    chain(&mut ops, "forward-filter", Some(("filter", Hook::Forward, PRIORITY_FILTER)), stray.clone());
    chain(&mut ops, "output-filter", Some(("filter", Hook::Output, PRIORITY_FILTER)), stray);
    chain(&mut ops, "input-filter", Some(("filter", Hook::Input, PRIORITY_FILTER)), vec![rejected_rule()]);
    ops
}

fn chain(ops: &mut Vec<Op>, name: &str, base: Option<(&'static str, Hook, i32)>, rules: Vec<Vec<Expr>>) {
    ops.push(Op::AddChain(Chain { name: name.to_owned(), base }));
    ops.extend(rules.into_iter().map(|rule| Op::AddRule(name.to_owned(), rule)));
}

fn slot_chains(ops: &mut Vec<Op>, slots: u32) {
    let choose = || {
        vec![
            Expr::Protocol(PROTOCOL),
            Expr::DestinationPort(PORT),
            Expr::Random(SLOT, slots),
            Expr::Map { key: ADDRESS, map: Map::Endpoints.name(), data: TARGET },
            Expr::DestinationNat(TARGET),
        ]
    };
    let pick = [vec![Expr::DestinationAddress(ADDRESS)], choose()].concat();
    let node = [vec![Expr::load_address(ADDRESS, Ipv4Addr::UNSPECIFIED)], choose()].concat();
    let not_masked = (!MASQUERADE_MARK).to_ne_bytes();
    let mark = vec![
        Expr::Mark(SCRATCH),
        Expr::Bitwise(SCRATCH, not_masked, MASQUERADE_MARK.to_ne_bytes()),
        Expr::SetMark(SCRATCH),
    ];
    chain(ops, &format!("pick-{slots}"), None, vec![pick]);
    chain(ops, &format!("node-{slots}"), None, vec![mark, node.clone()]);
    chain(ops, &format!("node-local-{slots}"), None, vec![node]);
}

fn is_local(local: bool) -> [Expr; 2] {
    let address = ADDRESS_LOCAL.to_ne_bytes().to_vec();
    let compare = if local { Expr::Equal(SCRATCH, address) } else { Expr::NotEqual(SCRATCH, address) };
    [Expr::DestinationType(SCRATCH), compare]
}

/// NodePorts answer on every address of the node but 127.0.0.0/8, which [`super::loopback`] serves.
fn service_rules() -> Vec<Vec<Expr>> {
    let cluster_ip = vec![
        Expr::DestinationAddress(ADDRESS),
        Expr::Protocol(PROTOCOL),
        Expr::DestinationPort(PORT),
        Expr::VerdictMap(ADDRESS, Map::ClusterIps.name()),
    ];
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let node_port =
        vec![Expr::Protocol(PROTOCOL), Expr::DestinationPort(PORT), Expr::VerdictMap(PROTOCOL, Map::NodePorts.name())];
    let not_loopback =
        [vec![Expr::DestinationAddress(ADDRESS)], Expr::not_in_range(ADDRESS, loopback).to_vec()].concat();
    vec![cluster_ip, [not_loopback, is_local(true).to_vec(), node_port].concat()]
}

fn masquerade_rules(ranges: Ranges) -> Vec<Vec<Expr>> {
    let mark = MASQUERADE_MARK.to_ne_bytes();
    let marked = vec![Expr::Mark(SCRATCH), Expr::Bitwise(SCRATCH, mark, [0; 4]), Expr::Equal(SCRATCH, mark.to_vec())];
    let dnat = STATUS_DNAT.to_ne_bytes();
    let hairpin = vec![
        Expr::CtStatus(SCRATCH),
        Expr::Bitwise(SCRATCH, dnat, [0; 4]),
        Expr::Equal(SCRATCH, dnat.to_vec()),
        Expr::SourceAddress(ADDRESS),
        Expr::DestinationAddress(PROTOCOL),
        Expr::In(ADDRESS, Map::Hairpin.name()),
    ];
    let leaving = [
        vec![Expr::SourceAddress(ADDRESS)],
        Expr::in_range(ADDRESS, ranges.cluster).to_vec(),
        vec![Expr::DestinationAddress(ADDRESS)],
        Expr::not_in_range(ADDRESS, ranges.cluster).to_vec(),
    ]
    .concat();
    [marked, hairpin, leaving].into_iter().map(|rule| [rule, vec![Expr::Masquerade]].concat()).collect()
}

fn reject_rules() -> Vec<Vec<Expr>> {
    let tcp = vec![Expr::Protocol(PROTOCOL), Expr::Equal(PROTOCOL, vec![Protocol::Tcp.number()]), Expr::RejectReset];
    vec![tcp, vec![Expr::RejectUnreachable]]
}

/// What is still addressed to the service range after translation is served by nobody. The cluster DNS address is
/// local: its packets are not rejected.
fn unserved_rule(ranges: Ranges) -> Vec<Expr> {
    let goto = vec![Expr::Verdict(Verdict::Goto("reject".to_owned()))];
    let in_range = [vec![Expr::DestinationAddress(ADDRESS)], Expr::in_range(ADDRESS, ranges.service).to_vec()].concat();
    [in_range, is_local(false).to_vec(), goto].concat()
}

fn rejected_rule() -> Vec<Expr> {
    let port = vec![Expr::Protocol(PROTOCOL), Expr::DestinationPort(PORT)];
    let listed = vec![Expr::In(PROTOCOL, Map::RejectedNodePorts.name())];
    let goto = vec![Expr::Verdict(Verdict::Goto("reject".to_owned()))];
    [is_local(true).to_vec(), port, listed, goto].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_slots_has_its_chain() {
        let chains: Vec<u32> = all_slots().collect();
        for endpoints in (1..=40).chain([100, 1000, 5000]) {
            let slots = slots_for(endpoints).expect("slots");
            assert!(chains.contains(&slots), "{endpoints} endpoints want {slots} slots");
        }
        assert_eq!(slots_for(0), None);
    }

    #[test]
    fn shares_of_many_endpoints_differ_by_a_quarter_at_most() {
        for endpoints in 17..=1000_usize {
            let slots = slots_for(endpoints).expect("slots") as usize;
            assert!(slots / endpoints >= 4, "{endpoints} endpoints in {slots} slots");
        }
    }
}
