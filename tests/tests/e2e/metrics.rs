//! What a node's kubelet tells Prometheus.

use std::collections::BTreeMap;

use reeve_tests::cluster::Cluster;
use reeve_tests::patience::{eventually, eventually_is};

use super::pods::{pod, script};

/// A sample: its name, labels and value.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What Prometheus' own reader would take: every line is a comment or a sample.
fn samples(text: &str) -> Vec<Sample> {
    let sample = |line: &str| {
        let (head, rest) = line.split_at(line.find(['{', ' ']).expect("a name"));
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ").expect("labels end"),
            None => ("", rest.trim_start()),
        };
        let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once("=\"").expect("a label");
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
        let value = rest.split(' ').next().expect("a value").parse().expect("a number");
        Sample { name: head.to_owned(), labels: labels.collect(), value }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

fn scrape(path: &str) -> Vec<Sample> {
    let cluster = Cluster::shared();
    let node = cluster.kubectl(&["get", "nodes", "-o", "name"]).text();
    let node = node.trim().trim_start_matches("node/");
    samples(&cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/{path}")]).text())
}

#[test]
fn what_containers_use_is_told_as_a_kubelet_with_cadvisor_tells_it() {
    let space = Cluster::shared().space("cadvisor");
    let limits = r#""resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "100m", "memory": "64Mi"}},"#;
    let work = "dd if=/dev/zero of=/file bs=64k count=64 2>/dev/null; while :; do :; done";
    space.apply(&pod("busy", &format!("{limits} {}", script(work)), ""));
    space.ready("busy");
    let own = |all: &[Sample], container: &str, name: &str| -> Vec<f64> {
        let is_own = |sample: &&Sample| {
            let of = |label: &str| sample.labels.get(label).map(String::as_str).unwrap_or_default();
            sample.name == name
                && (of("namespace"), of("pod"), of("container")) == (space.name.as_str(), "busy", container)
        };
        all.iter().filter(is_own).map(|sample| sample.value).collect()
    };
    let throttled = || {
        let all = scrape("metrics/cadvisor");
        match own(&all, "main", "container_cpu_cfs_throttled_periods_total").as_slice() {
            [periods] if *periods > 0.0 => Ok(all),
            other => Err(format!("{other:?}")),
        }
    };
    let all = eventually("its quota is used up", throttled);
    // What the rules and dashboards of kubernetes-mixin ask for.
    for name in [
        "container_cpu_usage_seconds_total",
        "container_cpu_cfs_periods_total",
        "container_memory_working_set_bytes",
        "container_memory_rss",
        "container_memory_cache",
        "container_start_time_seconds",
        "container_last_seen",
        "container_oom_events_total",
        "container_processes",
        "container_file_descriptors",
        "container_threads",
        "container_spec_cpu_shares",
    ] {
        for container in ["main", ""] {
            assert_eq!(own(&all, container, name).len(), 1, "{name} of {container:?}");
        }
    }
    for (name, value) in [
        ("container_spec_memory_limit_bytes", f64::from(64 << 20)),
        ("container_spec_cpu_quota", 10_000.0),
        ("container_spec_cpu_period", 100_000.0),
        ("container_processes", 1.0),
        ("container_sockets", 0.0),
    ] {
        assert_eq!(own(&all, "main", name), [value], "{name}");
    }
    let received = own(&all, "", "container_network_receive_packets_total");
    assert_eq!(received.len(), 1, "one interface");
    let node = |name: &str| {
        let of_node = |sample: &&Sample| sample.name == name && sample.labels.get("id").is_none_or(|id| id == "/");
        all.iter().filter(of_node).map(|sample| sample.value).fold(0.0, f64::max)
    };
    for name in
        ["container_cpu_usage_seconds_total", "container_fs_limit_bytes", "machine_memory_bytes", "machine_cpu_cores"]
    {
        assert!(node(name) > 0.0, "{name} of the node");
    }
    assert_eq!((node("container_scrape_error"), node("cadvisor_version_info")), (0.0, 1.0));
    let image = all.iter().find(|sample| sample.labels.get("pod").is_some_and(|pod| pod == "busy"));
    assert!(image.is_some_and(|sample| sample.labels.contains_key("image")), "also where it is empty");
}

#[test]
fn probes_are_counted_as_long_as_their_pod_is_there() {
    let space = Cluster::shared().space("probe-counts");
    let probe = r#""readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},"#;
    space.apply(&pod("asked", &format!("{probe} {}", script("sleep 600")), ""));
    space.ready("asked");
    let counted = || {
        let is_own = |sample: &&Sample| {
            sample.name == "prober_probe_total" && sample.labels.get("namespace") == Some(&space.name)
        };
        let all = scrape("metrics/probes");
        all.iter().filter(is_own).map(|own| format!("{} {}", own.labels["probe_type"], own.labels["result"])).collect()
    };
    eventually_is("the probe is counted", counted, |all| all == "Readiness successful");
    space.kubectl(&["delete", "pod", "asked", "--wait"]).done();
    eventually_is("it is forgotten with its pod", counted, str::is_empty);
}
