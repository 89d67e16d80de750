//! API Priority and Fairness: which request runs, which waits, which is sent away when there is too much to do.
//!
//! A request belongs to the first FlowSchema that matches it (`classify`), which names its priority level. Levels share
//! the server's seats (`shares`) and lend each other what they do not need (`demand`). Where a level has no seat left,
//! requests wait in queues, in which one flow does not stand in another's way (`deal`, `queues`). How many seats a
//! request takes is guessed before (`work`, `watchers`). Source: KEP-1040 and `k8s.io/apiserver/pkg/util/flowcontrol`
//! v0.36.
//!
//! Everything named so far is pure but for the count of watchers. Around it: `level` has the lock and wakes those who
//! wait, `config` makes levels of objects, `keeper` follows the objects and the time, `report` and `dump` tell. What is
//! not here: who asks and what for, and how long a request may take (`http`).

mod classify;
mod config;
mod deal;
mod demand;
mod dropped;
mod dump;
mod figures;
mod keeper;
mod level;
mod objects;
mod queues;
mod report;
mod shares;
#[cfg(test)]
mod tests;
mod timed;
mod watchers;
mod work;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use serde_json::Value;
use tokio::sync::Notify;

use self::config::Config;
use self::deal::flow_hash;
use self::figures::ReadWrite;
use self::level::{Common, Details, Entrance, Entrant, Flow};
use self::objects::{LevelSpec, SchemaSpec};
use self::watchers::Watchers;
use self::work::Work;

pub(crate) use self::dump::go_duration;
pub(crate) use self::keeper::spawn;
pub(crate) use self::level::Seat;
pub(crate) use self::watchers::Watching;
pub use self::work::{Stored, Wanted};
use crate::registry::UserInfo;

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum What<'r> {
    /// A resource. Empty means absent.
    Resource {
        /// Its group.
        group: &'r str,
        /// Its version.
        version: &'r str,
        /// Its plural name.
        resource: &'r str,
        /// The part of it.
        subresource: &'r str,
        /// Of a Namespace its own name.
        namespace: &'r str,
        /// The object's name, also where a selector says it.
        name: &'r str,
    },
    /// A path that is no resource.
    Path,
}

/// A request, as far as it is classified by.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// Who asks.
    pub user: &'r UserInfo,
    /// The verb of the resource, or the method in small letters.
    pub verb: &'r str,
    /// What for.
    pub what: What<'r>,
    /// The path as it was sent.
    pub path: &'r str,
}

/// What a request is told about where it belongs: the values of two headers.
#[derive(Debug, Clone)]
pub(crate) struct Belongs {
    pub(crate) schema_uid: HeaderValue,
    pub(crate) level_uid: HeaderValue,
}

/// A request that has been classified.
pub struct Classified {
    flow: Arc<Flow>,
}

/// Sent away; may come back after so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentAway {
    /// Whole seconds, at least one.
    pub retry_after: u64,
}

/// A request that may run, until this is dropped.
pub struct Admitted {
    seat: Seat,
}

impl Admitted {
    pub(crate) fn into_seat(self) -> Seat {
        self.seat
    }
}

/// Decides who runs. One per server.
pub struct FlowControl {
    config: ArcSwap<Config>,
    common: Arc<Common>,
    watchers: Arc<Watchers>,
    /// Seats of the whole server.
    total: u32,
    seed: u64,
    /// The part of their wishes that levels got the last time, as bits.
    fair: AtomicU64,
    /// Nothing has been asked for a while: seats are not given out anew until something is.
    asleep: AtomicBool,
    busy: Notify,
    /// Configurations replace each other one after the other.
    changing: Mutex<()>,
}

impl FlowControl {
    /// With the levels that there are without any object; `total`: seats of the whole server.
    #[must_use]
    pub fn new(total: u32, clock: SharedClock, rng: &SharedRng) -> Arc<Self> {
        let now = clock.monotonic();
        let read_write = Mutex::new(ReadWrite::new(now));
        let common = Arc::new(Common { clock, drained: Notify::new(), read_write });
        let config = Config::digest(None, Vec::new(), Vec::new(), total, &common);
        let control = Self {
            config: ArcSwap::from_pointee(config),
            common,
            watchers: Arc::default(),
            total,
            seed: rng.next_u64(),
            fair: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            busy: Notify::new(),
            changing: Mutex::new(()),
        };
        control.settle(&control.config.load());
        Arc::new(control)
    }

    /// Takes over a configuration: PriorityLevelConfigurations and FlowSchemas, all there are. Needs a Tokio runtime.
    pub fn configure(&self, levels: Vec<Value>, schemas: Vec<Value>) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let levels = levels.into_iter().filter_map(LevelSpec::read).collect();
        let schemas = schemas.into_iter().filter_map(SchemaSpec::read).collect();
        let config = Config::digest(Some(&self.config.load()), levels, schemas, self.total, &self.common);
        self.settle(&config);
        self.config.store(Arc::new(config));
    }

    fn settle(&self, config: &Config) {
        let now = self.common.now();
        self.fair.store(config.rebalance(now).to_bits(), Ordering::Relaxed);
        let (running, waiting) = config.sizes();
        let mut all = self.common.read_write.lock().unwrap_or_else(PoisonError::into_inner);
        all.set_limits(now, running, waiting);
    }

    /// Gives out the seats anew; whether there is nothing to do for the time being.
    fn rebalance(&self) -> bool {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.config.load();
        self.fair.store(config.rebalance(self.common.now()).to_bits(), Ordering::Relaxed);
        config.is_at_rest()
    }

    /// Where the request belongs.
    pub fn classify(&self, asked: &Asked<'_>) -> Option<Classified> {
        let config = self.config.load();
        config.classifier.find(asked).map(|flow| Classified { flow: Arc::clone(flow) })
    }

    /// Waits for a seat, for at most `patience`. `wanted` is looked at for lists and watches; `stored` says how much
    /// there is of the resource. Who drops the future leaves the queue.
    pub async fn admit(
        &self,
        classified: Classified,
        asked: &Asked<'_>,
        wanted: &Wanted<'_>,
        stored: impl FnOnce() -> Option<Stored>,
        patience: Duration,
    ) -> Result<Admitted, SentAway> {
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.busy.notify_one();
        }
        let flow = classified.flow;
        let work = self.work(&flow, asked, wanted, stored);
        let details = Details::of(asked);
        let hash = match flow.has_queues {
            true => flow_hash(self.seed, &flow.name, details.distinguisher(flow.distinguisher)),
            false => 0,
        };
        let is_write = !matches!(asked.verb, "get" | "list" | "watch");
        let level = Arc::clone(&flow.level);
        match level.enter(Entrant { flow, work, hash, details, is_watch: asked.verb == "watch", is_write }) {
            Entrance::Open(seat) => Ok(Admitted { seat }),
            Entrance::Closed(retry_after) => Err(SentAway { retry_after }),
            Entrance::Queue(mut seat, woken) => match tokio::time::timeout(patience, woken).await {
                Ok(Ok(())) => {
                    seat.called();
                    Ok(Admitted { seat })
                }
                _ => {
                    drop(seat);
                    Err(SentAway { retry_after: level.refuse() })
                }
            },
        }
    }

    fn work(
        &self,
        flow: &Flow,
        asked: &Asked<'_>,
        wanted: &Wanted<'_>,
        stored: impl FnOnce() -> Option<Stored>,
    ) -> Work {
        let work = match (asked.verb, asked.what) {
            ("list" | "watch", What::Resource { .. }) => work::of_list(wanted, flow.seats_max, stored),
            (_, What::Resource { resource: "serviceaccounts", subresource: "token", .. }) => Work::ONE,
            ("create" | "update" | "patch" | "delete", What::Resource { group, resource, namespace, name, .. }) => {
                let watchers = self.watchers.interested(group, resource, namespace, name);
                flow.figures.watchers.observe(watchers.into());
                work::of_write(watchers, flow.seats_max)
            }
            _ => Work::ONE,
        };
        flow.figures.seats.observe(work.max_seats().into());
        work
    }

    /// Counts a watch as long as what is answered lives. Watches of pods of one node hear of few pods: they do not
    /// count.
    pub(crate) fn watching(&self, asked: &Asked<'_>, node: Option<&str>) -> Option<Watching> {
        match asked.what {
            What::Resource { group, resource, namespace, name, .. } if node.is_none_or(str::is_empty) => {
                Some(self.watchers.add(group, resource, namespace, name))
            }
            _ => None,
        }
    }
}

impl Classified {
    pub(crate) fn belongs(&self) -> Belongs {
        Belongs { schema_uid: self.flow.schema_uid.clone(), level_uid: self.flow.level_uid.clone() }
    }

    /// The names of schema and level, for tests and benchmarks.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        (&self.flow.name, &self.flow.level.name)
    }
}
