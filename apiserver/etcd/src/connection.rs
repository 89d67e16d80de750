//! One connection of a client of etcd: HTTP/2 and, on top of it, gRPC.
//!
//! All calls of a connection are answered by its one task: what has come with one read is looked at, then answered with
//! one write, and no call has to be handed from thread to thread. That is most of what a call costs here, so those
//! about keys, of which there are many and which are short, are answered without anything in between. All others go
//! through tonic's services ([`Routes`]). Ranges of many keys are read and encoded elsewhere: they must not make the
//! others wait.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream, SendStream};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use prost::Message;
use reeve_proto::etcd::etcdserverpb::RangeRequest;
use reeve_proto::etcd::etcdserverpb::kv_server::Kv as _;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;

use crate::keys::Keys;
use crate::server::MESSAGE_BYTES_MAX;

/// Calls at once on one connection, watches among them: a client keeps all its watches in one or two.
const CALLS_MAX: u32 = 1024;
/// What a client may send ahead on one call.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Answers are gathered up to this before they are encrypted and sent.
const WRITE_BYTES: usize = 32 * 1024;
/// How long the beginning of HTTP/2 may take.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a silent client is asked whether it is still there, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT_MAX: Duration = Duration::from_secs(20);
/// Before the message: whether it is compressed, and how long it is.
const PREFIX_LEN: usize = 5;
const GRPC: &str = "application/grpc";

/// Who answers calls.
pub(crate) struct Calls {
    pub(crate) keys: Keys,
    pub(crate) others: Routes,
}

/// Answers all calls of a connection, to its end.
pub(crate) async fn speak(stream: impl AsyncRead + AsyncWrite + Send + Unpin, calls: Arc<Calls>) -> Result<(), String> {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(CALLS_MAX)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES);
    let begun = builder.handshake::<_, Bytes>(BufWriter::with_capacity(WRITE_BYTES, stream));
    let begun = tokio::time::timeout(BEGIN_TIME_MAX, begun).await.map_err(|_| "HTTP/2 did not begin in time")?;
    let mut connection = begun.map_err(|err| err.to_string())?;
    let mut dead = pin!(dead(connection.ping_pong()));
    let mut under_way = FuturesUnordered::new();
    poll_fn(|cx| {
        if dead.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err("the client does not answer any more".to_owned()));
        }
        loop {
            // Sends what has been answered, and takes in all there is, before anything is looked at.
            while let Poll::Ready(accepted) = pin!(connection.accept()).poll(cx) {
                match accepted {
                    Some(Ok((request, respond))) => under_way.push(answer(Arc::clone(&calls), request, respond)),
                    Some(Err(err)) => return Poll::Ready(Err(err.to_string())),
                    None => return Poll::Ready(Ok(())),
                }
            }
            let mut answered = false;
            while let Poll::Ready(Some(())) = under_way.poll_next_unpin(cx) {
                answered = true;
            }
            if !answered {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Ends when the client does not answer any more.
async fn dead(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let answered = tokio::time::timeout(PING_WAIT_MAX, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}

/// One call. What cannot be sent any more is of no use to anybody: the connection has an error of its own then.
async fn answer(calls: Arc<Calls>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if head.method != Method::POST || !kind.starts_with(GRPC.as_bytes()) {
        let mut refused = Response::new(());
        *refused.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let _ = respond.send_response(refused, true);
        return;
    }
    let (calls, keys) = (&calls, &calls.keys);
    let _ = match head.uri.path() {
        "/etcdserverpb.KV/Range" => {
            unary(body, respond, |request: RangeRequest| async move {
                let single = request.range_end.is_empty();
                if single { encoded(keys.range(own(request)).await) } else { wide(calls, request).await }
            })
            .await
        }
        "/etcdserverpb.KV/Put" => {
            unary(body, respond, |request| async move { encoded(keys.put(own(request)).await) }).await
        }
        "/etcdserverpb.KV/Txn" => {
            unary(body, respond, |request| async move { encoded(keys.txn(own(request)).await) }).await
        }
        "/etcdserverpb.KV/DeleteRange" => {
            unary(body, respond, |request| async move { encoded(keys.delete_range(own(request)).await) }).await
        }
        _ => hand_on(calls.others.clone(), (head, body), respond).await,
    };
}

fn own<Q>(request: Q) -> tonic::Request<Q> {
    tonic::Request::new(request)
}

/// A range of many keys is not read on the connection's task.
async fn wide(calls: &Arc<Calls>, request: RangeRequest) -> Result<Bytes, Status> {
    let calls = Arc::clone(calls);
    let read = tokio::spawn(async move { encoded(calls.keys.range(own(request)).await) });
    read.await.map_err(|err| Status::internal(err.to_string()))?
}

/// An answer as it is sent.
fn encoded<A: Message>(answer: Result<tonic::Response<A>, Status>) -> Result<Bytes, Status> {
    let answer = answer?.into_inner();
    let len = answer.encoded_len();
    let Ok(told) = u32::try_from(len) else { return Err(Status::out_of_range("the answer is too large")) };
    let mut out = BytesMut::with_capacity(PREFIX_LEN + len);
    out.put_u8(0);
    out.put_u32(told);
    answer.encode_raw(&mut out);
    Ok(out.freeze())
}

/// A call with one message each way. A call that the client takes back is not carried on.
async fn unary<Q: Message + Default, F: Future<Output = Result<Bytes, Status>>>(
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    handle: impl FnOnce(Q) -> F,
) -> Result<(), h2::Error> {
    let outcome = {
        let mut answered = pin!(async move { handle(read(body).await?).await });
        poll_fn(|cx| match answered.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await
    };
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    match outcome {
        Some(Ok(message)) => {
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(message, false)?;
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
            stream.send_trailers(trailers)
        }
        Some(Err(status)) => {
            let fitting = |status: &Status, headers: &mut HeaderMap| status.add_header(headers);
            if fitting(&status, head.headers_mut()).is_err() {
                let _ = fitting(&Status::new(status.code(), ""), head.headers_mut());
            }
            respond.send_response(head, true).map(drop)
        }
        None => Ok(()),
    }
}

/// The one message of a call. It is copied into memory of its own: what the store keeps of it must not keep alive what
/// else came with the same read.
async fn read<Q: Message + Default>(mut body: RecvStream) -> Result<Q, Status> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|err| Status::from_error(Box::new(err)))?;
        whole.extend_from_slice(&piece);
        check_length(&whole)?;
        let _ = body.flow_control().release_capacity(piece.len()); // fails when the connection does
    }
    let Some((prefix, message)) = whole.split_at_checked(PREFIX_LEN) else {
        return Err(Status::internal("the call has no message"));
    };
    if prefix[0] != 0 {
        return Err(Status::unimplemented("grpc: compressed messages are not taken"));
    }
    if message.len() != told(prefix) {
        return Err(Status::internal(format!("a message of {} bytes has {}", told(prefix), message.len())));
    }
    let message = whole.freeze().slice(PREFIX_LEN..);
    Q::decode(message).map_err(|err| Status::internal(format!("grpc: error unmarshalling request: {err}")))
}

/// How long a message is going to be.
fn told(prefix: &[u8]) -> usize {
    prefix.get(1..PREFIX_LEN).map_or(0, |len| len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// No more is taken in than the message is going to have, and that not if it is too much; the words are those of
/// etcd's own library.
fn check_length(whole: &[u8]) -> Result<(), Status> {
    let len = told(whole);
    if len > MESSAGE_BYTES_MAX {
        let text = format!("grpc: received message larger than max ({len} vs. {MESSAGE_BYTES_MAX})");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    if whole.len() > PREFIX_LEN + len {
        return Err(Status::internal(format!("a message of {len} bytes has {}", whole.len() - PREFIX_LEN)));
    }
    Ok(())
}

/// What a client sends on a call that tonic answers.
struct Sent(RecvStream);

impl Body for Sent {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(data) = ready!(self.0.poll_data(cx)?) else { return Poll::Ready(None) };
        let _ = self.0.flow_control().release_capacity(data.len()); // fails when the connection does
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// A call that tonic answers.
async fn hand_on(
    mut others: Routes,
    (head, body): (Parts, RecvStream),
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut called = pin!(others.call(Request::from_parts(head, Sent(body))));
    let answered = poll_fn(|cx| match called.as_mut().poll(cx) {
        Poll::Ready(Ok(answered)) => Poll::Ready(Some(answered)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let Some(answered) = answered.await else { return Ok(()) };
    let (head, mut body) = answered.into_parts();
    let ended = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), ended)?;
    if ended {
        return Ok(());
    }
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => stream.poll_reset(cx).map(|_| None),
        });
        match frame.await {
            None => return Ok(()), // the client has taken it back
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => send(&mut stream, data).await?,
                Err(frame) => return frame.into_trailers().map_or(Ok(()), |trailers| stream.send_trailers(trailers)),
            },
            Some(Some(Err(_))) => {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(None) => return stream.send_data(Bytes::new(), true),
        }
    }
}

/// Sends as the client has room for it.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) }; // it was taken back
        let piece = data.split_to(room?.min(data.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}
