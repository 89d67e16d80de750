//! Where a Service is reached: one of its ready endpoints, from the server's own cache.
//!
//! Refusals are worded as Kubernetes' `pkg/util/proxy` of the aggregator words them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::registry::{Resource, meta};

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services and their endpoints, as cached.
pub(crate) struct Services {
    services: Arc<Resource>,
    slices: Arc<Resource>,
    /// Counts the answers, so that endpoints take turns.
    turn: AtomicUsize,
}

impl Services {
    /// `services` and `slices` are the resources of that name.
    pub(crate) fn new(services: Arc<Resource>, slices: Arc<Resource>) -> Self {
        Self { services, slices, turn: AtomicUsize::new(0) }
    }

    /// Host and port of one endpoint of the Service's port `port`; `Err` says why there is none.
    pub(crate) fn endpoint(&self, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
        let key = self.services.cache_key(namespace, name);
        let service = self.services.storage.get(key.as_bytes());
        let service = service.ok_or_else(|| format!("service {name:?} not found"))?.value();
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            return Ok((spec["externalName"].as_str().unwrap_or_default().to_owned(), port));
        }
        let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = ports.iter().find(|own| own["port"].as_u64() == Some(u64::from(port)));
        let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let all = self.ready(namespace, name, found["name"].as_str().unwrap_or_default());
        if all.is_empty() {
            return Err(format!("no endpoints available for service {name:?}"));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        all.into_iter().cycle().nth(turn % 1024).ok_or_else(String::new)
    }

    /// The ready endpoints for a port name.
    fn ready(&self, namespace: &str, name: &str, port: &str) -> Vec<(String, u16)> {
        let snapshot = self.slices.storage.snapshot();
        let scope = format!("{namespace}/");
        let slices = snapshot.scan(&scope, b"").map(|(_, slice)| slice.value());
        let mut found = Vec::new();
        for slice in slices.filter(|slice| meta::get(slice, "labels")[SERVICE_NAME] == name) {
            let ports = slice["ports"].as_array().into_iter().flatten();
            let number = ports.filter(|own| own["name"].as_str().unwrap_or_default() == port);
            let number = number.filter_map(|own| own["port"].as_u64()).next();
            let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != Value::Bool(false));
            let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str());
            found.extend(addresses.map(|address| (address.to_owned(), number)));
        }
        found
    }
}
