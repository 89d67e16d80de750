//! Service: a stable address and name for a set of pods.
//!
//! What is not here: handing out cluster addresses and node ports; the API server does that between
//! `prepare_create` (or `prepare_update`) and the rules.

mod rules;
mod table;
mod update;
mod warnings;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{copy_field, get, has, int, items_mut, list, object_mut, remove, set, set_absent, set_default, text};
use crate::kind::{Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short: &["svc"],
    categories: &["all"],
    namespaced: true,
};

/// Since v1.36 a name may start with a digit (KEP-5311).
const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_label };

/// Seconds a client stays with its pod.
const AFFINITY_SECONDS: i64 = 10800;

/// The kind.
pub(super) struct Services;

impl Kind for Services {
    wiring!(Service, NAMES, table::COLUMNS);

    fn parts(&self) -> &'static [Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        default_spec(object_mut(object, "spec"));
        let is_balanced = text(get(object, "spec"), "type") == "LoadBalancer";
        let balancer = object_mut(object_mut(object, "status"), "loadBalancer");
        for entry in items_mut(balancer, "ingress").filter(|entry| is_balanced && !text(entry, "ip").is_empty()) {
            set_absent(entry, "ipMode", "VIP");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
        let spec = object_mut(object, "spec");
        let ip = text(spec, "clusterIP").to_owned();
        if !ip.is_empty() && list(spec, "clusterIPs").is_empty() {
            set(spec, "clusterIPs", vec![ip]);
        }
        drop_internal_policy(spec);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        rules::service(object, &Value::Null, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => {
                copy_field(object, old, "status");
                update::prepare(object_mut(object, "spec"), get(old, "spec"));
                drop_internal_policy(object_mut(object, "spec"));
            }
            _ => copy_field(object, old, "spec"),
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        match part {
            Part::Main => {
                update::rules(get(object, "spec"), get(old, "spec"), &mut errors);
                rules::service(object, get(old, "spec"), &mut errors);
            }
            _ => rules::load_balancer_status(object, old, &mut errors),
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of(object)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        match field {
            "spec.clusterIP" => Some(text(get(object, "spec"), "clusterIP").to_owned()),
            "spec.type" => Some(text(get(object, "spec"), "type").to_owned()),
            _ => None,
        }
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::row(object, now)
    }
}

/// What is wrong with the addresses and IP families that a Service asks for. It is looked at before anything is
/// handed out, and alone.
#[must_use]
pub fn service_address_rules(service: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::of("spec");
    rules::cluster_ips(get(service, "spec"), list(get(old, "spec"), "clusterIPs"), &path, &mut errors);
    errors.into_vec()
}

/// Nothing inside the cluster is routed to a name outside: a policy that is one is not kept.
fn drop_internal_policy(spec: &mut Value) {
    if text(spec, "type") == "ExternalName" && ["Cluster", "Local"].contains(&text(spec, "internalTrafficPolicy")) {
        remove(spec, "internalTrafficPolicy");
    }
}

fn default_spec(spec: &mut Value) {
    set_default(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            remove(spec, "sessionAffinityConfig");
        }
        "ClientIP" => {
            let client = object_mut(object_mut(spec, "sessionAffinityConfig"), "clientIP");
            set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
        _ => {}
    }
    set_default(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let target = get(port, "targetPort");
        if target.is_null() || target.as_i64() == Some(0) || target.as_str() == Some("") {
            let number = int(port, "port").unwrap_or_default();
            set(port, "targetPort", number);
        }
    }
    if rules::externally_accessible(spec) {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&text(spec, "type")) && !has(spec, "internalTrafficPolicy") {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if text(spec, "type") == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

#[cfg(test)]
mod tests;
