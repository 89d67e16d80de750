//! The fixed part of the table: chains, rules, and how keys and data are laid out in registers.
//!
//! ```text
//! prerouting, output (nat):  from outside?  outside[address . protocol . port]     -> goto a chooser, or accept
//!                            frontends[address . protocol . port]                  -> goto a chooser
//! choosers:                  for other than cluster IPs: aliases[…] -> the Service's own address and port
//!                            endpoints[address . protocol . port . slot]           -> dnat to address : port
//! postrouting (nat):         marked, hairpin, or leaving the cluster from a pod    -> masquerade
//! forward, output, input:    unserved[address . protocol . port]                   -> reject or drop
//!                            still in the service range                            -> reject
//! prerouting (raw):          from a pod's link with an address that is not the pod's -> drop
//! ```
//!
//! A node port stands in these maps with the address 0.0.0.0: it is asked for after the packet's own address, if
//! that is one of the node's. Choosers are in [`super::chooser`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::plan::Protocol;
use crate::nft::expr::{ADDRESS_LOCAL, Reg, STATE_NEW, STATUS_DNAT};
use crate::nft::ops::DataSpec;
use crate::nft::{Chain, Expr, Hook, Op, SetSpec, Verdict};

/// The packet mark's bit that asks for masquerading: the one kube-proxy uses.
pub(super) const MASQUERADE_MARK: u32 = 0x4000;
/// Clients whose endpoint is remembered at once, over all Services: about 20 MB of the kernel's memory. Further
/// clients are served without being remembered.
const REMEMBERED_MAX: u32 = 1 << 17;

const PRIORITY_RAW: i32 = -300;
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
    /// `address . protocol . port` → a chooser.
    Frontends,
    /// The same for clients outside the cluster, where they are served otherwise (`externalTrafficPolicy: Local`).
    Outside,
    /// `address . protocol . port` that is not a cluster IP → `address . protocol . port` of the cluster IP.
    Aliases,
    /// `address . protocol . port . slot` of a cluster IP → an endpoint.
    Endpoints,
    /// `client . address . protocol . port` → the endpoint the client had last. Filled by the rules.
    Remembered,
    /// `address . protocol and scope . port . endpoint . its port`: what a client may be led back to.
    Lasting,
    /// `address . address`: a pod that reaches itself through a Service.
    Hairpin,
    /// `address . protocol . port` without endpoints → reject or drop.
    Unserved,
}

impl Map {
    /// Every one of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Frontends,
        Self::Outside,
        Self::Aliases,
        Self::Endpoints,
        Self::Remembered,
        Self::Lasting,
        Self::Hairpin,
        Self::Unserved,
    ];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Frontends => "frontends",
            Self::Outside => "outside",
            Self::Aliases => "aliases",
            Self::Endpoints => "endpoints",
            Self::Remembered => "remembered",
            Self::Lasting => "lasting",
            Self::Hairpin => "hairpin",
            Self::Unserved => "unserved",
        }
    }

    fn spec(self) -> SetSpec {
        const FRONT: [u32; 3] = [TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT];
        let concat = |types: &[u32]| types.iter().fold(0, |all, one| (all << 6) | one);
        let bytes = |types: &[u32]| DataSpec::Bytes(concat(types), length(types));
        let (key, data): (&[u32], DataSpec) = match self {
            Self::Frontends | Self::Outside | Self::Unserved => (&FRONT, DataSpec::Verdict),
            Self::Aliases => (&FRONT, bytes(&FRONT)),
            Self::Endpoints => {
                (&[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT, TYPE_NUMBER], bytes(&[TYPE_ADDRESS, TYPE_PORT]))
            }
            Self::Remembered => {
                (&[TYPE_ADDRESS, TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT], bytes(&[TYPE_ADDRESS, TYPE_PORT]))
            }
            Self::Lasting => (&[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT, TYPE_ADDRESS, TYPE_PORT], DataSpec::None),
            Self::Hairpin => (&[TYPE_ADDRESS, TYPE_ADDRESS], DataSpec::None),
        };
        let dynamic = (self == Self::Remembered).then_some(REMEMBERED_MAX);
        SetSpec { name: self.name(), key_type: concat(key), key_len: length(key), data, dynamic }
    }
}

/// Bytes of a concatenation: a register of four each.
fn length(types: &[u32]) -> u32 {
    4 * u32::try_from(types.len()).unwrap_or(0)
}

/// A place that connections are begun to: address (0.0.0.0 for any of the node's), protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Front {
    /// Where.
    pub ip: Ipv4Addr,
    /// How.
    pub protocol: Protocol,
    /// On which port.
    pub port: u16,
}

impl Front {
    /// `address . protocol . port`
    pub(crate) fn key(self) -> Vec<u8> {
        let port = self.port.to_be_bytes();
        [&self.ip.octets()[..], &[self.protocol.number(), 0, 0, 0, port[0], port[1], 0, 0]].concat()
    }
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

/// The verdict on connections to a place without endpoints: refused at once, so that nobody waits.
pub(crate) fn reject() -> Verdict {
    Verdict::Goto("reject".to_owned())
}

/// What the rules must know of their node.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Addresses of all pods.
    pub cluster: Ipv4Net,
    /// Addresses of Services.
    pub service: Ipv4Net,
    /// What the names of the pods' links begin with; at most 15 bytes.
    pub pod_links: String,
}

const ADDRESS: Reg = Reg(0);
const PROTOCOL: Reg = Reg(1);
const PORT: Reg = Reg(2);
const SCRATCH: Reg = Reg(8);

/// Everything but choosers and elements, for a table that was just made.
pub(crate) fn base(own: &Surroundings) -> Vec<Op> {
    let mut ops: Vec<Op> = Map::ALL.iter().map(|map| Op::AddSet(map.spec())).collect();
    let jump = |chain: &str| vec![Expr::Verdict(Verdict::Jump(chain.to_owned()))];
    let filter = |hook| Some(("filter", hook, PRIORITY_FILTER));
    let nat = |hook| Some(("nat", hook, PRIORITY_DSTNAT));
    chain(&mut ops, "outside", None, look_up(Map::Outside));
    let outside = [from_outside(own), jump("outside")].concat();
    chain(&mut ops, "services", None, [vec![outside], look_up(Map::Frontends)].concat());
    chain(&mut ops, "prerouting", nat(Hook::Prerouting), vec![jump("services")]);
    chain(&mut ops, "output", nat(Hook::Output), vec![jump("services")]);
    chain(&mut ops, "postrouting", Some(("nat", Hook::Postrouting, PRIORITY_SRCNAT)), masquerade_rules(own));
    chain(&mut ops, "reject", None, reject_rules());
    chain(&mut ops, "unserved", None, look_up(Map::Unserved));
    let unserved = vec![[is_new(), jump("unserved")].concat(), stray_rule(own)];
    chain(&mut ops, "forward-filter", filter(Hook::Forward), unserved.clone());
    chain(&mut ops, "output-filter", filter(Hook::Output), unserved.clone());
    chain(&mut ops, "input-filter", filter(Hook::Input), unserved);
    let raw = Some(("filter", Hook::Prerouting, PRIORITY_RAW));
    chain(&mut ops, "sources", raw, vec![forged_source_rule(own)]);
    ops
}

pub(super) fn chain(ops: &mut Vec<Op>, name: &str, base: Option<(&'static str, Hook, i32)>, rules: Vec<Vec<Expr>>) {
    ops.push(Op::AddChain(Chain { name: name.to_owned(), base }));
    ops.extend(rules.into_iter().map(|rule| Op::AddRule(name.to_owned(), rule)));
}

fn is_local(kind: fn(Reg) -> Expr, local: bool) -> [Expr; 2] {
    let address = ADDRESS_LOCAL.to_ne_bytes().to_vec();
    let compare = if local { Expr::Equal(SCRATCH, address) } else { Expr::NotEqual(SCRATCH, address) };
    [kind(SCRATCH), compare]
}

fn is_new() -> Vec<Expr> {
    let state = STATE_NEW.to_ne_bytes();
    vec![Expr::CtState(SCRATCH), Expr::Bitwise(SCRATCH, state, [0; 4]), Expr::Equal(SCRATCH, state.to_vec())]
}

/// Neither a pod of the cluster nor this node.
fn from_outside(own: &Surroundings) -> Vec<Expr> {
    let not_a_pod = [vec![Expr::SourceAddress(ADDRESS)], Expr::not_in_range(ADDRESS, own.cluster).to_vec()].concat();
    [not_a_pod, is_local(Expr::SourceType, false).to_vec()].concat()
}

/// The packet's own destination, then the node port. NodePorts answer on every address of the node but 127.0.0.0/8,
/// which [`super::loopback`] serves; there they are only refused.
fn look_up(map: Map) -> Vec<Vec<Expr>> {
    let port =
        |map: Map| vec![Expr::Protocol(PROTOCOL), Expr::DestinationPort(PORT), Expr::VerdictMap(ADDRESS, map.name())];
    let address = [vec![Expr::DestinationAddress(ADDRESS)], port(map)].concat();
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let not_loopback = match map {
        Map::Unserved => Vec::new(),
        _ => [vec![Expr::DestinationAddress(ADDRESS)], Expr::not_in_range(ADDRESS, loopback).to_vec()].concat(),
    };
    let any = vec![Expr::load_address(ADDRESS, Ipv4Addr::UNSPECIFIED)];
    vec![address, [not_loopback, is_local(Expr::DestinationType, true).to_vec(), any, port(map)].concat()]
}

fn masquerade_rules(own: &Surroundings) -> Vec<Vec<Expr>> {
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
        Expr::in_range(ADDRESS, own.cluster).to_vec(),
        vec![Expr::DestinationAddress(ADDRESS)],
        Expr::not_in_range(ADDRESS, own.cluster).to_vec(),
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
fn stray_rule(own: &Surroundings) -> Vec<Expr> {
    let in_range = [vec![Expr::DestinationAddress(ADDRESS)], Expr::in_range(ADDRESS, own.service).to_vec()].concat();
    [in_range, is_local(Expr::DestinationType, false).to_vec(), vec![Expr::Verdict(reject())]].concat()
}

/// A pod may send from its own address only: the one whose route leads back over its link. Stricter than the
/// machine's `rp_filter`, which a value on another link can loosen.
fn forged_source_rule(own: &Surroundings) -> Vec<Expr> {
    let link = Expr::Equal(SCRATCH, own.pod_links.clone().into_bytes());
    let no_way_back = Expr::Equal(ADDRESS, vec![0; 4]);
    vec![Expr::InputLink(SCRATCH), link, Expr::ReversePath(ADDRESS), no_way_back, Expr::Verdict(Verdict::Drop)]
}
