//! What the server does with what comes over the network: credentials, limits, forms of answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use support::{Cluster, connect, raw};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n{headers}\r\n")
}

fn post(path: &str, body: &str) -> String {
    let head = "Host: kubernetes\r\nConnection: close\r\nContent-Type: application/json";
    format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn without_credentials_only_health_and_version_are_shown() {
    let cluster = Cluster::start().await;
    for path in ["/livez", "/readyz", "/healthz", "/version", "/version/"] {
        let answer = raw(&cluster, None, &get(path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    for path in ["/", "/api", "/openapi/v3", "/livez/ping", "/livezz", "/metrics"] {
        let answer = raw(&cluster, None, &get(path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
        let message = format!(r#""message":"forbidden: User \"system:anonymous\" cannot get path \"{path}\"""#);
        assert!(answer.contains(&message) && answer.contains(r#""reason":"Forbidden""#), "{answer}");
    }
    let answer = raw(&cluster, None, &get("/api/v1/namespaces", "")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("cannot list resource"), "{answer}");
}

#[tokio::test]
async fn wrong_credentials_are_refused_even_where_none_are_needed() {
    let cluster = Cluster::start().await;
    for header in ["Authorization: Bearer nonsense\r\n", "Authorization: Basic YTpi\r\n", "Authorization: \u{e4}\r\n"] {
        let answer = raw(&cluster, None, &get("/version", header)).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{header}: {answer}");
    }
}

#[tokio::test]
async fn headers_cannot_claim_an_identity() {
    let cluster = Cluster::start().await;
    let headers = "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\nImpersonate-User: admin\r\n";
    let answer = raw(&cluster, None, &get("/api/v1/secrets", headers)).await;
    let refused = r#"User \"system:anonymous\" cannot impersonate-on:user-info:list resource \"secrets\""#;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(refused), "{answer}");
}

#[tokio::test]
async fn who_may_get_an_exec_but_not_create_one_runs_nothing() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let group = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = |verbs: &str| {
        format!(
            r#"{{"metadata":{{"name":"g"}},"rules":[{{"apiGroups":[""],"resources":["pods/exec"],"verbs":{verbs}}}]}}"#
        )
    };
    let bound = r#"{"metadata":{"name":"g"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"g"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"ann"}]}"#;
    raw(&cluster, admin, &post(&format!("{group}/roles"), &role(r#"["get"]"#))).await;
    raw(&cluster, admin, &post(&format!("{group}/rolebindings"), bound)).await;
    let path = "/api/v1/namespaces/default/pods/web/exec?command=a&container=c";
    let exec = get(path, "Impersonate-User: ann\r\n");
    let refused = raw(&cluster, admin, &exec).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains(r#"pods \"web\" is forbidden: ""#), "{refused}");
    let remove = format!("DELETE {group}/roles/g HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n");
    raw(&cluster, admin, &remove).await;
    raw(&cluster, admin, &post(&format!("{group}/roles"), &role(r#"["get","create"]"#))).await;
    let missing = raw(&cluster, admin, &exec).await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
}

#[tokio::test]
async fn who_may_impersonate_is_served_as_the_other_and_nobody_else_is() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let path = "/api/v1/secrets";
    let as_ann = raw(&cluster, admin, &get(path, "Impersonate-User: ann\r\n")).await;
    assert!(as_ann.contains(r#"User \"ann\" cannot list resource \"secrets\""#), "{as_ann}");
    let as_master =
        raw(&cluster, admin, &get(path, "Impersonate-User: a\r\nImpersonate-Group: system:masters\r\n")).await;
    assert!(as_master.starts_with("HTTP/1.1 200"), "{as_master}");
    let nobody = raw(&cluster, admin, &get(path, "Impersonate-Group: system:masters\r\n")).await;
    assert!(nobody.starts_with("HTTP/1.1 400") && nobody.contains("without impersonating a user"), "{nobody}");
    // Somebody who may not.
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    raw(&cluster, admin, &post(accounts, r#"{"metadata":{"name":"s"}}"#)).await;
    let issued = raw(&cluster, admin, &post(&format!("{accounts}/s/token"), r#"{"spec":{}}"#)).await;
    let token = issued.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(&issued);
    let headers = format!("Authorization: Bearer {token}\r\nImpersonate-User: kubernetes-admin\r\n");
    let refused = raw(&cluster, None, &get(path, &headers)).await;
    let why = r#"cannot impersonate-on:user-info:list resource \"secrets\" in API group \"\" at the cluster scope"#;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains(why), "{refused}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_no_credential() {
    let cluster = Cluster::start().await;
    let stranger = Cluster::start().await;
    let answer = raw(&cluster, Some(stranger.pki.admin()), &get("/api/v1/secrets", "")).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    // The API server's own certificate for kubelets comes from an authority that the API server does not trust.
    let answer = raw(&cluster, Some(cluster.pki.kubelet_client()), &get("/api/v1/secrets", "")).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    // A server's certificate is no client's.
    let node = cluster.pki.node_serving("n", &[], "2030-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let answer = raw(&cluster, Some(&node), &get("/api/v1/services", "")).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn answers_take_the_form_that_was_asked_for() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let path = "/api/v1/namespaces/default";
    let yaml = raw(&cluster, admin, &get(path, "Accept: application/yaml\r\n")).await;
    assert!(yaml.contains("content-type: application/yaml") && yaml.contains("\nkind: Namespace\n"), "{yaml}");
    let partial =
        raw(&cluster, admin, &get(path, "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1\r\n"))
            .await;
    assert!(partial.contains(r#""kind":"PartialObjectMetadata""#) && !partial.contains("\"spec\""), "{partial}");
    let table = raw(
        &cluster,
        admin,
        &get("/api/v1/namespaces?includeObject=None", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1\r\n"),
    )
    .await;
    assert!(
        table.contains(r#""kind":"Table""#) && table.contains("columnDefinitions") && table.contains("\"object\":null"),
        "{table}"
    );
    let pretty = raw(&cluster, admin, &get(path, "User-Agent: curl/8\r\n")).await;
    assert!(pretty.contains("\n  \"kind\": \"Namespace\""), "{pretty}");
    let none = raw(&cluster, admin, &get(path, "Accept: text/html\r\n")).await;
    assert!(none.starts_with("HTTP/1.1 406") && none.contains("NotAcceptable"), "{none}");
    assert!(none.contains("audit-id: "), "{none}");
}

#[tokio::test]
async fn what_cannot_be_served_says_so_as_a_status() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let send = |method: &str, path: &str, kind: &str, body: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let maps = "/api/v1/namespaces/default/configmaps";
    let cases = [
        (get("/api/v1/nothings", ""), "404", "the server could not find the requested resource"),
        (get("/api/v1/configmaps/a/b/c", ""), "404", "the server could not find the requested resource"),
        (get(&format!("{maps}/.."), ""), "400", r#"Name parameter invalid: \"..\": may not be '..'"#),
        (get(&format!("{maps}/%2e"), ""), "400", "may not be '.'"),
        (get(&format!("{maps}/a%25b"), ""), "400", "may not contain '%'"),
        (get(&format!("{maps}/a%2Fb"), ""), "404", "the server could not find the requested resource"),
        (get(&format!("{maps}/%ff"), ""), "404", "the server could not find the requested resource"),
        (send("DELETE", "/api/v1/namespaces", "application/json", ""), "405", "the server does not allow this method"),
        (send("POST", maps, "text/plain", "a"), "415", "the body of the request was in an unknown format"),
        (send("PATCH", &format!("{maps}/a"), "application/json", "{}"), "415", "UnsupportedMediaType"),
        (send("POST", maps, "application/json", "{"), "400", "couldn't get version/kind; json parse error"),
        (
            send("POST", maps, "application/vnd.kubernetes.protobuf", "x"),
            "400",
            "does not appear to be a protobuf message",
        ),
        (send("TRACE", maps, "application/json", ""), "405", "the server does not allow this method"),
        (get(&format!("{maps}?limit=x"), ""), "400", "invalid syntax"),
    ];
    for (request, code, words) in cases {
        let answer = raw(&cluster, admin, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")) && answer.contains(words), "{request}\n{answer}");
        assert!(answer.contains(r#""kind":"Status""#) && answer.contains(r#""status":"Failure""#), "{answer}");
    }
    // Go's HTTP library refuses what is no URL before Kubernetes sees it.
    let answer = raw(&cluster, admin, &get(&format!("{maps}/%zz"), "")).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("400 Bad Request"), "{answer}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_server_goes_on() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let large = format!("X-Large: {}\r\n", "a".repeat(100_000));
    let answer = raw(&cluster, admin, &get("/version", &large)).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    let head = "POST /api/v1/namespaces HTTP/1.1\r\nHost: k\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let answer = raw(&cluster, admin, &format!("{head}Content-Length: 4000000\r\n\r\n{}", " ".repeat(4_000_000))).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(raw(&cluster, admin, &get("/version", "")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn discovery_and_openapi_are_fetched_once_and_then_known_by_their_hash() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let accept = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json\r\n";
    let first = raw(&cluster, admin, &get("/apis", accept)).await;
    assert!(
        first.contains(r#""apiVersion":"apidiscovery.k8s.io/v2""#) && first.contains(r#""resource":"deployments""#),
        "{first}"
    );
    let etag = first.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim();
    let again = raw(&cluster, admin, &get("/apis", &format!("{accept}If-None-Match: {etag}\r\n"))).await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    let index = raw(&cluster, admin, &get("/openapi/v3", "")).await;
    let address = index.split('"').find(|word| word.starts_with("/openapi/v3/apis/apps/v1?hash=")).unwrap().to_owned();
    let document = raw(&cluster, admin, &get(&address, "")).await;
    assert!(document.contains("public, immutable") && document.contains("io.k8s.api.apps.v1.Deployment"));
    let stale = raw(&cluster, admin, &get("/openapi/v3/apis/apps/v1?hash=0", "")).await;
    assert!(stale.starts_with("HTTP/1.1 301") && stale.contains(&address), "{stale}");
}

#[tokio::test]
async fn http_2_is_spoken_to_who_asks_for_it() {
    let cluster = Cluster::start().await;
    let stream = connect(&cluster, Some(cluster.pki.admin()), b"h2").await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let request = http::Request::get("https://k/api/v1/namespaces")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        answers.push(sender.send_request(request));
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn shutdown_ends_watches_and_then_nothing_is_accepted() {
    let cluster = Cluster::start().await;
    let admin = cluster.pki.admin().clone();
    let mut stream = connect(&cluster, Some(&admin), b"http/1.1").await.unwrap();
    stream.write_all(get("/api/v1/namespaces?watch=1", "").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("ADDED") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    let (read, ()) = tokio::join!(stream.read_to_end(&mut answer), cluster.server.shutdown(Duration::from_secs(10)));
    read.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains(r#"{"type":"ADDED","object":{"#) && answer.ends_with("0\r\n\r\n"), "{answer}");
    assert!(connect(&cluster, Some(&admin), b"http/1.1").await.is_err());
}

#[tokio::test]
async fn large_lists_are_packed_for_those_who_can_unpack_them() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let body = format!(r#"{{"metadata":{{"name":"large"}},"data":{{"a":"{}"}}}}"#, "x".repeat(200_000));
    let made = raw(&cluster, admin, &post("/api/v1/namespaces/default/configmaps", &body)).await;
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let packed = raw(&cluster, admin, &get("/api/v1/configmaps", "Accept-Encoding: gzip\r\n")).await;
    assert!(packed.contains("content-encoding: gzip") && packed.len() < 20_000, "{}", packed.len());
    let plain = raw(&cluster, admin, &get("/api/v1/configmaps", "")).await;
    assert!(!plain.contains("content-encoding") && plain.len() > 200_000, "{}", plain.len());
}

#[tokio::test]
async fn unknown_fields_are_warned_of_unless_they_are_refused() {
    let cluster = Cluster::start().await;
    let admin = Some(cluster.pki.admin());
    let body = r#"{"metadata":{"name":"a"},"colour":"red"}"#;
    let path = "/api/v1/namespaces/default/configmaps";
    let strict = raw(&cluster, admin, &post(&format!("{path}?fieldValidation=Strict"), body)).await;
    assert!(strict.starts_with("HTTP/1.1 400") && strict.contains("strict decoding error: unknown field"), "{strict}");
    let warned = raw(&cluster, admin, &post(path, body)).await;
    assert!(warned.contains(r#"warning: 299 - "unknown field \"colour\"""#), "{warned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_hold_the_connections_of_others() {
    let cluster = Cluster::start().await;
    let admin = cluster.pki.admin().clone();
    let mut kept = connect(&cluster, Some(&admin), b"http/1.1").await.unwrap();
    // Once it was answered the server has seen its certificate: until then it is a stranger's as well.
    kept.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: k\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(kept.read_u8().await.unwrap());
    }
    // Three times as many as the server takes at all: silent ones, and some that stop in the middle of a request.
    let mut strangers = Vec::new();
    for index in 0..300 {
        if index % 10 == 0 {
            let mut talker = connect(&cluster, None, b"http/1.1").await.unwrap();
            talker.write_all(b"GET /version HT").await.unwrap();
            strangers.push(Box::new(talker) as Box<dyn Send>);
        } else {
            strangers.push(Box::new(tokio::net::TcpStream::connect(cluster.address).await.unwrap()));
        }
    }
    let soon = Duration::from_secs(5);
    let request = "GET /api/v1/namespaces HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n";
    let newcomer = tokio::time::timeout(soon, raw(&cluster, Some(&admin), request)).await;
    assert!(newcomer.expect("a newcomer is served").starts_with("HTTP/1.1 200"));
    kept.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(soon, kept.read_exact(&mut answer)).await.expect("who was there is served").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(strangers);
}

#[tokio::test]
async fn a_certificate_is_renewed_while_the_server_runs_and_open_connections_go_on() {
    let life = Duration::from_secs(300 * 24 * 3600);
    let began = reeve_api::clock::RealClock::shared().now() - life;
    let clock = std::sync::Arc::new(reeve_api::clock::ManualClock::at(began));
    let cluster = Cluster::start_on(reeve_kinds::builtin(), clock.clone()).await;
    let shown = |stream: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned().unwrap()
    };
    let mut open = connect(&cluster, None, b"http/1.1").await.unwrap();
    cluster.server.renew_certificates().await.unwrap();
    let unchanged = connect(&cluster, None, b"http/1.1").await.unwrap();
    assert_eq!(shown(&open), shown(&unchanged), "nothing is renewed before it is time");
    clock.advance(life);
    cluster.server.renew_certificates().await.unwrap();
    let renewed = connect(&cluster, None, b"http/1.1").await.unwrap();
    assert_ne!(shown(&open), shown(&renewed));
    open.write_all(get("/version", "").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    open.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}
