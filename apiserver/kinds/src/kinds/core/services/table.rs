//! How a Service is shown in a table.

use jiff::Timestamp;
use serde_json::Value;

use crate::json::{get, int, list, text};
use crate::kind::Column;
use crate::{age, table};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Type",
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
    ),
    table::column(
        "Cluster-IP",
        "clusterIP is the IP address of the service and is usually assigned randomly. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    table::column(
        "External-IP",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service. These IPs are not managed by Kubernetes.",
    ),
    table::column(
        "Port(s)",
        "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    table::AGE,
    table::wide(
        "Selector",
        "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
    ),
];

/// The row.
pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(object, "spec");
    let ip = list(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_else(|| text(spec, "clusterIP"));
    let ports: Vec<_> = list(spec, "ports").iter().map(port).collect();
    vec![
        table::name(object),
        text(spec, "type").into(),
        table::or_none(ip),
        external_ip(object).into(),
        table::or_none(&ports.join(",")),
        age::of(object, now).into(),
        table::labels(spec, "selector"),
    ]
}

/// `80/TCP` or `80:30080/TCP`
fn port(port: &Value) -> String {
    let number = int(port, "port").unwrap_or_default();
    let protocol = text(port, "protocol");
    match int(port, "nodePort").unwrap_or_default() {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_ip(object: &Value) -> String {
    let spec = get(object, "spec");
    let ips: Vec<_> = list(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match text(spec, "type") {
        "ClusterIP" | "NodePort" if ips.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => ips.join(","),
        "LoadBalancer" => {
            let ingress = list(get(get(object, "status"), "loadBalancer"), "ingress");
            let mut all: Vec<_> = ingress
                .iter()
                .map(|entry| match text(entry, "ip") {
                    "" => text(entry, "hostname"),
                    ip => ip,
                })
                .filter(|address| !address.is_empty())
                .collect();
            all.sort_unstable();
            all.dedup();
            all.extend(ips);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => text(spec, "externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}
