//! The expressions of rules. Registers are the kernel's sixteen registers of 32 bits.

use std::net::Ipv4Addr;

use super::message::Buffer;

/// A register of 32 bits, 0 to 15 (`NFT_REG32_00` …).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(pub u32);

impl Reg {
    fn number(self) -> u32 {
        8 + self.0
    }
}

/// Where a packet goes next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// To another chain, and back.
    Jump(String),
    /// To another chain, for good.
    Goto(String),
    /// On its way, past the rest of this hook's chain.
    Accept,
    /// Nowhere.
    Drop,
}

/// What is compared, loaded or done. Addresses and ports are in network order, as on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads the source address.
    SourceAddress(Reg),
    /// Loads the destination address.
    DestinationAddress(Reg),
    /// Loads the transport protocol's number.
    Protocol(Reg),
    /// Loads the destination port.
    DestinationPort(Reg),
    /// Loads the type of the destination address as the routing table sees it.
    DestinationType(Reg),
    /// Loads the type of the source address as the routing table sees it.
    SourceType(Reg),
    /// Loads 1 if the way back to the source leads over the link the packet came by, else 0.
    ReversePath(Reg),
    /// Loads the name of the link the packet came by: sixteen bytes, four registers.
    InputLink(Reg),
    /// Loads the connection's state bits.
    CtState(Reg),
    /// Loads the packet mark.
    Mark(Reg),
    /// Sets the packet mark from a register.
    SetMark(Reg),
    /// Loads the connection's status bits.
    CtStatus(Reg),
    /// `register = register & mask ^ xor`, for 32 bits.
    Bitwise(Reg, [u8; 4], [u8; 4]),
    /// Goes on only if the register holds these bytes.
    Equal(Reg, Vec<u8>),
    /// Goes on only if the register holds other bytes.
    NotEqual(Reg, Vec<u8>),
    /// Loads a constant.
    Load(Reg, [u8; 4]),
    /// Loads a random number in host order: the offset (the second number) and up to the modulus (the first) above it.
    Random(Reg, u32, u32),
    /// Goes on only if the registers from this one on are in the set.
    In(Reg, &'static str),
    /// Loads what the map has for the registers from `key` on; goes on only if it has something.
    Map {
        /// The first register of the key.
        key: Reg,
        /// The map.
        map: &'static str,
        /// The first register of the data.
        data: Reg,
    },
    /// Adds an element to a dynamic map, or makes it young again with the data it has. Goes on only if there was room.
    Remember {
        /// The first register of the key.
        key: Reg,
        /// The map.
        map: &'static str,
        /// The first register of the data.
        data: Reg,
        /// How long the element lasts, in milliseconds.
        timeout_ms: u64,
    },
    /// Removes an element of a dynamic map, if it is there.
    Forget {
        /// The first register of the key.
        key: Reg,
        /// The map.
        map: &'static str,
        /// Any registers of the data's length: the kernel wants them named.
        data: Reg,
    },
    /// Takes the verdict that the map has for the registers from this one on, if any.
    VerdictMap(Reg, &'static str),
    /// Rewrites the destination to the address in one register and the port in the next.
    DestinationNat(Reg),
    /// Rewrites the source to the address of the link the packet leaves by.
    Masquerade,
    /// Refuses with a TCP reset.
    RejectReset,
    /// Refuses with ICMP "port unreachable".
    RejectUnreachable,
    /// Decides.
    Verdict(Verdict),
}

/// `RTN_LOCAL` (`linux/rtnetlink.h`), as [`Expr::DestinationType`] loads it: host order.
pub const ADDRESS_LOCAL: u32 = 2;
/// nft's bit for `IP_CT_NEW` (`linux/netfilter/nf_conntrack_common.h`), as [`Expr::CtState`] loads it: host order.
pub const STATE_NEW: u32 = 1 << 3;
/// `IPS_DST_NAT` (`linux/netfilter/nf_conntrack_common.h`).
pub const STATUS_DNAT: u32 = 1 << 5;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const FIB_RESULT_OIF: u32 = 1;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_F_SADDR: u32 = 1;
const FIB_F_DADDR: u32 = 2;
const FIB_F_IIF: u32 = 8;
const FIB_F_PRESENT: u32 = 32;
const DYNSET_UPDATE: u32 = 1;
const DYNSET_DELETE: u32 = 2;
const NG_RANDOM: u32 = 1;
const NAT_DNAT: u32 = 1;
const REJECT_ICMP_UNREACH: u32 = 0;
const REJECT_TCP_RST: u32 = 1;
const ICMP_PORT_UNREACH: u8 = 3;
const FAMILY_IPV4: u32 = 2;

impl Expr {
    /// Goes on only if the address in the register lies in the range.
    pub fn in_range(reg: Reg, range: ipnet::Ipv4Net) -> [Self; 2] {
        [Self::masked(reg, range), Self::Equal(reg, range.network().octets().to_vec())]
    }

    /// Goes on only if the address in the register lies outside the range.
    pub fn not_in_range(reg: Reg, range: ipnet::Ipv4Net) -> [Self; 2] {
        [Self::masked(reg, range), Self::NotEqual(reg, range.network().octets().to_vec())]
    }

    fn masked(reg: Reg, range: ipnet::Ipv4Net) -> Self {
        Self::Bitwise(reg, range.netmask().octets(), [0; 4])
    }

    /// The unspecified address, which stands for "any address of the node" in keys.
    pub fn load_address(reg: Reg, address: Ipv4Addr) -> Self {
        Self::Load(reg, address.octets())
    }

    /// Writes the expression as one element of a rule's list.
    pub fn encode(&self, buffer: &mut Buffer) {
        buffer.nested(1, |element| {
            element.text(1, self.name());
            element.nested(2, |data| self.encode_data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::SourceAddress(_) | Self::DestinationAddress(_) | Self::DestinationPort(_) => "payload",
            Self::Protocol(_) | Self::Mark(_) | Self::SetMark(_) | Self::InputLink(_) => "meta",
            Self::DestinationType(_) | Self::SourceType(_) | Self::ReversePath(_) => "fib",
            Self::CtStatus(_) | Self::CtState(_) => "ct",
            Self::Bitwise(..) => "bitwise",
            Self::Equal(..) | Self::NotEqual(..) => "cmp",
            Self::Load(..) | Self::Verdict(_) => "immediate",
            Self::Random(..) => "numgen",
            Self::In(..) | Self::Map { .. } | Self::VerdictMap(..) => "lookup",
            Self::Remember { .. } | Self::Forget { .. } => "dynset",
            Self::DestinationNat(_) => "nat",
            Self::Masquerade => "masq",
            Self::RejectReset | Self::RejectUnreachable => "reject",
        }
    }

    fn encode_data(&self, data: &mut Buffer) {
        match self {
            Self::SourceAddress(reg) => payload(data, *reg, NETWORK_HEADER, 12, 4),
            Self::DestinationAddress(reg) => payload(data, *reg, NETWORK_HEADER, 16, 4),
            Self::DestinationPort(reg) => payload(data, *reg, TRANSPORT_HEADER, 2, 2),
            Self::Protocol(reg) => numbers(data, &[(1, reg.number()), (2, META_L4PROTO)]),
            Self::Mark(reg) => numbers(data, &[(1, reg.number()), (2, META_MARK)]),
            Self::SetMark(reg) => numbers(data, &[(2, META_MARK), (3, reg.number())]),
            Self::DestinationType(reg) => {
                numbers(data, &[(1, reg.number()), (2, FIB_RESULT_ADDRTYPE), (3, FIB_F_DADDR)]);
            }
            Self::SourceType(reg) => {
                numbers(data, &[(1, reg.number()), (2, FIB_RESULT_ADDRTYPE), (3, FIB_F_SADDR)]);
            }
            Self::ReversePath(reg) => {
                numbers(data, &[(1, reg.number()), (2, FIB_RESULT_OIF), (3, FIB_F_SADDR | FIB_F_IIF | FIB_F_PRESENT)]);
            }
            Self::InputLink(reg) => numbers(data, &[(1, reg.number()), (2, META_IIFNAME)]),
            Self::CtState(reg) => numbers(data, &[(1, reg.number()), (2, CT_STATE)]),
            Self::CtStatus(reg) => numbers(data, &[(1, reg.number()), (2, CT_STATUS)]),
            Self::Bitwise(reg, mask, xor) => {
                numbers(data, &[(1, reg.number()), (2, reg.number()), (3, 4)]);
                data.nested(4, |value| value.bytes(1, mask));
                data.nested(5, |value| value.bytes(1, xor));
            }
            Self::Equal(reg, bytes) => compare(data, *reg, 0, bytes),
            Self::NotEqual(reg, bytes) => compare(data, *reg, 1, bytes),
            Self::Load(reg, bytes) => {
                data.number(1, reg.number());
                data.nested(2, |value| value.bytes(1, bytes));
            }
            Self::Random(reg, modulus, offset) => {
                numbers(data, &[(1, reg.number()), (2, *modulus), (3, NG_RANDOM), (4, *offset)]);
            }
            Self::In(key, set) => lookup(data, *key, set, None),
            Self::Map { key, map, data: target } => lookup(data, *key, map, Some(target.number())),
            Self::VerdictMap(key, map) => lookup(data, *key, map, Some(0)),
            Self::Remember { key, map, data: value, timeout_ms } => {
                data.text(1, map);
                numbers(data, &[(3, DYNSET_UPDATE), (4, key.number()), (5, value.number())]);
                data.bytes(6, &timeout_ms.to_be_bytes());
            }
            Self::Forget { key, map, data: value } => {
                data.text(1, map);
                numbers(data, &[(3, DYNSET_DELETE), (4, key.number()), (5, value.number())]);
            }
            Self::DestinationNat(reg) => {
                numbers(data, &[(1, NAT_DNAT), (2, FAMILY_IPV4), (3, reg.number()), (5, reg.number() + 1)]);
            }
            Self::Masquerade => {}
            Self::RejectReset => numbers(data, &[(1, REJECT_TCP_RST)]),
            Self::RejectUnreachable => {
                data.number(1, REJECT_ICMP_UNREACH);
                data.bytes(2, &[ICMP_PORT_UNREACH]);
            }
            Self::Verdict(verdict) => {
                data.number(1, 0);
                data.nested(2, |value| verdict.encode(value));
            }
        }
    }
}

impl Verdict {
    /// Writes the verdict as data (`NFTA_DATA_VERDICT`).
    pub fn encode(&self, data: &mut Buffer) {
        data.nested(2, |verdict| {
            let (code, chain): (i32, Option<&str>) = match self {
                Self::Jump(chain) => (-3, Some(chain)),
                Self::Goto(chain) => (-4, Some(chain)),
                Self::Accept => (1, None),
                Self::Drop => (0, None),
            };
            verdict.bytes(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    }
}

fn numbers(data: &mut Buffer, attributes: &[(u16, u32)]) {
    for (kind, value) in attributes {
        data.number(*kind, *value);
    }
}

fn payload(data: &mut Buffer, reg: Reg, base: u32, offset: u32, length: u32) {
    numbers(data, &[(1, reg.number()), (2, base), (3, offset), (4, length)]);
}

fn compare(data: &mut Buffer, reg: Reg, operator: u32, bytes: &[u8]) {
    numbers(data, &[(1, reg.number()), (2, operator)]);
    data.nested(3, |value| value.bytes(1, bytes));
}

fn lookup(data: &mut Buffer, key: Reg, set: &str, target: Option<u32>) {
    data.text(1, set);
    data.number(2, key.number());
    if let Some(target) = target {
        data.number(3, target);
    }
}
