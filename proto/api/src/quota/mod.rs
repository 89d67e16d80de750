//! What objects cost of a ResourceQuota. Pure: the API server reserves by it, the controller counts by it.
//!
//! Source: Kubernetes' `pkg/quota/v1/evaluator/core`, `apiserver/pkg/quota/v1` and the plugin `resourcequota`.

mod amounts;
mod devices;
mod pods;
mod scopes;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::{Format, Quantity};

pub use amounts::{Amounts, amounts, more, show, show_names, sum};
pub use pods::{is_counted, is_terminating, limits as pod_limits, requests as pod_requests};
pub use scopes::{Requirement, is_in_scopes, requirements};

/// Between the name of a storage class and what is counted of its claims.
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

/// What is counted of claims, in all and by storage class.
const CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];

/// Kinds that have a name of their own to be counted by, besides `count/…`.
const ALIASED: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// What is counted of Services.
const SERVICES: [&str; 3] = ["services", "services.loadbalancers", "services.nodeports"];

/// A kind, as quotas know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'r> {
    /// API group; empty for the core group.
    pub group: &'r str,
    /// `pods`
    pub plural: &'r str,
}

/// Kinds that have rules of their own; everything else is only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Pods,
    Services,
    Claims,
    Devices,
    Count,
}

impl<'r> Resource<'r> {
    /// The kind of that group and plural name.
    #[must_use]
    pub fn new(group: &'r str, plural: &'r str) -> Self {
        Self { group, plural }
    }

    fn rules(self) -> Rules {
        match (self.group, self.plural) {
            ("", "pods") => Rules::Pods,
            ("", "services") => Rules::Services,
            ("", "persistentvolumeclaims") => Rules::Claims,
            ("resource.k8s.io", "resourceclaims") => Rules::Devices,
            _ => Rules::Count,
        }
    }

    /// Whether objects of the kind cost nothing whatever a quota says.
    #[must_use]
    pub fn is_free(self) -> bool {
        matches!(
            (self.group, self.plural),
            ("", "bindings" | "componentstatuses" | "events")
                | ("events.k8s.io", "events")
                | ("authentication.k8s.io" | "authorization.k8s.io", _)
        )
    }

    /// `count/pods`, `count/deployments.apps`.
    #[must_use]
    pub fn count_name(self) -> String {
        if self.group.is_empty() {
            format!("count/{}", self.plural)
        } else {
            format!("count/{}.{}", self.plural, self.group)
        }
    }

    /// Whether a change of an object may cost more than the object does already. Creations always may.
    #[must_use]
    pub fn may_cost_more(self, subresource: &str, new: &Value, old: &Value) -> bool {
        match (self.rules(), subresource) {
            (Rules::Pods, "") => is_terminating(new) != is_terminating(old),
            (Rules::Pods, "resize") | (Rules::Services | Rules::Claims, "") => true,
            (Rules::Claims, "status") => {
                let allocated = |claim: &Value| claim["status"]["allocatedResources"]["storage"].clone();
                allocated(new) != allocated(old)
            }
            _ => false,
        }
    }

    /// The names in a quota that objects of the kind are counted by.
    #[must_use]
    pub fn counted_by<'n>(self, names: impl Iterator<Item = &'n str>) -> Vec<String> {
        let count = self.count_name();
        let is_own = |name: &&str| {
            *name == count
                || match self.rules() {
                    Rules::Pods => pods::is_counted_by(name),
                    Rules::Services => SERVICES.contains(name),
                    Rules::Claims => {
                        CLAIMS.contains(name)
                            || CLAIMS.iter().any(|own| name.ends_with(&format!("{STORAGE_CLASS}{own}")))
                    }
                    Rules::Devices => name.ends_with(devices::DEVICE_CLASS),
                    Rules::Count => self.group.is_empty() && ALIASED.contains(name) && *name == self.plural,
                }
        };
        names.filter(is_own).map(str::to_owned).collect()
    }

    /// What a quota demands that the object says, and it does not: `must specify cpu for: web`.
    #[must_use]
    pub fn unstated(self, demanded: &[String], object: &Value) -> Option<String> {
        if self.rules() == Rules::Pods { pods::unstated(demanded, object) } else { None }
    }

    /// What the object costs.
    #[must_use]
    pub fn cost(self, object: &Value, now: Timestamp) -> Amounts {
        let mut cost = Amounts::new();
        let mut add = |name: &str, count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            cost.insert(name.to_owned(), Quantity::new(count, Format::DecimalSi));
        };
        add(&self.count_name(), 1);
        match self.rules() {
            Rules::Pods => amounts::add(&mut cost, &pods::cost(object, now)),
            Rules::Services => {
                let (balancers, ports) = service(&object["spec"]);
                add("services", 1);
                add("services.loadbalancers", balancers);
                add("services.nodeports", ports);
            }
            Rules::Claims => claim(object, &mut cost),
            Rules::Devices => amounts::add(&mut cost, &devices::cost(object)),
            Rules::Count if self.group.is_empty() && ALIASED.contains(&self.plural) => add(self.plural, 1),
            Rules::Count => {}
        }
        cost
    }

    /// Whether the quota counts the object: it limits something of the kind, and the object is in its scopes.
    #[must_use]
    pub fn is_limited_by(self, quota: &Value, object: &Value) -> bool {
        let hard = quota["status"]["hard"].as_object();
        let names = hard.into_iter().flatten().map(|(name, _)| name.as_str());
        !self.counted_by(names).is_empty() && self.is_in_scopes(quota, object)
    }

    /// Whether the object is in all scopes of the quota.
    #[must_use]
    pub fn is_in_scopes(self, quota: &Value, object: &Value) -> bool {
        let wanted = requirements(quota);
        match self.rules() {
            Rules::Pods => is_in_scopes(&wanted, |one| scopes::has_pod(one, object)),
            Rules::Claims => is_in_scopes(&wanted, |one| scopes::has_claim(one, object)),
            Rules::Services | Rules::Devices | Rules::Count => wanted.is_empty(),
        }
    }
}

/// Load balancers and node ports of a Service.
fn service(spec: &Value) -> (usize, usize) {
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let with_node_port = ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
    match spec["type"].as_str() {
        Some("NodePort") => (0, ports.len()),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (1, with_node_port),
        Some("LoadBalancer") => (1, ports.len()),
        _ => (0, 0),
    }
}

fn claim(object: &Value, cost: &mut Amounts) {
    let one = Quantity::new(1, Format::DecimalSi);
    let annotated = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotated.or_else(|| object["spec"]["storageClassName"].as_str()).unwrap_or_default();
    let asked = Quantity::from_value(&object["spec"]["resources"]["requests"]["storage"]).ok();
    let given = Quantity::from_value(&object["status"]["allocatedResources"]["storage"]).ok();
    let storage = asked.map(|asked| given.map_or(asked, |given| asked.max(given)));
    let mut put = |name: &str, amount: Quantity| {
        cost.insert(name.to_owned(), amount);
        if !class.is_empty() {
            cost.insert(format!("{class}{STORAGE_CLASS}{name}"), amount);
        }
    };
    put("persistentvolumeclaims", one);
    if let Some(storage) = storage {
        put("requests.storage", storage);
    }
}
