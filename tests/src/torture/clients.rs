//! Clients of tortured servers: some raise registers, some read them, and all write down what they are told
//! ([`super::history`]). A register is a `ConfigMap` with a number, raised by requests that carry its
//! `resourceVersion`.
//!
//! Each has a home among the servers, so that every server has some, also when it is cut off from the others; one whose
//! home does not answer goes to the next server for a while.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use reeve_api::clock::{Clock as _, RealClock};
use serde_json::json;
use tokio::sync::Semaphore;

use super::history::{self, Kind, Op, Summary};
use crate::patience::eventually;
use crate::servers::{Servers, enter};

/// Writers whose home is the same server.
const WRITERS_AT_HOME: usize = 2;
/// Between two writes of a writer: the machine is to be busy, not full.
const WRITE_PAUSE: Duration = Duration::from_millis(10);
/// Between two reads of each server, whether the ones before were answered or not.
const READ_PERIOD: Duration = Duration::from_millis(50);
/// Reads of one server without an answer; while there are as many, none is begun.
const READS_MAX: usize = 64;
/// How long a write may take: longer than an election.
const WRITE_TIME_MAX: Duration = Duration::from_secs(3);
/// How long a read may take: longer than a server is ever paused, so that it answers what was asked while it was.
const READ_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a writer stays away from a home that did not answer.
const AWAY: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    clock: RealClock,
    /// In the order in which they were handed in.
    ops: Mutex<Vec<Op>>,
    stop: AtomicBool,
    /// Names of the servers and where the ways to them are.
    servers: Vec<(String, PathBuf)>,
}

impl Clients {
    /// Begins; returns when each has had an answer by its home.
    #[must_use]
    pub fn start(servers: &Servers) -> Self {
        let ways = servers.all().iter().map(|own| (own.name.clone(), servers.kubeconfig(&own.name))).collect();
        let shared = Arc::new(Shared {
            clock: RealClock::new(),
            ops: Mutex::default(),
            stop: AtomicBool::new(false),
            servers: ways,
        });
        let (writers, readers) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            within(servers.pin(), async move { write_all(writers).await }),
            within(servers.pin(), async move { read_all(readers).await }),
        ];
        let clients = Self { shared, threads };
        clients.all_served_since(Duration::ZERO);
        clients
    }

    /// What time it is for them.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    fn ops(&self) -> MutexGuard<'_, Vec<Op>> {
        self.shared.lock()
    }

    /// Something about what was written down so far.
    pub fn look<T>(&self, at: impl FnOnce(&[Op]) -> T) -> T {
        at(&self.ops())
    }

    /// Waits until a write was acknowledged that was asked for after `since`, by one of these servers; how long that
    /// took from then.
    ///
    /// # Panics
    /// When there is none for long.
    #[track_caller]
    pub fn written_since(&self, since: Duration, servers: &[&str]) -> Duration {
        eventually(&format!("a write through {servers:?}"), || {
            self.look(|ops| history::first_write_after(ops, since, servers)).ok_or_else(|| "none".to_owned())
        })
    }

    /// Waits until every server has acknowledged a write and answered a read that were asked for after `since`.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub fn all_served_since(&self, since: Duration) {
        let served = |server: &str, kind: Kind| {
            self.look(|ops| {
                let own = |op: &&Op| op.began >= since && op.answered && op.kind == kind && op.server == server;
                ops.iter().rev().find(own).is_some()
            })
        };
        for (name, _) in &self.shared.servers {
            for kind in [Kind::Write, Kind::Read] {
                let what = format!("a {kind:?} that server {name} answers");
                eventually(&what, || if served(name, kind) { Ok(()) } else { Err("none".to_owned()) });
            }
        }
    }

    /// Everything that was answered so far fits together.
    ///
    /// # Panics
    /// When it does not; what was written down lies in a file then.
    #[track_caller]
    #[allow(clippy::panic, reason = "the failure of the calling test")]
    pub fn check(&self) -> Summary {
        let ops = self.ops().clone();
        match history::check(&ops) {
            Ok(summary) => summary,
            Err(wrong) => {
                let lines: String = ops.iter().map(|op| format!("{op:?}\n")).collect();
                let file = std::env::temp_dir().join(format!("reeve-history-{}", std::process::id()));
                let _ = std::fs::write(&file, lines);
                panic!("{}\nall of it: {}", wrong.join("\n"), file.display());
            }
        }
    }

    /// Ends them, and checks all of it.
    ///
    /// # Panics
    /// When something does not fit.
    #[track_caller]
    #[allow(clippy::expect_used, reason = "the failure of the calling test")]
    pub fn finish(mut self) -> Summary {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client that did not panic");
        }
        self.check()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Op>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks, for so long at most, and writes down that it did and what came of it.
    async fn ask<T>(
        &self,
        (kind, register, server): (Kind, usize, usize),
        time_max: Duration,
        asked: impl Future<Output = kube::Result<T>>,
        number: impl FnOnce(&T) -> u64,
        otherwise: u64,
    ) -> Option<T> {
        let (began, ended) = (self.clock.monotonic(), Duration::MAX);
        let server = self.servers[server].0.clone();
        let at = {
            let mut ops = self.lock();
            ops.push(Op { register, kind, server, began, ended, answered: false, number: otherwise });
            ops.len() - 1
        };
        let answer = tokio::time::timeout(time_max, asked).await.ok().and_then(Result::ok);
        if let (Some(op), Some(answer)) = (self.lock().get_mut(at), &answer) {
            (op.ended, op.answered, op.number) = (self.clock.monotonic(), true, number(answer));
        }
        answer
    }
}

/// Runs something on a thread of its own in the network that the tests look from.
#[allow(clippy::expect_used, reason = "the failure of the calling test")]
pub(super) fn within(pin: String, run: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        enter(&pin);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run);
    })
}

/// A way to a server; `None` while there is none.
pub(super) async fn connect(kubeconfig: &PathBuf) -> Option<Client> {
    let file = Kubeconfig::read_from(kubeconfig).ok()?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.ok()?;
    Client::try_from(config).ok()
}

fn name_of(register: usize) -> String {
    format!("register-{register}")
}

async fn write_all(shared: Arc<Shared>) {
    let n = shared.servers.len() * WRITERS_AT_HOME;
    let writers = (0..n).map(|register| Writer::new(register, Arc::clone(&shared)).run());
    futures::future::join_all(writers).await;
}

struct Writer {
    register: usize,
    home: usize,
    /// The server it asks now.
    at: usize,
    /// When it looks at home again.
    home_at: Duration,
    ways: Vec<Option<Client>>,
    shared: Arc<Shared>,
}

impl Writer {
    fn new(register: usize, shared: Arc<Shared>) -> Self {
        let home = register % shared.servers.len();
        let ways = shared.servers.iter().map(|_| None).collect();
        Self { register, home, at: home, home_at: Duration::ZERO, ways, shared }
    }

    async fn run(mut self) {
        let mut known: Option<ConfigMap> = None;
        while !self.shared.stops() {
            tokio::time::sleep(WRITE_PAUSE).await;
            let Some(api) = self.way().await else { continue };
            known = match known {
                None => self.find_or_make(&api).await,
                Some(known) => self.raise(&api, known).await,
            };
            if known.is_none() {
                self.go_away();
            }
        }
    }

    async fn way(&mut self) -> Option<Api<ConfigMap>> {
        if self.at != self.home && self.shared.clock.monotonic() >= self.home_at {
            self.at = self.home;
        }
        if self.ways[self.at].is_none() {
            self.ways[self.at] = connect(&self.shared.servers[self.at].1).await;
        }
        self.ways[self.at].clone().map(|client| Api::namespaced(client, "default"))
    }

    /// To the next server, for a while.
    fn go_away(&mut self) {
        if self.at == self.home {
            self.home_at = self.shared.clock.monotonic() + AWAY;
        }
        self.at = (self.at + 1) % self.ways.len();
    }

    /// Raises the register by one; `None` when nobody can say what became of that.
    async fn raise(&self, api: &Api<ConfigMap>, known: ConfigMap) -> Option<ConfigMap> {
        let next = number(&known) + 1;
        let wanted = ConfigMap { data: Some([("n".to_owned(), next.to_string())].into()), ..known };
        let (name, params) = (name_of(self.register), PostParams::default());
        let asked = api.replace(&name, &params, &wanted);
        self.shared.ask((Kind::Write, self.register, self.at), WRITE_TIME_MAX, asked, number, next).await
    }

    async fn find_or_make(&self, api: &Api<ConfigMap>) -> Option<ConfigMap> {
        let name = name_of(self.register);
        let found = self.shared.ask(
            (Kind::Read, self.register, self.at),
            WRITE_TIME_MAX,
            api.get_opt(&name),
            |found| found.as_ref().map_or(0, number),
            0,
        );
        match found.await? {
            Some(found) => Some(found),
            None => {
                let new = json!({"metadata": {"name": name}, "data": {"n": "0"}});
                let new: ConfigMap = serde_json::from_value(new).ok()?;
                let params = PostParams::default();
                tokio::time::timeout(WRITE_TIME_MAX, api.create(&params, &new)).await.ok()?.ok()
            }
        }
    }
}

async fn read_all(shared: Arc<Shared>) {
    let readers = (0..shared.servers.len()).map(|server| read_from(server, Arc::clone(&shared)));
    futures::future::join_all(readers).await;
}

/// Reads one register after the other from one server, whether it answers or not.
async fn read_from(server: usize, shared: Arc<Shared>) {
    let registers = shared.servers.len() * WRITERS_AT_HOME;
    let free = Arc::new(Semaphore::new(READS_MAX));
    let mut way = None;
    for n in 0_usize.. {
        if shared.stops() {
            break;
        }
        tokio::time::sleep(READ_PERIOD).await;
        if way.is_none() {
            way = connect(&shared.servers[server].1).await;
        }
        let (Some(client), Ok(permit)) = (way.clone(), Arc::clone(&free).try_acquire_owned()) else { continue };
        let (shared, register) = (Arc::clone(&shared), n % registers);
        tokio::spawn(async move {
            let (api, name): (Api<ConfigMap>, _) = (Api::namespaced(client, "default"), name_of(register));
            let number = |found: &Option<ConfigMap>| found.as_ref().map_or(0, number);
            let asked = api.get_opt(&name);
            shared.ask((Kind::Read, register, server), READ_TIME_MAX, asked, number, 0).await;
            drop(permit);
        });
    }
    // What is under way is answered, or late.
    let all = u32::try_from(READS_MAX).unwrap_or(u32::MAX);
    let _ = free.acquire_many(all).await;
}

#[allow(clippy::expect_used, reason = "nobody else writes it")]
fn number(object: &ConfigMap) -> u64 {
    let text = object.data.as_ref().and_then(|data| data.get("n"));
    text.and_then(|text| text.parse().ok()).expect("a number")
}
