//! What was acknowledged is there after the main process was killed, whatever it was doing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use reeve_tests::cluster::Cluster;

/// How many write at once.
const WRITERS: usize = 8;
/// How often the process is killed.
const ROUNDS: usize = 3;

fn client(cluster: &Cluster, runtime: &tokio::runtime::Runtime) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    runtime.block_on(async {
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
        Client::try_from(config).expect("a client")
    })
}

/// Name to resourceVersion of what the server said it has.
type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

/// Creates one object after the other until told to stop or the server is gone.
async fn write(client: Client, prefix: String, stop: Arc<AtomicBool>, acknowledged: Acknowledged) {
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("{prefix}-{number}");
        number += 1;
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.clone());
        map.data = Some(BTreeMap::from([("number".to_owned(), number.to_string())]));
        let Ok(made) = maps.create(&PostParams::default(), &map).await else { return };
        let version = made.metadata.resource_version.expect("a resourceVersion");
        acknowledged.lock().expect("no writer panics").insert(name, version);
    }
}

#[test]
fn acknowledged_writes_survive_a_kill_under_load() {
    let cluster = Cluster::up("writes");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let client = client(&cluster, &runtime);
                let prefix = format!("w-{round}-{writer}");
                runtime.spawn(write(client, prefix, Arc::clone(&stop), Arc::clone(&acknowledged)))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700));
        cluster.main_process().kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            runtime.block_on(writer).expect("a writer ends");
        }
        cluster.up_again().done();
        let maps: Api<ConfigMap> = Api::namespaced(client(&cluster, &runtime), "default");
        let list = runtime.block_on(maps.list(&ListParams::default())).expect("a list");
        let there: BTreeMap<String, String> = list
            .items
            .into_iter()
            .map(|map| (map.metadata.name.unwrap_or_default(), map.metadata.resource_version.unwrap_or_default()))
            .collect();
        let said = acknowledged.lock().expect("no writer panics").clone();
        assert!(said.len() > 10 * (round + 1), "the load was no load: {} writes", said.len());
        let lost: Vec<_> = said.iter().filter(|(name, version)| there.get(*name) != Some(version)).collect();
        assert!(lost.is_empty(), "round {round}: of {} acknowledged writes these are lost: {lost:?}", said.len());
        // At most one of each writer was under way.
        let unasked = there.keys().filter(|name| name.starts_with("w-") && !said.contains_key(*name)).count();
        assert!(unasked <= WRITERS * (round + 1), "{unasked} objects that nobody was told of");
    }
}
