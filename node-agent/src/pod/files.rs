//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a pod.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::state::spec;
use crate::config::NodeConfig;

/// Most search domains and name servers a resolver looks at.
/// Source: Kubernetes `MaxDNSSearchPaths`, `MaxDNSNameservers`.
const SEARCH_MAX: usize = 32;
const NAMESERVERS_MAX: usize = 3;
/// Longest host name the kernel takes. Source: hostname(7); the kubelet cuts longer ones.
const HOSTNAME_MAX: usize = 63;

/// Where a pod's own files are.
#[derive(Debug, Clone)]
pub(crate) struct PodFiles {
    pub(crate) hosts: PathBuf,
    pub(crate) resolv_conf: PathBuf,
    pub(crate) hostname: PathBuf,
}

impl PodFiles {
    /// The files of the pod whose folder is `pod_dir`.
    pub(crate) fn of(pod_dir: &Path) -> Self {
        let dir = pod_dir.join("etc");
        Self { hosts: dir.join("hosts"), resolv_conf: dir.join("resolv.conf"), hostname: dir.join("hostname") }
    }

    /// Writes all three.
    pub(crate) fn write(&self, pod: &Pod, ips: &[IpAddr], config: &NodeConfig) -> io::Result<()> {
        if let Some(dir) = self.hosts.parent() {
            fs::create_dir_all(dir)?;
        }
        let host_network = spec(pod).host_network == Some(true);
        let node_hosts =
            if host_network { fs::read_to_string("/etc/hosts").unwrap_or_default() } else { String::new() };
        let node_resolver = fs::read_to_string(&config.resolv_conf).unwrap_or_default();
        fs::write(&self.hosts, hosts(pod, ips, config, &node_hosts))?;
        fs::write(&self.resolv_conf, resolv_conf(pod, config, &node_resolver))?;
        fs::write(&self.hostname, format!("{}\n", hostname(pod, config)))
    }
}

/// The host name inside: the pod's own (or `spec.hostname`), the node's for host-network pods.
pub(crate) fn hostname(pod: &Pod, config: &NodeConfig) -> String {
    let spec = spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    if spec.host_network == Some(true) {
        return config.node_name.clone();
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = name.or(pod.metadata.name.as_deref()).unwrap_or_default();
    if spec.set_hostname_as_fqdn == Some(true)
        && let Some(subdomain) = spec.subdomain.as_deref().filter(|name| !name.is_empty())
    {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        return format!("{name}.{subdomain}.{namespace}.svc.{}", config.cluster_domain);
    }
    let cut: String = name.chars().take(HOSTNAME_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Source: kubelet `managedHostsFileContent`.
fn hosts(pod: &Pod, ips: &[IpAddr], config: &NodeConfig, node_hosts: &str) -> String {
    let spec = spec(pod);
    let mut text = if spec.host_network == Some(true) {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        let mut text = "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n"
            .to_owned();
        let name = hostname(pod, config);
        for ip in ips {
            match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
                Some(subdomain) => {
                    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                    let domain = &config.cluster_domain;
                    text.push_str(&format!("{ip}\t{name}.{subdomain}.{namespace}.svc.{domain}\t{name}\n"));
                }
                None => text.push_str(&format!("{ip}\t{name}\n")),
            }
        }
        text
    };
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
        }
    }
    text
}

/// What a resolver is told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resolver {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

/// Source: kubelet `dns.Configurer.GetPodDNS`.
fn resolv_conf(pod: &Pod, config: &NodeConfig, node_text: &str) -> String {
    let spec = spec(pod);
    let node = parse_resolver(node_text);
    let host_network = spec.host_network == Some(true);
    let mut resolver = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Resolver::default(),
        "Default" => node,
        "ClusterFirst" if host_network => node,
        _ => {
            let (namespace, domain) = (pod.metadata.namespace.as_deref().unwrap_or_default(), &config.cluster_domain);
            let mut search = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            search.extend(node.search);
            Resolver { nameservers: vec![config.cluster_dns.to_string()], search, options: vec!["ndots:5".to_owned()] }
        }
    };
    add_pod_config(pod, &mut resolver);
    let mut seen = BTreeSet::new();
    resolver.search.retain(|domain| seen.insert(domain.clone()));
    resolver.search.truncate(SEARCH_MAX);
    resolver.nameservers.truncate(NAMESERVERS_MAX);
    let mut text = String::new();
    if !resolver.search.is_empty() {
        text.push_str(&format!("search {}\n", resolver.search.join(" ")));
    }
    for server in &resolver.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

fn add_pod_config(pod: &Pod, resolver: &mut Resolver) {
    let Some(own) = &spec(pod).dns_config else { return };
    resolver.nameservers.extend(own.nameservers.iter().flatten().cloned());
    resolver.search.extend(own.searches.iter().flatten().cloned());
    for option in own.options.iter().flatten() {
        let name = option.name.clone().unwrap_or_default();
        let same = |existing: &String| existing.split(':').next() == Some(&name);
        resolver.options.retain(|existing| !same(existing));
        resolver.options.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name,
        });
    }
}

/// resolv.conf(5).
fn parse_resolver(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => resolver.nameservers.extend(words.next()),
            // The last one counts.
            Some("search") => resolver.search = words.collect(),
            Some("options") => resolver.options.extend(words),
            _ => {}
        }
    }
    resolver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node_config;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "web-0", "namespace": "ns" }, "spec": spec }))
            .unwrap()
    }

    #[test]
    fn names_are_looked_up_in_the_cluster_first() {
        let config = node_config(Path::new("/none"));
        let node = "nameserver 192.0.2.1\nsearch example.com\noptions edns0\n";
        let text = resolv_conf(&pod(serde_json::json!({ "containers": [] })), &config, node);
        assert_eq!(
            text,
            "search ns.svc.cluster.local svc.cluster.local cluster.local example.com\n\
             nameserver 10.96.0.10\noptions ndots:5\n"
        );
        let default = resolv_conf(&pod(serde_json::json!({ "containers": [], "dnsPolicy": "Default" })), &config, node);
        assert_eq!(default, "search example.com\nnameserver 192.0.2.1\noptions edns0\n");
        let none = pod(serde_json::json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.2.3.4"], "searches": ["a.b"], "options": [{ "name": "ndots", "value": "2" }],
        }}));
        assert_eq!(resolv_conf(&none, &config, node), "search a.b\nnameserver 1.2.3.4\noptions ndots:2\n");
    }

    #[test]
    fn pods_on_the_nodes_network_use_its_resolver_unless_they_ask_for_the_clusters() {
        let config = node_config(Path::new("/none"));
        let node = "nameserver 192.0.2.1\nsearch example.com\n";
        let of = |policy: &str| {
            let spec = serde_json::json!({ "containers": [], "hostNetwork": true, "dnsPolicy": policy, "dnsConfig": {
                "searches": ["a.b"], "options": [{ "name": "ndots", "value": "2" }, { "name": "rotate" }],
            }});
            resolv_conf(&pod(spec), &config, node)
        };
        for policy in ["ClusterFirst", "Default"] {
            let expected = "search example.com a.b\nnameserver 192.0.2.1\noptions ndots:2 rotate\n";
            assert_eq!(of(policy), expected, "{policy}");
        }
        assert_eq!(
            of("ClusterFirstWithHostNet"),
            "search ns.svc.cluster.local svc.cluster.local cluster.local example.com a.b\n\
             nameserver 10.96.0.10\noptions ndots:2 rotate\n"
        );
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let config = node_config(Path::new("/none"));
        let pod = pod(serde_json::json!({ "containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }] }));
        let text = hosts(&pod, &["10.0.0.2".parse().unwrap()], &config, "");
        assert!(text.contains("\n10.0.0.2\th.s.ns.svc.cluster.local\th\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn long_names_are_cut_to_what_the_kernel_takes() {
        let config = node_config(Path::new("/none"));
        let mut pod = pod(serde_json::json!({ "containers": [] }));
        assert_eq!(hostname(&pod, &config), "web-0");
        pod.metadata.name = Some(format!("{}-tail", "x".repeat(62)));
        assert_eq!(hostname(&pod, &config), "x".repeat(62));
    }
}
