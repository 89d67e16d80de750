//! From the objects to the levels and the schemas that lead to them; what of the levels before stays.
//!
//! Source: the digestion of configuration objects in `apf_controller.go` of Kubernetes v1.36.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;

use super::classify::Classifier;
use super::figures::FlowFigures;
use super::level::{Common, Flow, Level};
use super::objects::{CATCH_ALL, EXEMPT, LevelSpec, SchemaSpec, Shape};
use super::shares::{Limits, seats_max, share};

/// A level and what it is to be like.
pub(super) struct Slot {
    pub(super) level: Arc<Level>,
    pub(super) spec: LevelSpec,
    pub(super) limits: Limits,
}

impl Slot {
    pub(super) fn is_quiescing(&self) -> bool {
        self.level.quiescing.load(Ordering::Relaxed)
    }
}

/// Everything that holds at a moment. Immutable but for what is in the levels.
pub(super) struct Config {
    pub(super) classifier: Classifier<Arc<Flow>>,
    pub(super) levels: BTreeMap<String, Slot>,
    /// Seats of the whole server.
    pub(super) total: u32,
}

impl Config {
    /// What holds by these objects after `old`. Levels that are not there any more stay as long as somebody is in them.
    pub(super) fn digest(
        old: Option<&Self>,
        mut specs: Vec<LevelSpec>,
        mut schemas: Vec<SchemaSpec>,
        total: u32,
        common: &Arc<Common>,
    ) -> Self {
        for mandatory in LevelSpec::mandatory() {
            if !specs.iter().any(|spec| spec.name == mandatory.name) {
                specs.push(mandatory);
            }
        }
        schemas.retain(|schema| specs.iter().any(|spec| spec.name == schema.level));
        for mandatory in SchemaSpec::mandatory() {
            if !schemas.iter().any(|schema| schema.name == mandatory.name) {
                schemas.push(mandatory);
            }
        }
        schemas.sort_by(|one, other| (one.precedence, &one.name).cmp(&(other.precedence, &other.name)));
        let levels = levels(old, specs, total, common);
        let classifier = classifier(old, schemas, &levels);
        Self { classifier, levels, total }
    }

    /// Gives out the seats anew, by what the levels have needed; the part of its wish that a level gets.
    pub(super) fn rebalance(&self, now: Duration) -> f64 {
        let slots: Vec<&Slot> = self.levels.values().collect();
        let claim = |slot: &&Slot| slot.level.claim(now, slot.spec.shape == Shape::Exempt, slot.limits);
        let claims: Vec<_> = slots.iter().map(claim).collect();
        let seats = |slot: &&Slot| slot.level.state().seats.unwrap_or_else(|| slot.limits.initial());
        let before: Vec<_> = slots.iter().map(seats).collect();
        let shared = share(&claims, &before);
        for (slot, seats) in slots.iter().zip(shared.seats) {
            let told = if seats > 0 { seats } else { self.total.div_ceil(10).max(1) };
            slot.level.configure(now, slot.spec.shape, seats, told);
        }
        shared.fair
    }

    /// How many requests may run, and how many may wait.
    #[allow(clippy::cast_precision_loss, reason = "numbers of requests")]
    pub(super) fn sizes(&self) -> (f64, f64) {
        let running: u32 = self.levels.values().map(|slot| slot.limits.nominal).sum();
        let places = |slot: &Slot| match slot.spec.shape {
            Shape::Queue { queues, length, .. } => f64::from(queues) * length as f64,
            _ => 0.0,
        };
        (running.into(), self.levels.values().map(places).sum())
    }

    /// Whether nobody has needed a seat since the last time.
    pub(super) fn is_at_rest(&self) -> bool {
        self.levels.values().all(|slot| {
            let state = slot.level.state();
            state.demand.peak == 0 && state.queues.is_idle() && state.queues.seats_in_use == 0
        })
    }
}

fn levels(old: Option<&Config>, specs: Vec<LevelSpec>, total: u32, common: &Arc<Common>) -> BTreeMap<String, Slot> {
    let before = |name: &str| old.and_then(|old| old.levels.get(name));
    let mut all = BTreeMap::new();
    for spec in specs {
        let known = before(&spec.name).map(|slot| Arc::clone(&slot.level));
        let level = known.unwrap_or_else(|| Arc::new(Level::new(spec.name.clone(), Arc::clone(common))));
        level.quiescing.store(false, Ordering::Relaxed);
        all.insert(spec.name.clone(), Slot { level, spec, limits: Limits::default() });
    }
    for (name, slot) in old.into_iter().flat_map(|old| &old.levels) {
        if all.contains_key(name) {
            continue;
        }
        // Said first, looked at then: whoever is the last to go from here on says so.
        slot.level.quiescing.store(true, Ordering::SeqCst);
        if !slot.level.state().queues.is_idle() {
            let kept = Slot { level: Arc::clone(&slot.level), spec: slot.spec.clone(), limits: Limits::default() };
            all.insert(name.clone(), kept);
        }
    }
    let sum = all.values().map(|slot| f64::from(slot.spec.shares)).sum();
    for slot in all.values_mut() {
        slot.limits = Limits::of(&slot.spec, total, sum);
    }
    all
}

fn classifier(
    old: Option<&Config>,
    schemas: Vec<SchemaSpec>,
    levels: &BTreeMap<String, Slot>,
) -> Classifier<Arc<Flow>> {
    let known: HashMap<(&str, &str), &Arc<FlowFigures>> = old
        .into_iter()
        .flat_map(|old| old.classifier.flows())
        .map(|flow| ((flow.name.as_str(), flow.level.name.as_str()), &flow.figures))
        .collect();
    let mut fallback = 0;
    let mut flows = Vec::new();
    for schema in schemas {
        let Some(slot) = levels.get(&schema.level) else { continue };
        if schema.name == CATCH_ALL {
            fallback = flows.len();
        }
        let figures = known.get(&(schema.name.as_str(), schema.level.as_str())).map(|figures| Arc::clone(figures));
        let flow = Flow {
            level: Arc::clone(&slot.level),
            distinguisher: schema.distinguisher,
            has_queues: matches!(slot.spec.shape, Shape::Queue { .. }),
            is_exempt: slot.level.name == EXEMPT,
            seats_max: seats_max(slot.spec.shape, slot.limits),
            schema_uid: header(&schema.uid),
            level_uid: header(&slot.spec.uid),
            figures: figures.unwrap_or_default(),
            name: schema.name,
        };
        flows.push((Arc::new(flow), schema.rules));
    }
    Classifier::new(flows, fallback)
}

fn header(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""))
}
