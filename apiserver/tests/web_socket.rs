//! Watches over WebSocket, and the credentials of pages that can only ask for one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use futures::StreamExt as _;
use serde_json::Value;
use support::{Cluster, raw, web_socket};
use tokio_tungstenite::tungstenite::Message;

const PAGE: (&str, &str) = ("origin", "https://page.example");

fn path(rest: &str) -> String {
    format!("/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Ddefault{rest}")
}

#[tokio::test]
async fn each_event_of_a_watch_is_a_message() {
    let cluster = Cluster::start().await;
    let path = path("&timeoutSeconds=1");
    let mut socket = web_socket(&cluster, &path, &[PAGE, ("sec-websocket-protocol", "any")]).await.unwrap();
    let Message::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("not a text") };
    assert!(text.ends_with("}\n"), "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&"ADDED".into(), &"default".into()));
    assert!(socket.next().await.unwrap().unwrap().is_close(), "it ends in order when its time is over");

    let binary = ("accept", "application/vnd.kubernetes.protobuf");
    let mut socket = web_socket(&cluster, &path, &[PAGE, binary]).await.unwrap();
    let Message::Binary(bytes) = socket.next().await.unwrap().unwrap() else { panic!("not binary") };
    assert!(bytes.starts_with(b"\n\x05ADDED"), "no length in front: {bytes:?}");
}

#[tokio::test]
async fn a_watch_that_cannot_be_asked_for_so_is_refused() {
    let cluster = Cluster::start().await;
    let refused = async |path: &str, headers: &[(&str, &str)]| web_socket(&cluster, path, headers).await.unwrap_err();
    assert_eq!(refused(&path(""), &[]).await, 403, "a page must say where it is from");
    assert_eq!(refused(&path(""), &[PAGE, ("sec-websocket-protocol", "a, b")]).await, 400);
    assert_eq!(refused("/api/v1/nothing?watch=true", &[PAGE]).await, 404);
    // What is no stream is answered as ever.
    assert_eq!(refused("/api/v1/namespaces", &[PAGE]).await, 200);
}

#[tokio::test]
async fn a_token_among_the_protocols_says_who_asks() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let post = async |path: &str, body: &str| {
        let head = "Host: k\r\nConnection: close\r\nContent-Type: application/json";
        let request = format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        raw(&cluster, admin, &request).await
    };
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(accounts, r#"{"metadata":{"name":"s"}}"#).await;
    let issued = post(&format!("{accounts}/s/token"), r#"{"spec":{}}"#).await;
    let token = issued.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let offer = |token: &str| {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token);
        format!("base64url.bearer.authorization.k8s.io.{encoded}, binary.k8s.io")
    };
    let asked = async |offer: &str| web_socket(&cluster, &path(""), &[PAGE, ("sec-websocket-protocol", offer)]).await;
    // Known, but not allowed to: the difference from a stranger.
    assert_eq!(asked(&offer(token)).await.unwrap_err(), 403);
    assert_eq!(asked(&offer("nonsense")).await.unwrap_err(), 401);
}
