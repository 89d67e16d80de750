//! Which address a proxied request goes to. Texts as in `pkg/registry/core/{pod,service,node}`.

use std::net::IpAddr;

use serde_json::Value;

use crate::proxy_node::{NodeAddress, Nodes};
use crate::registry::{Registry, Request};
use crate::status::ApiError;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// An address in the cluster; whoever answers need not prove who it is.
    Address {
        is_tls: bool,
        ip: IpAddr,
        /// As it was asked for; not always a number.
        port: String,
    },
    /// A node's own kubelet, with the API server's certificate.
    Kubelet(NodeAddress),
}

impl Target {
    /// `HOST:PORT` as it stands in URLs; the port only when one was said.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Kubelet(node) => node.socket().to_string(),
            Self::Address { ip: IpAddr::V6(ip), port, .. } if port.is_empty() => format!("[{ip}]"),
            Self::Address { ip, port, .. } if port.is_empty() => ip.to_string(),
            Self::Address { ip: IpAddr::V6(ip), port, .. } => format!("[{ip}]:{port}"),
            Self::Address { ip, port, .. } => format!("{ip}:{port}"),
        }
    }
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
struct Id<'i> {
    is_tls: bool,
    name: &'i str,
    port: &'i str,
}

impl<'i> Id<'i> {
    fn parse(id: &'i str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let is_known = matches!(scheme, "" | "http" | "https");
        (is_known && !name.is_empty()).then_some(Self { is_tls: scheme == "https", name, port })
    }
}

/// Finds the address that the name of the path stands for.
pub(super) async fn find(nodes: &Nodes, registry: &Registry, request: &Request) -> Result<Target, ApiError> {
    let plural = request.resource.names().plural;
    let what = plural.trim_end_matches('s');
    let id = Id::parse(&request.name);
    let id = id.ok_or_else(|| ApiError::bad_request(format!("invalid {what} request {:?}", request.name)))?;
    match plural {
        "pods" => pod(&id, &read(registry, request, "pods", id.name).await?),
        "services" => service(registry, request, &id, nodes.turn()).await,
        _ => node(&id, &read(registry, request, "nodes", id.name).await?),
    }
}

async fn read(registry: &Registry, request: &Request, plural: &str, name: &str) -> Result<Value, ApiError> {
    let resource = registry.core(plural).ok_or_else(ApiError::no_such_path)?;
    let asked = Request { resource, name: name.to_owned(), ..request.clone() };
    Ok(registry.get(&asked).await?.value())
}

/// Requests must not lead back into the API server's own machine, nor to whole networks.
fn is_allowed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_allowed(IpAddr::V4(mapped)),
            None => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local()),
        },
    }
}

fn not_allowed() -> ApiError {
    ApiError::bad_request("address not allowed")
}

fn pod(id: &Id<'_>, pod: &Value) -> Result<Target, ApiError> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let first = containers.filter_map(|container| container["ports"].as_array()?.first()).next();
    let declared = first.and_then(|port| port["containerPort"].as_u64());
    let port = match (id.port, declared) {
        ("", Some(port)) => port.to_string(),
        (port, _) => port.to_owned(),
    };
    let listed = pod["status"]["podIPs"][0]["ip"].as_str();
    let ip = listed.or_else(|| pod["status"]["podIP"].as_str()).unwrap_or_default();
    let ip = ip.parse().ok().filter(|ip| is_allowed(*ip)).ok_or_else(not_allowed)?;
    Ok(Target::Address { is_tls: id.is_tls, ip, port })
}

fn node(id: &Id<'_>, node: &Value) -> Result<Target, ApiError> {
    let kubelet = NodeAddress::of(id.name, node)?;
    let place = kubelet.socket();
    if !is_allowed(place.ip()) {
        return Err(not_allowed());
    }
    if id.port.is_empty() || id.port == place.port().to_string() {
        return Ok(Target::Kubelet(kubelet));
    }
    Ok(Target::Address { is_tls: id.is_tls, ip: place.ip(), port: id.port.to_owned() })
}

async fn service(registry: &Registry, request: &Request, id: &Id<'_>, turn: usize) -> Result<Target, ApiError> {
    let unavailable = |why: String| ApiError::new(503, "ServiceUnavailable", why);
    let mut port = id.port.to_owned();
    // A number stands for the Service's port of that number, which has a name.
    if let Ok(number) = id.port.parse::<i64>() {
        let service = read(registry, request, "services", id.name).await?;
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let found = ports.into_iter().find(|port| port["port"].as_i64() == Some(number));
        let missing = || unavailable(format!("no service port {number} found for service {:?}", id.name));
        port = found.ok_or_else(missing)?["name"].as_str().unwrap_or_default().to_owned();
    }
    let endpoints = read(registry, request, "endpoints", id.name).await;
    // The Service is what the client has asked for.
    let missing = |error: ApiError| {
        if error.is_not_found() { ApiError::not_found(request.resource.names(), id.name) } else { error }
    };
    let endpoints = endpoints.map_err(missing)?;
    let subsets = endpoints["subsets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let none = |name: &str| unavailable(format!("no endpoints available for service {name:?}"));
    if subsets.is_empty() {
        return Err(none(id.name));
    }
    let is_pod = |address: &Value| is_address_of_pod(registry, &request.namespace, address);
    for subset in turned(subsets, turn) {
        let ports = subset["ports"].as_array().into_iter().flatten();
        let number = ports.into_iter().find(|own| own["name"].as_str().unwrap_or_default() == port);
        let Some(number) = number.and_then(|own| own["port"].as_u64()) else { continue };
        let addresses = subset["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = turned(addresses, turn).find(|address| is_pod(address));
        if let Some(ip) = found.and_then(|address| address["ip"].as_str()?.parse().ok()) {
            return Ok(Target::Address { is_tls: id.is_tls, ip, port: number.to_string() });
        }
    }
    Err(none(&request.name))
}

/// All of them, beginning with another one each time.
fn turned(all: &[Value], turn: usize) -> impl Iterator<Item = &Value> {
    all.iter().cycle().skip(turn % all.len().max(1)).take(all.len())
}

/// Only addresses of pods are proxied to: Endpoints may name anything.
fn is_address_of_pod(registry: &Registry, namespace: &str, address: &Value) -> bool {
    let of = &address["targetRef"];
    if of["namespace"].as_str() != Some(namespace) {
        return false;
    }
    let pods = registry.core("pods");
    let pod = pods.and_then(|pods| registry.peek(&pods, namespace, of["name"].as_str().unwrap_or_default()));
    let Some(pod) = pod else { return false };
    let pod = pod.value();
    pod["status"]["podIPs"].as_array().into_iter().flatten().any(|own| own["ip"] == address["ip"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_carry_a_scheme_and_a_port() {
        let parsed = |id| Id::parse(id).map(|id| (id.is_tls, id.name.to_owned(), id.port.to_owned()));
        assert_eq!(parsed("p"), Some((false, "p".to_owned(), String::new())));
        assert_eq!(parsed("p:http"), Some((false, "p".to_owned(), "http".to_owned())));
        assert_eq!(parsed("https:p:443"), Some((true, "p".to_owned(), "443".to_owned())));
        assert_eq!(parsed("https:p:"), Some((true, "p".to_owned(), String::new())));
        for bad in ["", ":80", "ftp:p:1", "http::1", "a:b:c:d"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pod_is_reached_at_its_first_port_and_never_at_the_machines_own_addresses() {
        let id = Id::parse("p").unwrap();
        let at = |ip: &str| {
            json!({
                "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
                "status": {"podIP": ip, "podIPs": [{"ip": ip}]},
            })
        };
        assert_eq!(pod(&id, &at("10.0.0.7")).unwrap().authority(), "10.0.0.7:8080");
        assert_eq!(pod(&id, &at("fd00::7")).unwrap().authority(), "[fd00::7]:8080");
        for ip in ["", "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1"] {
            assert_eq!(pod(&id, &at(ip)).unwrap_err().message, "address not allowed", "{ip}");
        }
    }
}
