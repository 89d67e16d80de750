//! ResourceQuota: what an object costs is taken from the quotas of its namespace, or it is not let through.
//!
//! Decided here, and written in one transaction with the object: two creations at the same time cannot both take the
//! last of a quota. What is given back is counted by the controller. Source: Kubernetes' plugin `resourcequota`.

use bytes::Bytes;
use jiff::Timestamp;
use reeve_api::quota::{self, Amounts, Resource};
use reeve_store::Revision;
use serde_json::{Map, Value};

use super::{Attributes, Operation, forbidden_object};
use crate::registry::{Registry, encode, meta};
use crate::status::ApiError;

/// A quota as it is after something was taken from it: written if it still has this revision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taken {
    pub(crate) key: Bytes,
    pub(crate) expect: Revision,
    pub(crate) value: Bytes,
}

/// What the request takes from the quotas of its namespace. `object` is the object as it is to be stored.
pub(crate) fn take(registry: &Registry, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<Taken>, ApiError> {
    let request = attributes.request;
    let names = request.resource.names();
    let Some(quotas) = registry.core("resourcequotas").filter(|_| !request.namespace.is_empty()) else {
        return Ok(Vec::new());
    };
    let found = registry.peek_all(&quotas, &request.namespace);
    let resource = Resource::new(names.group, names.plural);
    let null = Value::Null;
    let old = attributes.old.unwrap_or(&null);
    let counts = if attributes.operation == Operation::Create {
        attributes.subresource.is_empty()
    } else {
        attributes.operation == Operation::Update && resource.may_cost_more(attributes.subresource, object, old)
    };
    if found.is_empty() || !counts || resource.is_free() {
        return Ok(Vec::new());
    }
    let asked =
        Asked { resource, object, old, is_status: attributes.subresource == "status", now: registry.clock.now() };
    let mut taken = Vec::new();
    for quota in found {
        let value = encode::bare(&quota);
        let changed = asked.take_from(&value).map_err(|why| forbidden_object(attributes, object, &why))?;
        if let Some(used) = changed {
            let key = quotas.key(&request.namespace, meta::text(&value, "name"));
            taken.push(Taken { key, expect: quota.revision, value: encode::stored(&with_used(value, &used)) });
        }
    }
    Ok(taken)
}

fn with_used(mut quota: Value, used: &Amounts) -> Value {
    let used: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    if let Some(status) = quota.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("used".to_owned(), used.into());
    }
    quota
}

/// What is asked of every quota.
struct Asked<'a> {
    resource: Resource<'a>,
    object: &'a Value,
    old: &'a Value,
    is_status: bool,
    now: Timestamp,
}

impl Asked<'_> {
    /// What is used of the quota afterwards; `None` when nothing is taken from it.
    fn take_from(&self, quota: &Value) -> Result<Option<Amounts>, String> {
        if !self.resource.is_limited_by(quota, self.object) {
            return Ok(None);
        }
        let name = meta::text(quota, "name");
        let (hard, used) = (quota::amounts(&quota["status"]["hard"]), quota::amounts(&quota["status"]["used"]));
        let limited = self.resource.counted_by(hard.keys().map(String::as_str));
        if let Some(why) = self.resource.unstated(&limited, self.object) {
            return Err(format!("failed quota: {name}: {why}"));
        }
        if limited.iter().any(|one| !used.contains_key(one)) {
            let limited = quota::show_names(&limited);
            return Err(format!("status unknown for quota: {name}, resources: {limited}"));
        }
        let mut cost = self.resource.cost(self.object, self.now);
        if !self.old.is_null() && self.resource.is_limited_by(quota, self.old) {
            cost = quota::more(&cost, &self.resource.cost(self.old, self.now));
        }
        cost.retain(|name, amount| !amount.is_zero() && hard.contains_key(name));
        if cost.is_empty() {
            return Ok(None);
        }
        let after = quota::sum(&used, &cost);
        let exceeds = |name: &&String| after.get(*name) > hard.get(*name);
        let exceeded: Vec<&String> = cost.keys().filter(exceeds).collect();
        if !exceeded.is_empty() && !self.is_status {
            let of = |list: &Amounts| {
                let list = list.iter().filter(|(name, _)| exceeded.contains(name));
                quota::show(&list.map(|(name, amount)| (name.clone(), *amount)).collect())
            };
            return Err(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                of(&cost),
                of(&used),
                of(&hard)
            ));
        }
        Ok(Some(after))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn take(plural: &str, object: &Value, old: &Value, hard: Value, used: Value) -> Result<Option<String>, String> {
        let quota = json!({ "metadata": { "name": "q" }, "status": { "hard": hard, "used": used } });
        let resource = Resource::new("", plural);
        let asked = Asked { resource, object, old, is_status: false, now: Timestamp::UNIX_EPOCH };
        asked.take_from(&quota).map(|used| used.map(|used| quota::show(&used)))
    }

    #[test]
    fn a_quota_gives_until_it_is_used_up_and_says_so_in_kubernetes_words() {
        let pod = json!({ "spec": { "containers": [{ "name": "c" }] } });
        let hard = json!({ "pods": "2" });
        let after = take("pods", &pod, &Value::Null, hard.clone(), json!({ "pods": "1" })).unwrap();
        assert_eq!(after.as_deref(), Some("pods=2"));
        assert_eq!(
            take("pods", &pod, &Value::Null, hard.clone(), json!({ "pods": "2" })).unwrap_err(),
            "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
        );
        assert_eq!(
            take("pods", &pod, &Value::Null, hard.clone(), json!({})).unwrap_err(),
            "status unknown for quota: q, resources: pods"
        );
        let demanding = json!({ "requests.cpu": "1", "pods": "5" });
        let used = json!({ "requests.cpu": "0", "pods": "0" });
        assert_eq!(
            take("pods", &pod, &Value::Null, demanding, used).unwrap_err(),
            "failed quota: q: must specify requests.cpu for: c"
        );
        assert_eq!(take("secrets", &json!({}), &Value::Null, hard, json!({ "pods": "2" })).unwrap(), None);
    }

    #[test]
    fn a_change_takes_only_what_it_adds() {
        let service = |kind: &str| json!({ "spec": { "type": kind, "ports": [{ "port": 1 }] } });
        let (hard, used) = (
            json!({ "services": "1", "services.nodeports": "1" }),
            json!({ "services": "1", "services.nodeports": "0" }),
        );
        let after = take("services", &service("NodePort"), &service("ClusterIP"), hard.clone(), used.clone()).unwrap();
        assert_eq!(after.as_deref(), Some("services=1,services.nodeports=1"));
        assert_eq!(take("services", &service("ClusterIP"), &service("NodePort"), hard, used).unwrap(), None);
    }
}
