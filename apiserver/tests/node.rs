//! Logs, exec and attach through the API server to a node: the real kubectl on one end, on the other a kubelet
//! that speaks TLS and the streaming protocol, but runs nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use reeve_apiserver::registry::UserInfo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::{Cluster, has_kubectl, raw, web_socket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

type Stream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

/// Listens as the kubelet of node `name`, demanding the API server's certificate.
async fn kubelet(cluster: &Cluster, name: &str) -> SocketAddr {
    let address = "127.0.0.1".parse().unwrap();
    let own = cluster.pki.node_serving(name, &[address], "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.pki.kubelet_client_ca_pem().as_bytes()).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream).await;
                }
            });
        }
    });
    address
}

/// Logs are answered with the request's own line; exec and attach echo what they are sent.
async fn serve(mut stream: Stream) {
    let mut seen = [0; 32];
    let read = stream.read(&mut seen[..1]).await.unwrap_or(0);
    if read == 0 {
        return;
    }
    let mut head = vec![seen[0]];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let text = String::from_utf8(head.clone()).unwrap();
    if text.starts_with("GET /containerLogs/") {
        let line = format!("{}\n", text.lines().next().unwrap());
        let answer = if text.contains("previous=true") {
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 42\r\n\r\nprevious terminated container c not found."
                .to_owned()
        } else if text.contains("stream=Stderr") {
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone".to_owned()
        } else {
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{line}")
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.shutdown().await;
        return;
    }
    if text.contains("/default/web/d?") {
        let answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 25\r\n\r\ncontainer not found (\"d\")";
        stream.write_all(answer.as_bytes()).await.unwrap();
        return;
    }
    let stream = Replay { head: std::io::Cursor::new(head), stream };
    stream_session(stream, text).await;
}

/// One session of `v5.channel.k8s.io`: tells the request, echoes standard input, ends with exit code 7.
async fn stream_session(stream: Replay, head: String) {
    #[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
    let choose = |_: &Request, mut response: Response| {
        response.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap();
    let channel = |number: u8, text: &str| Message::binary([&[number], text.as_bytes()].concat());
    let line = head.lines().next().unwrap_or_default().to_owned();
    socket.send(channel(1, &format!("{line}\n"))).await.unwrap();
    if line.contains("input=1") {
        while let Some(Ok(message)) = socket.next().await {
            match message.into_data().split_first() {
                Some((0, input)) => socket.send(channel(1, &String::from_utf8_lossy(input))).await.unwrap(),
                Some((255, _)) => break,
                _ => {}
            }
        }
    }
    let status = json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: exit status 7",
        "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
    });
    socket.send(channel(3, &status.to_string())).await.unwrap();
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    socket.close(Some(normal)).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

/// A stream whose first bytes have been read already.
struct Replay {
    head: std::io::Cursor<Vec<u8>>,
    stream: Stream,
}

impl tokio::io::AsyncRead for Replay {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let done = self.head.position() >= self.head.get_ref().len() as u64;
        if done {
            return std::pin::Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        std::pin::Pin::new(&mut self.head).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Replay {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A node `n1` whose kubelet listens at `address`, with a pod `web` of two containers that run on it.
async fn running_pod(cluster: &Cluster, address: SocketAddr) {
    let client = cluster.server.client(UserInfo::new("test", &["system:masters"]));
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &from(json!({"metadata": {"name": "n1"}}))).await.unwrap();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": address.ip()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
    }});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let _ = accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "default"}}))).await;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let containers = json!([{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]);
    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n1", "containers": containers}});
    pods.create(&PostParams::default(), &from(pod)).await.unwrap();
    let running = |name: &str| {
        json!({
            "name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
        })
    };
    let status = json!({"status": {"phase": "Running", "containerStatuses": [running("c"), running("d")]}});
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_the_node_with_the_options_of_the_request() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    running_pod(&cluster, kubelet(&cluster, "n1").await).await;
    let log = cluster.ok(&["logs", "web", "-c", "c", "--tail=5", "--timestamps"]);
    assert_eq!(log, "GET /containerLogs/default/web/c?timestamps=true&tailLines=5 HTTP/1.1\n");
    let error = cluster.fails(&["logs", "web", "-c", "c", "--previous"]);
    assert!(error.contains("Error from server (BadRequest): previous terminated container c not found."), "{error}");
    let error = cluster.fails(&["logs", "web", "-c", "x"]);
    assert!(error.contains("container x is not valid for pod web"), "{error}");
    let error = cluster.fails(&["get", "--raw", "/api/v1/namespaces/default/pods/web/log"]);
    assert!(error.contains("a container name must be specified for pod web, choose one of: [c d]"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_tunnels_both_ways_and_brings_the_exit_code_back() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    running_pod(&cluster, kubelet(&cluster, "n1").await).await;
    let mut command = cluster.command(&["exec", "-i", "web", "-c", "c", "--", "sh", "-c", "a b"]);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let output = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = "GET /exec/default/web/c?command=sh&command=-c&command=a+b&input=1&output=1&error=1 HTTP/1.1";
    assert_eq!(text, format!("{line}\nhello\n"), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_that_cannot_work_says_why() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let address = kubelet(&cluster, "n1").await;
    running_pod(&cluster, address).await;
    let error = cluster.fails(&["exec", "web", "-c", "x", "--", "true"]);
    assert!(error.contains("container x is not valid for pod web"), "{error}");
    // What the node says is passed on, whichever protocol was tried last.
    for web_sockets in ["true", "false"] {
        let mut command = cluster.command(&["exec", "web", "-c", "d", "--", "true"]);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", web_sockets);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("unable to upgrade connection: container not found (\"d\")"), "{error}");
    }
    let client = cluster.server.client(UserInfo::new("test", &["system:masters"]));
    let status = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
    Api::<Node>::all(client).patch_status("n1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let error = cluster.fails(&["exec", "web", "-c", "c", "--", "true"]);
    assert!(error.contains("error dialing backend: dial tcp 127.0.0.1:1: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_shows_another_nodes_certificate_gets_no_request() {
    let cluster = Cluster::start().await;
    running_pod(&cluster, kubelet(&cluster, "n2").await).await;
    let client = cluster.server.client(UserInfo::new("test", &["system:masters"]));
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let options = kube::api::LogParams { container: Some("c".to_owned()), ..Default::default() };
    let error = pods.logs("web", &options).await.unwrap_err().to_string();
    assert!(error.contains("error dialing backend") && error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_over_web_sockets_in_the_form_of_the_protocol() {
    let cluster = Cluster::start().await;
    running_pod(&cluster, kubelet(&cluster, "n1").await).await;
    let path = "/api/v1/namespaces/default/pods/web/log?container=c";
    let line = "GET /containerLogs/default/web/c? HTTP/1.1\n";
    for protocol in ["", "binary.k8s.io"] {
        let headers = [("sec-websocket-protocol", protocol)];
        let mut socket = web_socket(&cluster, path, &headers).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(""), "it begins with an empty message");
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(line));
        assert!(socket.next().await.unwrap().unwrap().is_close());
    }
    let mut socket = web_socket(&cluster, path, &[("sec-websocket-protocol", "base64.binary.k8s.io")]).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(""));
    let encoded = "R0VUIC9jb250YWluZXJMb2dzL2RlZmF1bHQvd2ViL2M/IEhUVFAvMS4xCg==";
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(encoded));
    let unknown = web_socket(&cluster, path, &[("sec-websocket-protocol", "x")]).await;
    assert_eq!(unknown.unwrap_err(), 403);
    let missing = web_socket(&cluster, &path.replace("web/", "other/"), &[]).await;
    assert_eq!(missing.unwrap_err(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_does_not_know_is_told_in_the_servers_words() {
    let cluster = Cluster::start().await;
    running_pod(&cluster, kubelet(&cluster, "n1").await).await;
    let get = |path: &str| {
        let head = "HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n";
        format!("GET /api/v1/namespaces/default/pods/{path} {head}")
    };
    let admin = Some(cluster.pki.admin());
    let gone = raw(&cluster, admin, &get("web/log?container=c&stream=Stderr")).await;
    assert!(gone.starts_with("HTTP/1.1 404"), "{gone}");
    assert!(gone.contains(r#""message":"the server could not find the requested resource ( pods/log web)""#), "{gone}");
    let plain = raw(&cluster, admin, &get("web/exec?container=c&command=a")).await;
    assert!(plain.starts_with("HTTP/1.1 400") && plain.contains("Upgrade request required"), "{plain}");
}
