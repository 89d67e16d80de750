//! The streaming server: a client of exec, attach or port forwarding gets a place to connect to, for one connection,
//! for a minute. Who has not asked over the socket cannot guess it.
//!
//! Source: `k8s.io/cri-streaming/pkg/streaming`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use reeve_api::clock::SharedClock;
use reeve_streaming::port_forward::Place;
use reeve_streaming::remote::{self, Kind, StreamOptions};
use reeve_streaming::{Answer, Begun, port_forward, text};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{ACCEPT_PAUSE, Shared};

/// Places that wait for their connection; one more is refused.
const WAITING_MAX: usize = 1000;
/// How long a place waits.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Bytes of chance in a place's name.
const NAME_BYTES: usize = 16;
/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// Time a client has for a request's head.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// What is wanted by who will connect.
pub(super) enum Wanted {
    /// Streams of a container.
    Remote { container: String, kind: Kind, options: StreamOptions },
    /// Ports of a sandbox.
    Ports { sandbox: String },
}

struct Waiting {
    wanted: Wanted,
    until: Duration,
}

/// The places.
pub(crate) struct Streams {
    address: SocketAddr,
    clock: SharedClock,
    random: SystemRandom,
    waiting: Mutex<HashMap<String, Waiting>>,
}

impl Streams {
    pub(super) fn new(address: SocketAddr, clock: SharedClock) -> Self {
        Self { address, clock, random: SystemRandom::new(), waiting: Mutex::default() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A place to connect to; `None`: too many wait already.
    pub(super) fn offer(&self, verb: &str, wanted: Wanted) -> Option<String> {
        let mut bytes = [0; NAME_BYTES];
        self.random.fill(&mut bytes).ok()?;
        let name = URL_SAFE_NO_PAD.encode(bytes);
        let now = self.clock.monotonic();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            waiting.retain(|_, own| own.until > now);
        }
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        waiting.insert(name.clone(), Waiting { wanted, until: now + WAIT_MAX });
        Some(format!("http://{}/{verb}/{name}", self.address))
    }

    /// What is wanted there, once.
    fn take(&self, name: &str) -> Option<Wanted> {
        let taken = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(name)?;
        (taken.until > self.clock.monotonic()).then_some(taken.wanted)
    }
}

/// Serves for ever; its connections end with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let ended = CancellationToken::new();
    let _ends = ended.clone().drop_guard();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the streaming server could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (shared, ended, sessions) = (Arc::clone(&shared), ended.clone(), tasks.clone());
        tasks.spawn(async move {
            let served = ended.run_until_cancelled(connection(stream, shared, sessions, &ended)).await;
            if let Some(Err(error)) = served {
                tracing::debug!(%error, "a connection to the streaming server has ended");
            }
            drop(slot);
        });
    }
}

async fn connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    ended: &CancellationToken,
) -> Result<(), hyper::Error> {
    // Small frames of a terminal must not wait for each other; without it they do, and nothing else is lost.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, tasks, ended) = (Arc::clone(&shared), tasks.clone(), ended.clone());
        async move {
            let begun = begin(&shared, request).await;
            if let Some(session) = begun.session {
                tasks.spawn(async move {
                    ended.run_until_cancelled(session).await;
                });
            }
            Ok::<_, Infallible>(begun.answer)
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
}

async fn begin(shared: &Shared, request: Request<Incoming>) -> Begun {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let wanted = match parts.as_slice() {
        ["exec" | "attach" | "portforward", name] => shared.streams.take(name),
        _ => None,
    };
    match wanted {
        Some(Wanted::Remote { container, kind, options }) => {
            let engine = Arc::clone(&shared.engine);
            remote::serve(remote::Wanted { engine, container, kind, options }, request)
        }
        Some(Wanted::Ports { sandbox }) => {
            let place = Place::new(Arc::clone(&shared.engine), sandbox);
            port_forward::serve(std::future::ready(Ok::<_, Answer>(place)), request).await
        }
        None => text(StatusCode::NOT_FOUND, "404 page not found\n").into(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reeve_api::clock::ManualClock;

    use super::*;

    #[test]
    fn a_place_is_for_one_connection_and_for_a_minute() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let streams = Streams::new("127.0.0.1:7".parse().unwrap(), clock.clone());
        let offer = || {
            let url = streams.offer("exec", Wanted::Ports { sandbox: "s".to_owned() }).expect("room");
            url.strip_prefix("http://127.0.0.1:7/exec/").expect("a place").to_owned()
        };
        let (first, second) = (offer(), offer());
        assert!(first != second && streams.take(&first).is_some() && streams.take(&first).is_none());
        clock.advance(WAIT_MAX);
        assert!(streams.take(&second).is_none());
        let names: Vec<String> = (0..WAITING_MAX).map(|_| offer()).collect();
        assert_eq!(names.len(), WAITING_MAX);
        assert!(streams.offer("exec", Wanted::Ports { sandbox: "s".to_owned() }).is_none());
        clock.advance(WAIT_MAX);
        offer();
    }
}
