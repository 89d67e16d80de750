//! Connections as pairs of SPDY streams: one for data, one for an error, which a request number brings together.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::place::Place;
use super::{Output, forward, port};
use crate::spdy::{self, Reset, Stream};

/// How long half a pair waits for its other half; the kubelet's number.
const PAIR_TIME_MAX: Duration = Duration::from_secs(30);
/// Streams that wait to be looked at. When it is full, the connection is not read.
const STREAMS: usize = 8;

impl Output for spdy::Output {
    async fn data(&self, bytes: Bytes) -> bool {
        self.send(bytes).await
    }
}

/// Serves a connection until it ends; then all its forwarded connections end.
pub(super) async fn serve<S>(socket: S, place: Arc<Place>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (sender, streams) = mpsc::channel(STREAMS);
    tokio::select! {
        served = spdy::serve(socket, sender) => served,
        () = pair_up(streams, place) => Ok(()),
    }
}

/// Half a pair.
struct Half {
    stream: Stream,
    since: Instant,
}

async fn pair_up(mut streams: mpsc::Receiver<Stream>, place: Arc<Place>) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut running = JoinSet::new();
    loop {
        let next_due = halves.values().map(|half| half.since + PAIR_TIME_MAX).min();
        tokio::select! {
            stream = streams.recv() => {
                let Some(stream) = stream else { return };
                if let Err(why) = check(&stream) {
                    tracing::debug!(why, "a stream of a port forward is refused");
                    stream.output().reset(Reset::Cancel).await;
                    continue;
                }
                stream.accept().await;
                let id = request_id(&stream);
                match halves.remove(&id) {
                    Some(half) if half.stream.header("streamtype") == stream.header("streamtype") => {
                        let kind = stream.header("streamtype").to_owned();
                        let text = format!("error processing stream for request {id}: {kind} stream already assigned");
                        report(&half.stream, &stream, &text).await;
                        halves.insert(id, half);
                    }
                    Some(half) => drop(running.spawn(run(half.stream, stream, Arc::clone(&place)))),
                    None => drop(halves.insert(id, Half { stream, since: Instant::now() })),
                }
            }
            Some(_) = running.join_next() => {}
            () = until(next_due) => {
                let now = Instant::now();
                let late: Vec<String> = halves.iter()
                    .filter(|(_, half)| half.since + PAIR_TIME_MAX <= now)
                    .map(|(id, _)| id.clone())
                    .collect();
                for id in late {
                    if let Some(half) = halves.remove(&id) {
                        let text = format!("(request={id}) timed out waiting for streams");
                        report(&half.stream, &half.stream, &text).await;
                    }
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Tells an error on whichever of the two can carry one, and ends the second.
async fn report(first: &Stream, second: &Stream, text: &str) {
    let carrier = [first, second].into_iter().find(|stream| stream.header("streamtype") == "error");
    if let Some(carrier) = carrier {
        carrier.output().send(Bytes::copy_from_slice(text.as_bytes())).await;
    }
    second.output().reset(Reset::Cancel).await;
}

fn check(stream: &Stream) -> Result<u16, String> {
    let text = stream.header("port");
    if text.is_empty() {
        return Err("\"port\" header is required".to_owned());
    }
    let port = port(text)?;
    match stream.header("streamtype") {
        "" => Err("\"streamType\" header is required".to_owned()),
        "data" | "error" => Ok(port),
        other => Err(format!("invalid stream type {other:?}")),
    }
}

/// What brings two streams together. Old clients give no number; theirs follow each other.
fn request_id(stream: &Stream) -> String {
    match (stream.header("requestid"), stream.header("streamtype")) {
        ("", "data") => stream.id().saturating_sub(2).to_string(),
        ("", _) => stream.id().to_string(),
        (id, _) => id.to_owned(),
    }
}

async fn run(first: Stream, second: Stream, place: Arc<Place>) {
    let is_data = first.header("streamtype") == "data";
    let (mut data, error) = if is_data { (first, second) } else { (second, first) };
    let Ok(port) = check(&data) else { return };
    let (output, errors, reset) = (data.output(), error.output(), data.reset.clone());
    let forwarded = tokio::select! {
        forwarded = forward(&place, port, &mut data.input, &output) => forwarded,
        () = reset.cancelled() => Ok(()),
    };
    match forwarded {
        Ok(()) => {
            output.close().await;
            errors.close().await;
        }
        Err(text) => {
            tracing::debug!(text, "a port could not be forwarded");
            errors.send(text.into()).await;
            errors.close().await;
            output.reset(Reset::Cancel).await;
        }
    }
}
