//! A conversion webhook, asked over TLS.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tests::{create, define, definition, widget};
use crate::registry::tests::World;

/// A webhook that moves the size between `spec.size` (v1) and `spec.large` (v2); its port and its certificate.
async fn webhook() -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            tokio::spawn(async move {
                let service = hyper::service::service_fn(answer);
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, made.cert.pem())
}

async fn answer(request: http::Request<hyper::body::Incoming>) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let (asked, wanted) = (&review["request"], review["request"]["desiredAPIVersion"].as_str().unwrap());
    let refuse = asked["objects"].as_array().unwrap().iter().any(|object| object["spec"]["color"] == "refuse");
    let converted = asked["objects"].as_array().unwrap().iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.into();
        if wanted.ends_with("/v2") {
            object["spec"]["color"] = format!("size {}", object["spec"]["size"]).into();
        }
        object
    });
    let result = match refuse {
        true => json!({"status": "Failure", "message": "no such color"}),
        false => json!({"status": "Success"}),
    };
    let answer = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response":
        {"uid": asked["uid"], "result": result, "convertedObjects": converted.collect::<Vec<_>>()}});
    Ok(http::Response::new(Full::from(answer.to_string())))
}

fn with_webhook(port: u16, pem: &str) -> Value {
    use base64::Engine as _;
    let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
    let mut crd = definition(&["v1", "v2"]);
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{port}/convert"), "caBundle": bundle}}});
    crd
}

#[tokio::test]
async fn a_webhook_converts_what_is_read_listed_and_written_in_another_version() {
    let world = World::new().await;
    let (port, pem) = webhook().await;
    define(&world, with_webhook(port, &pem)).await;
    for name in ["a", "b"] {
        create(&world, "v1", json!({"metadata": {"name": name}, "spec": {"size": 5}})).await.unwrap();
    }
    let read = world.registry.get(&widget(&world, "v2", "a")).await.unwrap().value();
    assert_eq!((&read["apiVersion"], &read["spec"]["color"]), (&json!("example.com/v2"), &json!("size 5")));
    let list = world.registry.list(&widget(&world, "v2", "")).await.unwrap();
    assert!(list.items.iter().all(|item| item.value()["spec"]["color"] == "size 5"));
    let written = create(&world, "v2", json!({"metadata": {"name": "c"}, "spec": {"size": 7}})).await.unwrap();
    assert_eq!(written["apiVersion"], "example.com/v2");
    let error =
        create(&world, "v2", json!({"metadata": {"name": "d"}, "spec": {"color": "refuse"}})).await.unwrap_err();
    let text = "conversion webhook for example.com/v2, Kind=Widget failed: no such color";
    assert!(error.message.ends_with(text), "{}", error.message);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_reached_or_trusted_is_told() {
    let world = World::new().await;
    let (port, _) = webhook().await;
    let (_, other) = webhook().await;
    define(&world, with_webhook(port, &other)).await;
    create(&world, "v1", json!({"metadata": {"name": "a"}, "spec": {"size": 5}})).await.unwrap();
    let error = world.registry.get(&widget(&world, "v2", "a")).await.unwrap_err();
    let text =
        format!("failed: Post \"https://127.0.0.1:{port}/convert?timeout=30s\": tls: failed to verify certificate");
    assert!(error.code == 500 && error.message.contains(&text), "{}", error.message);
}
