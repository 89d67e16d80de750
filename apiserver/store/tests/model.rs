//! Random operations, crashes between them, and a model so simple that it must be right. One seed replays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use reeve_api::clock::RealClock;
use reeve_api::rng::{RngExt as _, SeededRng};
use reeve_store::view::{MemoryView, Views};
use reeve_store::{
    Compare, EventKind, KeyRange, Kv as _, KvError, Limits, Op, RangeRequest, Revision, SimDisk, Store, StoreConfig,
    Txn, WatchRequest,
};

/// Every state that the store ever had: `states[r]` is the one at revision r.
struct Model {
    states: Vec<BTreeMap<String, String>>,
    compacted: u64,
}

impl Model {
    fn newest(&self) -> &BTreeMap<String, String> {
        self.states.last().unwrap()
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn commit(&mut self, state: BTreeMap<String, String>) {
        self.states.push(state);
    }

    /// What changed from one revision to the next, as a watch of everything says it.
    fn changes(&self, revision: u64) -> Vec<(String, Option<String>)> {
        let at = usize::try_from(revision).unwrap();
        let (old, new) = (&self.states[at - 1], &self.states[at]);
        let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), None));
        let put = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
        gone.chain(put.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
    }
}

struct Run {
    rng: SeededRng,
    disk: SimDisk,
    views: Arc<dyn Views>,
    store: Arc<Store>,
    model: Model,
    step: u64,
}

async fn open(disk: &SimDisk, views: &Arc<dyn Views>, seed: u64) -> Arc<Store> {
    let config = StoreConfig {
        disk: Arc::new(disk.clone()),
        views: views.clone(),
        log_bytes: 8 * 1024,
        limits: Limits { history_max: 1_000_000, ..Limits::default() },
        ..StoreConfig::new("/nonexistent", RealClock::shared(), Arc::new(SeededRng::new(seed)))
    };
    Store::open(config).await.unwrap()
}

impl Run {
    async fn new(seed: u64) -> Self {
        let (disk, views): (_, Arc<dyn Views>) = (SimDisk::default(), Arc::new(MemoryView::default()));
        let store = open(&disk, &views, seed).await;
        let model = Model { states: vec![BTreeMap::new(); 2], compacted: 0 };
        Self { rng: SeededRng::new(seed), disk, views, store, model, step: 0 }
    }

    fn key(&self) -> String {
        ["a", "a/", "a/b", "a/c", "b", "b/\0", "c", "c/x/y"][usize::try_from(self.rng.below(8)).unwrap()].to_owned()
    }

    async fn step(&mut self) {
        self.step += 1;
        match self.rng.below(20) {
            0..=8 => self.put().await,
            9..=11 => self.delete_prefix().await,
            12..=14 => self.check_range().await,
            15 | 16 => self.check_watch().await,
            17 => self.compact().await,
            _ => self.crash().await,
        }
    }

    /// A put on the condition that a random key does not exist.
    async fn put(&mut self) {
        let (key, other, value) = (self.key(), self.key(), self.step.to_string());
        let compare = vec![Compare::ModRevision { key: other.clone().into(), equals: Revision(0) }];
        let put = |value: String| vec![Op::Put { key: key.clone().into(), value: value.into() }];
        let value_otherwise = format!("{value} otherwise");
        let txn = Txn { compare, then: put(value.clone()), otherwise: put(value_otherwise.clone()) };
        let response = self.store.txn(txn).await.unwrap();
        let holds = !self.model.newest().contains_key(&other);
        assert_eq!(response.succeeded, holds);
        let mut state = self.model.newest().clone();
        state.insert(key, if holds { value } else { value_otherwise });
        self.model.commit(state);
        assert_eq!(response.revision.0, self.model.revision());
    }

    async fn delete_prefix(&mut self) {
        let prefix = self.key();
        let op = Op::Delete(KeyRange::Prefix(prefix.clone().into()));
        let response = self.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
        let mut state = self.model.newest().clone();
        state.retain(|key, _| !key.starts_with(&prefix));
        if &state != self.model.newest() {
            self.model.commit(state);
        }
        assert_eq!(response.revision.0, self.model.revision());
    }

    async fn check_range(&self) {
        let (prefix, revision) = (self.key(), self.rng.below(self.model.revision() + 2));
        let request = RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::prefix(prefix.clone()) };
        match self.store.range(request).await {
            Ok(response) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let read: BTreeMap<_, _> = response.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
                let mut expected = self.model.states[usize::try_from(revision).unwrap()].clone();
                expected.retain(|key, _| key.starts_with(&prefix));
                assert_eq!(read, expected, "at revision {revision}");
            }
            Err(KvError::Compacted { .. }) => assert!(revision < self.model.compacted),
            Err(KvError::Future { .. }) => assert!(revision > self.model.revision()),
            Err(err) => panic!("{err}"),
        }
    }

    async fn check_watch(&self) {
        let span = self.model.revision() - self.model.compacted;
        let first = (self.model.compacted + self.rng.below(span + 1)).max(2);
        if first > self.model.revision() {
            return;
        }
        let range = KeyRange::Prefix("".into());
        let request = WatchRequest { range, start: Some(Revision(first)), previous: false };
        let mut stream = self.store.watch(request).await.unwrap();
        let mut seen: BTreeMap<u64, Vec<(String, Option<String>)>> = BTreeMap::new();
        loop {
            let batch = stream.next().await.unwrap().unwrap();
            for event in batch.events {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let value = (event.kind == EventKind::Put).then(|| text(&event.kv.value));
                seen.entry(event.kv.mod_revision.0).or_default().push((text(&event.kv.key), value));
            }
            if batch.revision.0 >= self.model.revision() {
                break;
            }
        }
        let expected: BTreeMap<_, _> = (first..=self.model.revision()).map(|r| (r, self.model.changes(r))).collect();
        assert_eq!(seen, expected, "from revision {first}");
    }

    async fn compact(&mut self) {
        let revision = self.rng.below(self.model.revision() + 1);
        match self.store.compact(Revision(revision)).await {
            Ok(()) => self.model.compacted = revision,
            Err(KvError::Compacted { .. }) => assert!(revision <= self.model.compacted),
            Err(err) => panic!("{err}"),
        }
    }

    async fn crash(&mut self) {
        match self.rng.below(3) {
            0 => self.store.close().await.unwrap(),
            1 => self.disk = self.disk.kill_process(),
            _ => self.disk = self.disk.cut_power(&self.rng),
        }
        self.store = open(&self.disk, &self.views, self.step).await;
        assert_eq!(self.store.revision().0, self.model.revision());
    }
}

#[tokio::test]
async fn random_operations_and_crashes_agree_with_the_model() {
    for seed in 0..30 {
        let mut run = Run::new(seed).await;
        let steps = async {
            for _ in 0..400 {
                run.step().await;
            }
        };
        let failed = std::panic::AssertUnwindSafe(steps).catch_unwind().await.is_err();
        assert!(!failed, "seed {seed}, step {}", run.step);
    }
}
