//! What the node and its containers use: `/stats/summary`, `/metrics/resource`, `/metrics/cadvisor`,
//! `/metrics/probes`, `/metrics`.
//!
//! Read from cgroups and `/proc` when somebody asks; nothing is measured in between. What is not known is left out.
//!
//! Source: `k8s.io/kubelet/pkg/apis/stats/v1alpha1`, and the kubelet's metrics under Kubernetes' names.

mod cadvisor;
pub(crate) mod histogram;
mod machine;
pub(crate) mod metrics;
mod summary;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use reeve_engine::engine::{ContainerState, ProcessUsage, Resources, Sandbox, SandboxState, Usage};

use super::{Answer, Backend, text};
use crate::credentials::CredentialProviders;
use crate::pod::container::IMAGE;

/// Two looks that are closer together say too little about a rate.
const RATE_MILLIS_MIN: i64 = 1000;

/// What was seen of CPU times, by container id (empty: the node): the base of rates. Holds what runs, nothing else.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<BTreeMap<String, Look>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Timestamp,
    nanoseconds: u64,
    /// As of the look before.
    rate: Option<u64>,
}

impl Seen {
    /// Nanoseconds of CPU time per second since the last look that is long enough ago.
    fn rate(&self, id: &str, at: Timestamp, nanoseconds: u64) -> Option<u64> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = seen.get(id).copied() else {
            seen.insert(id.to_owned(), Look { at, nanoseconds, rate: None });
            return None;
        };
        let millis = at.as_millisecond() - last.at.as_millisecond();
        if millis < RATE_MILLIS_MIN {
            return last.rate;
        }
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let rate = nanoseconds.checked_sub(last.nanoseconds).map(|used| used.saturating_mul(1000) / millis);
        seen.insert(id.to_owned(), Look { at, nanoseconds, rate });
        rate
    }

    fn retain(&self, alive: &[Measured]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, _| {
            let is_of = |pod: &Measured| {
                pod.sandbox.as_ref() == Some(id) || pod.containers.iter().any(|container| container.id == *id)
            };
            id.is_empty() || alive.iter().any(is_of)
        });
    }
}

/// A pod with what it uses, all in all and by its running containers.
#[derive(Default)]
pub(super) struct Measured {
    pod: std::sync::Arc<Pod>,
    /// Of its running sandbox.
    sandbox: Option<String>,
    usage: Usage,
    containers: Vec<MeasuredContainer>,
    /// When its sandbox was made.
    created_at: Option<Timestamp>,
    limits: Resources,
}

#[derive(Default)]
pub(super) struct MeasuredContainer {
    id: String,
    name: String,
    /// As the pod names it.
    image: String,
    created_at: Timestamp,
    started_at: Timestamp,
    usage: Usage,
    limits: Resources,
    /// If somebody has counted them.
    processes: Option<ProcessUsage>,
}

/// Looks at every running container of the node's pods, by namespace and name.
async fn measure(backend: &Backend) -> Result<Vec<Measured>, String> {
    let engine = &backend.node.engine;
    let containers = engine.list_containers().await.map_err(|error| error.to_string())?;
    let sandboxes = engine.list_pod_sandboxes().await.map_err(|error| error.to_string())?;
    let mut usage = engine.usage().await.map_err(|error| error.to_string())?;
    let mut measured = Vec::new();
    for (pod, views) in backend.views.containers() {
        let mut own = Vec::new();
        for view in views {
            let id = view.id.unwrap_or_default();
            let Some(container) = containers.iter().find(|container| container.id == id) else { continue };
            let ContainerState::Running { started_at, .. } = container.state else { continue };
            let Some(usage) = usage.remove(&id) else { continue };
            own.push(MeasuredContainer {
                id,
                name: view.name,
                image: container.config.annotations.get(IMAGE).unwrap_or(&container.image_id).clone(),
                created_at: container.created_at,
                started_at,
                usage,
                limits: container.config.resources.clone(),
                processes: None,
            });
        }
        let sandbox = sandbox_of(&pod, &sandboxes);
        // One that goes at this very moment uses nothing any more.
        let usage = match sandbox {
            Some(own) => engine.pod_sandbox_usage(&own.id).await.unwrap_or_default(),
            None => Usage::default(),
        };
        measured.push(Measured {
            pod,
            usage,
            containers: own,
            created_at: sandbox.map(|own| own.created_at),
            limits: sandbox.map(|own| own.config.resources.clone()).unwrap_or_default(),
            sandbox: sandbox.map(|own| own.id.clone()),
        });
    }
    backend.seen.retain(&measured);
    Ok(measured)
}

fn sandbox_of<'s>(pod: &Pod, sandboxes: &'s [Sandbox]) -> Option<&'s Sandbox> {
    let uid = pod.metadata.uid.as_deref()?;
    sandboxes.iter().find(|own| own.config.uid == uid && own.state == SandboxState::Ready)
}

/// `/stats/summary`
pub(super) async fn summary(backend: &Backend) -> Answer {
    match measure(backend).await {
        Ok(pods) => {
            let summary = summary::of(backend, &pods, backend.node.now());
            typed("application/json", format!("{}\n", pretty(&summary)))
        }
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("Internal Error: {why}")),
    }
}

/// `/metrics/resource`
pub(super) async fn resources(backend: &Backend) -> Answer {
    let now = backend.node.now();
    let pods = measure(backend).await;
    typed("text/plain; version=0.0.4; charset=utf-8", metrics::resources(pods.as_deref().ok(), now))
}

/// `/metrics/cadvisor`
pub(super) async fn cadvisor(backend: &Backend) -> Answer {
    let now = backend.node.now();
    let mut pods = measure(backend).await;
    if let (Ok(pods), Ok(processes)) = (&mut pods, backend.node.engine.processes().await) {
        for own in pods.iter_mut().flat_map(|pod| &mut pod.containers) {
            own.processes = processes.get(&own.id).copied();
        }
    }
    let (config, capacity) = (backend.node.config.clone(), backend.node.capacity.clone());
    let looked = tokio::task::spawn_blocking(move || cadvisor::Node::look(&config, &capacity)).await;
    typed(
        "text/plain; version=0.0.4; charset=utf-8",
        cadvisor::of(&looked.unwrap_or_default(), pods.as_deref().ok(), now),
    )
}

/// `/metrics/probes`
pub(super) fn probes(backend: &Backend) -> Answer {
    typed("text/plain; version=0.0.4; charset=utf-8", backend.node.probes.text())
}

/// `/metrics`
pub(super) async fn metrics(backend: &Backend) -> Answer {
    let node = &backend.node.config.node_name;
    match backend.node.engine.list_containers().await {
        Ok(containers) => {
            let mut text = metrics::own(node, &backend.views.containers(), &containers);
            text.extend(backend.node.credentials.as_ref().map(CredentialProviders::metrics));
            typed("text/plain; version=0.0.4; charset=utf-8", text)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// `/configz`: the settings that there are, under the kubelet's names.
pub(super) fn configz(backend: &Backend) -> Answer {
    let config = &backend.node.config;
    let value = serde_json::json!({ "kubeletconfig": {
        "enableServer": true,
        "clusterDomain": config.cluster_domain,
        "clusterDNS": [config.cluster_dns],
        "maxPods": config.max_pods,
        "podPidsLimit": config.pod_pids_limit,
        "resolvConf": config.resolv_conf,
        "address": config.node_ip,
        "kubeReserved": {
            "cpu": format!("{}m", config.reserved.cpu_milli),
            "memory": config.reserved.memory_bytes.to_string(),
            "ephemeral-storage": config.reserved.storage_bytes.to_string(),
        },
    } });
    typed("application/json", value.to_string())
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn typed(kind: &'static str, body: String) -> Answer {
    let mut answer = text(StatusCode::OK, body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_used_between_two_looks() {
        let (seen, at) = (Seen::default(), |millis| Timestamp::from_millisecond(millis).unwrap());
        assert_eq!(seen.rate("a", at(0), 1_000_000_000), None);
        assert_eq!(seen.rate("a", at(500), 1_200_000_000), None, "too soon to say");
        assert_eq!(seen.rate("a", at(2000), 2_000_000_000), Some(500_000_000));
        assert_eq!(seen.rate("a", at(2500), 2_900_000_000), Some(500_000_000));
        assert_eq!(seen.rate("a", at(4000), 0), None, "a counter that goes back is a new one");
        seen.retain(&[]);
        assert!(seen.0.lock().unwrap().is_empty());
    }
}
