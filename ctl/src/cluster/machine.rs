//! What this machine is and uses already: addresses, routes, its name.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::config::{InUse, LINK_PREFIX};

/// Ranges this network namespace routes or has addresses in. Reads `/proc/net/route`, which every kernel has.
pub(crate) fn in_use() -> InUse {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let ranges = routes.lines().skip(1).filter_map(route_range).collect();
    InUse { ranges, indexes: Vec::new() }
}

/// One line of `/proc/net/route`: link, destination and (in field 8) mask, both in host-order hexadecimal.
fn route_range(line: &str) -> Option<Ipv4Net> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(|raw| Ipv4Addr::from(raw.to_le_bytes()));
    let (destination, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
    Ipv4Net::with_netmask(destination, mask).ok()
}

/// The address other machines know this one by: that of the default route, else of any link but `lo`.
pub(crate) fn node_address() -> Option<Ipv4Addr> {
    by_default_route().or_else(any_address)
}

/// The kernel's choice of source address for a far destination. Connecting a UDP socket sends nothing.
fn by_default_route() -> Option<Ipv4Addr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() => Some(ip),
        _ => None,
    }
}

/// Addresses on `lo` and on clusters' links are clusters' own.
fn any_address() -> Option<Ipv4Addr> {
    let links = nix::ifaddrs::getifaddrs().ok()?;
    links
        .filter(|link| link.interface_name != "lo" && !link.interface_name.starts_with(LINK_PREFIX))
        .filter_map(|link| link.address?.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip))
        .find(|ip| !ip.is_loopback() && !ip.is_link_local())
}

/// The node's name: the host name as Kubernetes takes it, in lower case, of letters, digits, `-` and `.`.
pub(crate) fn node_name() -> String {
    let raw = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    sanitize(&raw)
}

fn sanitize(raw: &str) -> String {
    let lower = raw.to_ascii_lowercase();
    let kept: String =
        lower.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' }).collect();
    let labels: Vec<&str> =
        kept.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty()).collect();
    let name: String = labels.join(".").chars().take(253).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_line_becomes_its_range() {
        let line = "eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        assert_eq!(route_range(line), "192.168.2.0/24".parse().ok());
        assert_eq!(route_range("garbage"), None);
    }

    #[test]
    fn host_names_become_valid_node_names() {
        assert_eq!(sanitize("My_Laptop.local"), "my-laptop.local");
        assert_eq!(sanitize("-.-"), "node");
    }
}
