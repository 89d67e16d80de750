//! What ResourceClaims cost: devices, by the class they are asked of.

use serde_json::Value;

use super::Amounts;
use crate::quantity::{Format, Quantity};

/// What stands behind the name of a device class.
pub(super) const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";

/// Devices that one claim can be given at most, and so what `All` costs.
///
/// Source: Kubernetes' `AllocationResultsMaxSize`.
const DEVICES_MAX: i64 = 32;

/// The devices of each class that the claim may be given at most.
pub(super) fn cost(claim: &Value) -> Amounts {
    let mut total = Amounts::new();
    for request in entries(&claim["spec"]["devices"]["requests"]) {
        // Of alternatives only one is given: the dearest of each class counts.
        let mut dearest = Amounts::new();
        let alternatives = entries(&request["firstAvailable"]);
        let exact = alternatives.is_empty().then(|| request.get("exactly")).flatten();
        for wish in alternatives.iter().chain(exact) {
            let name = format!("{}{DEVICE_CLASS}", wish["deviceClassName"].as_str().unwrap_or_default());
            super::amounts::raise(&mut dearest, &Amounts::from([(name, devices(wish))]));
        }
        super::amounts::add(&mut total, &dearest);
    }
    total
}

fn devices(wish: &Value) -> Quantity {
    let count = match wish["allocationMode"].as_str() {
        Some("ExactCount") => wish["count"].as_i64().unwrap_or_default(),
        Some("All") => DEVICES_MAX,
        _ => 0,
    };
    Quantity::new(count, Format::DecimalSi)
}

fn entries(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}
