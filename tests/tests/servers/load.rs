//! Writers that keep count. Each has one object with a number that it alone raises, by requests that carry the
//! `resourceVersion`: whatever becomes of a request without an answer, it cannot take effect after the next one. So
//! every answer can be judged: a number below what was acknowledged is a lost write or a stale read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use reeve_tests::patience::eventually;
use reeve_tests::servers::{REQUEST_TIME_MAX, Servers};
use serde_json::json;

/// How many write at once.
const WRITERS: usize = 4;

/// All writers.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<(String, u64)>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: [AtomicU64; WRITERS],
    failed: AtomicBool,
}

impl Load {
    /// Begins to write.
    pub(crate) fn start(servers: &Servers) -> Self {
        let shared = Arc::new(Shared::default());
        let kubeconfigs: Vec<PathBuf> = servers.all().iter().map(|own| servers.kubeconfig(&own.name)).collect();
        let (entered, wait) = std::sync::mpsc::sync_channel(WRITERS);
        let pin = servers.pin();
        let threads = (0..WRITERS).map(|number| {
            let (shared, kubeconfigs, entered, pin) =
                (shared.clone(), kubeconfigs.clone(), entered.clone(), pin.clone());
            std::thread::spawn(move || {
                reeve_tests::servers::enter(&pin);
                let _ = entered.send(());
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let outcome = std::panic::AssertUnwindSafe(|| {
                    runtime.block_on(Writer::new(number, kubeconfigs, Arc::clone(&shared)).run())
                });
                std::panic::catch_unwind(outcome).unwrap_or_else(|panic| {
                    shared.failed.store(true, Ordering::SeqCst);
                    std::panic::resume_unwind(panic)
                })
            })
        });
        let threads = threads.collect();
        (0..WRITERS).for_each(|_| wait.recv().expect("a writer"));
        let load = Self { shared, threads };
        load.goes_on();
        load
    }

    /// Waits until every writer has had a further write acknowledged.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let now = || self.shared.acknowledged.each_ref().map(|count| count.load(Ordering::SeqCst));
        let before = now();
        eventually("writes go on", || {
            assert!(!self.shared.failed.load(Ordering::SeqCst), "a writer has found a lost write or a stale read");
            let now = now();
            if now.iter().zip(&before).all(|(now, before)| now > before) { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }

    /// Ends the writers; what was acknowledged last is what every server says.
    #[track_caller]
    pub(crate) fn finish(self, servers: &Servers) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut all = 0;
        for thread in self.threads {
            let (name, acknowledged) = thread.join().expect("a writer that found no fault");
            all += acknowledged;
            for server in servers.all().iter().filter(|server| servers.is_running(&server.name)) {
                let seen = servers.kubectl(&server.name, &["get", "cm", &name, "-o", "jsonpath={.data.n}"]).text();
                assert_eq!(seen, acknowledged.to_string(), "{name} on {}", server.name);
            }
        }
        println!("{all} writes acknowledged, none lost");
    }
}

struct Writer {
    name: String,
    number: usize,
    kubeconfigs: Vec<PathBuf>,
    /// Made when they are needed: a server that was replaced has another certificate.
    clients: Vec<Option<Client>>,
    turn: usize,
    shared: Arc<Shared>,
    acknowledged: u64,
}

impl Writer {
    fn new(number: usize, kubeconfigs: Vec<PathBuf>, shared: Arc<Shared>) -> Self {
        let clients = kubeconfigs.iter().map(|_| None).collect();
        Self { name: format!("writer-{number}"), number, kubeconfigs, clients, turn: number, shared, acknowledged: 0 }
    }

    /// Writes through one server after the other, and reads what it wrote through the next.
    async fn run(mut self) -> (String, u64) {
        let mut current: Option<ConfigMap> = None;
        while !self.shared.stop.load(Ordering::SeqCst) || current.is_none() {
            let Some(api) = self.next_server().await else { continue };
            let Some(known) = &current else {
                current = self.find_or_make(&api).await;
                continue;
            };
            let mut wanted = known.clone();
            let next = number(known) + 1;
            wanted.data = Some([("n".to_owned(), next.to_string())].into());
            let params = PostParams::default();
            let written = tokio::time::timeout(REQUEST_TIME_MAX, api.replace(&self.name, &params, &wanted)).await;
            match written {
                Ok(Ok(written)) => {
                    assert_eq!(number(&written), next, "{}: another number was written", self.name);
                    self.acknowledge(next);
                    current = Some(written);
                    self.read_elsewhere().await;
                }
                // It may have happened or not: what is there now tells.
                _ => {
                    self.forget_client();
                    current = None;
                }
            }
        }
        (self.name, self.acknowledged)
    }

    fn acknowledge(&mut self, number: u64) {
        self.acknowledged = number;
        self.shared.acknowledged[self.number].store(number, Ordering::SeqCst);
    }

    async fn next_server(&mut self) -> Option<Api<ConfigMap>> {
        self.turn = (self.turn + 1) % self.clients.len();
        if self.clients[self.turn].is_none() {
            let client = connect(&self.kubeconfigs[self.turn]).await;
            if client.is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            self.clients[self.turn] = client;
        }
        self.clients[self.turn].clone().map(|client| Api::namespaced(client, "default"))
    }

    fn forget_client(&mut self) {
        self.clients[self.turn] = None;
    }

    /// What is there now, on the server whose turn it is.
    async fn find_or_make(&mut self, api: &Api<ConfigMap>) -> Option<ConfigMap> {
        match tokio::time::timeout(REQUEST_TIME_MAX, api.get_opt(&self.name)).await {
            Ok(Ok(Some(found))) => {
                let (seen, acknowledged) = (number(&found), self.acknowledged);
                assert!(seen >= acknowledged, "{}: {acknowledged} was acknowledged, {seen} is there", self.name);
                assert!(seen <= acknowledged + 1, "{}: {seen} is there after {acknowledged}", self.name);
                self.acknowledge(seen);
                // The next write goes there too: it may be the only one of many that is up.
                self.turn = (self.turn + self.clients.len() - 1) % self.clients.len();
                Some(found)
            }
            Ok(Ok(None)) => {
                assert_eq!(self.acknowledged, 0, "{}: the object is gone", self.name);
                let new = json!({"metadata": {"name": self.name}, "data": {"n": "0"}});
                let new: ConfigMap = serde_json::from_value(new).expect("a ConfigMap");
                let made = tokio::time::timeout(REQUEST_TIME_MAX, api.create(&PostParams::default(), &new)).await;
                made.ok()?.ok()
            }
            _ => {
                self.forget_client();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                None
            }
        }
    }

    /// Nobody else writes the object: every server must say what was acknowledged.
    async fn read_elsewhere(&mut self) {
        let Some(api) = self.next_server().await else { return };
        match tokio::time::timeout(REQUEST_TIME_MAX, api.get(&self.name)).await {
            Ok(Ok(seen)) => {
                let (seen, acknowledged) = (number(&seen), self.acknowledged);
                let from = &self.kubeconfigs[self.turn];
                assert_eq!(seen, acknowledged, "{}: a stale read from {}", self.name, from.display());
            }
            _ => self.forget_client(),
        }
    }
}

fn number(object: &ConfigMap) -> u64 {
    let text = object.data.as_ref().and_then(|data| data.get("n"));
    text.and_then(|text| text.parse().ok()).expect("a number")
}

async fn connect(kubeconfig: &PathBuf) -> Option<Client> {
    let file = Kubeconfig::read_from(kubeconfig).ok()?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.ok()?;
    Client::try_from(config).ok()
}
