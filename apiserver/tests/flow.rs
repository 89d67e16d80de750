//! Priority and fairness over the network: who is served while a tenant floods the server, and what clients are told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use reeve_api::clock::RealClock;
use reeve_apiserver::Limits;
use reeve_apiserver::registry::UserInfo;
use serde_json::{Value, json};
use support::{Cluster, connect};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A connection of a client.
#[derive(Clone)]
struct Client {
    sender: SendRequest<Body>,
    token: Option<String>,
}

impl Client {
    async fn admin(cluster: &Cluster) -> Self {
        Self::new(connect(cluster, Some(cluster.pki.admin()), b"h2").await.unwrap(), None).await
    }

    async fn account(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        let token = Some(token(cluster, namespace, name).await);
        Self::new(connect(cluster, None, b"h2").await.unwrap(), token).await
    }

    async fn new(stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>, token: Option<String>) -> Self {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        Self { sender, token }
    }

    async fn send(&mut self, method: Method, path: &str, body: Body) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("https://kubernetes{path}"));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.header("content-type", "application/json").body(body).unwrap();
        self.sender.send_request(request).await.unwrap()
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.send(Method::GET, path, Empty::new().map_err(|never| match never {}).boxed_unsync()).await
    }

    async fn write(&mut self, method: Method, path: &str, body: &Value) -> Value {
        let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
        let answer = self.send(method, path, body).await;
        serde_json::from_str(&text(answer).await).unwrap()
    }

    /// The columns of a level in the table of levels.
    async fn level(&mut self, name: &str) -> Option<Vec<String>> {
        let table = text(self.get("/debug/api_priority_and_fairness/dump_priority_levels").await).await;
        let row = table.lines().find(|row| row.split(',').next() == Some(name))?;
        Some(row.split(',').map(|cell| cell.trim().to_owned()).collect())
    }
}

/// A body that begins and does not go on until the sender is dropped.
fn unfinished() -> Body {
    let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
    StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync()
}

async fn text(answer: Response<Incoming>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

fn header(answer: &Response<Incoming>, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn uids(answer: &Response<Incoming>) -> (String, String) {
    (header(answer, "x-kubernetes-pf-flowschema-uid"), header(answer, "x-kubernetes-pf-prioritylevel-uid"))
}

async fn token(cluster: &Cluster, namespace: &str, name: &str) -> String {
    let client = cluster.server.client(UserInfo::new("test", &["system:masters"]));
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}})).unwrap();
    let made = accounts.create_token_request(name, &PostParams::default(), &request).await.unwrap();
    made.status.unwrap().token.unwrap()
}

/// Waits for what must come to pass.
macro_rules! eventually {
    ($condition:expr) => {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !$condition {
            assert!(tokio::time::Instant::now() < deadline, "in vain: {}", stringify!($condition));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
}

async fn small(request_timeout: Duration) -> Cluster {
    let limits = Limits { requests_inflight: 20, mutating_requests_inflight: 10, request_timeout };
    Cluster::start_within(limits, reeve_kinds::builtin(), RealClock::shared()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_tenant_fills_its_level_and_keeps_nobody_else_out() {
    let cluster = small(Duration::from_secs(12)).await;
    let (mut admin, mut leader) =
        (Client::admin(&cluster).await, Client::account(&cluster, "kube-system", "leader").await);
    let flood = Client::account(&cluster, "default", "flood").await;
    let requests: Vec<_> = (0..120)
        .map(|_| {
            let mut flood = flood.clone();
            tokio::spawn(async move { flood.send(Method::POST, REVIEWS, unfinished()).await })
        })
        .collect();
    eventually!(admin.level("workload-low").await.unwrap()[4] != "0");
    let began = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(admin.get("/api/v1/namespaces").await.status(), 200);
        // It may not, but is told so at once: it had its turn.
        let answer = leader.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x").await;
        assert_eq!(answer.status(), 403);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // On a busy machine the last ones come later.
    let mut level: Vec<usize>;
    eventually!({
        let told = admin.level("workload-low").await.unwrap();
        level = told[4..7].iter().map(|cell| cell.parse().unwrap()).collect();
        level[0] + level[1] == 120
    });
    assert!(level[1] <= 30, "{level:?}");
    // A quarter of its time is what a request waits at most.
    let mut sent_away = 0;
    for request in requests {
        let answer = request.await.unwrap();
        if answer.status() != 429 {
            continue;
        }
        sent_away += 1;
        assert!(header(&answer, "retry-after").parse::<u64>().unwrap() >= 1);
        assert_eq!(header(&answer, "content-type"), "text/plain; charset=utf-8");
        assert!(!uids(&answer).0.is_empty() && !uids(&answer).1.is_empty());
        assert_eq!(text(answer).await, "Too many requests, please try again later.\n");
    }
    assert!(sent_away >= level[0] / 2, "{sent_away} {level:?}");
    let metrics = text(admin.get("/metrics").await).await;
    let rejected = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"service-accounts\",priority_level=\"workload-low\",reason=\"time-out\"} ";
    assert!(metrics.contains(&format!("{rejected}{sent_away}\n")), "{metrics}");
    eventually!(admin.level("workload-low").await.unwrap()[2] == "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_leave_the_queues() {
    let cluster = small(Duration::from_secs(60)).await;
    let mut admin = Client::admin(&cluster).await;
    let flood = Client::account(&cluster, "default", "flood").await;
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let mut flood = flood.clone();
            tokio::spawn(async move { flood.send(Method::POST, REVIEWS, unfinished()).await })
        })
        .collect();
    eventually!(admin.level("workload-low").await.unwrap()[4] != "0");
    requests.iter().for_each(tokio::task::JoinHandle::abort);
    eventually!(admin.level("workload-low").await.unwrap()[2] == "true");
    let table = text(admin.get("/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1").await).await;
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("exempt,"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_says_where_its_request_belongs_and_new_objects_count_at_once() {
    let cluster = Cluster::start().await;
    let (mut admin, mut tenant) = (Client::admin(&cluster).await, Client::account(&cluster, "default", "tenant").await);
    let limited = json!({"nominalConcurrencyShares": 5, "limitResponse": {"type": "Queue", "queuing": {}}});
    let level = json!({"metadata": {"name": "tenants"}, "spec": {"type": "Limited", "limited": limited}});
    let level = admin.write(Method::POST, &format!("{GROUP}/prioritylevelconfigurations"), &level).await;
    let rule = json!({
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "default", "name": "*"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
    });
    let spec = json!({"priorityLevelConfiguration": {"name": "tenants"}, "matchingPrecedence": 700, "rules": [rule]});
    let schema = json!({"metadata": {"name": "tenants"}, "spec": spec});
    let schema = admin.write(Method::POST, &format!("{GROUP}/flowschemas"), &schema).await;
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let wanted = (uid(&schema), uid(&level));
    eventually!(uids(&tenant.get("/api/v1/pods").await) == wanted);
    let refused = tenant.get("/api/v1/secrets").await;
    assert_eq!((refused.status().as_u16(), uids(&refused)), (403, wanted.clone()));
    for path in ["/version", "/nothing", "/readyz"] {
        let other = uids(&tenant.get(path).await);
        assert!(!other.0.is_empty() && !other.1.is_empty() && other != wanted, "{path}");
    }
    // Nobody who is not known belongs anywhere; nor does what lasts as long as the client likes.
    let mut stranger = Client { token: Some("nonsense".to_owned()), ..tenant.clone() };
    assert_eq!(uids(&stranger.get("/api").await), Default::default());
    let log = admin.get("/api/v1/namespaces/default/pods/none/log").await;
    assert_eq!((log.status().as_u16(), uids(&log)), (404, Default::default()));
    // Without its level the schema leads nowhere.
    let path = format!("{GROUP}/prioritylevelconfigurations/tenants");
    admin.write(Method::DELETE, &path, &json!({})).await;
    eventually!(uids(&tenant.get("/api/v1/pods").await) != wanted);
    let own = format!("{GROUP}/flowschemas/tenants");
    eventually!({
        let schema: Value = serde_json::from_str(&text(admin.get(&own).await).await).unwrap();
        let condition = &schema["status"]["conditions"][0];
        condition["status"] == "True"
            && condition["message"]
                == "This FlowSchema references the PriorityLevelConfiguration object named \"tenants\" but there is no such object"
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_holds_a_seat_only_as_long_as_it_begins() {
    let cluster = Cluster::start().await;
    let mut admin = Client::admin(&cluster).await;
    let watch = admin.get("/api/v1/namespaces?watch=1").await;
    assert!(!uids(&watch).0.is_empty());
    let mut events = watch.into_body();
    assert!(events.frame().await.unwrap().is_ok());
    eventually!(admin.level("exempt").await.unwrap()[5] == "1");
    let metrics = text(admin.get("/metrics").await).await;
    let count = "apiserver_flowcontrol_request_execution_seconds_count{flow_schema=\"exempt\",priority_level=\"exempt\",type=\"watch\"} 1\n";
    assert!(metrics.contains(count), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_too_long_is_told_so() {
    let cluster = Cluster::start().await;
    let mut admin = Client::admin(&cluster).await;
    let answer = admin.send(Method::POST, "/api/v1/namespaces?timeout=200ms", unfinished()).await;
    assert_eq!(answer.status(), 504);
    assert_eq!(header(&answer, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(
        text(answer).await,
        "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete within the allotted timeout\",\"reason\":\"Timeout\",\"details\":{},\"code\":504}\n"
    );
    let mut stranger = Client { token: Some("nonsense".to_owned()), ..admin.clone() };
    let answer = stranger.get("/api/v1/pods?timeout=soon").await;
    assert_eq!(answer.status(), 400);
    assert!(text(answer).await.contains("invalid timeout specified in the request URL - time: invalid duration"));
}
