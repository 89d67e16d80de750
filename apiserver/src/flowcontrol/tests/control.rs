//! Flow control as the server uses it: levels from objects, requests of users.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reeve_api::clock::ManualClock;
use reeve_api::rng::{SeededRng, SharedRng};
use reeve_kinds::bootstrap;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::super::{Admitted, Asked, FlowControl, SentAway, Wanted, What};
use crate::http::Page;
use crate::registry::UserInfo;

const PROVEN: &str = "system:authenticated";

struct Server {
    /// How long requests wait for their turn.
    patience: Duration,
    control: Arc<FlowControl>,
    clock: Arc<ManualClock>,
}

/// A user, the verb and resource asked for.
#[derive(Clone, Copy)]
struct Question(&'static str, &'static [&'static str], &'static str, &'static str, &'static str);

const TENANT: Question = Question("alice", &["tenants"], "get", "", "pods");
const NODE: Question = Question("system:node:a", &["system:nodes"], "get", "", "pods");
const HEARTBEAT: Question = Question("system:node:a", &["system:nodes"], "update", "coordination.k8s.io", "leases");
const LEADER: Question = Question("system:kube-scheduler", &[], "update", "coordination.k8s.io", "leases");
const ADMIN: Question = Question("admin", &["system:masters"], "delete", "", "pods");

impl Server {
    fn new(seats: u32) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let rng: SharedRng = Arc::new(SeededRng::new(1));
        let control = FlowControl::new(seats, clock.clone(), &rng);
        let server = Self { patience: Duration::from_secs(15), control, clock };
        server.configure(Vec::new(), Vec::new());
        server
    }

    /// The built-in objects and these.
    fn configure(&self, levels: Vec<Value>, schemas: Vec<Value>) {
        let levels = [bootstrap::mandatory_priority_levels(), bootstrap::suggested_priority_levels(), levels];
        let schemas = [bootstrap::mandatory_flow_schemas(), bootstrap::suggested_flow_schemas(), schemas];
        self.control.configure(levels.concat(), schemas.concat());
    }

    fn send(&self, question: Question) -> JoinHandle<Result<Admitted, SentAway>> {
        let (control, patience) = (Arc::clone(&self.control), self.patience);
        tokio::spawn(async move {
            let Question(name, groups, verb, group, resource) = question;
            let user = UserInfo::new(name, &[groups, &[PROVEN]].concat());
            let what =
                What::Resource { group, version: "v1", resource, subresource: "", namespace: "default", name: "x" };
            let asked = Asked { user: &user, verb, what, path: "/a/path" };
            let classified = control.classify(&asked).unwrap();
            control.admit(classified, &asked, &Wanted::default(), || None, patience).await
        })
    }

    /// Sends so many at once; those that run, and those that wait.
    async fn flood(
        &self,
        question: Question,
        times: usize,
    ) -> (Vec<Admitted>, Vec<JoinHandle<Result<Admitted, SentAway>>>) {
        let sent: Vec<_> = (0..times).map(|_| self.send(question)).collect();
        settle().await;
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for request in sent {
            if !request.is_finished() {
                waiting.push(request);
            } else if let Ok(admitted) = request.await.unwrap() {
                running.push(admitted);
            }
        }
        (running, waiting)
    }

    /// It gets in at once.
    async fn is_served(&self, question: Question) -> Admitted {
        let sent = self.send(question);
        settle().await;
        assert!(sent.is_finished(), "{} waits", question.0);
        sent.await.unwrap().ok().unwrap()
    }

    fn metrics(&self) -> String {
        let mut page = Page::default();
        self.control.report(&mut page);
        page.finish()
    }

    #[track_caller]
    fn says(&self, line: &str) {
        let text = self.metrics();
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// Lets every task do what it can.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn level(name: &str, shares: u32, response: Value) -> Value {
    let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": response});
    json!({"metadata": {"name": name, "uid": format!("uid of {name}")}, "spec": {"type": "Limited", "limited": limited}})
}

fn schema(name: &str, level: &str, user: &str) -> Value {
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": user}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
    });
    json!({
        "metadata": {"name": name, "uid": format!("uid of {name}")},
        "spec": {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 10, "rules": [rule]},
    })
}

#[tokio::test]
async fn system_traffic_is_served_at_once_while_a_user_floods_the_server() {
    let server = Server::new(60);
    let (running, waiting) = server.flood(TENANT, 2000).await;
    assert!(!running.is_empty() && running.len() <= 60, "{}", running.len());
    assert!(!waiting.is_empty() && waiting.len() <= 6 * 50, "{}", waiting.len());
    for question in [NODE, HEARTBEAT, LEADER, ADMIN] {
        for _ in 0..20 {
            let _served = server.is_served(question).await;
        }
    }
    // Not one of its own seats is lent to others for ever.
    let held: Vec<_> =
        [server.is_served(LEADER).await, server.is_served(HEARTBEAT).await, server.is_served(ADMIN).await].into();
    waiting.iter().for_each(JoinHandle::abort);
    settle().await;
    drop((running, held, waiting));
    assert_eq!(server.control.dump("dump_requests", false).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn the_next_seat_goes_to_a_tenant_who_has_none_not_to_the_one_who_floods() {
    let server = Server::new(60);
    let (mut running, waiting) = server.flood(TENANT, 2000).await;
    let modest = server.send(Question("bob", &["tenants"], "get", "", "pods"));
    settle().await;
    assert!(!modest.is_finished());
    // What the flood has used counts against it.
    server.clock.advance(Duration::from_millis(10));
    drop(running.pop());
    settle().await;
    assert!(modest.is_finished() && modest.await.unwrap().is_ok());
    waiting.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn who_waits_too_long_or_finds_the_queues_full_is_sent_away_for_a_second() {
    let mut server = Server::new(60);
    server.patience = Duration::from_millis(50);
    server.configure(
        vec![level(
            "small",
            1,
            json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}}),
        )],
        vec![schema("mine", "small", "alice")],
    );
    let (running, mut waiting) = server.flood(TENANT, 10).await;
    assert_eq!((running.len(), waiting.len()), (1, 2));
    server.says("apiserver_flowcontrol_rejected_requests_total{flow_schema=\"mine\",priority_level=\"small\",reason=\"queue-full\"} 7\n");
    server.says("apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"mine\",priority_level=\"small\"} 2\n");
    for request in waiting.drain(..) {
        assert_eq!(request.await.unwrap().err(), Some(SentAway { retry_after: 1 }));
    }
    server.says("apiserver_flowcontrol_rejected_requests_total{flow_schema=\"mine\",priority_level=\"small\",reason=\"time-out\"} 2\n");
    server.says("apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"mine\",priority_level=\"small\"} 0\n");
    server.says("apiserver_flowcontrol_current_executing_requests{flow_schema=\"mine\",priority_level=\"small\"} 1\n");
    drop(running);
    server.says("apiserver_flowcontrol_request_execution_seconds_count{flow_schema=\"mine\",priority_level=\"small\",type=\"regular\"} 1\n");
    server.says("apiserver_flowcontrol_request_wait_duration_seconds_count{execute=\"false\",flow_schema=\"mine\",priority_level=\"small\"} 9\n");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_queue() {
    let server = Server::new(60);
    server.configure(
        vec![level(
            "small",
            1,
            json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 3}}),
        )],
        vec![schema("mine", "small", "alice")],
    );
    let (running, waiting) = server.flood(TENANT, 4).await;
    waiting[0].abort();
    waiting[1].abort();
    settle().await;
    let table = server.control.dump("dump_priority_levels", false).unwrap();
    let row = table.lines().find(|line| line.starts_with("small,")).unwrap();
    let row: Vec<&str> = row.split(',').map(str::trim).collect();
    assert_eq!(row, ["small", "1", "false", "false", "1", "1", "1", "2", "0", "2"]);
    drop(running);
    settle().await;
    assert!(waiting[2].is_finished());
}

#[tokio::test]
async fn a_level_without_queues_refuses_what_finds_no_seat() {
    let server = Server::new(60);
    server.configure(vec![level("strict", 4, json!({"type": "Reject"}))], vec![schema("mine", "strict", "alice")]);
    let (running, waiting) = server.flood(TENANT, 10).await;
    assert_eq!((running.len(), waiting.len()), (1, 0));
    server.says("reason=\"concurrency-limit\"} 9\n");
}

#[tokio::test]
async fn a_change_of_the_configuration_counts_for_those_who_wait() {
    let server = Server::new(600);
    let queues = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 100}});
    server.configure(vec![level("mine", 1, queues.clone())], vec![schema("mine", "mine", "alice")]);
    let (running, waiting) = server.flood(TENANT, 50).await;
    assert_eq!(running.len(), 3);
    server.configure(vec![level("mine", 500, queues)], vec![schema("mine", "mine", "alice")]);
    settle().await;
    assert!(waiting.iter().all(JoinHandle::is_finished));
    server.says("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"mine\"} 403\n");
}

#[tokio::test]
async fn a_level_that_is_removed_is_drained_and_takes_no_more() {
    let server = Server::new(600);
    let queues = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 100}});
    server.configure(vec![level("mine", 1, queues)], vec![schema("mine", "mine", "alice")]);
    let (mut running, waiting) = server.flood(TENANT, 5).await;
    server.configure(Vec::new(), vec![schema("mine", "mine", "alice")]);
    let dump = || server.control.dump("dump_priority_levels", false).unwrap();
    let row = dump().lines().find(|line| line.starts_with("mine,")).map(str::to_owned).unwrap();
    assert!(row.split(',').nth(3).unwrap().trim() == "true", "{row}");
    let new = server.is_served(TENANT).await;
    assert!(server.metrics().contains("dispatched_requests_total{flow_schema=\"global-default\""));
    for request in waiting {
        running.remove(0);
        settle().await;
        running.push(request.await.unwrap().ok().unwrap());
    }
    let drained = server.control.common.drained.notified();
    drop((running, new));
    drained.await;
    server.configure(Vec::new(), Vec::new());
    assert!(!dump().contains("mine,"));
}

#[tokio::test]
async fn a_level_under_load_borrows_seats_that_others_do_not_need() {
    let server = Server::new(600);
    let (mut running, waiting) = server.flood(TENANT, 300).await;
    let before = running.len();
    server.clock.advance(Duration::from_secs(10));
    assert!(!server.control.rebalance());
    settle().await;
    for request in waiting {
        if request.is_finished() {
            running.push(request.await.unwrap().ok().unwrap());
        } else {
            request.abort();
        }
    }
    assert!(running.len() > before + 50, "{before} {}", running.len());
    drop(running);
    settle().await;
    server.clock.advance(Duration::from_secs(10));
    server.control.rebalance();
    server.clock.advance(Duration::from_secs(10));
    assert!(server.control.rebalance());
}

#[tokio::test]
async fn without_any_object_there_are_the_mandatory_levels() {
    let server = Server::new(600);
    server.control.configure(Vec::new(), Vec::new());
    let _admin = server.is_served(ADMIN).await;
    let _tenant = server.is_served(TENANT).await;
    server.says("dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"} 1\n");
    server.says("dispatched_requests_total{flow_schema=\"catch-all\",priority_level=\"catch-all\"} 1\n");
    server.says("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"catch-all\"} 600\n");
}

#[tokio::test]
async fn who_is_there_is_told_with_what_he_asks_for() {
    let server = Server::new(600);
    let _held = server.is_served(TENANT).await;
    let table = server.control.dump("dump_requests", true).unwrap();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split(',').map(str::trim).collect();
    assert_eq!(row[..2], ["global-default", "global-default"]);
    assert_eq!(
        row[3..],
        [
            "-1",
            "alice",
            "1970-01-01T00:00:00Z",
            "1",
            "0",
            "0s",
            "1970-01-01T00:00:00Z",
            "alice",
            "get",
            "/a/path",
            "default",
            "x",
            "v1",
            "pods",
            ""
        ]
    );
    assert!(server.control.dump("dump_nothing", true).is_none());
}
