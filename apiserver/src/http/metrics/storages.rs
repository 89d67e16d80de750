//! What is told of the stored resources: how many objects there are, and what their caches have done.

use super::{Counter, Page};
use crate::cache::CacheFigures;
use crate::registry::Registry;

/// A resource under its labels.
struct Storage {
    /// `group="apps",resource="deployments"`
    labels: String,
    /// `resource="deployments.apps"`
    old_labels: String,
    objects: usize,
    bytes: u64,
    revision: u64,
    cache: std::sync::Arc<crate::cache::ResourceCache>,
}

/// Counters of the caches: name, help, where they are.
type Family = (&'static str, &'static str, fn(&CacheFigures) -> &Counter);

const FAMILIES: [Family; 6] = [
    ("apiserver_storage_events_received_total", "[BETA] Number of etcd events received split by kind.", |figures| {
        &figures.received
    }),
    (
        "apiserver_watch_cache_events_received_total",
        "[ALPHA] Counter of events received in watch cache broken by resource type.",
        |figures| &figures.received,
    ),
    (
        "apiserver_watch_cache_events_dispatched_total",
        "[ALPHA] Counter of events dispatched in watch cache broken by resource type.",
        |figures| &figures.dispatched,
    ),
    (
        "apiserver_watch_cache_initializations_total",
        "[ALPHA] Counter of watch cache initializations broken by resource type.",
        |figures| &figures.initializations,
    ),
    ("apiserver_cache_list_total", "[ALPHA] Number of LIST requests served from watch cache", |figures| &figures.lists),
    (
        "apiserver_cache_list_returned_objects_total",
        "[ALPHA] Number of objects returned for a LIST request from watch cache",
        |figures| &figures.returned,
    ),
];

fn all(registry: &Registry) -> Vec<Storage> {
    let mut found: Vec<Storage> = Vec::new();
    for resource in registry.resources().iter() {
        let names = resource.names();
        let labels = format!("group=\"{}\",resource=\"{}\"", names.group, names.plural);
        if found.iter().all(|known| known.labels != labels) {
            let (snapshot, revision) = registry.cache.snapshot(&resource.storage);
            found.push(Storage {
                labels,
                old_labels: format!("resource=\"{}\"", resource.qualified()),
                objects: snapshot.objects.len(),
                bytes: snapshot.bytes,
                revision: revision.0,
                cache: std::sync::Arc::clone(&resource.storage),
            });
        }
    }
    found
}

/// Tells all of it.
pub(super) fn write(registry: &Registry, page: &mut Page) {
    let all = all(registry);
    page.family(
        "apiserver_resource_objects",
        "gauge",
        "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    );
    all.iter().for_each(|one| page.sample("", &one.labels, one.objects));
    page.family(
        "apiserver_storage_objects",
        "gauge",
        "[STABLE] [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    );
    all.iter().for_each(|one| page.sample("", &one.old_labels, one.objects));
    page.family(
        "apiserver_resource_size_estimate_bytes",
        "gauge",
        "[ALPHA] Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
    );
    all.iter().for_each(|one| page.sample("", &one.labels, one.bytes));
    page.family(
        "apiserver_watch_cache_resource_version",
        "gauge",
        "[ALPHA] Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.",
    );
    all.iter().for_each(|one| page.sample("", &one.labels, one.revision % 1_000_000_000_000_000));
    for (name, help, counter) in FAMILIES {
        page.family(name, "counter", help);
        for one in &all {
            let count = counter(&one.cache.figures).get();
            let is_by_index = name == "apiserver_cache_list_total";
            if count > 0 && is_by_index {
                page.sample("", &one.labels.replace(",resource=", ",index=\"\",resource="), count);
            } else if count > 0 {
                page.sample("", &one.labels, count);
            }
        }
    }
    store_calls(&all, page);
    allocated(registry, page);
}

/// What was asked of the store, whatever it is, under the names that dashboards know.
fn store_calls(all: &[Storage], page: &mut Page) {
    let calls = || {
        all.iter().flat_map(|one| {
            let own = one.cache.figures.calls.iter();
            own.map(|(name, times, failures)| {
                (one.labels.replace(",resource=", &format!(",operation=\"{name}\",resource=")), times, failures)
            })
        })
    };
    let help = "[ALPHA] Etcd request latency in seconds for each operation and object type.";
    page.family("etcd_request_duration_seconds", "histogram", help);
    calls().for_each(|(labels, times, _)| times.write(page, &labels, 0));
    let help = "[ALPHA] Etcd failed request counts for each operation and object type.";
    page.family("etcd_request_errors_total", "counter", help);
    for (labels, _, failures) in calls().filter(|(_, _, failures)| failures.get() > 0) {
        page.sample("", &labels, failures.get());
    }
    let help = "[ALPHA] Etcd request counts for each operation and object type.";
    page.family("etcd_requests_total", "counter", help);
    calls().for_each(|(labels, times, _)| page.sample("", &labels, times.count()));
}

/// Cluster IPs and node ports: how many are taken, how many are free.
fn allocated(registry: &Registry, page: &mut Page) {
    let found = registry.allocations();
    let labels = format!("cidr=\"{}\"", found.cidr);
    let families = [
        (
            "kube_apiserver_clusterip_allocator_allocated_ips",
            "[ALPHA] Gauge measuring the number of allocated IPs for Services",
            labels.as_str(),
            found.addresses,
        ),
        (
            "kube_apiserver_clusterip_allocator_available_ips",
            "[ALPHA] Gauge measuring the number of available IPs for Services",
            &labels,
            found.addresses_free,
        ),
        (
            "kube_apiserver_nodeport_allocator_allocated_ports",
            "[ALPHA] Gauge measuring the number of allocated NodePorts for Services",
            "",
            found.ports,
        ),
        (
            "kube_apiserver_nodeport_allocator_available_ports",
            "[ALPHA] Gauge measuring the number of available NodePorts for Services",
            "",
            found.ports_free,
        ),
    ];
    for (name, help, labels, value) in families {
        page.family(name, "gauge", help);
        page.sample("", labels, value);
    }
}
