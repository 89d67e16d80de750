//! Admission webhooks, asked over TLS on loopback.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{World, data};
use crate::admission::{self, Attributes};
use crate::custom::tests::{create, define, definition};
use crate::registry::Patch;

/// A webhook of the test's own; it ends with the test.
struct Webhook {
    url: String,
    ca_bundle: String,
    calls: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Webhook {
    /// `answer` makes a `response` of a review's `request`.
    async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_der());
        let key = PrivateKeyDer::try_from(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/admit", listener.local_addr().unwrap());
        let (calls, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let counter = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, counter) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&counter));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                        let (answer, counter) = (Arc::clone(&answer), Arc::clone(&counter));
                        async move {
                            counter.fetch_add(1, Ordering::SeqCst);
                            Ok::<_, Infallible>(respond(request, &*answer).await)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, ca_bundle: STANDARD.encode(pem), calls, task }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Its entry in a configuration, about config maps.
    fn entry(&self, name: &str, operation: &str) -> Value {
        entry(name, operation, &self.url, &self.ca_bundle)
    }
}

async fn respond(
    request: http::Request<Incoming>,
    answer: &(dyn Fn(&Value) -> Value + Send + Sync),
) -> http::Response<Full<Bytes>> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let mut response = answer(&review["request"]);
    response["uid"] = review["request"]["uid"].clone();
    let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    http::Response::new(Full::new(answer.to_string().into()))
}

fn entry(name: &str, operation: &str, url: &str, ca_bundle: &str) -> Value {
    json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        "clientConfig": {"url": url, "caBundle": ca_bundle},
        "rules": [{"operations": [operation], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"]}],
    })
}

async fn configure(world: &World, flavor: &str, webhooks: Vec<Value>) {
    let path = format!("{flavor}webhookconfigurations");
    world.create(&path, json!({"metadata": {"name": "test"}, "webhooks": webhooks})).await;
}

async fn refusal(world: &World, name: &str) -> (u16, String) {
    let object = json!({"metadata": {"name": name}, "data": {"a": "b"}});
    let error = world.try_create("configmaps", object).await.unwrap_err();
    (error.code, error.message)
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

#[tokio::test]
async fn a_refusal_reaches_the_client_in_the_webhooks_words_and_the_next_request_after_its_removal_does_not() {
    let world = World::new().await;
    let hook = Webhook::start(|request| {
        assert_eq!((&request["operation"], &request["object"]["kind"]), (&json!("CREATE"), &json!("ConfigMap")));
        assert_eq!((&request["namespace"], &request["oldObject"]), (&json!("default"), &Value::Null));
        json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not today"}})
    })
    .await;
    configure(&world, "validating", vec![hook.entry("deny.example.com", "CREATE")]).await;
    let error = world.try_create("configmaps", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(error.message, "admission webhook \"deny.example.com\" denied the request: not today");
    assert_eq!(
        error.status(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403,
            "reason": "Forbidden", "message": error.message})
    );
    assert!(world.get("configmaps/a").await.is_err(), "nothing was written");
    world.delete("validatingwebhookconfigurations/test").await.unwrap();
    world.config_map("a", json!({})).await;
    assert_eq!(hook.calls(), 1);
}

#[tokio::test]
async fn mutating_webhooks_come_one_after_the_other_and_again_when_something_changed() {
    let world = World::new().await;
    let append = |letter: &'static str| {
        move |request: &Value| {
            let text = data(&request["object"], "seen") + letter;
            // Twice at most: or each change would call for the next.
            if text.matches(letter).count() > 1 {
                return json!({"allowed": true});
            }
            patch(&json!([{"op": "add", "path": "/data/seen", "value": text}]))
        }
    };
    let (first, second) = (Webhook::start(append("1")).await, Webhook::start(append("2")).await);
    let mut again = first.entry("a.example.com", "*");
    again["reinvocationPolicy"] = "IfNeeded".into();
    configure(&world, "mutating", vec![again, second.entry("b.example.com", "*")]).await;
    let made = world.config_map("a", json!({"x": "y"})).await;
    assert_eq!((data(&made, "seen"), data(&made, "x")), ("12".to_owned(), "y".to_owned()));
    assert_eq!((first.calls(), second.calls()), (2, 1), "the first is asked again after the second's change");
}

#[tokio::test]
async fn a_patch_that_breaks_the_object_is_refused_and_names_and_types_are_checked_after_it() {
    let world = World::new().await;
    let hook = Webhook::start(|_| patch(&json!([{"op": "add", "path": "/data", "value": {"a/b": "c"}}]))).await;
    configure(&world, "mutating", vec![hook.entry("a.example.com", "CREATE")]).await;
    let (code, message) = refusal(&world, "a").await;
    assert_eq!(code, 422, "{message}");
    assert!(message.starts_with("ConfigMap \"a\" is invalid: data[a/b]: Invalid value: \"a/b\""), "{message}");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_fails_closed_or_open_as_it_says() {
    let world = World::new().await;
    // Nobody speaks TLS behind this one: the kernel accepts and nothing comes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/x", silent.local_addr().unwrap());
    configure(&world, "validating", vec![entry("slow.example.com", "CREATE", &url, "")]).await;
    let (code, message) = refusal(&world, "a").await;
    assert_eq!(code, 500);
    assert_eq!(
        message,
        format!(
            "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: \
             Post \"{url}?timeout=1s\": context deadline exceeded"
        )
    );
    let ignore = json!([{"op": "add", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let path = world.request("validatingwebhookconfigurations/test");
    world.registry.patch(&path, Patch::Json(ignore)).await.unwrap();
    world.config_map("a", json!({})).await;
    drop(silent);
    let fail = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]);
    world.registry.patch(&path, Patch::Json(fail)).await.unwrap();
    let (_, message) = refusal(&world, "b").await;
    assert!(message.contains("dial tcp 127.0.0.1:") && message.ends_with("connect: connection refused"), "{message}");
}

#[tokio::test]
async fn only_a_webhook_that_the_bundle_vouches_for_is_believed() {
    let world = World::new().await;
    let (hook, other) =
        (Webhook::start(|_| json!({"allowed": true})).await, Webhook::start(|_| json!({"allowed": true})).await);
    let mut wrong = hook.entry("a.example.com", "CREATE");
    wrong["clientConfig"]["caBundle"] = other.ca_bundle.as_str().into();
    configure(&world, "validating", vec![wrong]).await;
    let (_, message) = refusal(&world, "a").await;
    assert!(
        message.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{message}"
    );
    assert_eq!(hook.calls(), 0);
}

#[tokio::test]
async fn selectors_operations_and_dry_runs_reach_the_webhook_as_they_are() {
    let world = World::new().await;
    let hook = Webhook::start(|request| {
        let seen = format!("{} {}", request["operation"].as_str().unwrap(), request["dryRun"]);
        json!({"allowed": false, "warnings": ["look out"], "status": {"message": seen}})
    })
    .await;
    let mut entry = hook.entry("a.example.com", "*");
    entry["objectSelector"] = json!({"matchLabels": {"watched": "yes"}});
    configure(&world, "validating", vec![entry]).await;
    world.config_map("plain", json!({})).await;
    let watched = json!({"metadata": {"name": "w", "labels": {"watched": "yes"}}});
    let request = world.with("configmaps", |options| options.dry_run = true);
    let error = world.registry.create(&request, watched.into()).await.unwrap_err();
    assert_eq!(error.message, "admission webhook \"a.example.com\" denied the request: CREATE true");
    assert_eq!(request.warnings.take(), ["look out"]);
    let label = json!({"metadata": {"labels": {"watched": "yes"}}});
    let error = world.merge("configmaps/plain", label).await.unwrap_err();
    assert_eq!(error.message, "admission webhook \"a.example.com\" denied the request: UPDATE false");
    world.delete("configmaps/plain").await.unwrap();
    assert_eq!(hook.calls(), 2, "what does not match is not asked about");
}

#[tokio::test]
async fn webhooks_are_never_asked_about_themselves() {
    let world = World::new().await;
    let hook = Webhook::start(|_| json!({"allowed": false})).await;
    let mut all = hook.entry("a.example.com", "*");
    all["rules"][0]["apiGroups"] = json!(["*"]);
    all["rules"][0]["resources"] = json!(["*/*"]);
    configure(&world, "validating", vec![all]).await;
    assert!(refusal(&world, "a").await.1.ends_with("denied the request without explanation"));
    world.delete("validatingwebhookconfigurations/test").await.unwrap();
    world.config_map("a", json!({})).await;
}

#[tokio::test]
async fn conditions_decide_whether_a_webhook_is_asked() {
    let world = World::new().await;
    let hook = Webhook::start(|_| json!({"allowed": false})).await;
    let mut picky = hook.entry("a.example.com", "CREATE");
    picky["matchConditions"] = json!([
        {"name": "named", "expression": "object.metadata.name != 'skip-me'"},
        {"name": "asked", "expression": "request.operation == 'CREATE' && object.data.a == 'b'"}
    ]);
    configure(&world, "validating", vec![picky]).await;
    world.config_map("skip-me", json!({"a": "b"})).await;
    world.config_map("other", json!({"a": "c"})).await;
    assert_eq!(hook.calls(), 0);
    assert!(refusal(&world, "x").await.1.ends_with("denied the request without explanation"));
    let error = world.try_create("configmaps", json!({"metadata": {"name": "y"}})).await.unwrap_err();
    let why = "expression 'request.operation == 'CREATE' && object.data.a == 'b'' resulted in error: no such key: data";
    assert_eq!((error.code, error.message), (403, format!("configmaps \"y\" is forbidden: {why}")));
    let ignore = json!([{"op": "add", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let path = world.request("validatingwebhookconfigurations/test");
    world.registry.patch(&path, Patch::Json(ignore)).await.unwrap();
    world.create("configmaps", json!({"metadata": {"name": "y"}})).await;
    assert_eq!(hook.calls(), 1, "a condition that goes wrong does not hold then");
}

#[tokio::test]
async fn a_webhook_gets_the_version_it_knows_and_its_changes_come_back_in_the_clients() {
    let world = World::new().await;
    define(&world, definition(&["v1", "v2"])).await;
    let hook = Webhook::start(|request| {
        assert_eq!((&request["object"]["apiVersion"], &request["kind"]["version"]), (&json!("example.com/v1"), &json!("v1")));
        assert_eq!((&request["resource"]["version"], &request["requestResource"]["version"]), (&json!("v1"), &json!("v2")));
        assert_eq!(request["requestKind"], json!({"group": "example.com", "version": "v2", "kind": "Widget"}));
        patch(&json!([{"op": "replace", "path": "/spec/size", "value": 7}, {"op": "add", "path": "/spec/odd", "value": 1}]))
    })
    .await;
    let mut about = hook.entry("a.example.com", "CREATE");
    about["rules"][0]["apiGroups"] = json!(["example.com"]);
    about["rules"][0]["apiVersions"] = json!(["v1"]);
    about["rules"][0]["resources"] = json!(["widgets"]);
    configure(&world, "mutating", vec![about]).await;
    let made = create(&world, "v2", json!({"metadata": {"name": "a"}, "spec": {"color": "red"}})).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v2"), &json!({"color": "red", "size": 7})));
    let exact = json!([{"op": "replace", "path": "/webhooks/0/matchPolicy", "value": "Exact"}]);
    let path = world.request("mutatingwebhookconfigurations/test");
    world.registry.patch(&path, Patch::Json(exact)).await.unwrap();
    create(&world, "v2", json!({"metadata": {"name": "b"}})).await.unwrap();
    assert_eq!(hook.calls(), 1, "another version is another resource then");
}

#[tokio::test]
async fn connections_are_refused_by_what_they_ask_for() {
    let world = World::new().await;
    let hook = Webhook::start(|request| {
        assert_eq!((&request["operation"], &request["subResource"]), (&json!("CONNECT"), &json!("exec")));
        assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "PodExecOptions"}));
        json!({"allowed": request["object"]["command"][0] != "sh"})
    })
    .await;
    let mut about = hook.entry("a.example.com", "CONNECT");
    about["rules"][0]["resources"] = json!(["pods/exec"]);
    configure(&world, "validating", vec![about]).await;
    let request = world.request("pods/a");
    let connect = async |command: &str| {
        let options = json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": [command]});
        let attributes = Attributes::connect(&request, options).of_kind("exec", ("", "v1", "PodExecOptions"));
        admission::admit_body(&world.registry, attributes).await
    };
    connect("ls").await.unwrap();
    let refused = connect("sh").await.unwrap_err();
    assert_eq!(refused.message, "admission webhook \"a.example.com\" denied the request without explanation");
}

#[tokio::test]
async fn what_a_webhook_adds_gets_its_defaults_and_another_kind_is_refused() {
    let world = World::new().await;
    let port = json!([{"op": "add", "path": "/spec/ports/-", "value": {"name": "b", "port": 81}}]);
    let kind = json!([{"op": "replace", "path": "/kind", "value": "Secret"}]);
    let hook = Webhook::start(move |request| patch(if request["name"] == "bad" { &kind } else { &port })).await;
    let mut about = hook.entry("a.example.com", "CREATE");
    about["rules"][0]["resources"] = json!(["services"]);
    configure(&world, "mutating", vec![about]).await;
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "a", "port": 80}]}});
    let made = world.create("services", service("good")).await;
    assert_eq!(made["spec"]["ports"][1], json!({"name": "b", "port": 81, "protocol": "TCP", "targetPort": 81}));
    let error = world.try_create("services", service("bad")).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (500, "converting (v1.Secret) to (core.Service): unknown conversion")
    );
}

#[tokio::test]
async fn a_review_is_shown_to_webhooks_with_who_manages_its_fields() {
    let world = World::new().await;
    let hook = Webhook::start(|request| {
        let (resource, object) = (&request["resource"]["resource"], &request["object"]);
        assert_eq!((resource, &request["operation"]), (&json!("selfsubjectaccessreviews"), &json!("CREATE")));
        assert_eq!(object["metadata"]["managedFields"][0]["manager"], "tester");
        json!({"allowed": object["spec"]["resourceAttributes"]["verb"] != "delete"})
    })
    .await;
    let mut about = hook.entry("a.example.com", "CREATE");
    about["rules"][0] = json!({"operations": ["CREATE"], "apiGroups": ["authorization.k8s.io"], "apiVersions": ["v1"],
        "resources": ["selfsubjectaccessreviews"]});
    configure(&world, "mutating", vec![about]).await;
    let kind = reeve_kinds::reviews().iter().find(|one| one.names().kind == "SelfSubjectAccessReview").unwrap();
    let storage = crate::cache::ResourceCache::new(Bytes::from_static(b"/none/"), None);
    let resource = Arc::new(crate::registry::Resource::new(Arc::clone(kind), Arc::new(storage), None));
    let mut request = crate::registry::Request { resource, ..world.request("pods/a") };
    request.name.clear();
    request.namespace.clear();
    request.options.field_manager = "tester".to_owned();
    let part = crate::registry::TransientPart { subresource: "", kind: &**kind, means_object: false };
    let ask = async |verb: &str| {
        let body = json!({"spec": {"resourceAttributes": {"verb": verb}}});
        world.registry.begin_transient(&request, part, body.into()).await.map(drop)
    };
    ask("get").await.unwrap();
    let why = "admission webhook \"a.example.com\" denied the request without explanation";
    assert_eq!(ask("delete").await.unwrap_err().message, why);
}
