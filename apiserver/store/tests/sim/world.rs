//! The members, their disks and the network between them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_api::clock::SharedClock;
use reeve_api::rng::{RngExt as _, SeededRng, SharedRng};
use reeve_store::view::MemoryView;
use reeve_store::{
    Jobs, Kv as _, KvError, Limits, MemberConfig, MemberStatus, Op, OpenError, RangeRequest, Revision, SimDisk, Store,
    StoreConfig, Txn,
};
use tokio::task::JoinHandle;

use crate::cluster::{Network, RuntimeClock, Weather, address, founders};
use crate::ledger::Ledger;

/// How long healing may take, in virtual time.
const PATIENCE: Duration = Duration::from_secs(120);

type Trace = Arc<Mutex<Vec<String>>>;

tokio::task_local! {
    static TRACE: Trace;
}

/// Runs something whose steps are noted.
pub(crate) async fn traced<T>(trace: Trace, run: impl Future<Output = T>) -> T {
    TRACE.scope(trace, run).await
}

/// Everything there is. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) rng: SharedRng,
    pub(crate) clock: SharedClock,
    pub(crate) network: Network,
    pub(crate) ledger: Arc<Ledger>,
    nodes: Arc<Mutex<BTreeMap<u64, Node>>>,
    founders: u64,
    trace: Trace,
}

struct Node {
    disk: SimDisk,
    views: MemoryView,
    store: Option<Arc<Store>>,
    /// The process before, which has not ended yet.
    ending: Option<JoinHandle<()>>,
    /// Follows what the member says.
    recorders: Vec<JoinHandle<()>>,
    /// Until when its disk does not answer.
    stalled_until: Arc<Mutex<Duration>>,
    joins: bool,
    /// Its disk cannot sync, until its machine is switched off and on.
    broken: bool,
    /// A bit on its disk was flipped there: it must not start, and say where.
    damaged: Option<Flipped>,
    address: String,
}

/// A record of the log in which a bit is not as it was written.
#[derive(Debug, Clone)]
pub(crate) struct Flipped {
    file: String,
    record: std::ops::Range<u64>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.recorders.iter().for_each(JoinHandle::abort);
    }
}

impl World {
    /// A new group.
    pub(crate) async fn found(seed: u64, n: u64) -> Self {
        let rng: SharedRng = Arc::new(SeededRng::new(seed));
        let trace = TRACE.try_with(Clone::clone).unwrap_or_default();
        let world = Self {
            network: Network::new(rng.clone()),
            clock: RuntimeClock::shared(),
            ledger: Arc::default(),
            nodes: Arc::default(),
            founders: n,
            trace,
            rng,
        };
        for id in 1..=n {
            world.add(id, false);
            world.start(id).await;
        }
        world
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let line = format!("{:9.3} {}", self.clock.monotonic().as_secs_f64(), what.as_ref());
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        self.rng.below(n)
    }

    /// One of these; `None` when there is none.
    pub(crate) fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap()).cloned()
    }

    /// A machine for a member; it is off.
    pub(crate) fn add(&self, id: u64, joins: bool) {
        let node = Node {
            disk: SimDisk::default(),
            views: MemoryView::default(),
            store: None,
            ending: None,
            recorders: Vec::new(),
            stalled_until: Arc::default(),
            joins,
            broken: false,
            damaged: None,
            address: address(id),
        };
        self.lock().insert(id, node);
    }

    /// Stops following what members tell, of a world in which history is compacted.
    pub(crate) fn forget_watches(&self) {
        for node in self.lock().values_mut() {
            node.recorders.iter().for_each(JoinHandle::abort);
        }
        self.ledger.look_away();
    }

    /// Starts a member's process on another address.
    pub(crate) async fn start_at(&self, id: u64, address: &str) {
        if let Some(node) = self.lock().get_mut(&id) {
            node.address = address.to_owned();
        }
        self.start(id).await;
    }

    fn config(&self, id: u64, node: &Node) -> StoreConfig {
        let transport = self.network.transport(id);
        let mut peers = founders(self.founders);
        peers.iter_mut().filter(|peer| peer.id == id).for_each(|peer| peer.address.clone_from(&node.address));
        let member = if node.joins {
            peers.push(reeve_store::Peer { id, address: node.address.clone() });
            MemberConfig::Join { id, cluster: 7, peers, transport }
        } else {
            MemberConfig::Cluster { id, cluster: 7, peers, transport }
        };
        let (clock, rng, until) = (self.clock.clone(), self.rng.clone(), node.stalled_until.clone());
        let takes = move || {
            let until = *until.lock().unwrap_or_else(PoisonError::into_inner);
            until.saturating_sub(clock.monotonic()) + Duration::from_micros(20 + rng.below(2_000))
        };
        StoreConfig {
            disk: Arc::new(node.disk.clone()),
            views: Arc::new(node.views.clone()),
            limits: Limits { history_max: 1_000_000, ..Limits::default() },
            log_bytes: 16 * 1024,
            member,
            jobs: Jobs::simulated(takes),
            ..StoreConfig::new("/nonexistent", self.clock.clone(), self.rng.clone())
        }
    }

    /// Starts a member's process; it may be running.
    pub(crate) async fn start(&self, id: u64) {
        let ending = match self.lock().get_mut(&id) {
            Some(node) if node.store.is_none() => node.ending.take(),
            _ => return,
        };
        if let Some(ending) = ending {
            let _ = ending.await;
        }
        let config = match self.lock().get(&id) {
            Some(node) if node.store.is_none() && node.ending.is_none() => self.config(id, node),
            _ => return,
        };
        let damaged = self.lock().get(&id).and_then(|node| node.damaged.clone());
        match Store::open(config).await {
            Ok(store) => {
                if let Some(flipped) = damaged {
                    self.ledger.complain(format!("member {id} starts on a damaged log: {flipped:?}"));
                }
                self.network.plug_in(id, store.inbox());
                let recorders = vec![
                    tokio::spawn(self.ledger.clone().follow(id, store.clone())),
                    tokio::spawn(self.ledger.clone().follow_leadership(id, store.leadership())),
                ];
                if let Some(node) = self.lock().get_mut(&id) {
                    node.recorders.iter().for_each(JoinHandle::abort);
                    node.recorders = recorders;
                    node.store = Some(store);
                }
            }
            Err(err) => {
                let mut text = err.to_string();
                let mut source = std::error::Error::source(&err);
                while let Some(err) = source {
                    text += &format!(": {err}");
                    source = err.source();
                }
                // A disk that is gone already, or has just failed, is no reason to complain.
                self.note(format!("member {id} does not start: {text}"));
                if let Some(flipped) = damaged {
                    return self.check_refusal(id, &flipped, &err);
                }
                let excused = ["pipe", "sync", "no answer", "storage", "sync"];
                if !excused.iter().any(|excuse| text.contains(excuse)) {
                    self.ledger.complain(format!("member {id} does not start: {text}"));
                }
            }
        }
    }

    /// Whoever is refused for damage is told where.
    fn check_refusal(&self, id: u64, flipped: &Flipped, err: &OpenError) {
        let tells_where = match err {
            OpenError::Damage(damage) => {
                damage.path == format!("sim:/{}", flipped.file) && flipped.record.contains(&damage.offset)
            }
            // The machine may be switched off and on while it looks, and the disk may fail before it does.
            err => ["pipe", "sync"].iter().any(|other| err.to_string().contains(other)),
        };
        if !tells_where {
            self.ledger.complain(format!("member {id} has {flipped:?}, and says: {err}"));
        }
    }

    /// Flips a bit in the middle of the log of a member that does not run: in any record but the last one, which a
    /// crash could have torn. `false` when there is no such record.
    pub(crate) fn flip(&self, id: u64) -> bool {
        let Some(disk) = self.disk(id).filter(|_| self.store(id).is_none()) else { return false };
        let mut records: Vec<Flipped> = Vec::new();
        for file in disk.files_of("log") {
            let bytes = disk.contents(&file).unwrap_or_default();
            let mut at = 0;
            while let Some(header) = bytes.get(at..at + 16) {
                let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
                let end = at + 16 + usize::try_from(len).unwrap();
                if end > bytes.len() {
                    break;
                }
                records.push(Flipped { file: file.clone(), record: at as u64..end as u64 });
                at = end;
            }
        }
        records.pop();
        let Some(flipped) = self.pick(&records) else { return false };
        let offset = flipped.record.start + self.below(flipped.record.end - flipped.record.start);
        assert!(disk.flip(&flipped.file, usize::try_from(offset).unwrap()));
        self.note(format!("a bit flips on the disk of {id}: {flipped:?}, at {offset}"));
        if let Some(node) = self.lock().get_mut(&id) {
            node.damaged = Some(flipped);
        }
        true
    }

    /// Whose log is damaged.
    pub(crate) fn damaged(&self) -> Vec<u64> {
        self.lock().iter().filter(|(_, node)| node.damaged.is_some()).map(|(id, _)| *id).collect()
    }

    /// Ends a member's process without warning; the machine may lose its power with it.
    pub(crate) fn crash(&self, id: u64, power: bool) {
        let mut nodes = self.lock();
        let Some(node) = nodes.get_mut(&id) else { return };
        node.broken &= !power;
        node.disk = if power { node.disk.cut_power(&*self.rng) } else { node.disk.kill_process() };
        node.recorders.iter().for_each(JoinHandle::abort);
        self.network.unplug(id);
        if let Some(store) = node.store.take() {
            node.ending = Some(tokio::spawn(async move {
                let _ = store.close().await; // its disk is gone
            }));
        }
    }

    /// Ends a member in order.
    pub(crate) async fn stop(&self, id: u64) {
        let store = self.lock().get_mut(&id).and_then(|node| node.store.take());
        if let Some(store) = store {
            let _ = store.close().await;
            self.network.unplug(id);
        }
    }

    /// The machine is thrown away.
    pub(crate) fn scrap(&self, id: u64) {
        self.crash(id, true);
        self.lock().remove(&id);
    }

    /// The disk does not answer for so long.
    pub(crate) fn stall(&self, id: u64, time: Duration) {
        if let Some(node) = self.lock().get(&id) {
            *node.stalled_until.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.monotonic() + time;
        }
    }

    /// The disk syncs nothing any more.
    pub(crate) fn break_disk(&self, id: u64) {
        if let Some(node) = self.lock().get_mut(&id) {
            node.disk.fail_syncs();
            node.broken = true;
        }
    }

    pub(crate) fn disk(&self, id: u64) -> Option<SimDisk> {
        self.lock().get(&id).map(|node| node.disk.clone())
    }

    /// All machines.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.lock().keys().copied().collect()
    }

    /// Those that run.
    pub(crate) fn running(&self) -> Vec<u64> {
        self.lock().iter().filter(|(_, node)| node.store.is_some()).map(|(id, _)| *id).collect()
    }

    pub(crate) fn store(&self, id: u64) -> Option<Arc<Store>> {
        self.lock().get(&id).and_then(|node| node.store.clone())
    }

    /// Any member that runs.
    pub(crate) fn any_store(&self) -> Option<(u64, Arc<Store>)> {
        let id = self.pick(&self.running())?;
        Some((id, self.store(id)?))
    }

    /// Who believes to lead, in the newest term.
    pub(crate) fn leader(&self) -> Option<u64> {
        let known = self
            .lock()
            .iter()
            .filter_map(|(id, node)| Some((*id, *node.store.as_ref()?.leadership().borrow())))
            .collect::<Vec<_>>();
        known.into_iter().filter(|(_, known)| known.is_leader()).max_by_key(|(_, known)| known.term).map(|(id, _)| id)
    }

    /// Waits until somebody leads.
    pub(crate) async fn wait_for_leader(&self) -> u64 {
        let found = async {
            loop {
                if let Some(id) = self.leader() {
                    return id;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("nobody leads")
    }

    /// Everything that is broken is mended, everybody who is down comes back.
    pub(crate) async fn heal(&self) {
        self.note("everything heals");
        self.network.mend();
        self.network.set_weather(Weather { delay: Duration::from_millis(1), ..Weather::default() });
        for id in self.ids() {
            self.stall(id, Duration::ZERO);
            if let Some(disk) = self.disk(id) {
                disk.leave_free(None);
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await; // whoever has failed says so by now
        for id in self.ids() {
            let broken = self.lock().get(&id).is_some_and(|node| node.broken);
            let failed = match self.store(id) {
                Some(_) if broken => true,
                Some(store) => matches!(store.status().await, Err(reeve_store::MemberError::Stopped(_))),
                None => true,
            };
            if failed {
                self.crash(id, true);
                self.start(id).await;
            }
        }
    }

    /// After healing: writes are taken, through every member, and all come to the same state.
    pub(crate) async fn check_that_it_goes_on(&self) {
        let leads = self.eventually("nobody leads a group that writes", || async {
            let leader = self.leader()?;
            let store = self.store(leader)?;
            put(&store, "after", "the storm").await.ok()?;
            store.status().await.ok()
        });
        let status: MemberStatus = leads.await;
        let members: Vec<u64> = status.members.iter().map(|member| member.id).collect();
        self.note(format!("members at the end: {members:?}"));
        for id in &members {
            self.eventually(&format!("member {id} does not take part"), || async {
                let store = self.store(*id)?;
                put(&store, "through", &id.to_string()).await.ok()?;
                store.range(RangeRequest::key("through")).await.ok()
            })
            .await;
        }
        let newest = self.store(status.id).unwrap().revision();
        for id in &members {
            self.eventually(&format!("member {id} does not get everything"), || async {
                let store = self.store(*id)?;
                let all = store.range(RangeRequest::prefix("")).await.ok()?;
                (all.revision >= newest && self.ledger.seen_by(*id) >= newest).then_some(())
            })
            .await;
        }
    }

    /// What was attached to leases goes with them, when nobody keeps them alive.
    pub(crate) async fn check_that_they_go(&self, keys: &[String]) {
        assert!(!keys.is_empty(), "nobody held a lease");
        self.eventually("leases do not end", || async {
            let (_, store) = self.any_store()?;
            let left = store.range(RangeRequest::prefix("l/")).await.ok()?;
            (left.kvs.is_empty() && store.leases().await.ok()?.is_empty()).then_some(())
        })
        .await;
    }

    /// All members hold the same, bit by bit.
    pub(crate) async fn check_that_members_agree(&self) {
        let mut hashes = Vec::new();
        let leader = self.store(self.wait_for_leader().await).unwrap();
        // Whoever has been removed, or was never taken in, is not asked.
        let members: Vec<u64> = leader.status().await.unwrap().members.iter().map(|member| member.id).collect();
        let newest = members.iter().filter_map(|id| Some(self.store(*id)?.revision())).min();
        for id in members {
            let Some(store) = self.store(id) else { continue };
            if let Ok(hash) = store.hash_kv(newest).await {
                hashes.push((id, hash));
            }
        }
        for (id, hash) in &hashes {
            let (first, expected) = hashes[0];
            assert!(
                *hash == expected || hash.compacted != expected.compacted,
                "members {first} and {id} hold different things: {expected:?}, {hash:?}"
            );
        }
        assert!(hashes.len() > 1, "one member proves nothing");
    }

    pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
        &self,
        otherwise: &str,
        attempt: impl Fn() -> F,
    ) -> T {
        let end = self.clock.monotonic() + PATIENCE;
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            if self.clock.monotonic() > end {
                for id in self.running() {
                    let status = match self.store(id) {
                        Some(store) => format!("{:?}", store.status().await),
                        None => String::new(),
                    };
                    self.note(format!("member {id}: {status}"));
                }
                panic!("{otherwise}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A number that depends on all that has happened.
    pub(crate) fn fingerprint(&self) -> u64 {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        self.ledger.fingerprint() ^ u64::from(crc32fast::hash(trace.as_bytes())) ^ self.rng.next_u64()
    }
}

pub(crate) async fn put(store: &Store, key: &str, value: &str) -> Result<Revision, KvError> {
    let op = Op::Put { key: key.to_owned().into(), value: value.to_owned().into() };
    Ok(store.txn(Txn { then: vec![op], ..Txn::default() }).await?.revision)
}

pub(crate) async fn get(store: &Store, key: &str) -> Result<Option<String>, KvError> {
    let read = store.range(RangeRequest::key(key.to_owned())).await?;
    Ok(read.kvs.first().map(|kv| kv.value.escape_ascii().to_string()))
}
