//! Changes of objects in, objects to look at and verdicts out.
#![allow(clippy::needless_pass_by_value, reason = "tables of literals read better by value")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::graph::{Graph, Identity, Work};
use super::plan::{Owner, Policy, Verdict, plan};
use super::{Feed, OnGone, State};

fn meta(value: Value) -> ObjectMeta {
    serde_json::from_value(value).unwrap()
}

fn owner(uid: &str, blocks: bool) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "blockOwnerDeletion": blocks })
}

fn put(graph: &mut Graph, uid: &str, value: Value) -> Vec<String> {
    let identity = Identity { kind: 0, namespace: "default".into(), name: uid.into(), uid: uid.into() };
    texts(graph.put(identity, &meta(value)))
}

fn texts(work: Vec<Work>) -> Vec<String> {
    let text = |work| match work {
        Work::Examine(uid) => uid,
        Work::Orphan(uid) => format!("orphan {uid}"),
    };
    let mut texts: Vec<String> = work.into_iter().map(text).collect();
    texts.sort();
    texts
}

const DELETING: &str = "2026-01-01T00:00:00Z";

#[test]
fn dependents_are_looked_at_when_their_owner_is_gone() {
    let mut graph = Graph::default();
    assert!(put(&mut graph, "set", json!({})).is_empty());
    assert!(put(&mut graph, "a", json!({ "ownerReferences": [owner("set", true)] })).is_empty());
    assert!(put(&mut graph, "b", json!({ "ownerReferences": [owner("set", true)] })).is_empty());
    assert_eq!(texts(graph.remove("set")), ["a", "b"]);
    assert!(graph.remove("set").is_empty());
}

#[test]
fn an_object_whose_owner_was_never_seen_is_looked_at_once() {
    let mut graph = Graph::default();
    let orphaned = json!({ "ownerReferences": [owner("ghost", false)] });
    assert_eq!(put(&mut graph, "a", orphaned.clone()), ["a"]);
    assert!(put(&mut graph, "a", orphaned).is_empty());
    put(&mut graph, "ghost", json!({}));
    assert_eq!(texts(graph.remove("ghost")), ["a"]);
}

#[test]
fn foreground_deletion_looks_at_the_dependents_and_comes_back_as_they_go() {
    let mut graph = Graph::default();
    put(&mut graph, "set", json!({}));
    put(&mut graph, "a", json!({ "ownerReferences": [owner("set", true)] }));
    put(&mut graph, "b", json!({ "ownerReferences": [owner("set", false)] }));
    let waiting = json!({ "deletionTimestamp": DELETING, "finalizers": ["foregroundDeletion"] });
    assert_eq!(put(&mut graph, "set", waiting.clone()), ["a", "b", "set"]);
    assert!(put(&mut graph, "set", waiting).is_empty());
    assert_eq!(graph.blocking_dependents("set", |_| true).len(), 1);
    assert_eq!(texts(graph.remove("a")), ["set"]);
    assert!(graph.blocking_dependents("set", |_| true).is_empty());
}

#[test]
fn a_reference_that_cannot_mean_the_owner_holds_up_nothing() {
    let mut graph = Graph::default();
    put(&mut graph, "set", json!({ "deletionTimestamp": DELETING, "finalizers": ["foregroundDeletion"] }));
    let put_in = |graph: &mut Graph, namespace: &str, uid: &str, reference: Value| {
        let identity = Identity { kind: 0, namespace: namespace.into(), name: uid.into(), uid: uid.into() };
        graph.put(identity, &meta(json!({ "ownerReferences": [reference] })));
    };
    let named_otherwise = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "other", "uid": "set",
        "blockOwnerDeletion": true });
    put_in(&mut graph, "default", "own", owner("set", true));
    put_in(&mut graph, "other", "stranger", owner("set", true));
    put_in(&mut graph, "", "of-the-cluster", owner("set", true));
    put_in(&mut graph, "default", "mistaken", named_otherwise);
    let blocking = |kind: &str| -> Vec<String> {
        let views = graph.blocking_dependents("set", |owner| owner.kind == kind);
        views.into_iter().map(|view| view.identity.name).collect()
    };
    assert_eq!(blocking("ReplicaSet"), ["own"]);
    assert!(blocking("Deployment").is_empty());
    let identity =
        |namespace: &str| Identity { kind: 0, namespace: namespace.into(), name: "a".into(), uid: "a".into() };
    let reference = serde_json::from_value(owner("set", true)).unwrap();
    assert!(graph.is_elsewhere(&reference, &identity("other")) && graph.is_elsewhere(&reference, &identity("")));
    assert!(!graph.is_elsewhere(&reference, &identity("default")));
}

#[test]
fn a_dependent_that_no_longer_blocks_lets_its_owner_go() {
    let mut graph = Graph::default();
    put(&mut graph, "set", json!({ "deletionTimestamp": DELETING, "finalizers": ["foregroundDeletion"] }));
    put(&mut graph, "a", json!({ "ownerReferences": [owner("set", true)] }));
    assert_eq!(put(&mut graph, "a", json!({ "ownerReferences": [owner("set", false)] })), ["set"]);
}

#[test]
fn an_object_deleted_with_orphan_asks_to_let_its_dependents_go() {
    let mut graph = Graph::default();
    let deleted = json!({ "deletionTimestamp": DELETING, "finalizers": ["orphan"] });
    assert_eq!(put(&mut graph, "set", deleted), ["orphan set"]);
}

#[track_caller]
fn check(finalizers: Value, owners: &[Owner], has_dependents: bool, expected: Verdict) {
    let owners: Vec<(OwnerReference, Owner)> = owners
        .iter()
        .enumerate()
        .map(|(n, state)| (serde_json::from_value(owner(&format!("o{n}"), true)).unwrap(), *state))
        .collect();
    assert_eq!(plan(&meta(json!({ "finalizers": finalizers })), &owners, has_dependents), expected);
}

#[test]
fn an_object_is_deleted_only_when_no_owner_is_left() {
    let delete = |policy, unblock| Verdict::Delete { policy, unblock };
    check(json!([]), &[], true, Verdict::Keep);
    check(json!([]), &[Owner::Solid], true, Verdict::Keep);
    check(json!([]), &[Owner::Solid, Owner::Absent], true, Verdict::DropOwners(vec!["o1".into()]));
    check(json!([]), &[Owner::Waiting, Owner::Solid], true, Verdict::DropOwners(vec!["o0".into()]));
    check(json!([]), &[Owner::Absent, Owner::Absent], true, delete(Policy::Background, false));
    check(json!([]), &[Owner::Waiting], true, delete(Policy::Foreground, true));
    check(json!([]), &[Owner::Waiting], false, delete(Policy::Background, false));
    check(json!(["orphan"]), &[Owner::Absent], true, delete(Policy::Orphan, false));
    check(json!(["foregroundDeletion"]), &[Owner::Absent], true, delete(Policy::Foreground, false));
}

#[test]
fn what_went_before_its_kind_was_watched_is_told_of_every_namespace_at_once() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let on_gone: OnGone = Arc::new(move |namespace| tells.lock().unwrap().push(namespace.map(str::to_owned)));
    let told = || std::mem::take(&mut *told.lock().unwrap());
    let state = Arc::new(State::new(on_gone));
    let feed = || Feed {
        kind: 0,
        makes_kinds: false,
        state: Arc::clone(&state),
        synced: watch::channel(false).0,
        missing: HashSet::new(),
    };
    let list = |feed: &mut Feed, objects: &[PartialObjectMeta<DynamicObject>]| {
        feed.on_event(Event::Init);
        objects.iter().for_each(|object| feed.on_event(Event::InitApply(object.clone())));
        feed.on_event(Event::InitDone);
    };
    let object = serde_json::from_value(json!({ "metadata": { "name": "a", "namespace": "n", "uid": "a" } })).unwrap();

    list(&mut feed(), &[]);
    assert_eq!(told(), [], "the first kinds are told of together");
    state.complete();
    assert_eq!(told(), [None]);
    let mut late = feed();
    list(&mut late, &[object]);
    assert_eq!(told(), [None]);
    list(&mut late, &[]);
    assert_eq!(told(), [Some("n".to_owned())], "once it is watched, what goes is seen");
}
