//! Of several candidates one acts at a time, over the real API server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_client::lease::LeaseConfig;
use reeve_client::{Component, while_leading};
use serde_json::json;
use support::{Cluster, eventually};
use tokio_util::sync::CancellationToken;

/// How often the candidates act, and how many of them at once at most.
#[derive(Default)]
struct Acts {
    now: AtomicUsize,
    most: AtomicUsize,
    terms: AtomicUsize,
}

struct Running {
    shutdown: CancellationToken,
    acts: Arc<Acts>,
    task: tokio::task::JoinHandle<Result<(), Infallible>>,
}

fn candidate(client: kube::Client, identity: &str, all: &Arc<Acts>) -> Running {
    let shutdown = CancellationToken::new();
    let component = Component::new(client, RealClock::shared(), SeededRng::shared(), shutdown.clone());
    let config = LeaseConfig {
        namespace: "kube-system".to_owned(),
        name: "test".to_owned(),
        identity: identity.to_owned(),
        duration: Duration::from_secs(15),
    };
    let (acts, all) = (Arc::new(Acts::default()), Arc::clone(all));
    let own = Arc::clone(&acts);
    let task = tokio::spawn(async move {
        while_leading(&component, &config, |term| {
            let (own, all) = (Arc::clone(&own), Arc::clone(&all));
            async move {
                own.terms.fetch_add(1, Ordering::SeqCst);
                let now = all.now.fetch_add(1, Ordering::SeqCst) + 1;
                all.most.fetch_max(now, Ordering::SeqCst);
                term.cancelled().await;
                // Whoever is told to stop may need a moment.
                tokio::time::sleep(Duration::from_millis(200)).await;
                all.now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .await
    });
    Running { shutdown, acts, task }
}

async fn leads(one: &Running) {
    eventually("a leader", || async { (one.acts.terms.load(Ordering::SeqCst) == 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_candidate_acts_and_the_next_one_at_once_when_it_ends_well() {
    let cluster = Cluster::start().await;
    let all = Arc::new(Acts::default());
    let began = tokio::time::Instant::now();
    let one = candidate(cluster.client.clone(), "one", &all);
    leads(&one).await;
    let two = candidate(cluster.client.clone(), "two", &all);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(two.acts.terms.load(Ordering::SeqCst), 0);
    one.shutdown.cancel();
    one.task.await.unwrap().unwrap();
    leads(&two).await;
    // Long before the lease of the first would have ended.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(all.most.load(Ordering::SeqCst), 1);
    two.shutdown.cancel();
    two.task.await.unwrap().unwrap();
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-system");
    let spec = leases.get("test").await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some(""), Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_lease_is_taken_stops_and_a_change_of_its_lease_does_not_stop_it() {
    let cluster = Cluster::start().await;
    let all = Arc::new(Acts::default());
    let one = candidate(cluster.client.clone(), "one", &all);
    leads(&one).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-system");
    let touched = json!({"metadata": {"labels": {"touched": "yes"}}});
    leases.patch("test", &PatchParams::default(), &Patch::Merge(touched)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(all.now.load(Ordering::SeqCst), 1);
    let taken = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60}});
    leases.patch("test", &PatchParams::default(), &Patch::Merge(taken)).await.unwrap();
    eventually("the end of its term", || async { (all.now.load(Ordering::SeqCst) == 0).then_some(()) }).await;
    one.shutdown.cancel();
    one.task.await.unwrap().unwrap();
    let holder = leases.get("test").await.unwrap().spec.unwrap().holder_identity;
    assert_eq!(holder.as_deref(), Some("thief"));
}
