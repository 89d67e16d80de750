//! An informer against a scripted server.

use std::collections::VecDeque;
use std::convert::Infallible;

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Index;

/// What the server answers to the next list or watch, in this order; then it stays silent.
type Script = Arc<Mutex<VecDeque<Answer>>>;

enum Answer {
    List(&'static str, Vec<(&'static str, &'static str)>),
    Watch(Vec<Value>),
    Gone,
    /// Every request from here on: lists are answered, watches end at once; requests are counted.
    Impatient(Arc<Mutex<u32>>),
}

fn component(script: Vec<Answer>) -> Component {
    let script: Script = Arc::new(Mutex::new(script.into()));
    let service = tower::service_fn(move |request: Request<Body>| {
        let script = Arc::clone(&script);
        async move { Ok::<_, Infallible>(answer(&script, request.uri().clone()).await) }
    });
    let client = Client::new(service, "default");
    Component::new(client, RealClock::shared(), Arc::new(SeededRng::new(1)), CancellationToken::new())
}

async fn answer(script: &Script, uri: http::Uri) -> Response<Body> {
    let is_watch = uri.query().is_some_and(|query| query.contains("watch=true"));
    let next = script.lock().unwrap().pop_front();
    let (status, body) = match next {
        Some(Answer::Impatient(count)) => {
            *count.lock().unwrap() += 1;
            script.lock().unwrap().push_front(Answer::Impatient(count));
            let list = json!({ "apiVersion": "v1", "kind": "ConfigMapList",
                "metadata": { "resourceVersion": "5" }, "items": [] });
            (200, if is_watch { String::new() } else { list.to_string() })
        }
        Some(Answer::List(version, items)) => {
            assert!(!is_watch, "expected a list, got {uri}");
            let items: Vec<Value> = items.into_iter().map(|(name, version)| object(name, version)).collect();
            let list = json!({ "apiVersion": "v1", "kind": "ConfigMapList",
                "metadata": { "resourceVersion": version }, "items": items });
            (200, list.to_string())
        }
        Some(Answer::Watch(events)) => {
            assert!(is_watch, "expected a watch, got {uri}");
            (200, events.iter().map(|event| format!("{event}\n")).collect())
        }
        Some(Answer::Gone) => (410, status("Expired", 410).to_string()),
        None => std::future::pending().await,
    };
    Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap()
}

fn status(reason: &str, code: u16) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old resource version",
        "reason": reason, "code": code })
}

fn object(name: &str, version: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "namespace": "default", "name": name, "resourceVersion": version,
        "labels": { "version": version }, "managedFields": [{ "manager": "kubectl" }] } })
}

fn event(kind: &str, name: &str, version: &str) -> Value {
    json!({ "type": kind, "object": object(name, version) })
}

/// The informer's life as text, until `count` changes were seen.
async fn changes(script: Vec<Answer>, count: usize) -> (Informer<ConfigMap>, Vec<String>) {
    let component = component(script);
    let informer = Informer::<ConfigMap>::all(&component);
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let written = Arc::clone(&seen);
    informer.on_change(move |change| {
        let object = change.object();
        let version = object.metadata.resource_version.as_deref().unwrap_or_default();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let verb = match change {
            Change::Added(_) => "+",
            Change::Updated { .. } => "~",
            Change::Removed(_) => "-",
        };
        written.lock().unwrap().push(format!("{verb}{name}@{version}"));
    });
    let mut changed = informer.changed();
    let wait = async {
        while seen.lock().unwrap().len() < count {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("changes arrive");
    let seen = seen.lock().unwrap().clone();
    (informer, seen)
}

#[tokio::test]
async fn a_list_and_a_watch_become_changes_and_a_store_without_managed_fields() {
    let watch = vec![event("ADDED", "b", "6"), event("MODIFIED", "a", "7"), event("DELETED", "b", "8")];
    let (informer, seen) = changes(vec![Answer::List("5", vec![("a", "4")]), Answer::Watch(watch)], 4).await;
    assert_eq!(seen, ["+a@4", "+b@6", "~a@7", "-b@6"]);
    assert!(*informer.synced().borrow());
    let kept = informer.store().list_namespace("default");
    assert_eq!(kept.len(), 1);
    assert!(kept[0].metadata.managed_fields.is_none());
    assert!(informer.store().list_namespace("defaul").is_empty());
}

#[tokio::test]
async fn a_version_that_is_gone_leads_to_a_new_list_that_tells_only_what_changed() {
    let expired = json!({ "type": "ERROR", "object": status("Expired", 410) });
    let script = vec![
        Answer::List("5", vec![("a", "1"), ("b", "2"), ("c", "3")]),
        Answer::Watch(vec![expired]),
        Answer::List("9", vec![("a", "1"), ("b", "8")]),
        Answer::Gone,
        Answer::List("12", vec![("b", "11")]),
    ];
    let (_, seen) = changes(script, 7).await;
    assert_eq!(seen, ["+a@1", "+b@2", "+c@3", "~b@8", "-c@3", "~b@11", "-a@1"]);
}

#[tokio::test]
async fn a_server_that_ends_every_watch_at_once_is_asked_slower_and_slower() {
    let count: Arc<Mutex<u32>> = Arc::default();
    let component = component(vec![Answer::Impatient(Arc::clone(&count))]);
    let informer = Informer::<ConfigMap>::all(&component);
    informer.synced().wait_for(|synced| *synced).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    // After 50, 100, 200, 400 and 800 ms, or later; without a pause it were thousands.
    let asked = *count.lock().unwrap();
    assert!((2..=7).contains(&asked), "{asked} requests in a second");
}

/// A client of the same process fails at once when its server is gone, without ever waiting: whoever only tried again
/// would keep its thread for ever, and the process from ending.
#[test]
fn a_follower_whose_client_is_closed_waits_and_can_be_ended() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (ended, end) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let attempts = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&attempts);
        let service = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::ready(Err::<Response<Body>, _>(std::io::Error::other("closed")))
        });
        runtime.block_on(async {
            let client = Client::new(service, "default");
            let shutdown = CancellationToken::new();
            let component = Component::new(client, RealClock::shared(), Arc::new(SeededRng::new(1)), shutdown.clone());
            let _informer = Informer::<ConfigMap>::all(&component);
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            shutdown.cancel();
            component.stopped().await;
        });
        drop(runtime);
        ended.send(attempts.load(std::sync::atomic::Ordering::Relaxed)).unwrap();
    });
    let attempts = end.recv_timeout(std::time::Duration::from_secs(60)).expect("the runtime can be ended");
    thread.join().unwrap();
    assert!((1..=5).contains(&attempts), "{attempts} attempts in half a second");
}

#[tokio::test]
async fn a_handler_that_comes_late_is_told_everything() {
    let (informer, _) = changes(vec![Answer::List("5", vec![("a", "4"), ("b", "5")])], 2).await;
    let late: Arc<Mutex<Vec<String>>> = Arc::default();
    let written = Arc::clone(&late);
    informer.on_change(move |change| written.lock().unwrap().push(ObjectKey::of(change.object().as_ref()).to_string()));
    assert_eq!(*late.lock().unwrap(), ["default/a", "default/b"]);
}

#[tokio::test]
async fn an_index_follows_the_store() {
    let watch = vec![event("MODIFIED", "a", "7"), event("DELETED", "b", "8")];
    let script = vec![Answer::List("5", vec![("a", "4"), ("b", "5")]), Answer::Watch(watch)];
    let component = component(script);
    let informer = Informer::<ConfigMap>::all(&component);
    let index = Index::new(&informer, |object: &ConfigMap| {
        object.metadata.labels.iter().flatten().map(|(_, version)| version.clone()).collect()
    });
    let mut changed = informer.changed();
    while informer.store().len() != 1 || index.get(&"7".to_owned()).is_empty() {
        changed.changed().await.unwrap();
    }
    assert!(index.get(&"4".to_owned()).is_empty());
    assert!(index.get(&"5".to_owned()).is_empty());
    assert_eq!(index.get(&"7".to_owned())[0].metadata.name.as_deref(), Some("a"));
}
