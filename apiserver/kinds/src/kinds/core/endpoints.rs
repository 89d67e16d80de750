//! Endpoints: the addresses behind a Service, in the old form.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, int, items_mut, list, remove, set_default, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::{age, table};

/// How many addresses a table shows.
const SHOWN: usize = 3;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short: &["ep"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Endpoints",
        "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct EndpointsKind;

impl Kind for EndpointsKind {
    wiring!(Endpoints, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                set_default(port, "protocol", "TCP");
                // Of this kind neither is a pointer, other than in EndpointSlices.
                if text(port, "name").is_empty() {
                    remove(port, "name");
                }
            }
        }
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        subsets(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        META.create(object, &mut errors);
        // What was taken once stays good.
        if get(object, "subsets") != get(old, "subsets") {
            subsets(object, &mut errors);
        }
        errors.into_vec()
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        let path = Path::of("subsets");
        for (index, subset) in list(object, "subsets").iter().enumerate() {
            let path = path.index(index);
            for kind in ["addresses", "notReadyAddresses"] {
                let path = path.child(kind);
                for (index, address) in list(subset, kind).iter().enumerate() {
                    if let Some(warning) = names::ip_warning(text(address, "ip")) {
                        warnings.push(format!("{}: {warning}", path.index(index).child("ip")));
                    }
                }
            }
        }
        warnings
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), addresses(object).into(), age::of(object, now).into()]
    }
}

/// `10.0.0.1:80,10.0.0.2:80 + 3 more...`
fn addresses(object: &Value) -> String {
    let subsets = list(object, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ips = || list(subset, "addresses").iter().map(|address| text(address, "ip"));
        let ports = list(subset, "ports");
        if ports.is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in ports.iter().map(|port| int(port, "port").unwrap_or_default()) {
            all.extend(
                ips().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    first_of(&all, "")
}

/// The first few, and how many more there are; `none` for an empty list.
pub(crate) fn first_of(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        count if count > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), count - SHOWN),
        _ => all.join(","),
    }
}

fn subsets(object: &Value, errors: &mut Errors) {
    let path = Path::of("subsets");
    for (index, subset) in list(object, "subsets").iter().enumerate() {
        let path = path.index(index);
        if !has(subset, "addresses") && !has(subset, "notReadyAddresses") {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for kind in ["addresses", "notReadyAddresses"] {
            let path = path.child(kind);
            for (index, address) in list(subset, kind).iter().enumerate() {
                address_rules(address, &path.index(index), errors);
            }
        }
        let (ports, path) = (list(subset, "ports"), path.child("ports"));
        for (index, port) in ports.iter().enumerate() {
            port_rules(port, ports.len() > 1, &path.index(index), errors);
        }
    }
}

fn address_rules(address: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ip = text(address, "ip");
    errors.invalid_each(&path.child("ip"), ip, names::ip(ip));
    let hostname = text(address, "hostname");
    if !hostname.is_empty() {
        errors.invalid_each(&path.child("hostname"), hostname, names::dns1123_label(hostname));
    }
    if let Some(node) = get(address, "nodeName").as_str() {
        errors.invalid_each(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    ordinary_ip(ip, &path.child("ip"), errors);
}

/// No address that means something else on each machine.
pub(crate) fn ordinary_ip(text: &str, path: &Path<'_>, errors: &mut Errors) {
    use std::net::IpAddr;
    let Some(ip) = names::sloppy_ip(text) else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
    let local_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    if ip.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_multicast {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn port_rules(port: &Value, needs_name: bool, path: &Path<'_>, errors: &mut Errors) {
    let name = text(port, "name");
    if !name.is_empty() {
        errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
    } else if needs_name {
        errors.required(&path.child("name"), "");
    }
    let number = int(port, "port").unwrap_or_default();
    for detail in names::port_number(number) {
        errors.invalid(&path.child("port"), number, detail);
    }
    errors.one_of(&path.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    if let Some(protocol) = get(port, "appProtocol").as_str() {
        errors.invalid_each(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Kind as _;
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: v1, kind: Endpoints, metadata: {name: a, namespace: n}, subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{name: a, port: 80}, {name: b, port: 81}]}]}";

    #[test]
    fn addresses_and_ports_are_checked() {
        check_valid(PLAIN);
        check_invalid(
            &PLAIN.replace("10.0.0.1", "127.0.0.1").replace("name: b, port: 81", "port: 0"),
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "subsets[0].ports[1].name: Required value",
                "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        );
    }

    #[test]
    fn a_row_shows_three_addresses_and_counts_the_rest() {
        assert_eq!(row(PLAIN), "a | 10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... | <unknown>");
        assert_eq!(row("{apiVersion: v1, kind: Endpoints, metadata: {name: a}}"), "a | <none> | <unknown>");
    }

    #[test]
    fn every_answer_about_endpoints_says_that_they_are_deprecated() {
        assert_eq!(
            super::EndpointsKind.deprecation(),
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        );
    }
}
