//! The forms of answers over the network: protobuf, metadata, tables, and what is said where there is no such form.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use k8s_pb::api::core::v1::{ConfigMap, ConfigMapList};
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime::Unknown;
use prost::Message as _;
use serde_json::{Value, json};
use support::{Cluster, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What came back: the head as text, and the body.
struct Answer {
    head: String,
    body: Vec<u8>,
}

/// Sends a request and reads until the server closes. HTTP/1.0: a body of unknown length is not cut into chunks.
async fn send(cluster: &Cluster, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = connect(cluster, Some(cluster.pki.admin()), b"http/1.1").await.unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: k\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    Answer { head: String::from_utf8(answer[..at].to_vec()).unwrap(), body: answer[at + 4..].to_vec() }
}

async fn get(cluster: &Cluster, path: &str, accept: &str) -> Answer {
    send(cluster, "GET", path, &format!("Accept: {accept}\r\n"), b"").await
}

impl Answer {
    #[track_caller]
    fn code(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }
}

/// What an envelope holds: its kind, and the message.
#[track_caller]
fn opened<M: prost::Message + Default>(bytes: &[u8]) -> (String, M) {
    let unknown = Unknown::decode(bytes.strip_prefix(b"k8s\0").unwrap()).unwrap();
    let kind = unknown.type_meta.unwrap();
    (format!("{} {}", kind.api_version(), kind.kind()), M::decode(unknown.raw.unwrap().as_slice()).unwrap())
}

async fn create(cluster: &Cluster, name: &str) -> Answer {
    let map = json!({"metadata": {"name": name, "labels": {"test": "forms"}}, "data": {"k": "v"}}).to_string();
    let headers = format!("Accept: {PROTOBUF}\r\nContent-Type: application/json\r\n");
    send(cluster, "POST", "/api/v1/namespaces/default/configmaps", &headers, map.as_bytes()).await
}

#[tokio::test]
async fn a_client_that_speaks_protobuf_is_answered_in_protobuf() {
    let cluster = Cluster::start().await;
    let made = create(&cluster, "a").await;
    assert_eq!(made.code(), 201);
    assert!(made.head.contains(&format!("content-type: {PROTOBUF}")), "{}", made.head);
    let (kind, map) = opened::<ConfigMap>(&made.body);
    assert_eq!((kind.as_str(), map.data["k"].as_str()), ("v1 ConfigMap", "v"));
    assert!(!map.metadata.unwrap().uid().is_empty());
    let path = "/api/v1/namespaces/default/configmaps";
    let (kind, map) = opened::<ConfigMap>(&get(&cluster, &format!("{path}/a"), PROTOBUF).await.body);
    assert_eq!((kind.as_str(), map.data["k"].as_str()), ("v1 ConfigMap", "v"));
    let list = get(&cluster, &format!("{path}?labelSelector=test%3Dforms"), PROTOBUF).await;
    let (kind, list) = opened::<ConfigMapList>(&list.body);
    assert_eq!((kind.as_str(), list.items.len()), ("v1 ConfigMapList", 1));
    assert!(!list.metadata.unwrap().resource_version().is_empty());
    let accept = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let (kind, list) = opened::<meta::PartialObjectMetadataList>(&get(&cluster, path, &accept).await.body);
    assert_eq!(kind, "meta.k8s.io/v1 PartialObjectMetadataList");
    assert!(list.items.iter().any(|item| item.metadata.as_ref().unwrap().name() == "a"));
    let missing = get(&cluster, &format!("{path}/none"), PROTOBUF).await;
    let (kind, status) = opened::<meta::Status>(&missing.body);
    assert_eq!((kind.as_str(), status.code(), status.reason()), ("v1 Status", 404, "NotFound"));
    assert_eq!(missing.code(), 404);
}

#[tokio::test]
async fn a_watch_in_protobuf_is_made_of_frames() {
    let cluster = Cluster::start().await;
    create(&cluster, "a").await;
    create(&cluster, "b").await;
    let path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&labelSelector=test%3Dforms&\
                allowWatchBookmarks=true";
    let answer = get(&cluster, path, &format!("{PROTOBUF};stream=watch,{PROTOBUF}")).await;
    assert!(answer.head.contains(&format!("content-type: {PROTOBUF};stream=watch")), "{}", answer.head);
    let (mut rest, mut seen) = (answer.body.as_slice(), Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (frame, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
        let event = meta::WatchEvent::decode(frame).unwrap();
        let (_, map) = opened::<ConfigMap>(&event.object.as_ref().unwrap().raw.clone().unwrap());
        seen.push(format!("{} {}", event.r#type(), map.metadata.unwrap().name()));
        rest = behind;
    }
    assert_eq!(seen, ["ADDED a", "ADDED b", "BOOKMARK "]);
}

#[tokio::test]
async fn what_has_no_such_form_is_not_acceptable() {
    let cluster = Cluster::start().await;
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let body = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let headers = format!("Accept: {table}\r\nContent-Type: application/json\r\n");
    let refused = send(&cluster, "POST", review, &headers, body.to_string().as_bytes()).await;
    assert_eq!((refused.code(), refused.json()["reason"].as_str()), (406, Some("NotAcceptable")));
    let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let refused = get(&cluster, "/api/v1/namespaces/default", list).await.json();
    assert_eq!(
        refused["message"],
        "you requested PartialObjectMetadataList, but the requested object is not a list (*core.Namespace)"
    );
    let refused = get(&cluster, "/api/v1/namespaces?watch=1", "application/yaml").await;
    assert_eq!(refused.code(), 406);
    let refused = String::from_utf8(refused.body).unwrap();
    assert!(refused.contains("\nreason: NotAcceptable\n"), "{refused}");
    let refused = get(&cluster, "/api/v1/namespaces", "text/html").await.json();
    assert_eq!(
        refused["message"],
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    );
    let refused = get(&cluster, "/api/v1/namespaces", "application/json;v=v1").await.json();
    assert_eq!(
        refused["message"],
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
}

#[tokio::test]
async fn a_head_has_no_body_behind_it_over_http_2_either() {
    let cluster = Cluster::start().await;
    let stream = connect(&cluster, Some(cluster.pki.admin()), b"h2").await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    for (path, code) in [("/livez", 200), ("/api/v1/pods", 405)] {
        let request = http::Request::head(format!("https://k{path}"));
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), code);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        assert!(body.to_bytes().is_empty());
    }
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_told_apart_as_in_kubernetes() {
    let cluster = Cluster::start().await;
    for path in ["/nothing", "/healthz/nothing", "/apis/example.com", "/apis/example.com/v1/widgets", "/openapi/v9"] {
        let answer = get(&cluster, path, "*/*").await;
        assert_eq!((answer.code(), answer.body.as_slice()), (404, b"404 page not found\n".as_slice()), "{path}");
    }
    for path in ["/api/v1/nothings", "/apis/apps/v1/nothings", "/apis/apps/v9/deployments", "/api/v9"] {
        let answer = get(&cluster, path, "*/*").await;
        let status = answer.json();
        assert_eq!(
            (answer.code(), status["message"].as_str()),
            (404, Some("the server could not find the requested resource")),
            "{path}"
        );
    }
    for (method, path) in [("HEAD", "/api/v1/pods"), ("OPTIONS", "/api/v1/pods"), ("DELETE", "/api/v1/namespaces")] {
        assert_eq!(send(&cluster, method, path, "", b"").await.code(), 405, "{method} {path}");
    }
}

#[tokio::test]
async fn the_old_path_of_watches_is_known() {
    let cluster = Cluster::start().await;
    create(&cluster, "a").await;
    let path = "/api/v1/watch/namespaces/default/configmaps/a?timeoutSeconds=1";
    let answer = get(&cluster, path, "application/json").await;
    let lines: Vec<Value> =
        answer.body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    let message = async |query: &str| {
        let answer = get(&cluster, &format!("/api/v1/namespaces/default/configmaps{query}"), "application/json").await;
        (answer.code(), answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(
        message("?timeout=10").await,
        (400, "invalid timeout specified in the request URL - time: missing unit in duration \"10\"".to_owned())
    );
    let number = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    assert_eq!(message("?resourceVersion=x").await, (400, format!("invalid resource version: {number}")));
    assert_eq!(message("?watch=1&resourceVersion=x").await, (500, number.to_owned()));
    assert_eq!(message("/a?resourceVersion=x").await, (500, number.to_owned()));
    assert_eq!(
        message("?continue=%25").await,
        (400, "invalid continue token: continue key is not valid: illegal base64 data at input byte 0".to_owned())
    );
    assert_eq!(
        message("/a?watch=1&fieldSelector=metadata.name%3Db").await,
        (400, "fieldSelector metadata.name doesn't match requested name".to_owned())
    );
    let (code, both) = message("?resourceVersionMatch=Sometimes&sendInitialEvents=true").await;
    assert_eq!(code, 422);
    for words in [
        "unless resourceVersion is provided",
        "supported values: \"Exact\", \"NotOlderThan\", \"\"",
        "forbidden for list",
    ] {
        assert!(both.contains(words), "{both}");
    }
    let future = get(&cluster, "/api/v1/pods?watch=1&resourceVersion=999999&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=5", "application/json").await;
    let event = future.json();
    assert_eq!((future.code(), &event["type"], &event["object"]["code"]), (200, &json!("ERROR"), &json!(504)));
}

#[tokio::test]
async fn the_server_tells_what_it_did_to_those_who_may_know() {
    let cluster = Cluster::start().await;
    create(&cluster, "a").await;
    let path = "/api/v1/namespaces/default/configmaps";
    get(&cluster, path, "application/json").await;
    get(&cluster, &format!("{path}?watch=1&timeoutSeconds=1"), "application/json").await;
    get(&cluster, "/api/v1/namespaces/default/nothings", "application/json").await;
    let answer = get(&cluster, "/metrics", "*/*").await;
    let text = String::from_utf8(answer.body).unwrap();
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let labels = |verb: &str, scope: &str| {
        format!(
            "component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\"}} 1\n"
        )
    };
    for (code, verb, scope) in
        [("201", "POST", "resource"), ("200", "LIST", "namespace"), ("200", "WATCH", "namespace")]
    {
        let line = format!("apiserver_request_total{{code=\"{code}\",dry_run=\"\",{}", labels(verb, scope));
        assert!(text.contains(&line), "{line}{text}");
    }
    for line in [
        "apiserver_resource_objects{group=\"\",resource=\"configmaps\"} ",
        "apiserver_storage_objects{resource=\"deployments.apps\"} 0\n",
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} ",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0\n",
        "kubernetes_build_info{",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains("nothings"));
    let refused = support::raw(&cluster, None, "GET /metrics HTTP/1.0\r\nHost: k\r\n\r\n").await;
    assert!(refused.contains(" 403 "), "{refused}");
}
