//! Paths in all their forms, and methods that they do not take: what is told there, and as what.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Cluster, raw};

/// The code, and whether a `Status` (`S`), Go's page (`P`) or something else (`-`) came back.
async fn asked(cluster: &Cluster, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let answer = raw(cluster, Some(cluster.pki.admin()), &request).await;
    let code = answer.split(' ').nth(1).unwrap_or_default();
    let form = match &answer {
        text if text.contains("404 page not found") => "P",
        text if text.contains("\"kind\":\"Status\"") => "S",
        _ => "-",
    };
    format!("{code}{form}")
}

#[tokio::test]
async fn a_path_is_there_in_kubernetes_forms_only() {
    let cluster = Cluster::start().await;
    for (path, expected) in [
        ("/api/", "200-"),
        ("/apis/", "200-"),
        ("/apis/apps/", "200-"),
        ("/apis/apps/v1/", "200-"),
        ("/version/", "200-"),
        ("/index.html", "200-"),
        ("//api", "404P"),
        ("//api/v1/pods", "404P"),
        ("/apis//apps/v1", "404P"),
        ("/healthz/", "404P"),
        ("/livez/ping", "200-"),
        ("/livez/ping/", "404P"),
        ("/metrics/", "404P"),
        ("/openapi/v2/", "404P"),
        ("/openapi/v3/", "404-"),
        ("/nope", "404P"),
        ("/apis/nope/v1/x", "404P"),
        ("/api/v1/nope", "404S"),
        ("/api/v1/bindings", "404S"),
        ("/api/v1/namespaces/default/bindings", "405S"),
        ("/api/v1/namespaces/", "200-"),
    ] {
        assert_eq!(asked(&cluster, "GET", path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_method_that_nothing_takes_is_refused_where_there_is_something() {
    let cluster = Cluster::start().await;
    for (method, path, expected) in [
        ("HEAD", "/api", "405-"),
        ("HEAD", "/version", "405-"),
        ("HEAD", "/api/v1", "405-"),
        ("HEAD", "/healthz", "200-"),
        ("HEAD", "/api/v1/nope", "404-"),
        ("OPTIONS", "/api/v1/pods", "405S"),
        ("OPTIONS", "/api/v1/nope", "404S"),
        ("OPTIONS", "/apis/nope/v1/x", "404P"),
        ("OPTIONS", "/api/v1/namespaces/default/pods/x/nope", "404S"),
        ("OPTIONS", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x", "404S"),
        ("PUT", "/healthz", "200-"),
        ("PUT", "/nope", "404P"),
        ("PUT", "/apis", "200-"),
        ("PUT", "/apis/apps", "405S"),
        ("PUT", "/apis/nope", "404P"),
        ("POST", "/version", "405S"),
        ("POST", "/metrics", "200-"),
    ] {
        assert_eq!(asked(&cluster, method, path).await, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn what_the_server_is_and_how_it_was_set_up_is_told_to_people_and_to_programs() {
    let cluster = Cluster::start().await;
    let get = async |path: &str, accept: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\nAccept: {accept}\r\n\r\n");
        raw(&cluster, Some(cluster.pki.admin()), &request).await
    };
    let text = get("/statusz", "*/*").await;
    assert!(
        text.contains("\nkube-apiserver statusz\nWarning: ") && text.contains("Emulation version: 1.36\n"),
        "{text}"
    );
    assert!(text.contains("Paths: /flagz /healthz /livez /metrics /readyz /statusz /version\n"), "{text}");
    let text = get("/flagz", "").await;
    assert!(text.contains("\nmax-requests-inflight=400\n") && text.contains("\nrequest-timeout=1m0s\n"), "{text}");
    let object = get("/flagz", "application/json;as=Flagz;v=v1beta1;g=config.k8s.io").await;
    assert!(object.contains(r#""apiVersion":"config.k8s.io/v1beta1""#) && !object.contains("warning:"), "{object}");
    assert!(object.contains(r#""authorization-mode":"[Node,RBAC]""#), "{object}");
    let object = get("/statusz", "application/yaml;as=Statusz;v=v1alpha1;g=config.k8s.io").await;
    assert!(object.contains("kind: Statusz\n") && object.contains("of the statusz endpoint is deprecated"), "{object}");
    let refused = get("/statusz", "application/json").await;
    let accepted = "only the following media types are accepted: application/json, application/yaml, text/plain";
    assert!(refused.starts_with("HTTP/1.1 406 ") && refused.contains(accepted), "{refused}");
}

#[tokio::test]
async fn the_figures_that_dashboards_read_are_told() {
    let cluster = Cluster::start().await;
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n{more}\r\n");
    let admin = Some(cluster.pki.admin());
    raw(&cluster, admin, &get("/api/v1/endpoints", "Impersonate-User: ann\r\n")).await;
    raw(&cluster, admin, &get("/api/v1/endpoints", "")).await;
    let figures = raw(&cluster, admin, &get("/metrics", "")).await;
    for line in [
        "apiserver_client_certificate_expiration_seconds_bucket{le=\"0\"} 0\n",
        "apiserver_client_certificate_expiration_seconds_bucket{le=\"604800\"} ",
        "apiserver_watch_cache_events_received_total{group=\"\",resource=\"namespaces\"} ",
        "apiserver_watch_cache_resource_version{group=\"\",resource=\"namespaces\"} ",
        "apiserver_cache_list_total{group=\"\",index=\"\",resource=\"endpoints\"} ",
        "apiserver_resource_size_estimate_bytes{group=\"\",resource=\"namespaces\"} ",
        "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n",
        "apiserver_impersonation_attempts_total{decision=\"allowed\",mode=\"user-info\"} 1\n",
        "kube_apiserver_clusterip_allocator_allocated_ips{cidr=\"10.96.0.0/16\"} ",
        "kube_apiserver_nodeport_allocator_available_ports ",
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"namespaces\"} ",
        "etcd_requests_total{group=\"\",operation=\"create\",resource=\"namespaces\"} ",
        "process_network_receive_bytes_total ",
        "process_virtual_memory_max_bytes ",
    ] {
        assert!(figures.contains(line), "{line}\n{figures}");
    }
}
