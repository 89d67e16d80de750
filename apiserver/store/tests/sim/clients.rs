//! Clients: each does one thing after the other, through whichever member it finds, and writes down what it was told.

use std::collections::BTreeMap;
use std::time::Duration;

use reeve_store::{Compare, KeyRange, Kv as _, KvError, Op, RangeRequest, RangeResponse, Revision, Store, Txn};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::World;

const KEYS: [&str; 3] = ["k/a", "k/b", "k/c"];

/// Clients that run.
pub(crate) struct Clients<T> {
    tasks: Vec<JoinHandle<T>>,
    stop: watch::Sender<bool>,
}

impl<T> Clients<T> {
    /// Waits until each has its last answer.
    pub(crate) async fn stop(self) -> Vec<T> {
        self.stop.send_replace(true);
        let mut left = Vec::new();
        for task in self.tasks {
            left.push(task.await.unwrap());
        }
        left
    }
}

pub(crate) fn spawn_holders(world: &World, n: u64) -> Clients<Vec<String>> {
    let stop = watch::Sender::new(false);
    let tasks = (0..n).map(|n| tokio::spawn(crate::holders::run(world.clone(), n, stop.subscribe()))).collect();
    Clients { tasks, stop }
}

pub(crate) fn spawn(world: &World, n: u64) -> Clients<()> {
    let stop = watch::Sender::new(false);
    let tasks = (0..n).map(|n| tokio::spawn(run(world.clone(), n, stop.subscribe()))).collect();
    Clients { tasks, stop }
}

async fn run(world: World, client: u64, stop: watch::Receiver<bool>) {
    for n in 0.. {
        if *stop.borrow() {
            return;
        }
        let pause = 1 + world.below(60);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let Some((id, store)) = world.any_store() else { continue };
        let key = world.pick(&KEYS).unwrap();
        let value = format!("{client}-{n}");
        match world.below(10) {
            0..5 => write(&world, &store, (key, &value), None).await,
            5..7 => write_if_unchanged(&world, (id, &store), (key, &value)).await,
            7 => read_past(&world, (id, &store)).await,
            _ => drop(read(&world, (id, &store)).await),
        }
    }
}

async fn write(world: &World, store: &Store, (key, value): (&str, &str), expected: Option<u64>) {
    let compare = expected.map(|at| Compare::ModRevision { key: key.to_owned().into(), equals: Revision(at) });
    let then = vec![Op::Put { key: key.to_owned().into(), value: value.to_owned().into() }];
    let floor = world.ledger.floor();
    world.ledger.hand_in(value, world.clock.monotonic());
    let txn = Txn { compare: compare.into_iter().collect(), then, otherwise: vec![] };
    match store.txn(txn).await {
        Ok(response) if response.succeeded => {
            world.ledger.acknowledged(floor, response.revision, (key, value), expected);
        }
        // The condition did not hold, or nobody can say what became of it.
        Ok(_) | Err(_) => {}
    }
}

async fn write_if_unchanged(world: &World, (id, store): (u64, &Store), change: (&str, &str)) {
    let Some(state) = read(world, (id, store)).await else { return };
    let at = state.get(change.0).and_then(Option::as_ref).map_or(0, |(_, at)| *at);
    write(world, store, change, Some(at)).await;
}

/// All keys at once, as they were some revisions ago.
async fn read_past(world: &World, (id, store): (u64, &Store)) {
    let known = world.ledger.floor();
    let at = Revision(known.saturating_sub(world.below(80)).max(1));
    let request = RangeRequest { revision: Some(at), ..RangeRequest::new(KeyRange::Prefix("k/".into())) };
    match store.range(request).await {
        Ok(read) => world.ledger.read_past(id, at, state_of(read), world.clock.monotonic()),
        Err(KvError::Compacted { compacted, .. }) => world.ledger.forgot(id, compacted),
        Err(KvError::Future { .. }) => {
            world.ledger.complain(format!("member {id} does not know revision {at}, but {known} was known before"));
        }
        Err(_) => {}
    }
}

/// All keys at once.
async fn read(world: &World, (id, store): (u64, &Store)) -> Option<BTreeMap<String, Option<(String, u64)>>> {
    let floor = world.ledger.floor();
    let read = store.range(RangeRequest::new(KeyRange::Prefix("k/".into()))).await.ok()?;
    let (revision, state) = (read.revision, state_of(read));
    world.ledger.read((floor, id), revision, state.clone(), world.clock.monotonic());
    Some(state)
}

fn state_of(read: RangeResponse) -> BTreeMap<String, Option<(String, u64)>> {
    let mut state: BTreeMap<String, Option<(String, u64)>> = KEYS.iter().map(|key| ((*key).to_owned(), None)).collect();
    for kv in read.kvs {
        let value = (kv.value.escape_ascii().to_string(), kv.mod_revision.0);
        state.insert(kv.key.escape_ascii().to_string(), Some(value));
    }
    state
}
