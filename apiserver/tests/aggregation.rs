//! Groups that other API servers serve, with a real one behind TLS.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use reeve_apiserver::pki::CertKey;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::{Cluster, connect, raw};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

type Answer = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

/// Another API server: serves `ext.example.com/v1` with `things`, to front proxies only.
struct Extension {
    port: u16,
    ca_bundle: String,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    /// Each message becomes an event of every watch.
    events: mpsc::Sender<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    events: Mutex<Option<mpsc::Receiver<String>>>,
}

impl Extension {
    async fn start(cluster: &Cluster) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["ext.default.svc".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let front_proxy_ca = cluster.pki.front_proxy_ca_pem();
        roots.add(CertificateDer::from_pem_slice(front_proxy_ca.as_bytes()).unwrap()).unwrap();
        let clients =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (events, receiver) = mpsc::channel(16);
        let seen = Arc::default();
        let served = Arc::new(Served { seen: Arc::clone(&seen), events: Mutex::new(Some(receiver)) });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        let served = Arc::clone(&served);
                        async move { Ok::<_, std::convert::Infallible>(served.answer(request).await) }
                    });
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        let ca_bundle = base64::engine::general_purpose::STANDARD.encode(made.cert.pem());
        Self { port, ca_bundle, seen, events, task }
    }

    /// Registers the server; it is found by an ExternalName Service.
    async fn register(&self, cluster: &Cluster) {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        create(cluster, "/api/v1/namespaces/default/services", &service).await;
        let service = json!({"namespace": "default", "name": "ext", "port": self.port});
        let api_service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1.ext.example.com"}, "spec": {"group": "ext.example.com", "version": "v1",
            "groupPriorityMinimum": 2000, "versionPriority": 20, "caBundle": self.ca_bundle, "service": service}});
        create(cluster, API_SERVICES, &api_service).await;
    }

    fn seen(&self, path: &str) -> HeaderMap {
        let seen = self.seen.lock().unwrap();
        seen.iter().rev().find(|(own, _)| own == path).unwrap_or_else(|| panic!("{path}")).1.clone()
    }
}

impl Served {
    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let path = request.uri().path_and_query().unwrap().to_string();
        self.seen.lock().unwrap().push((path.clone(), request.headers().clone()));
        let things = json!({"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
            "verbs": ["create", "get", "list", "watch"]});
        match path.as_str() {
            "/apis/ext.example.com/v1" => {
                let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "ext.example.com/v1",
                    "resources": [things]});
                reply(StatusCode::OK, &list)
            }
            "/openapi/v3" => {
                let url = "/openapi/v3/apis/ext.example.com/v1?hash=H";
                reply(StatusCode::OK, &json!({"paths": {"apis/ext.example.com/v1": {"serverRelativeURL": url}}}))
            }
            "/openapi/v2" => {
                let schema = json!({"$ref": "#/definitions/Thing"});
                let item = json!({"get": {"responses": {"200": {"description": "OK", "schema": schema}}}});
                let thing = json!({"type": "object", "description": "A thing."});
                reply(
                    StatusCode::OK,
                    &json!({"swagger": "2.0",
                    "paths": {"/apis/ext.example.com/v1/things": item, "/version": {}},
                    "definitions": {"Thing": thing, "Other": {}}}),
                )
            }
            "/openapi/v3/apis/ext.example.com/v1?hash=H" => reply(StatusCode::OK, &json!({"openapi": "3.0.0"})),
            "/apis/ext.example.com/v1/things?watch=1" => {
                let events = self.events.lock().unwrap().take().unwrap();
                let events = futures::stream::unfold(events, async |mut events| {
                    let text = events.recv().await?;
                    Some((Ok(Frame::data(Bytes::from(text))), events))
                });
                Response::new(BodyExt::boxed_unsync(StreamBody::new(events.boxed())))
            }
            "/apis/ext.example.com/v1/things/gone" => {
                let mut answer = reply(StatusCode::FOUND, &json!({}));
                answer.headers_mut().insert("location", "https://elsewhere.example.com/".parse().unwrap());
                answer
            }
            path if path.ends_with("/connect") => {
                let upgraded = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgraded.await.unwrap());
                    let mut bytes = [0; 5];
                    stream.read_exact(&mut bytes).await.unwrap();
                    bytes.reverse();
                    stream.write_all(&bytes).await.unwrap();
                });
                let mut answer = reply(StatusCode::SWITCHING_PROTOCOLS, &json!({}));
                *answer.body_mut() = BodyExt::boxed_unsync(Full::default());
                answer.headers_mut().insert("connection", "Upgrade".parse().unwrap());
                answer.headers_mut().insert("upgrade", "reverse".parse().unwrap());
                answer
            }
            path if path.starts_with("/apis/ext.example.com/v1/namespaces/default/things") => {
                let method = request.method().to_string();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let sum = body.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                let mut answer = reply(StatusCode::CREATED, &json!({"method": method, "len": body.len(), "sum": sum}));
                answer.headers_mut().insert("x-own", "kept".parse().unwrap());
                answer
            }
            _ => reply(StatusCode::NOT_FOUND, &json!({"kind": "Status", "code": 404})),
        }
    }
}

fn reply(code: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(BodyExt::boxed_unsync(Full::from(value.to_string())));
    *answer.status_mut() = code;
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

fn head(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n{headers}\r\n")
}

/// A request as the administrator: the head and the body of the answer.
async fn ask(cluster: &Cluster, method: &str, path: &str, body: Option<&Value>) -> (String, String) {
    let body = body.map(Value::to_string).unwrap_or_default();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let text = format!("{}{body}", head(method, path, &headers));
    split(&raw(cluster, Some(cluster.pki.admin()), &text).await)
}

fn split(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    (head.to_lowercase(), body.to_owned())
}

async fn get(cluster: &Cluster, path: &str) -> Value {
    let (head, body) = ask(cluster, "GET", path, None).await;
    assert!(head.starts_with("http/1.1 200"), "{path}: {head}\n{body}");
    serde_json::from_str(&body).unwrap()
}

async fn create(cluster: &Cluster, path: &str, object: &Value) {
    let (head, body) = ask(cluster, "POST", path, Some(object)).await;
    assert!(head.starts_with("http/1.1 201"), "{path}: {head}\n{body}");
}

/// Waits until the condition of an APIService has a message.
async fn until_said(cluster: &Cluster, name: &str, wanted: &str) {
    let mut told = String::new();
    for _ in 0..400 {
        let object = get(cluster, &format!("{API_SERVICES}/{name}")).await;
        let condition = &object["status"]["conditions"][0];
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        told = format!("{} {}: {}", text("status"), text("reason"), text("message"));
        if told.starts_with(wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{name} says {told:?}, not {wanted:?}");
}

async fn until<F: Future<Output = bool>>(what: &str, reached: impl Fn() -> F) {
    for _ in 0..400 {
        if reached().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not happen");
}

async fn groups(cluster: &Cluster) -> Vec<String> {
    let list = get(cluster, "/apis").await;
    list["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect()
}

async fn aggregated(cluster: &Cluster) -> Value {
    let accept = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList\r\n";
    let answer = raw(cluster, Some(cluster.pki.admin()), &head("GET", "/apis", accept)).await;
    serde_json::from_str(&split(&answer).1).unwrap()
}

fn crd() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.own.example.com"},
        "spec": {"group": "own.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

#[tokio::test]
async fn everything_that_is_served_is_registered_with_kubernetes_priorities() {
    let cluster = Cluster::start().await;
    let list = get(&cluster, API_SERVICES).await;
    let told: Vec<String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let (spec, label) = (&one["spec"], &one["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"]);
            let condition = &one["status"]["conditions"][0];
            assert_eq!((label, &condition["reason"]), (&json!("onstart"), &json!("Local")), "{one}");
            let name = one["metadata"]["name"].as_str().unwrap();
            format!("{name} {} {}", spec["groupPriorityMinimum"], spec["versionPriority"])
        })
        .collect();
    assert_eq!(told.len(), 21, "{told:?}");
    for wanted in ["v1. 18000 1", "v1.apps 17800 15", "v2.autoscaling 17500 30", "v1.resource.k8s.io 16200 21"] {
        assert!(told.iter().any(|one| one == wanted), "{wanted}: {told:?}");
    }
    assert_eq!(
        groups(&cluster).await[..4],
        ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io"]
    );
}

#[tokio::test]
async fn a_definition_brings_its_api_service_which_cannot_be_deleted_and_goes_with_it() {
    let cluster = Cluster::start().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    create(&cluster, definitions, &crd()).await;
    let path = format!("{API_SERVICES}/v1.own.example.com");
    until_said(&cluster, "v1.own.example.com", "True Local").await;
    let first = get(&cluster, &path).await;
    assert_eq!(first["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "true"}));
    assert!(groups(&cluster).await.contains(&"own.example.com".to_owned()));
    ask(&cluster, "DELETE", &path, None).await;
    let comes_back = async || {
        let (head, body) = ask(&cluster, "GET", &path, None).await;
        head.starts_with("http/1.1 200") && !body.contains(first["metadata"]["uid"].as_str().unwrap())
    };
    until("the return of the APIService", comes_back).await;
    ask(&cluster, "DELETE", &format!("{definitions}/widgets.own.example.com"), None).await;
    until("the end of the APIService", async || ask(&cluster, "GET", &path, None).await.0.contains("404")).await;
    assert!(!groups(&cluster).await.contains(&"own.example.com".to_owned()));
}

#[tokio::test]
async fn a_built_in_group_whose_api_service_is_deleted_is_told_no_more_but_served() {
    let cluster = Cluster::start().await;
    ask(&cluster, "DELETE", &format!("{API_SERVICES}/v1.apps"), None).await;
    until("the end of the group", async || !groups(&cluster).await.contains(&"apps".to_owned())).await;
    assert_eq!(get(&cluster, "/apis/apps/v1/deployments").await["items"], json!([]));
    assert_eq!(get(&cluster, "/apis/apps").await["name"], "apps");
    assert!(
        aggregated(&cluster).await["items"].as_array().unwrap().iter().any(|one| one["metadata"]["name"] == "apps")
    );
}

#[tokio::test]
async fn requests_reach_the_other_server_in_the_users_name() {
    let cluster = Cluster::start().await;
    let extension = Extension::start(&cluster).await;
    extension.register(&cluster).await;
    until_said(&cluster, "v1.ext.example.com", "True Passed: all checks passed").await;
    let path = "/apis/ext.example.com/v1/namespaces/default/things?dryRun=All";
    let body = "x".repeat(2_000_000);
    let headers = format!(
        "X-Remote-User: eve\r\nX-Remote-Group: system:masters\r\nX-Remote-Extra-Scopes: all\r\n\
         Impersonate-User: kubernetes-admin\r\nImpersonate-Group: system:masters\r\nContent-Length: {}\r\n",
        body.len()
    );
    let request = format!("{}{body}", head("POST", path, &headers));
    let (answer, body) = split(&raw(&cluster, Some(cluster.pki.admin()), &request).await);
    assert!(answer.starts_with("http/1.1 201") && answer.contains("x-own: kept"), "{answer}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"method": "POST", "len": 2_000_000, "sum": 240_000_000}));
    let seen = extension.seen(path);
    let all = |name: &str| seen.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("x-remote-user"), ["kubernetes-admin"]);
    assert_eq!(all("x-remote-group"), ["system:masters", "system:authenticated"]);
    assert!(
        all("x-remote-extra-scopes").is_empty()
            && all("impersonate-user").is_empty()
            && all("impersonate-group").is_empty()
    );
    assert_eq!(all("x-forwarded-uri"), ["/apis/ext.example.com/v1/namespaces/default/things"]);
    let (redirected, why) = ask(&cluster, "GET", "/apis/ext.example.com/v1/things/gone", None).await;
    assert!(redirected.starts_with("http/1.1 502"), "{redirected}");
    assert_eq!(why, "the backend attempted to redirect this request, which is not permitted");
    let nobody = raw(&cluster, None, &head("GET", path, "")).await;
    assert!(nobody.starts_with("HTTP/1.1 403"), "{nobody}");
}

#[tokio::test]
async fn what_the_other_server_serves_stands_in_discovery_and_openapi() {
    let cluster = Cluster::start().await;
    let extension = Extension::start(&cluster).await;
    extension.register(&cluster).await;
    until_said(&cluster, "v1.ext.example.com", "True Passed").await;
    let all = groups(&cluster).await;
    assert_eq!(all.iter().position(|one| one == "ext.example.com"), Some(all.len() - 1), "{all:?}");
    assert_eq!(get(&cluster, "/apis/ext.example.com").await["preferredVersion"]["version"], "v1");
    assert_eq!(get(&cluster, "/apis/ext.example.com/v1").await["resources"][0]["name"], "things");
    let told = async || {
        let document = aggregated(&cluster).await;
        let found =
            document["items"].as_array().unwrap().iter().find(|one| one["metadata"]["name"] == "ext.example.com");
        found.map(|one| one["versions"][0].clone()).unwrap_or_default()
    };
    until("fresh discovery", async || told().await["freshness"] == "Current").await;
    assert_eq!(told().await["resources"][0]["responseKind"]["kind"], "Thing");
    let entry = async || get(&cluster, "/openapi/v3").await["paths"]["apis/ext.example.com/v1"].clone();
    until("the OpenAPI document", async || entry().await.is_object()).await;
    let document = get(&cluster, entry().await["serverRelativeURL"].as_str().unwrap()).await;
    assert_eq!(document["openapi"], "3.0.0");
    let described = async || get(&cluster, "/openapi/v2").await;
    let thing = async || described().await["definitions"]["Thing"]["description"] == "A thing.";
    until("the definition", thing).await;
    let document = described().await;
    assert!(document["paths"]["/apis/ext.example.com/v1/things"].is_object());
    assert!(document["paths"]["/api/v1/pods"].is_object() && document["definitions"]["Other"].is_null());
    ask(&cluster, "DELETE", &format!("{API_SERVICES}/v1.ext.example.com"), None).await;
    until("the end of the group", async || told().await.is_null() && entry().await.is_null()).await;
    assert!(!groups(&cluster).await.contains(&"ext.example.com".to_owned()));
}

#[tokio::test]
async fn a_watch_streams_and_ends_with_the_server() {
    let cluster = Cluster::start().await;
    let extension = Extension::start(&cluster).await;
    extension.register(&cluster).await;
    until_said(&cluster, "v1.ext.example.com", "True Passed").await;
    let mut stream = connect(&cluster, Some(cluster.pki.admin()), b"http/1.1").await.unwrap();
    let request = head("GET", "/apis/ext.example.com/v1/things?watch=1", "");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut so_far = String::new();
    for event in ["first", "second"] {
        extension.events.send(event.to_owned()).await.unwrap();
        while !so_far.contains(event) {
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(read > 0, "{so_far}");
            so_far.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }
    cluster.server.shutdown(Duration::from_secs(5)).await;
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"), "{rest:?}");
}

#[tokio::test]
async fn another_protocol_goes_through() {
    let cluster = Cluster::start().await;
    let extension = Extension::start(&cluster).await;
    extension.register(&cluster).await;
    until_said(&cluster, "v1.ext.example.com", "True Passed").await;
    let mut stream = connect(&cluster, Some(cluster.pki.admin()), b"http/1.1").await.unwrap();
    let path = "/apis/ext.example.com/v1/namespaces/default/things/a/connect";
    let request = format!("GET {path} HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: reverse\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut so_far = Vec::new();
    while !so_far.ends_with(b"\r\n\r\n") {
        so_far.push(tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await.unwrap().unwrap());
    }
    let answer = String::from_utf8(so_far).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("upgrade: reverse"), "{answer}");
    stream.write_all(b"abcde").await.unwrap();
    let mut back = [0; 5];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"edcba");
    assert_eq!(extension.seen(path)["x-remote-user"], "kubernetes-admin");
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_told_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    let extension = Extension::start(&cluster).await;
    let spec = |bundle: &str| {
        json!({"group": "ext.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 20,
            "caBundle": bundle, "service": {"namespace": "default", "name": "ext", "port": extension.port}})
    };
    let stranger = rcgen::generate_simple_self_signed(vec!["ext.default.svc".to_owned()]).unwrap();
    let wrong = base64::engine::general_purpose::STANDARD.encode(stranger.cert.pem());
    let name = "v1.ext.example.com";
    let api_service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name}, "spec": spec(&wrong)});
    create(&cluster, API_SERVICES, &api_service).await;
    until_said(&cluster, name, "False ServiceNotFound: service/ext in \"default\" is not present").await;
    let (answer, body) = ask(&cluster, "GET", "/apis/ext.example.com/v1/things", None).await;
    assert!(answer.starts_with("http/1.1 503") && answer.contains("content-type: text/plain"), "{answer}");
    assert_eq!(body, "service unavailable\n");
    let items = aggregated(&cluster).await["items"].clone();
    let told = items.as_array().unwrap().iter().find(|one| one["metadata"]["name"] == "ext.example.com").cloned();
    assert_eq!(told.unwrap()["versions"], json!([{"version": "v1", "freshness": "Stale"}]));
    let service = json!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    create(&cluster, "/api/v1/namespaces/default/services", &service).await;
    let url = format!("https://localhost:{}/apis/ext.example.com/v1", extension.port);
    let text = format!("failing or missing response from {url}: Get \"{url}\": tls: failed to verify certificate");
    until_said(&cluster, name, &format!("False FailedDiscoveryCheck: {text}")).await;
    let patch = json!({"spec": {"caBundle": extension.ca_bundle}}).to_string();
    let headers = format!("Content-Type: application/merge-patch+json\r\nContent-Length: {}\r\n", patch.len());
    let request = format!("{}{patch}", head("PATCH", &format!("{API_SERVICES}/{name}"), &headers));
    raw(&cluster, Some(cluster.pki.admin()), &request).await;
    until_said(&cluster, name, "True Passed").await;
    ask(&cluster, "DELETE", "/api/v1/namespaces/default/services/ext", None).await;
    until_said(&cluster, name, "False ServiceNotFound").await;
    let (_, metrics) = ask(&cluster, "GET", "/metrics", None).await;
    let lost = format!("aggregator_unavailable_apiservice_total{{name=\"{name}\",reason=\"ServiceNotFound\"}} 1\n");
    assert!(metrics.contains(&lost), "{metrics}");
    assert!(metrics.contains(&format!("aggregator_unavailable_apiservice{{name=\"{name}\"}} 1\n")));
    assert!(metrics.contains("aggregator_unavailable_apiservice{name=\"v1.apps\"} 0\n"));
}

#[tokio::test]
async fn a_front_proxy_speaks_for_others_and_nobody_else_does() {
    let cluster = Cluster::start().await;
    let who = async |user: &CertKey, headers: &str| {
        let body = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}).to_string();
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n{headers}", body.len());
        split(&raw(&cluster, Some(user), &format!("{}{body}", head("POST", path, &length))).await)
    };
    let front_proxy = cluster.pki.front_proxy_client();
    let claims = "X-Remote-User: bob\r\nX-Remote-Group: dev\r\nX-Remote-Group: ops\r\nX-Remote-Extra-Scopes%2fa: x\r\n";
    let (_, body) = who(front_proxy, claims).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({"username": "bob", "groups": ["dev", "ops", "system:authenticated"],
        "extra": {"scopes/a": ["x"]}});
    assert_eq!(told["status"]["userInfo"], expected);
    let (head, _) = who(front_proxy, "").await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    let (_, body) = who(cluster.pki.admin(), claims).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["status"]["userInfo"]["username"], "kubernetes-admin");
}

#[tokio::test]
async fn other_servers_find_out_how_to_recognize_users_and_this_server() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let found = get(&cluster, path).await;
    let expected = json!({
        "client-ca-file": cluster.pki.ca_pem(), "requestheader-client-ca-file": cluster.pki.front_proxy_ca_pem(),
        "requestheader-allowed-names": r#"["front-proxy-client"]"#,
        "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
    });
    assert_eq!(found["data"], expected);
    ask(&cluster, "DELETE", path, None).await;
    until("the return of the ConfigMap", async || ask(&cluster, "GET", path, None).await.0.contains("200 ok")).await;
}
