//! Services, Endpoints and EndpointSlices.

use serde_json::Value;

use super::text::{Text, at, items, joined, number, plain};

fn texts(object: &Value, pointer: &str) -> Vec<String> {
    items(object, pointer).iter().map(plain).collect()
}

/// A Service with its slices.
pub(super) fn service(out: &mut Text, own: &Value, slices: &[Value]) {
    out.meta(own);
    let selector = own.pointer("/spec/selector").and_then(Value::as_object);
    let selector: Vec<String> =
        selector.into_iter().flatten().map(|(key, value)| format!("{key}={}", plain(value))).collect();
    out.line(0, "Selector", &joined(&selector, ","));
    out.line(0, "Type", at(own, "/spec/type"));
    out.line_if(0, "IP Family Policy", at(own, "/spec/ipFamilyPolicy"));
    out.line(0, "IP Families", &joined(&texts(own, "/spec/ipFamilies"), ","));
    out.line(0, "IP", at(own, "/spec/clusterIP"));
    out.line(0, "IPs", &joined(&texts(own, "/spec/clusterIPs"), ","));
    out.line_if(0, "External IPs", &texts(own, "/spec/externalIPs").join(","));
    out.line_if(0, "Desired LoadBalancer IP", at(own, "/spec/loadBalancerIP"));
    out.line_if(0, "External Name", at(own, "/spec/externalName"));
    out.line_if(0, "LoadBalancer Ingress", &ingress(own));
    items(own, "/spec/ports").iter().for_each(|own| port(out, own, slices));
    out.line(0, "Session Affinity", at(own, "/spec/sessionAffinity"));
    out.line_if(0, "External Traffic Policy", at(own, "/spec/externalTrafficPolicy"));
    out.line_if(0, "Internal Traffic Policy", at(own, "/spec/internalTrafficPolicy"));
    let health = number(own, "/spec/healthCheckNodePort");
    if health != 0 {
        out.line(0, "HealthCheck NodePort", &health.to_string());
    }
    out.line_if(0, "LoadBalancer Source Ranges", &texts(own, "/spec/loadBalancerSourceRanges").join(","));
    out.line_if(0, "Traffic Distribution", at(own, "/spec/trafficDistribution"));
}

/// The addresses that a load balancer has.
fn ingress(service: &Value) -> String {
    let text = |own: &Value| {
        let (ip, mode) = (at(own, "/ip"), at(own, "/ipMode"));
        match (ip, mode) {
            ("", _) => at(own, "/hostname").to_owned(),
            (ip, "") => ip.to_owned(),
            (ip, mode) => format!("{ip} ({mode})"),
        }
    };
    let all: Vec<String> = items(service, "/status/loadBalancer/ingress").iter().map(text).collect();
    all.join(", ")
}

fn port(out: &mut Text, port: &Value, slices: &[Value]) {
    let name = Some(at(port, "/name")).filter(|own| !own.is_empty()).unwrap_or("<unset>");
    let protocol = at(port, "/protocol");
    out.raw(&format!("Port:\t{name}\t{}/{protocol}\n", number(port, "/port")));
    out.line(0, "TargetPort", &format!("{}/{protocol}", port.get("targetPort").map(plain).unwrap_or_default()));
    out.line_if(0, "AppProtocol", at(port, "/appProtocol"));
    let node = number(port, "/nodePort");
    if node != 0 {
        out.raw(&format!("NodePort:\t{name}\t{node}/{protocol}\n"));
    }
    out.line(0, "Endpoints", &ready(slices, at(port, "/name")));
}

/// The ready endpoints of a port: three of them, and how many more there are.
fn ready(slices: &[Value], port: &str) -> String {
    const SHOWN: usize = 3;
    if slices.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for slice in slices {
        for own in items(slice, "/ports").iter().filter(|own| at(own, "/name") == port) {
            let is_ready = |own: &&Value| own.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            let addresses = items(slice, "/endpoints").iter().filter(is_ready).map(|own| at(own, "/addresses/0"));
            all.extend(addresses.map(|address| host_and_port(address, number(own, "/port"))));
        }
    }
    match all.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} + {more} more...", all[..SHOWN].join(",")),
        _ => all.join(","),
    }
}

fn host_and_port(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Endpoints, which Services had before there were slices.
pub(super) fn endpoints(out: &mut Text, own: &Value) {
    out.meta(own);
    out.title(0, "Subsets");
    for subset in items(own, "/subsets") {
        for (title, pointer) in [("Addresses", "/addresses"), ("NotReadyAddresses", "/notReadyAddresses")] {
            let all: Vec<String> = items(subset, pointer).iter().map(|own| at(own, "/ip").to_owned()).collect();
            out.line(1, title, &joined(&all, ","));
        }
        ports(out, 1, items(subset, "/ports"));
        out.raw("\n");
    }
}

/// A table of ports, unless there are none.
fn ports(out: &mut Text, level: usize, ports: &[Value]) {
    if ports.is_empty() {
        return;
    }
    let indent = "  ".repeat(level + 1);
    out.title(level, "Ports");
    out.raw(&format!("{indent}Name\tPort\tProtocol\n{indent}----\t----\t--------\n"));
    for port in ports {
        let name = Some(at(port, "/name")).filter(|own| !own.is_empty()).unwrap_or("<unset>");
        let number = port.get("port").map_or_else(|| "<unset>".to_owned(), plain);
        out.raw(&format!("{indent}{name}\t{number}\t{}\n", at(port, "/protocol")));
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(out: &mut Text, own: &Value) {
    out.meta(own);
    out.line(0, "AddressType", at(own, "/addressType"));
    if items(own, "/ports").is_empty() {
        out.raw("Ports: <unset>\n");
    }
    ports(out, 0, items(own, "/ports"));
    let all = items(own, "/endpoints");
    if all.is_empty() {
        return out.raw("Endpoints: <none>\n");
    }
    out.title(0, "Endpoints");
    for own in all {
        let text = |pointer: &str| own.pointer(pointer).map_or_else(|| "<unset>".to_owned(), plain);
        out.line(1, "- Addresses", &joined(&texts(own, "/addresses"), ", "));
        out.title(2, "Conditions");
        out.line(3, "Ready", &text("/conditions/ready"));
        out.line(2, "Hostname", &text("/hostname"));
        if let Some(target) = own.get("targetRef") {
            out.line(2, "TargetRef", &format!("{}/{}", at(target, "/kind"), at(target, "/name")));
        }
        out.line(2, "NodeName", &text("/nodeName"));
        out.line(2, "Zone", &text("/zone"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_none_without_slices_and_empty_when_nothing_is_ready() {
        let slice = |ready: bool| {
            let address = |last: u8| json!({"addresses": [format!("10.0.0.{last}")], "conditions": {"ready": ready}});
            json!({"ports": [{"name": "http", "port": 80}], "endpoints": ([1, 2, 3, 4].map(address))})
        };
        assert_eq!(ready(&[], "http"), "<none>");
        assert_eq!(ready(&[slice(false)], "http"), "");
        assert_eq!(ready(&[slice(true)], "http"), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...");
    }
}
