//! Choosers: the chains that lead a new connection to one endpoint of a Service.
//!
//! A chooser draws a slot once, when a connection begins: connection tracking carries the choice. Up to 16 endpoints
//! have a slot each, more have at least four each in a power of two, so that shares stay even. Choosers know nothing
//! of their Services: all Services that are alike share one, made when the first needs it.
//!
//! With session affinity the endpoint is remembered per client and Service, and asked for before a slot is drawn; each
//! new connection makes the memory young again. An endpoint that is not [`Map::Lasting`] any more is forgotten.

use super::layout::{Front, MASQUERADE_MARK, Map, chain};
use crate::nft::expr::Reg;
use crate::nft::{Expr, Op, Verdict};

/// Up to here every number of endpoints has a chooser of its own.
const EXACT_MAX: u32 = 16;
/// The largest number of slots; more endpoints than this are not used.
const SLOTS_MAX: u32 = 4096;

/// What kind of address clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entrance {
    /// The Service's own address.
    ClusterIp,
    /// Another address of the Service's.
    External,
    /// A port of every address of the node.
    NodePort,
}

/// Which endpoints are to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// All nodes' endpoints.
    Cluster,
    /// This node's endpoints.
    Local,
}

impl Scope {
    /// Where the scope's slots begin: both lie in one map, under one Service.
    fn offset(self) -> u32 {
        match self {
            Self::Cluster => 0,
            Self::Local => 1 << 16,
        }
    }

    /// What is added to the protocol, in a byte that it leaves free, where the scope must be told apart without slots.
    fn in_protocol(self) -> [u8; 4] {
        match self {
            Self::Cluster => [0; 4],
            Self::Local => [0, 1, 0, 0],
        }
    }
}

/// One kind of chooser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Chooser {
    /// Where clients come in.
    pub entrance: Entrance,
    /// What they may get.
    pub scope: Scope,
    /// How many slots there are to draw from.
    pub slots: u32,
    /// Whether the client's address is replaced by the node's, so that answers come back this way.
    pub masquerade: bool,
    /// How long a client keeps its endpoint after its last connection has begun, in seconds.
    pub affinity: Option<u32>,
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

/// `address . protocol . port . slot`; the slot in host order, as `numgen` makes it.
pub(crate) fn slot_key(service: Front, scope: Scope, slot: u32) -> Vec<u8> {
    [&service.key()[..], &(scope.offset() + slot).to_ne_bytes()].concat()
}

/// `address . protocol and scope . port . endpoint . its port`; the last two as the endpoints' map has them.
pub(crate) fn lasting_key(service: Front, scope: Scope, target: &[u8]) -> Vec<u8> {
    let mut key = [&service.key()[..], target].concat();
    key.iter_mut().skip(4).zip(scope.in_protocol()).for_each(|(byte, added)| *byte ^= added);
    key
}

const CLIENT: Reg = Reg(0);
const SERVICE: Reg = Reg(1);
const PROTOCOL: Reg = Reg(2);
const PORT: Reg = Reg(3);
const SLOT: Reg = Reg(4);
/// In the slot's place: when the one is known, the other is not needed any more.
const TARGET: Reg = Reg(4);
const TARGET_PORT: Reg = Reg(5);
const SCRATCH: Reg = Reg(8);

impl Chooser {
    /// The name of its chain.
    pub(crate) fn name(&self) -> String {
        let entrance = match self.entrance {
            Entrance::ClusterIp => "cluster-ip",
            Entrance::External => "external",
            Entrance::NodePort => "node-port",
        };
        let scope = if self.scope == Scope::Local { "-local" } else { "" };
        let masquerade = if self.masquerade { "-masquerade" } else { "" };
        let affinity = self.affinity.map(|seconds| format!("-for-{seconds}s")).unwrap_or_default();
        format!("{entrance}{scope}{masquerade}-{}{affinity}", self.slots)
    }

    /// The verdict that leads here.
    pub(crate) fn goto(&self) -> Verdict {
        Verdict::Goto(self.name())
    }

    /// Makes its chain.
    pub(crate) fn make(&self) -> Vec<Op> {
        let mut rules = Vec::new();
        if self.masquerade {
            let kept = (!MASQUERADE_MARK).to_ne_bytes();
            let set = Expr::Bitwise(SCRATCH, kept, MASQUERADE_MARK.to_ne_bytes());
            rules.push(vec![Expr::Mark(SCRATCH), set, Expr::SetMark(SCRATCH)]);
        }
        if let Some(seconds) = self.affinity {
            rules.extend(self.affinity_rules(u64::from(seconds) * 1000));
        }
        // With affinity, for clients that there is no more room to remember.
        rules.push([self.service(), self.draw(), vec![Expr::DestinationNat(TARGET)]].concat());
        let mut ops = Vec::new();
        chain(&mut ops, &self.name(), None, rules);
        ops
    }

    /// The endpoint of last time, if it still is one; else forgotten, and a new one drawn and remembered. It is read
    /// back because another connection of the client may have been quicker.
    fn affinity_rules(&self, timeout_ms: u64) -> Vec<Vec<Expr>> {
        let map = Map::Remembered.name();
        let client = || [vec![Expr::SourceAddress(CLIENT)], self.service()].concat();
        let recall = || vec![Expr::Map { key: CLIENT, map, data: TARGET }];
        let remember = || vec![Expr::Remember { key: CLIENT, map, data: TARGET, timeout_ms }];
        let go = || vec![Expr::DestinationNat(TARGET)];
        let add_scope = || Expr::Bitwise(PROTOCOL, [0xff; 4], self.scope.in_protocol());
        let lasts = vec![add_scope(), Expr::In(SERVICE, Map::Lasting.name()), add_scope()];
        let forget = vec![
            Expr::Load(TARGET, [0; 4]),
            Expr::Load(TARGET_PORT, [0; 4]),
            Expr::Forget { key: CLIENT, map, data: TARGET },
        ];
        vec![
            [client(), recall(), lasts, remember(), go()].concat(),
            [client(), forget].concat(),
            [client(), self.draw(), remember()].concat(),
            [client(), recall(), go()].concat(),
        ]
    }

    /// Loads `address . protocol . port` of the Service.
    fn service(&self) -> Vec<Expr> {
        let address = match self.entrance {
            Entrance::NodePort => Expr::Load(SERVICE, [0; 4]),
            _ => Expr::DestinationAddress(SERVICE),
        };
        let mut loads = vec![address, Expr::Protocol(PROTOCOL), Expr::DestinationPort(PORT)];
        if self.entrance != Entrance::ClusterIp {
            loads.push(Expr::Map { key: SERVICE, map: Map::Aliases.name(), data: SERVICE });
        }
        loads
    }

    fn draw(&self) -> Vec<Expr> {
        let slot = Expr::Random(SLOT, self.slots, self.scope.offset());
        vec![slot, Expr::Map { key: SERVICE, map: Map::Endpoints.name(), data: TARGET }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_many_endpoints_differ_by_a_quarter_at_most() {
        assert_eq!(slots_for(0), None);
        for endpoints in 1..=16_usize {
            assert_eq!(slots_for(endpoints), u32::try_from(endpoints).ok());
        }
        for endpoints in 17..=1000_usize {
            let slots = slots_for(endpoints).expect("slots") as usize;
            assert!(slots / endpoints >= 4, "{endpoints} endpoints in {slots} slots");
        }
    }

    #[test]
    fn scopes_do_not_share_slots_and_names_tell_choosers_apart() {
        assert!(Scope::Cluster.offset() + SLOTS_MAX <= Scope::Local.offset());
        let mut names = std::collections::BTreeSet::new();
        for entrance in [Entrance::ClusterIp, Entrance::External, Entrance::NodePort] {
            for scope in [Scope::Cluster, Scope::Local] {
                for masquerade in [false, true] {
                    for affinity in [None, Some(1), Some(86400)] {
                        for slots in [1, 4096] {
                            let chooser = Chooser { entrance, scope, slots, masquerade, affinity };
                            assert!(chooser.name().len() < 128, "{}", chooser.name());
                            assert!(names.insert(chooser.name()));
                        }
                    }
                }
            }
        }
    }
}
