//! The API server on a real etcd, with the real kubectl.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../etcd/tests/support/mod.rs"]
mod etcd;
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use etcd::RealEtcd;
use reeve_api::clock::RealClock;
use reeve_apiserver::Limits;
use reeve_store::{KeyRange, Kv as _, Op, RangeRequest, Txn};
use support::{Cluster, has_kubectl};

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  color: blue\n";

async fn cluster_on(etcd: &RealEtcd) -> Cluster {
    let kv = etcd.client("/reeve").await;
    Cluster::start_over(kv, Limits::default(), reeve_kinds::builtin(), RealClock::shared()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_live_in_etcd_and_outlive_the_api_server() {
    if !has_kubectl() {
        return;
    }
    let Some(etcd) = RealEtcd::start().await else { return };
    let others = etcd.client("").await;
    let put = |key: &'static str| Op::Put { key: key.into(), value: "not ours".into() };
    others.txn(Txn { then: vec![put("/registry/core/configmaps/default/theirs")], ..Txn::default() }).await.unwrap();
    let cluster = cluster_on(&etcd).await;
    let file = cluster.write("config.yaml", CONFIG);
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "configmap/settings created\n");
    let mut watch = cluster.command(&["get", "configmaps", "--watch-only", "-o", "jsonpath={.metadata.name}{\"\\n\"}"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (sender, mut seen) = tokio::sync::mpsc::channel(1);
    let reader = std::thread::spawn(move || sender.blocking_send(events.find(|line| line.as_ref().unwrap() == "seen")));
    // The watch begins some time after its process does.
    let patience = std::time::Duration::from_millis(200);
    for n in 0.. {
        assert!(n < 150, "the watch sees nothing");
        cluster.ok(&["create", "configmap", "seen"]);
        cluster.ok(&["delete", "configmap", "seen"]);
        if tokio::time::timeout(patience, seen.recv()).await.is_ok() {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    reader.join().unwrap().unwrap();
    let file = cluster.write("config.yaml", &CONFIG.replace("blue", "green"));
    assert_eq!(cluster.ok(&["apply", "-f", &file]), "configmap/settings configured\n");
    let read = ["get", "configmap", "settings", "-o", "jsonpath={.data.color} {.metadata.resourceVersion}"];
    let before = cluster.ok(&read);
    let kept = others.range(RangeRequest::key("/reeve/registry/core/configmaps/default/settings")).await.unwrap();
    let revision = kept.kvs[0].mod_revision;
    assert_eq!(before, format!("green {revision}"), "a resourceVersion is etcd's revision");
    drop(cluster);
    let cluster = cluster_on(&etcd).await;
    assert_eq!(cluster.ok(&read), before);
    assert_eq!(cluster.ok(&["delete", "configmap", "settings"]), "configmap \"settings\" deleted\n");
    assert!(cluster.fails(&["get", "configmap", "settings"]).contains("NotFound"));
    assert!(cluster.fails(&["get", "configmap", "theirs"]).contains("NotFound"));
    let theirs = RangeRequest::new(KeyRange::Prefix("/registry".into()));
    assert_eq!(others.range(theirs).await.unwrap().count, 1, "what is not ours is left alone");
}
