//! What several tests of this crate share.

use std::path::Path;

use crate::config::{NodeConfig, Reserved};

/// A node that keeps everything below `dir`.
pub(crate) fn node_config(dir: &Path) -> NodeConfig {
    NodeConfig {
        cluster_name: "test".to_owned(),
        node_name: "node1".to_owned(),
        node_ip: "127.0.0.1".parse().expect("an address"),
        data_dir: dir.join("data"),
        cluster_cidr: "10.244.0.0/16".parse().expect("a range"),
        service_cidr: "10.96.0.0/16".parse().expect("a range"),
        cluster_dns: "10.96.0.10".parse().expect("an address"),
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: dir.join("resolv.conf"),
        link_prefix: "rvtest".to_owned(),
        kubelet_version: "v1.36.2+reeve.test".to_owned(),
        max_pods: 110,
        pod_pids_limit: 1024,
        reserved: Reserved::default(),
    }
}
