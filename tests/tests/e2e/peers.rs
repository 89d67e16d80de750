//! Images that were built on a node, for other nodes: what the node's server gives to whom. How another agent fetches
//! them is tested beside it, on loopback.

use reeve_tests::cluster::{Cluster, IMAGE};
use serde_json::Value;

/// What curl says of a path of the node's server, and its status, with a certificate of the cluster's folder.
fn ask(cluster: &Cluster, certificate: &str, path: &str) -> (String, String) {
    let pki = cluster.data_dir().join("pki");
    let url = format!("https://{}:{}{path}", cluster.node_ip(), cluster.state()["config"]["kubeletPort"]);
    let output = cluster.in_node(|| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-m", "20", "-w", "\n%{http_code}"]).arg("--cacert").arg(pki.join("ca.pem"));
        let pair = pki.join(certificate);
        curl.arg("--cert").arg(&pair).arg("--key").arg(&pair).arg(&url).output().expect("curl")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

#[test]
fn a_node_gives_other_nodes_what_was_built_on_it_and_nobody_else() {
    let cluster = Cluster::shared();
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).text();
    let own = format!("kubelet-client-{node}.pem");
    let (name, tag) = IMAGE.rsplit_once(':').expect("a tag");
    let path = name.strip_prefix("docker.io/").unwrap_or(name);
    let path = if path.contains('/') { path.to_owned() } else { format!("library/{path}") };
    let manifest = format!("/v2/{path}/manifests/{tag}?ns=docker.io");
    let (status, body) = ask(cluster, &own, &manifest);
    assert_eq!(status, "200", "{body}");
    let manifest_of: Value = serde_json::from_str(&body).expect("a manifest");
    let config = manifest_of["config"]["digest"].as_str().expect("a configuration");
    let (status, body) = ask(cluster, &own, &format!("/v2/{path}/blobs/{config}"));
    assert!(status == "200" && body.contains("FROM_IMAGE=yes"), "{status} {body}");
    for (certificate, path, expected) in [
        (own.as_str(), "/v2/", "200"),
        (&own, "/v2/library/none/manifests/1", "404"),
        (&own, "/pods", "403"),
        ("admin.pem", manifest.as_str(), "403"),
        ("apiserver-kubelet-client.pem", "/pods", "200"),
        ("apiserver-kubelet-client.pem", &manifest, "404"),
    ] {
        let (status, body) = ask(cluster, certificate, path);
        assert_eq!(status, expected, "{certificate} {path}: {body}");
    }
    let status = cluster.kubectl(&["get", "node", &node, "-o", "jsonpath={.status.images[*].names}"]).text();
    assert!(status.contains(&format!("docker.io/{path}:{tag}")) && !status.contains("@sha256"), "{status}");
}
