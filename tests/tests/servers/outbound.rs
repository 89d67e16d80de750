//! What a control plane calls behind Services: servers have no proxy on their machines, and reach endpoints themselves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reeve_tests::patience::eventually;
use reeve_tests::servers::{Servers, enter};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

/// Where the tests' own server listens; the machine that the tests look from.
const BEHIND: ([u8; 4], u16) = ([192, 0, 2, 1], 8443);

/// Refuses ConfigMaps, and serves a group of its own. Ends with the test.
struct Behind {
    ca_bundle: String,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Behind {
    fn start(servers: &Servers) -> Self {
        let made = rcgen::generate_simple_self_signed(["hook.default.svc".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a configuration");
        let (pin, acceptor) = (servers.pin(), TlsAcceptor::from(Arc::new(config)));
        let ((end, ended), (listens, wait)) = (tokio::sync::oneshot::channel(), std::sync::mpsc::sync_channel(1));
        let thread = std::thread::spawn(move || {
            enter(&pin);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(SocketAddr::from(BEHIND)).await.expect("a port");
                let _ = listens.send(());
                tokio::select! { () = accept(listener, acceptor) => {}, _ = ended => {} }
            });
        });
        wait.recv().expect("it listens");
        Self { ca_bundle: STANDARD.encode(made.cert.pem()), end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let _ = self.end.take().map(|end| end.send(()));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(answer);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = if path == "/admit" {
        let status = json!({"message": "refused behind a Service"});
        let response = json!({"uid": asked["request"]["uid"], "allowed": false, "status": status});
        json!({"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": response})
    } else {
        let (kind, group_version) = ("APIResourceList", "example.com/v1");
        json!({"apiVersion": "v1", "kind": kind, "groupVersion": group_version, "resources": []})
    };
    let mut response = Response::new(Full::new(answer.to_string().into()));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}

#[test]
fn webhooks_and_aggregated_apis_behind_services_are_reached_from_every_server() {
    let mut servers = Servers::prepare();
    ["a", "b"].iter().for_each(|name| servers.add_machine(name));
    servers.start("a", &[]);
    super::join(&mut servers, "b", "a");
    let behind = Behind::start(&servers);
    let ca_bundle = &behind.ca_bundle;
    let service = json!({"name": "hook", "namespace": "default", "port": 443});
    let webhook = json!({
        "name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "hook", "namespace": "default", "path": "/admit"}, "caBundle": ca_bundle},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
    });
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
            "spec": {"ports": [{"port": 443, "targetPort": 8443}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 8443}]},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "hook"}, "webhooks": [webhook]},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.com"},
            "spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                "service": service, "caBundle": ca_bundle}},
    ]});
    let file = servers.file("objects.json");
    std::fs::write(&file, objects.to_string()).expect("a file");
    servers.kubectl("a", &["apply", "-f", &file.display().to_string()]).done();
    for server in ["a", "b"] {
        eventually("the webhook is asked", || {
            let told = servers.kubectl(server, &["create", "configmap", "x"]);
            if told.stderr.contains("denied the request: refused behind a Service") {
                Ok(())
            } else {
                let _ = servers.kubectl(server, &["delete", "configmap", "x", "--ignore-not-found"]);
                Err(told.to_string())
            }
        });
        eventually("the aggregated API answers", || {
            let told = servers.kubectl(server, &["get", "--raw", "/apis/example.com/v1"]);
            if told.stdout.contains("\"groupVersion\":\"example.com/v1\"") { Ok(()) } else { Err(told.to_string()) }
        });
    }
    let available = "jsonpath={.status.conditions[?(@.type==\"Available\")].status}";
    let seen = servers.kubectl("b", &["get", "apiservice", "v1.example.com", "-o", available]).text();
    assert_eq!(seen, "True");
}
