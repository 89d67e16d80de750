//! A server that only speaks HTTP/1.1 over TLS, with the libraries and the settings of the API server, and answers from
//! memory what the bench asks an API server for: what no API server on this machine can stay below. It runs as a
//! process of its own (`bench --bare FOLDER`), so that its CPU time can be told from the generator's.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::api::Target;
use crate::http::Server;

const KUBECONFIG: &str = "bare.kubeconfig";
/// Events that may wait for one watcher; the bench sends one at a time.
const EVENTS_MAX: usize = 16;

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// What it holds: objects by their paths, and who watches.
#[derive(Default)]
struct State {
    objects: Mutex<HashMap<String, Bytes>>,
    watchers: Mutex<Vec<mpsc::Sender<Bytes>>>,
}

/// The process; it ends when this is dropped.
pub(crate) struct Bare {
    child: Child,
    /// To be loaded like an API server.
    pub target: Target,
}

impl Bare {
    /// Starts it; its certificates go into `folder`.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start the bare server")?;
        let mut ready = [0];
        let mut said = child.stdout.take().context("its output")?;
        said.read_exact(&mut ready).context("the bare server does not start")?;
        let server = Server::of(&folder.join(KUBECONFIG))?;
        Ok(Self { target: Target { server, pid: child.id() }, child })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // which ends it
        let _ = self.child.wait();
    }
}

/// The process itself: serves until its input ends.
pub(crate) fn serve(folder: &Path) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let acceptor = certify(folder, &format!("https://{}", listener.local_addr()?))?;
        tokio::spawn(accept(listener, acceptor));
        std::io::stdout().write_all(b"r")?;
        std::io::stdout().flush()?;
        let _ = tokio::io::stdin().read(&mut [0]).await;
        Ok(())
    })
}

/// A CA, a server's and a client's certificate; the kubeconfig that names them.
fn certify(folder: &Path, url: &str) -> anyhow::Result<TlsAcceptor> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "bench");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let leaf = |names: Vec<String>| {
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>((CertificateParams::new(names)?.signed_by(&key, &issuer)?, key))
    };
    let (server, server_key) = leaf(vec!["127.0.0.1".to_owned()])?;
    let (client, client_key) = leaf(vec!["bench".to_owned()])?;
    let files = [("ca", ca_certificate.pem()), ("crt", client.pem()), ("key", client_key.serialize_pem())];
    let path = |name: &str| folder.join(format!("bare.{name}"));
    for (name, text) in files {
        std::fs::write(path(name), text)?;
    }
    let kubeconfig = serde_json::json!({
        "clusters": [{"cluster": {"server": url, "certificate-authority": path("ca")}}],
        "users": [{"user": {"client-certificate": path("crt"), "client-key": path("key")}}],
    });
    std::fs::write(folder.join(KUBECONFIG), kubeconfig.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_certificate.der().clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
    let key = PrivateKeyDer::Pkcs8(server_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![server.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor) -> anyhow::Result<()> {
    let state = Arc::new(State::default());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let stream = TokioIo::new(acceptor.accept(stream).await?);
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            http1::Builder::new().serve_connection(stream, service).await?;
            anyhow::Ok(())
        });
    }
}

/// Reads and writes the map, without a look at anything.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if parts.uri.query() == Some("watch=true") {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        locked(&state.watchers).push(sender);
        let events = futures::stream::unfold(events, |mut events| async { Some((events.recv().await?, events)) });
        return Ok(Response::new(StreamBody::new(events.map(|event| Ok(Frame::data(event)))).boxed_unsync()));
    }
    let body = body.collect().await?.to_bytes();
    let text = match parts.method {
        Method::GET if parts.uri.query().is_some() => list(&state, &path),
        Method::GET => locked(&state.objects).get(&path).cloned().unwrap_or_default(),
        Method::DELETE => {
            locked(&state.objects).retain(|object, _| !object.starts_with(&path));
            Bytes::new()
        }
        _ => {
            let path = if parts.method == Method::POST { format!("{path}/{}", name(&body)) } else { path };
            let event = Bytes::from([&b"{\"type\":\"MODIFIED\",\"object\":"[..], &body, b"}\n"].concat());
            // A full queue is that of a watcher that has gone.
            locked(&state.watchers).retain(|watcher| watcher.try_send(event.clone()).is_ok());
            locked(&state.objects).insert(path, body.clone());
            body
        }
    };
    Ok(Response::new(Full::new(text).boxed_unsync()))
}

fn list(state: &State, path: &str) -> Bytes {
    let objects = locked(&state.objects);
    let texts: Vec<&[u8]> =
        objects.iter().filter(|(object, _)| object.starts_with(path)).map(|(_, text)| &text[..]).collect();
    texts.concat().into()
}

fn name(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let name = text.split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next());
    name.unwrap_or_default().to_owned()
}

fn locked<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
