//! `apiserver_flowcontrol_*`: what `/metrics` tells of flow control, in the names and words of Kubernetes 1.36.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::FlowControl;
use super::config::{Config, Slot};
use super::figures::{FlowFigures, REASONS};
use super::level::{Flow, State};
use super::queues::{Choice, Phase, SEAT_SECOND, SeatTime};
use crate::http::{Histogram, Page, number};

/// A gauge of levels: its name, its help and what it says.
type Gauge = (&'static str, &'static str, fn(&Slot, &State) -> f64);

const GAUGES: &[Gauge] = &[
    (
        "apiserver_flowcontrol_current_limit_seats",
        "[ALPHA] current derived number of execution seats available to each priority level",
        |_, state| state.seats.unwrap_or(0).into(),
    ),
    ("apiserver_flowcontrol_current_r", "[ALPHA] R(time of last change)", |_, state| seconds(state.queues.r)),
    (
        "apiserver_flowcontrol_demand_seats_average",
        "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats",
        |_, state| state.demand.average,
    ),
    (
        "apiserver_flowcontrol_demand_seats_high_watermark",
        "[ALPHA] High watermark, over last adjustment period, of demand_seats",
        |_, state| state.demand.peak.into(),
    ),
    ("apiserver_flowcontrol_demand_seats_smoothed", "[ALPHA] Smoothed seat demands", |_, state| state.demand.smoothed),
    (
        "apiserver_flowcontrol_demand_seats_stdev",
        "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats",
        |_, state| state.demand.deviation,
    ),
    (
        "apiserver_flowcontrol_lower_limit_seats",
        "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        |slot, _| slot.limits.min.into(),
    ),
    (
        "apiserver_flowcontrol_nominal_limit_seats",
        "[BETA] Nominal number of execution seats configured for each priority level",
        |slot, _| slot.limits.nominal.into(),
    ),
    (
        "apiserver_flowcontrol_request_concurrency_limit",
        "[ALPHA] Nominal number of execution seats configured for each priority level",
        |slot, _| slot.limits.nominal.into(),
    ),
    ("apiserver_flowcontrol_target_seats", "[ALPHA] Seat allocation targets", |_, state| state.wish),
    (
        "apiserver_flowcontrol_upper_limit_seats",
        "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        |slot, _| slot.limits.max.into(),
    ),
];

/// A gauge of the last choice between queues.
type ChoiceGauge = (&'static str, &'static str, fn(&Choice) -> Vec<(&'static str, SeatTime)>);

const CHOICES: &[ChoiceGauge] = &[
    ("apiserver_flowcontrol_dispatch_r", "[ALPHA] R(time of last dispatch)", |choice| vec![("", choice.r)]),
    ("apiserver_flowcontrol_latest_s", "[ALPHA] S(most recently dispatched request)", |choice| {
        vec![("", choice.start)]
    }),
    (
        "apiserver_flowcontrol_next_discounted_s_bounds",
        "[ALPHA] min and max, over queues, of S(oldest waiting request in queue) - estimated work in progress",
        |choice| bounds(choice.discounted),
    ),
    (
        "apiserver_flowcontrol_next_s_bounds",
        "[ALPHA] min and max, over queues, of S(oldest waiting request in queue)",
        |choice| bounds(choice.starts),
    ),
];

/// A distribution of what the requests of a flow were like.
type FlowHistogram = (&'static str, &'static str, fn(&FlowFigures) -> Vec<(&'static str, &Histogram)>);

const HISTOGRAMS: &[FlowHistogram] = &[
    (
        "apiserver_flowcontrol_request_execution_seconds",
        "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        |figures| vec![(",type=\"regular\"", &figures.ran[0]), (",type=\"watch\"", &figures.ran[1])],
    ),
    (
        "apiserver_flowcontrol_request_queue_length_after_enqueue",
        "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
        |figures| vec![("", &figures.queue_length)],
    ),
    (
        "apiserver_flowcontrol_watch_count_samples",
        "[ALPHA] count of watchers for mutating requests in API Priority and Fairness",
        |figures| vec![("", &figures.watchers)],
    ),
    (
        "apiserver_flowcontrol_work_estimated_seats",
        "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
        |figures| vec![("", &figures.seats)],
    ),
];

const TIMED: &str = "EXPERIMENTAL: [ALPHA] Observations, at the end of every nanosecond, of ";

fn bounds((low, high): (SeatTime, SeatTime)) -> Vec<(&'static str, SeatTime)> {
    vec![("bound=\"max\",", high), ("bound=\"min\",", low)]
}

#[allow(clippy::cast_precision_loss, reason = "told to fifteen digits")]
fn seconds(time: SeatTime) -> f64 {
    time as f64 / SEAT_SECOND as f64
}

impl FlowControl {
    /// Writes all families.
    pub(crate) fn report(&self, page: &mut Page) {
        let config = self.config.load();
        self.report_flows(&config, page);
        for (name, help, of) in GAUGES {
            page.family(name, "gauge", help);
            for (level, slot) in &config.levels {
                page.sample("", &format!("priority_level=\"{level}\""), number(of(slot, &slot.level.state())));
            }
        }
        for (name, help, of) in CHOICES {
            page.family(name, "gauge", help);
            for (level, slot) in &config.levels {
                let choice = slot.level.state().queues.choice;
                for (label, value) in choice.iter().flat_map(of) {
                    page.sample("", &format!("{label}priority_level=\"{level}\""), number(seconds(value)));
                }
            }
        }
        page.family(
            "apiserver_flowcontrol_seat_fair_frac",
            "gauge",
            "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it",
        );
        page.sample("", "", number(f64::from_bits(self.fair.load(Ordering::Relaxed))));
        self.report_over_time(&config, page);
    }

    fn report_flows(&self, config: &Config, page: &mut Page) {
        let flows: Vec<&Flow> = config.classifier.flows().iter().map(AsRef::as_ref).collect();
        report_counts(&flows, page);
        for (name, help, of) in HISTOGRAMS {
            page.family(name, "histogram", help);
            for flow in &flows {
                for (label, histogram) in of(&flow.figures).into_iter().filter(|(_, found)| found.count() > 0) {
                    histogram.write(page, &format!("{}{label}", labels(flow)), 0);
                }
            }
        }
        page.family(
            "apiserver_flowcontrol_request_wait_duration_seconds",
            "histogram",
            "[BETA] Length of time a request spent waiting in its queue",
        );
        for flow in &flows {
            for (execute, waited) in ["false", "true"].into_iter().zip(&flow.figures.waited) {
                if waited.count() > 0 {
                    waited.write(page, &format!("execute=\"{execute}\",{}", labels(flow)), 0);
                }
            }
        }
        report_presence(config, &flows, page);
    }

    fn report_over_time(&self, config: &Config, page: &mut Page) {
        let now = self.common.now();
        let level = |name: &str| format!("priority_level=\"{name}\"");
        page.family(
            "apiserver_flowcontrol_demand_seats",
            "histogram",
            &format!(
                "{TIMED}(the number of seats each priority level could use) / (nominal number of seats for that level)"
            ),
        );
        for (name, slot) in &config.levels {
            slot.level.state().queues.figures.demand.write(now, page, &level(name));
        }
        page.family("apiserver_flowcontrol_priority_level_request_utilization", "histogram", &format!("{TIMED}number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)"));
        for (name, slot) in &config.levels {
            let figures = &mut slot.level.state().queues.figures;
            figures.running.write(now, page, &format!("phase=\"executing\",{}", level(name)));
            figures.waiting.write(now, page, &format!("phase=\"waiting\",{}", level(name)));
        }
        page.family(
            "apiserver_flowcontrol_priority_level_seat_utilization",
            "histogram",
            &format!("{TIMED}utilization of seats for any stage of execution (but only initial stage for WATCHes)"),
        );
        for (name, slot) in &config.levels {
            let labels = format!("phase=\"executing\",{}", level(name));
            slot.level.state().queues.figures.seats.write(now, page, &labels);
        }
        page.family("apiserver_flowcontrol_read_vs_write_current_requests", "histogram", &format!("{TIMED}the number of requests (as a fraction of the relevant limit) waiting or in regular stage of execution"));
        let mut all = self.common.read_write.lock().unwrap_or_else(PoisonError::into_inner);
        for (phase, kinds) in ["executing", "waiting"].into_iter().zip(&mut all.phases) {
            for (kind, timed) in ["readOnly", "mutating"].into_iter().zip(kinds) {
                timed.write(now, page, &format!("phase=\"{phase}\",request_kind=\"{kind}\""));
            }
        }
    }
}

fn labels(flow: &Flow) -> String {
    format!("flow_schema=\"{}\",priority_level=\"{}\"", flow.name, flow.level.name)
}

fn report_counts(flows: &[&Flow], page: &mut Page) {
    page.family(
        "apiserver_flowcontrol_dispatched_requests_total",
        "counter",
        "[BETA] Number of requests executed by API Priority and Fairness subsystem",
    );
    for flow in flows.iter().filter(|flow| flow.figures.dispatched.get() > 0) {
        page.sample("", &labels(flow), flow.figures.dispatched.get());
    }
    page.family(
        "apiserver_flowcontrol_rejected_requests_total",
        "counter",
        "[BETA] Number of requests rejected by API Priority and Fairness subsystem",
    );
    for flow in flows {
        for (reason, count) in REASONS.into_iter().zip(&flow.figures.rejected).filter(|(_, count)| count.get() > 0) {
            page.sample("", &format!("{},reason=\"{reason}\"", labels(flow)), count.get());
        }
    }
    page.family(
        "apiserver_flowcontrol_request_dispatch_no_accommodation_total",
        "counter",
        "[ALPHA] Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats",
    );
    for flow in flows.iter().filter(|flow| flow.figures.stuck.get() > 0) {
        page.sample("", &labels(flow), flow.figures.stuck.get());
    }
}

/// Requests and seats of a flow, running and waiting.
#[derive(Default)]
struct Presence {
    running: u64,
    seats: u64,
    waiting: u64,
    seats_waiting: u64,
}

fn report_presence(config: &Config, flows: &[&Flow], page: &mut Page) {
    let mut all: BTreeMap<String, (bool, Presence)> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| flow.figures.seats.count() > 0) {
        all.insert(labels(flow), (flow.has_queues, Presence::default()));
    }
    for slot in config.levels.values() {
        for entry in slot.level.state().queues.entries.values() {
            let (_, found) = all.entry(labels(&entry.guest.flow)).or_default();
            let seats = u64::from(entry.work.max_seats());
            match entry.phase {
                Phase::Waiting { .. } => {
                    found.waiting += 1;
                    found.seats_waiting += seats;
                }
                Phase::Running { .. } => {
                    found.running += 1;
                    found.seats += seats;
                }
                Phase::Lingering { .. } => found.seats += seats,
            }
        }
    }
    let mut gauge = |name, help: &str, of: fn(&Presence) -> u64, only_queues: bool| {
        page.family(name, "gauge", help);
        for (labels, (has_queues, found)) in &all {
            if *has_queues || !only_queues {
                page.sample("", labels, of(found));
            }
        }
    };
    gauge(
        "apiserver_flowcontrol_current_executing_requests",
        "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |found| found.running,
        false,
    );
    let seats = "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem";
    gauge("apiserver_flowcontrol_current_executing_seats", seats, |found| found.seats, false);
    let old = seats.replace("[BETA]", "[ALPHA]");
    gauge("apiserver_flowcontrol_request_concurrency_in_use", &old, |found| found.seats, false);
    gauge(
        "apiserver_flowcontrol_current_inqueue_requests",
        "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |found| found.waiting,
        true,
    );
    gauge(
        "apiserver_flowcontrol_current_inqueue_seats",
        "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |found| found.seats_waiting,
        true,
    );
}
