//! NetworkPolicy: which pods may be reached by what, and reach what.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use reeve_api::names;
use serde_json::{Value, json};

use super::GROUP;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, int, items_mut, list, object_mut, set, set_absent, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short: &["netpol"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

/// The two directions: the list of rules, what its peers are called.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];
const TYPES: &[&str] = &["Ingress", "Egress"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Pod-Selector",
        "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is optional. If it is not specified, it defaults to an empty selector.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct NetworkPolicies;

impl Kind for NetworkPolicies {
    wiring!(NetworkPolicy, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        for (rules, _) in DIRECTIONS {
            for port in items_mut(spec, rules).flat_map(|rule| items_mut(rule, "ports")) {
                set_absent(port, "protocol", "TCP");
            }
        }
        if list(spec, "policyTypes").is_empty() {
            let both = !list(spec, "egress").is_empty();
            set(spec, "policyTypes", if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        check(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        meta::next_generation(object, old);
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        check(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (spec, mut warnings) = (get(object, "spec"), Vec::new());
        for (rules, peers) in DIRECTIONS {
            for (index, rule) in list(spec, rules).iter().enumerate() {
                for (peer, block) in list(rule, peers).iter().map(|peer| get(peer, "ipBlock")).enumerate() {
                    range_warnings(block, &format!("spec.{rules}[{index}].{peers}[{peer}].ipBlock"), &mut warnings);
                }
            }
        }
        warnings
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), table::selector(get(get(object, "spec"), "podSelector")), age::of(object, now).into()]
    }
}

fn range_warnings(block: &Value, path: &str, warnings: &mut Vec<String>) {
    if let Some(why) = names::cidr_warning(text(block, "cidr")) {
        warnings.push(format!("{path}.cidr: {why}"));
    }
    for (index, except) in list(block, "except").iter().filter_map(Value::as_str).enumerate() {
        if let Some(why) = names::cidr_warning(except) {
            warnings.push(format!("{path}.except[{index}]: {why}"));
        }
    }
}

fn check(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    meta::label_selector(get(spec, "podSelector"), &path.child("podSelector"), errors);
    for (rules, peers) in DIRECTIONS {
        let rules_path = path.child(rules);
        for (index, rule) in list(spec, rules).iter().enumerate() {
            let path = rules_path.index(index);
            let (ports_path, peers_path) = (path.child("ports"), path.child(peers));
            for (index, one) in list(rule, "ports").iter().enumerate() {
                port(one, &ports_path.index(index), errors);
            }
            for (index, one) in list(rule, peers).iter().enumerate() {
                peer(one, &peers_path.index(index), errors);
            }
        }
    }
    let (types, path) = (list(spec, "policyTypes"), path.child("policyTypes"));
    if types.len() > TYPES.len() {
        return errors.invalid(&path, types.to_vec(), "may not specify more than two policyTypes");
    }
    for (index, one) in types.iter().filter_map(Value::as_str).enumerate() {
        if !TYPES.contains(&one) {
            errors.unsupported(&path.index(index), one, TYPES);
        }
    }
}

fn port(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    let protocol = text(port, "protocol");
    if has(port, "protocol") && !PROTOCOLS.contains(&protocol) {
        errors.unsupported(&path.child("protocol"), protocol, PROTOCOLS);
    }
    let (start, start_path) = (get(port, "port"), path.child("port"));
    let (end, end_path) = (int(port, "endPort"), path.child("endPort"));
    if let Some(number) = start.as_i64() {
        for why in names::port_number(number) {
            errors.invalid(&start_path, number, why);
        }
        let Some(end) = end else { return };
        if end < number {
            errors.invalid(&end_path, number, "must be greater than or equal to `port`");
        }
        for why in names::port_number(end) {
            errors.invalid(&end_path, end, why);
        }
    } else {
        let why = if start.is_null() { "is not specified" } else { "is non-numeric" };
        if let Some(end) = end {
            errors.invalid(&end_path, end, format!("may not be specified when `port` {why}"));
        }
        if let Some(name) = start.as_str() {
            errors.invalid_each(&start_path, name, names::port_name(name));
        }
    }
}

fn peer(peer: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"].into_iter().filter(|field| has(peer, field)) {
        count += 1;
        meta::label_selector(get(peer, field), &path.child(field), errors);
    }
    let block = get(peer, "ipBlock");
    if !block.is_null() {
        count += 1;
        ip_block(block, &path.child("ipBlock"), errors);
    }
    if count == 0 {
        errors.required(path, "must specify a peer");
    } else if count > 1 && !block.is_null() {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (outer, outer_path) = (text(block, "cidr"), path.child("cidr"));
    if outer.is_empty() {
        return errors.required(&outer_path, "");
    }
    errors.invalid_each(&outer_path, outer, names::cidr(outer));
    let Some(outer) = names::parse_cidr(outer) else { return };
    let path = path.child("except");
    for (index, except) in list(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(index);
        errors.invalid_each(&path, except, names::cidr(except));
        if names::parse_cidr(except).is_some_and(|inner| !names::is_strict_subset(inner, outer)) {
            errors.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn policy(spec: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a, namespace: n}}, spec: {spec}}}"
        )
    }

    #[test]
    fn directions_and_protocols_are_filled_in() {
        check_created(
            &policy("{egress: [{ports: [{port: 53}]}]}"),
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: n, generation: 1}, spec: {podSelector: {}, egress: [{ports: [{port: 53, protocol: TCP}]}], policyTypes: [Ingress, Egress]}}",
        );
        assert_eq!(created(&policy("{}"))["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(row(&policy("{podSelector: {matchLabels: {a: b}}}")), "a | a=b | <unknown>");
    }

    #[test]
    fn ports_and_peers_are_checked() {
        check_invalid(
            &policy(
                "{podSelector: {}, ingress: [{ports: [{protocol: X, port: 0}, {port: 9, endPort: 8}, {endPort: 8}, {port: web, endPort: 8}], from: [{}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, x]}, podSelector: {}}, {ipBlock: {}}]}], policyTypes: [X]}",
            ),
            &[
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[0].ports[1].endPort: Invalid value: 9: must be greater than or equal to `port`",
                "spec.ingress[0].ports[2].endPort: Invalid value: 8: may not be specified when `port` is not specified",
                "spec.ingress[0].ports[3].endPort: Invalid value: 8: may not be specified when `port` is non-numeric",
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                "spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.ingress[0].from[2].ipBlock.cidr: Required value",
                "spec.policyTypes[0]: Unsupported value: \"X\": supported values: \"Ingress\", \"Egress\"",
            ],
        );
        check_warned(
            &policy("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: '2001:DB8::/64'}}]}]}"),
            &[
                "spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \"2001:DB8::/64\" should be in RFC 5952 canonical format (\"2001:db8::/64\")",
            ],
        );
    }
}
