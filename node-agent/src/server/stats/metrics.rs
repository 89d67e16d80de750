//! Metrics in Prometheus' text form. Pure.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use reeve_engine::engine::{Container, ContainerState, Usage};
pub(crate) use reeve_engine::metrics::Value;

use super::{Measured, machine};
use crate::pod::view::ContainerView;

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = write!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n");
}

pub(crate) fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// One series per running container or pod.
type Row<'m> = (String, &'m Usage, Timestamp);

fn family(
    out: &mut String,
    (name, kind, help): (&str, &str, &str),
    rows: &[Row<'_>],
    value: impl Fn(&Row<'_>) -> Option<String>,
    now: Option<Timestamp>,
) {
    head(out, name, kind, help);
    let stamp = now.map(|now| format!(" {}", now.as_millisecond())).unwrap_or_default();
    for row in rows {
        if let Some(value) = value(row) {
            let _ = writeln!(out, "{name}{{{}}} {value}{stamp}", row.0);
        }
    }
}

/// What `/metrics/resource` says; without pods, that they could not be looked at.
pub(super) fn resources(pods: Option<&[Measured]>, now: Timestamp) -> String {
    let mut out = String::new();
    let totals: Vec<Usage> = pods.unwrap_or_default().iter().map(Measured::whole).collect();
    let (mut containers, mut whole): (Vec<Row<'_>>, Vec<Row<'_>>) = (Vec::new(), Vec::new());
    for (measured, total) in pods.unwrap_or_default().iter().zip(&totals) {
        let meta = &measured.pod.metadata;
        let text = |field: &Option<String>| quoted(field.as_deref().unwrap_or_default());
        let of = format!("namespace=\"{}\",pod=\"{}\"", text(&meta.namespace), text(&meta.name));
        for container in &measured.containers {
            let labels = format!("container=\"{}\",{of}", quoted(&container.name));
            containers.push((labels, &container.usage, container.started_at));
        }
        whole.push((of, total, now));
    }
    let cpu = |row: &Row<'_>| row.1.cpu_nanoseconds.map(|time| Value::Nanoseconds(time).to_string());
    let memory = |row: &Row<'_>| row.1.working_set_bytes.map(|bytes| bytes.to_string());
    let started = |row: &Row<'_>| Some(row.2.as_second().to_string());
    let names = |what| match what {
        "cpu" => (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
        ),
        "memory" => ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes"),
        _ => ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds"),
    };
    family(&mut out, names("cpu"), &containers, cpu, Some(now));
    family(&mut out, names("memory"), &containers, memory, Some(now));
    family(&mut out, names("start"), &containers, started, None);
    let (node, stamp) = (machine::look(), now.as_millisecond());
    head(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    let _ = writeln!(out, "node_cpu_usage_seconds_total {} {stamp}", Value::Nanoseconds(node.cpu_nanoseconds));
    head(&mut out, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    let _ = writeln!(out, "node_memory_working_set_bytes {} {stamp}", node.working_set_bytes);
    let pod_cpu = ("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds");
    family(&mut out, pod_cpu, &whole, cpu, Some(now));
    let pod_memory = ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    family(&mut out, pod_memory, &whole, memory, Some(now));
    head(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    let _ = writeln!(out, "resource_scrape_error {}", u8::from(pods.is_none()));
    out
}

/// What `/metrics` says of the agent itself.
pub(super) fn own(node: &str, pods: &[(Arc<Pod>, Vec<ContainerView>)], containers: &[Container]) -> String {
    let mut out = String::new();
    let plain = |out: &mut String, name: &str, help: &str| {
        let _ = write!(out, "# HELP {name} [ALPHA] {help}\n# TYPE {name} gauge\n");
    };
    plain(&mut out, "kubelet_node_name", "The node's name. The count is always 1.");
    let _ = writeln!(out, "kubelet_node_name{{node=\"{}\"}} 1", quoted(node));
    plain(&mut out, "kubelet_running_containers", "Number of containers currently running");
    for (state, is_in) in [
        ("created", (|state| matches!(state, ContainerState::Created)) as fn(&ContainerState) -> bool),
        ("exited", |state| matches!(state, ContainerState::Exited { .. })),
        ("running", |state| matches!(state, ContainerState::Running { .. })),
    ] {
        let number = containers.iter().filter(|container| is_in(&container.state)).count();
        let _ = writeln!(out, "kubelet_running_containers{{container_state=\"{state}\"}} {number}");
    }
    plain(&mut out, "kubelet_running_pods", "Number of pods that have a running pod sandbox");
    let running = pods.iter().filter(|(_, views)| views.iter().any(|view| view.running)).count();
    let _ = writeln!(out, "kubelet_running_pods {running}");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::MeasuredContainer;
    use super::*;

    #[test]
    fn what_containers_use_is_told_in_prometheus_form() {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let usage = Usage { cpu_nanoseconds: Some(1_500_000_000), working_set_bytes: Some(4096), ..Usage::default() };
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        let container = MeasuredContainer { name: "c".to_owned(), started_at: at, usage, ..Default::default() };
        let measured = Measured { pod: Arc::new(pod), containers: vec![container], ..Measured::default() };
        let text = resources(Some(&[measured]), at);
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 1700000000000",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 4096 1700000000000",
            "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 1700000000",
            "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1.5 1700000000000",
            "# TYPE container_cpu_usage_seconds_total counter",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
        assert!(resources(None, at).contains("resource_scrape_error 1\n"));
    }
}
