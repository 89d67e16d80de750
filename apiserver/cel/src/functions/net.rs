//! Addresses and networks: `ip(…)`, `cidr(…)` and what can be asked of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::EvalError;
use crate::meter::Meter;
use crate::opaque::{Inner, Opaque};
use crate::value::Value;

type Called<'v> = Result<Value<'v>, EvalError>;

/// An address with a prefix length; the address keeps the bits after the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self { address, ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, prefix: self.prefix }.masked().address == self.masked().address
    }
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let bad = |why: &str| {
        let quoted = format!("{text:?}");
        format!("IP Address {quoted} parse error during conversion from string: ParseAddr({quoted}): {why}")
    };
    if let Some((address, zone)) = text.split_once('%') {
        return match address.parse::<Ipv6Addr>() {
            Ok(_) if !zone.is_empty() => Err(format!("IP address {text:?} with zone value is not allowed")),
            Ok(_) => Err(bad("zone must be a non-empty string")),
            Err(_) => Err(bad("unable to parse IP")),
        };
    }
    let address: IpAddr = text.parse().map_err(|_| bad(why_no_ip(text)))?;
    if is_mapped(address) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok(address)
}

/// Go's word for what is wrong, for what people get wrong.
fn why_no_ip(text: &str) -> &'static str {
    if text.contains(':') {
        return "unexpected character, want colon";
    }
    if !text.contains('.') {
        return "unable to parse IP";
    }
    let parts: Vec<&str> = text.split('.').collect();
    if parts.iter().any(|part| part.bytes().any(|byte| !byte.is_ascii_digit())) {
        return "unexpected character";
    }
    if parts.iter().any(|part| part.is_empty()) {
        return "IPv4 field must have at least one digit";
    }
    if parts.iter().any(|part| part.len() > 1 && part.starts_with('0')) {
        return "IPv4 field has octet with leading zero";
    }
    if parts.iter().any(|part| part.parse::<u8>().is_err()) {
        return "IPv4 field has value >255";
    }
    if parts.len() > 4 { "IPv4 address too long" } else { "IPv4 address too short" }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    const WRONG: &str = "network address parse error during conversion from string";
    let bad = |why: &str| format!("{WRONG}: netip.ParsePrefix({text:?}): {why}");
    let Some((address, prefix)) = text.rsplit_once('/') else { return Err(bad("no '/'")) };
    let quoted = format!("{address:?}");
    let parsed: IpAddr = match address.contains('%') {
        true => return Err(bad("IPv6 zones cannot be present in a prefix")),
        false => address.parse().map_err(|_| bad(&format!("ParseAddr({quoted}): {}", why_no_ip(address))))?,
    };
    let plain = !prefix.is_empty()
        && prefix.bytes().all(|byte| byte.is_ascii_digit())
        && (prefix.len() == 1 || !prefix.starts_with('0'));
    if !plain {
        return Err(bad(&format!("bad bits after slash: {prefix:?}")));
    }
    let most = if parsed.is_ipv4() { 32 } else { 128 };
    let Some(prefix) = prefix.parse::<u8>().ok().filter(|prefix| *prefix <= most) else {
        return Err(bad("prefix length out of range"));
    };
    if is_mapped(parsed) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok(Cidr { address: parsed, prefix })
}

fn ip_of(text: &str) -> Called<'static> {
    parse_ip(text).map(|address| Value::Opaque(Opaque(Inner::Ip(address)))).map_err(EvalError::message)
}

fn cidr_of(text: &str) -> Called<'static> {
    let told = |error: String| {
        EvalError::message(format!("network address parse error during conversion from string: {error}"))
    };
    parse_cidr(text).map(|cidr| Value::Opaque(Opaque(Inner::Cidr(cidr)))).map_err(told)
}

/// `ip(text)`, `cidr.ip()`
pub(crate) fn ip<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    match args {
        [Value::String(text)] => ip_of(text),
        [Value::Opaque(Opaque(Inner::Cidr(cidr)))] => Ok(Value::Opaque(Opaque(Inner::Ip(cidr.address)))),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn cidr<'v>(_: &mut Meter, args: &[Value<'v>]) -> Called<'v> {
    match args {
        [Value::String(text)] => cidr_of(text),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Questions about a text: `isIP`, `isCIDR`, `ip.isCanonical`.
pub(crate) fn ask_text<'v>(function: &str, args: &[Value<'v>]) -> Called<'v> {
    let [Value::String(text)] = args else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Bool(match function {
        "isIP" => parse_ip(text).is_ok(),
        "isCIDR" => parse_cidr(text).is_ok(),
        _ => parse_ip(text).map_err(EvalError::message)?.to_string() == **text,
    }))
}

/// Questions about an address: `family`, `isLoopback`, …
pub(crate) fn ask_ip<'v>(function: &str, args: &[Value<'v>]) -> Called<'v> {
    let [Value::Opaque(Opaque(Inner::Ip(address)))] = args else { return Err(EvalError::no_such_overload()) };
    let v6 = |ask: fn(&Ipv6Addr) -> bool, v4: fn(&Ipv4Addr) -> bool| match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => ask(address),
    };
    let link_local_multicast = |ip: &Ipv6Addr| ip.segments()[0] & 0xff0f == 0xff02;
    let is = |holds: bool| Ok(Value::Bool(holds));
    match function {
        "family" => Ok(Value::Int(if address.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => is(address.is_unspecified()),
        "isLoopback" => is(address.is_loopback()),
        "isLinkLocalMulticast" => is(match address {
            IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
            IpAddr::V6(address) => link_local_multicast(address),
        }),
        "isLinkLocalUnicast" => is(v6(Ipv6Addr::is_unicast_link_local, Ipv4Addr::is_link_local)),
        "isGlobalUnicast" => {
            let link_local = v6(Ipv6Addr::is_unicast_link_local, Ipv4Addr::is_link_local);
            let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
            let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
            is(!(special || link_local || broadcast))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

/// `containsIP`, `containsCIDR`, `prefixLength`, `masked`
pub(crate) fn ask_cidr<'v>(function: &str, args: &[Value<'v>]) -> Called<'v> {
    let [Value::Opaque(Opaque(Inner::Cidr(cidr))), rest @ ..] = args else {
        return Err(EvalError::no_such_overload());
    };
    match (function, rest) {
        ("prefixLength", []) => Ok(Value::Int(i64::from(cidr.prefix))),
        ("masked", []) => Ok(Value::Opaque(Opaque(Inner::Cidr(cidr.masked())))),
        ("containsIP", [Value::String(text)]) => ask_cidr(function, &[args[0].clone(), ip_of(text)?]),
        ("containsIP", [Value::Opaque(Opaque(Inner::Ip(address)))]) => Ok(Value::Bool(cidr.contains(*address))),
        ("containsCIDR", [Value::String(text)]) => ask_cidr(function, &[args[0].clone(), cidr_of(text)?]),
        ("containsCIDR", [Value::Opaque(Opaque(Inner::Cidr(other)))]) => {
            Ok(Value::Bool(cidr.prefix <= other.prefix && cidr.contains(other.address)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}
