//! The quality-of-service class of a pod, from its containers' requests and limits.

use reeve_api::quantity::Quantity;
use serde_json::Value;

use crate::json::{at, get, list};

/// `Guaranteed`, `Burstable` or `BestEffort`, as Kubernetes computes it.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let containers = || list(spec, "containers").iter().chain(list(spec, "initContainers"));
    let amount = |container: &Value, side: &str, name: &str| {
        let amount = Quantity::from_value(at(container, &["resources", side, name])).unwrap_or_default();
        Some(amount).filter(|amount| *amount > Quantity::ZERO)
    };
    // Resources given for the pod as a whole come before those of its containers.
    if !get(spec, "resources").is_null() {
        return class_of(std::iter::once(spec), amount);
    }
    class_of(containers(), amount)
}

fn class_of<'v>(
    holders: impl Iterator<Item = &'v Value>,
    amount: impl Fn(&Value, &str, &str) -> Option<Quantity>,
) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for holder in holders {
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(holder, "requests", name), amount(holder, "limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"limits": both, "requests": both}), "Guaranteed"),
            (json!({"limits": both, "requests": {"cpu": "500m"}}), "Burstable"),
            (json!({"requests": {"memory": "1Gi"}}), "Burstable"),
            (json!({"requests": {"memory": "0"}}), "BestEffort"),
        ] {
            assert_eq!(qos_class(&json!({"containers": [{"resources": resources}]})), class, "{resources}");
        }
    }
}
