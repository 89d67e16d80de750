//! The `proxy` subresources with real sockets: a pod's server on this machine's own address, kubectl in front.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::{IpAddr, SocketAddr};

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use reeve_apiserver::registry::UserInfo;
use serde_json::{Value, json};
use support::{Cluster, has_kubectl, raw};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// An address of this machine that is not its loopback: to that nothing is proxied.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// Says what it was asked, in one of several ways; echoes after an upgrade.
async fn serve(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned());
        found.next().unwrap_or_default()
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    if header("upgrade") == "echo" && path != "/refused" {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            .await
            .unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        return;
    }
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    let (status, kind, more, text) = match path.as_str() {
        "/page/" => ("200 OK", "text/html", String::new(), "<a href=\"/rewriteme\">test</a>".to_owned()),
        "/moved" => ("302 Found", "text/plain", "Location: /new?x=1\r\n".to_owned(), String::new()),
        "/refused" => ("418 I'm a teapot", "text/plain", String::new(), "no echo".to_owned()),
        _ => {
            let told = json!({
                "line": head.lines().next(), "body": String::from_utf8_lossy(&body), "uri": header("x-forwarded-uri"),
                "for": header("x-forwarded-for"), "authorization": header("authorization"), "kept": header("x-kept"),
            });
            (
                "200 OK",
                "application/json",
                "Access-Control-Allow-Origin: *\r\nX-Own: 1\r\n".to_owned(),
                told.to_string(),
            )
        }
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn backend(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

fn api(cluster: &Cluster, kind: &str, plural: &str) -> Api<DynamicObject> {
    let client = cluster.server.client(UserInfo::new("test", &["system:masters"]));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", kind), plural);
    Api::namespaced_with(client, "default", &resource)
}

async fn create(cluster: &Cluster, kind: &str, plural: &str, object: Value) {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    api(cluster, kind, plural).create(&PostParams::default(), &object).await.unwrap();
}

/// A pod `web` at the address, the Service `web` in front of it and the Service `empty` in front of nothing.
async fn set_up(cluster: &Cluster, address: SocketAddr) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(cluster, "ServiceAccount", "serviceaccounts", account).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": address.port()}]}]}});
    create(cluster, "Pod", "pods", pod).await;
    let status = json!({"status": {"podIP": address.ip(), "podIPs": [{"ip": address.ip()}]}});
    let pods = api(cluster, "Pod", "pods");
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    for name in ["web", "empty"] {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "http", "port": 80}]}});
        create(cluster, "Service", "services", service).await;
    }
    let of = json!({"kind": "Pod", "namespace": "default", "name": "web"});
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, "subsets": [{
        "addresses": [{"ip": address.ip(), "targetRef": of}], "ports": [{"name": "http", "port": address.port()}]}]});
    create(cluster, "Endpoints", "endpoints", endpoints).await;
    let stranger = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "empty"}, "subsets": [{
        "addresses": [{"ip": "192.0.2.77"}], "ports": [{"name": "http", "port": 80}]}]});
    create(cluster, "Endpoints", "endpoints", stranger).await;
}

async fn ask(cluster: &Cluster, request: &str) -> String {
    raw(cluster, Some(cluster.pki.admin()), &format!("{request}Host: api.example\r\nConnection: close\r\n\r\n")).await
}

fn body(answer: &str) -> Value {
    let (_, text) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_pods_and_services_under_every_form_of_their_names() {
    let Some(ip) = own_address() else { return eprintln!("SKIPPED: this machine has no address but its loopback") };
    let address = backend(ip).await;
    let cluster = Cluster::start().await;
    set_up(&cluster, address).await;
    let port = address.port();
    for path in [
        format!("{PODS}/web/proxy"),
        format!("{PODS}/web:{port}/proxy"),
        format!("{PODS}/http:web:{port}/proxy"),
        format!("{SERVICES}/web:http/proxy"),
        format!("{SERVICES}/web:80/proxy"),
        format!("{SERVICES}/http:web:http/proxy"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let sent = ask(&cluster, &format!("{method} {path}/a%20b/?q=%2F HTTP/1.1\r\nX-Kept: k\r\n")).await;
            let told = body(&sent);
            assert_eq!(told["line"], format!("{method} /a%20b/?q=%2F HTTP/1.1"), "{path}");
            assert_eq!(told["uri"], format!("{path}/a%20b/"));
            assert_eq!((&told["for"], &told["kept"]), (&json!("127.0.0.1"), &json!("k")));
            let head = sent.to_ascii_lowercase();
            assert!(head.contains("x-own: 1") && !head.contains("access-control"), "{sent}");
        }
    }
    let post =
        format!("POST {PODS}/web/proxy/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    let sent = raw(&cluster, Some(cluster.pki.admin()), &post).await;
    assert_eq!(body(&sent)["body"], "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_locations_lead_back_through_the_proxy() {
    let Some(ip) = own_address() else { return eprintln!("SKIPPED: this machine has no address but its loopback") };
    let cluster = Cluster::start().await;
    set_up(&cluster, backend(ip).await).await;
    let answer = ask(&cluster, &format!("GET {PODS}/web/proxy?a=b HTTP/1.1\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
    assert!(answer.contains(&format!("location: {PODS}/web/proxy/?a=b\r\n")), "{answer}");
    let answer = ask(&cluster, &format!("GET {PODS}/web/proxy/page/ HTTP/1.1\r\n")).await;
    assert!(answer.contains(&format!("<a href=\"{PODS}/web/proxy/rewriteme\">test</a>")), "{answer}");
    let answer = ask(&cluster, &format!("GET {PODS}/web/proxy/moved HTTP/1.1\r\n")).await;
    assert!(answer.contains(&format!("location: {PODS}/web/proxy/new?x=1\r\n")), "{answer}");
    let head = ask(&cluster, &format!("HEAD {PODS}/web/proxy/page/ HTTP/1.1\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_becomes_a_tunnel() {
    let Some(ip) = own_address() else { return eprintln!("SKIPPED: this machine has no address but its loopback") };
    let cluster = Cluster::start().await;
    set_up(&cluster, backend(ip).await).await;
    let mut stream = support::connect(&cluster, Some(cluster.pki.admin()), b"http/1.1").await.unwrap();
    let head = format!("GET {PODS}/web/proxy/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut back = [0; 3];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word.as_bytes());
    }
    let upgrade = "HTTP/1.1\r\nUpgrade: echo\r\nHost: h\r\nConnection: Upgrade, close\r\n\r\n";
    let refused = raw(&cluster, Some(cluster.pki.admin()), &format!("GET {PODS}/web/proxy/refused {upgrade}")).await;
    assert!(refused.starts_with("HTTP/1.1 418 ") && refused.ends_with("no echo"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_told_as_kubernetes_tells_it() {
    let Some(ip) = own_address() else { return eprintln!("SKIPPED: this machine has no address but its loopback") };
    let closed = {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let cluster = Cluster::start().await;
    set_up(&cluster, closed).await;
    let refused = format!("error trying to reach service: dial tcp {closed}: connect: connection refused");
    for (path, code, message) in [
        (format!("{PODS}/web/proxy/"), 503, refused.as_str()),
        (format!("{SERVICES}/web:http/proxy/"), 503, refused.as_str()),
        (format!("{SERVICES}/empty:http/proxy/"), 503, "no endpoints available for service \"empty:http\""),
        (format!("{SERVICES}/web:81/proxy/"), 503, "no service port 81 found for service \"web\""),
        (format!("{SERVICES}/none/proxy/"), 404, "services \"none\" not found"),
        (format!("{PODS}/none/proxy/"), 404, "pods \"none\" not found"),
        (format!("{PODS}/ftp:web:1/proxy/"), 400, "invalid pod request \"ftp:web:1\""),
        ("/api/v1/nodes/none/proxy/".to_owned(), 404, "nodes \"none\" not found"),
        (format!("{PODS}/web/proxy/?dryRun=All"), 400, "dryRun is not supported"),
    ] {
        let answer = body(&ask(&cluster, &format!("GET {path} HTTP/1.1\r\n")).await);
        assert_eq!((&answer["code"], &answer["message"]), (&json!(code), &json!(message)), "{path}");
    }
    let upgrade = "HTTP/1.1\r\nUpgrade: echo\r\nHost: h\r\nConnection: Upgrade\r\n\r\n";
    let answer = raw(&cluster, Some(cluster.pki.admin()), &format!("GET {PODS}/web/proxy/ {upgrade}")).await;
    assert!(answer.contains("error dialing backend: dial tcp"), "{answer}");
    if has_kubectl() {
        let text = cluster.fails(&["get", "--raw", &format!("{PODS}/web/proxy/")]);
        assert!(text.contains("error trying to reach service"), "{text}");
    }
}
