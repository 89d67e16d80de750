//! Pulling from registries that lie, ramble, run in circles and speak another language.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::pull_tests::{Answer, edit, lying_registry, ok, one_image};
use super::tests::Fixture;
use crate::engine::RegistryAuth;

/// The most that may be read of any answer that is no blob, what lies in the kernel's buffers included.
const READ_MAX: u64 = 48 << 20;

/// A server that answers every request with this head and then never stops. Its address, and what it could send.
async fn endless_server(head: String) -> (String, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (head, counter) = (head.clone(), Arc::clone(&counter));
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).await;
                let piece = vec![b' '; 1 << 16];
                while stream.write_all(&piece).await.is_ok() {
                    counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    (address, sent)
}

async fn refused(address: &str, auth: Option<RegistryAuth>) -> String {
    let fixture = Fixture::new();
    let name = format!("{address}/x:1");
    let pull = fixture.store.pull(&name, auth);
    let error = tokio::time::timeout(Duration::from_secs(60), pull).await.expect("an end").unwrap_err();
    assert!(fixture.store.list().unwrap().is_empty());
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_an_end_is_not_read_to_its_end() {
    let (address, sent) = endless_server("200 OK\r\nContent-Type: application/json".to_owned()).await;
    let error = refused(&address, None).await;
    assert!(error.ends_with("/v2/x/manifests/1: larger than 8388608 bytes"), "{error}");
    assert!(sent.load(Ordering::Relaxed) < READ_MAX, "a manifest: {sent:?}");

    let (address, sent) = endless_server("403 Forbidden".to_owned()).await;
    let error = refused(&address, None).await;
    assert!(error.ends_with("/v2/x/manifests/1: 403 Forbidden"), "{error}");
    assert!(sent.load(Ordering::Relaxed) < READ_MAX, "an error: {sent:?}");

    let (tokens, sent) = endless_server("200 OK".to_owned()).await;
    let (mut answers, [manifest, _]) = one_image();
    let headers = format!("WWW-Authenticate: Bearer realm=\"http://{tokens}/token\"\r\n");
    edit(&mut answers, &manifest, |list| *list = vec![Answer { status: 401, headers, ..ok(b"") }]);
    let error = refused(&lying_registry(answers).await.0, None).await;
    assert!(error.contains("failed to fetch anonymous token: ") && error.contains("no token"), "{error}");
    assert!(sent.load(Ordering::Relaxed) < READ_MAX, "a token: {sent:?}");
}

#[tokio::test]
async fn a_page_for_people_is_not_shown_in_place_of_an_error() {
    for (status, body, words) in [
        (502, &b"<html><h1>502 \x1b[31mBad Gateway</h1></html>"[..], ": 502 Bad Gateway"),
        (403, b"<html>The proxy does not like this</html>", ": 403 Forbidden"),
        (
            429,
            br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
            ": 429 Too Many Requests: toomanyrequests: You have reached your pull rate limit.",
        ),
        (200, b"<html>Welcome to the hotel</html>", ": not a manifest: expected value at line 1 column 1"),
    ] {
        let (mut answers, [manifest, _]) = one_image();
        edit(&mut answers, &manifest, |list| *list = vec![Answer { status, ..ok(body) }]);
        let error = refused(&lying_registry(answers).await.0, None).await;
        assert!(error.ends_with(words), "{error}");
        assert!(!error.contains("html") && !error.contains('\x1b'), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_runs_in_circles_is_left_after_ten_rounds() {
    let (mut answers, [manifest, layer]) = one_image();
    let circle = |path: &str| vec![Answer { status: 307, headers: format!("Location: {path}\r\n"), ..ok(b"") }];
    edit(&mut answers, &layer, |list| *list = circle(&layer));
    let error = refused(&lying_registry(answers.clone()).await.0, None).await;
    assert!(error.contains("failed to fetch sha256:") && error.ends_with("stopped after 10 redirects"), "{error}");
    edit(&mut answers, &manifest, |list| *list = circle(&manifest));
    let (address, log) = lying_registry(answers).await;
    let error = refused(&address, None).await;
    assert!(error.ends_with("stopped after 10 redirects"), "{error}");
    assert_eq!(log.lock().unwrap().len(), 11, "it is not tried again");
}

#[tokio::test]
async fn a_server_that_speaks_no_http_or_no_tls_is_named_so() {
    let (address, _) = endless_server("400 Bad Request".to_owned()).await;
    let fixture = Fixture::new();
    fixture.registries(&format!("mirrors: {{'{address}': {{endpoint: ['https://{address}']}}}}"));
    let error = fixture.store.pull(&format!("{address}/x:1"), None).await.unwrap_err().to_string();
    assert!(error.ends_with("http: server gave HTTP response to HTTPS client"), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"\x16\x03\x01 what is this?\r\n");
            });
        }
    });
    let error = refused(&address, None).await;
    assert!(error.contains(&format!("failed to do request: \"http://{address}/v2/x/manifests/1\": ")), "{error}");
}

#[tokio::test]
async fn a_registry_that_announces_another_digest_than_it_sends_is_not_believed() {
    let (mut answers, [manifest, _]) = one_image();
    let headers = format!("Docker-Content-Digest: sha256:{}\r\n", "0".repeat(64));
    edit(&mut answers, &manifest, |list| list[0].headers.push_str(&headers));
    let error = refused(&lying_registry(answers).await.0, None).await;
    assert!(error.contains("the registry says that its digest is sha256:0000"), "{error}");
}

#[tokio::test]
async fn an_identity_token_is_exchanged_for_one_that_the_registry_takes() {
    let (mut answers, [manifest, layer]) = one_image();
    let (tokens, asked) = lying_registry(vec![("/token".to_owned(), vec![ok(br#"{"access_token":"tok"}"#)])]).await;
    let headers = format!("WWW-Authenticate: Bearer realm=\"http://{tokens}/token\",service=\"s\"\r\n");
    edit(&mut answers, &manifest, |list| list.insert(0, Answer { status: 401, headers, ..ok(b"") }));
    let (address, log) = lying_registry(answers).await;
    let auth = RegistryAuth { username: "<token>".to_owned(), password: "identity".to_owned() };
    Fixture::new().store.pull(&format!("{address}/x:1"), Some(auth)).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("post /token ") && !asked[0].contains("authorization:"), "{asked:?}");
    let requests = log.lock().unwrap();
    let head = requests.iter().find(|head| head.starts_with(&format!("get {layer} "))).unwrap();
    assert!(head.contains("authorization: bearer tok"), "{head}");
}

#[tokio::test]
async fn what_one_is_at_a_registry_is_not_told_to_whom_it_sends_one_to() {
    let (mut answers, [_, layer]) = one_image();
    let blob = answers.iter().find(|(path, _)| *path == layer).unwrap().1[0].clone();
    let (elsewhere, asked) = lying_registry(vec![("/blob".to_owned(), vec![blob])]).await;
    let headers = format!("Location: http://{elsewhere}/blob\r\n");
    edit(&mut answers, &layer, |list| *list = vec![Answer { status: 307, headers, ..ok(b"") }]);
    let basic = "WWW-Authenticate: Basic realm=\"x\"\r\n".to_owned();
    let manifest = answers[0].0.clone();
    edit(&mut answers, &manifest, |list| list.insert(0, Answer { status: 401, headers: basic, ..ok(b"") }));
    let (address, log) = lying_registry(answers).await;
    let auth = RegistryAuth { username: "alice".to_owned(), password: "s3cret".to_owned() };
    Fixture::new().store.pull(&format!("{address}/x:1"), Some(auth)).await.unwrap();
    assert!(log.lock().unwrap().iter().any(|head| head.contains("authorization: basic")), "the registry is told");
    assert!(asked.lock().unwrap().iter().all(|head| !head.contains("authorization")), "{asked:?}");
}
