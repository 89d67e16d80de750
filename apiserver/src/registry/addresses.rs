//! IPAddress objects: one for each cluster IP that a Service holds, written and removed in the Service's own
//! transaction. The allocation itself is the entry of `services.rs`.

use bytes::Bytes;
use reeve_api::rng::RngExt as _;
use serde_json::{Value, json};

use super::bootstrap::{create_missing, request};
use super::commit::Plan;
use super::{Registry, encode, managed, meta};
use crate::cache::RANGES;
use crate::status::ApiError;

/// What stands between the prefix of all ranges and an address.
const ENTRY: &[u8] = b"serviceips/";

impl Registry {
    /// Lets the IPAddress objects of the addresses that a plan claims and gives back come and go with it.
    pub(super) fn with_addresses(&self, plan: &mut Plan, service: &Value) {
        let Some(resource) = self.resource("networking.k8s.io", "v1", "ipaddresses") else { return };
        let claimed: Vec<_> = plan.claims.iter().filter_map(|(key, _)| address(key)).collect();
        for ip in claimed {
            let mut object = address_object(&ip, service);
            let request = request(&resource, "", &ip);
            let now = self.clock.now();
            let managers = managed::of_new(&request, &object, &Value::Null, now);
            meta::begin(&mut object, self.rng.uuid(), now);
            meta::set(&mut object, "managedFields", managers);
            plan.claims.push((resource.key("", &ip), encode::stored(&object)));
        }
        let released: Vec<_> = plan.releases.iter().filter_map(address).collect();
        plan.releases.extend(released.iter().map(|ip| resource.key("", ip)));
    }

    /// Makes the objects of addresses that Services hold and that have none: of a store written by an older server.
    pub(super) async fn make_up_addresses(&self) -> Result<(), ApiError> {
        let (Some(services), Some(addresses)) =
            (self.core("services"), self.resource("networking.k8s.io", "v1", "ipaddresses"))
        else {
            return Ok(());
        };
        let snapshot = services.storage.snapshot();
        for service in snapshot.objects.values().map(encode::bare) {
            for ip in service["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if ip != "None" && self.peek(&addresses, "", ip).is_none() {
                    create_missing(self, &addresses, "", ip, address_object(ip, &service)).await?;
                }
            }
        }
        Ok(())
    }
}

/// The address that a key of an allocation stands for.
fn address(key: &Bytes) -> Option<String> {
    String::from_utf8(key.strip_prefix(RANGES)?.strip_prefix(ENTRY)?.to_vec()).ok()
}

fn address_object(ip: &str, service: &Value) -> Value {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": ip, "labels": {
            "ipaddress.kubernetes.io/ip-family": family,
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }},
        "spec": {"parentRef": {
            "resource": "services", "namespace": meta::text(service, "namespace"), "name": meta::text(service, "name"),
        }},
    })
}
