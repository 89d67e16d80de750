//! gRPC probes: one `grpc.health.v1.Health/Check` over plain HTTP/2, as the kubelet makes it.
//!
//! Source of the protocol: gRPC "PROTOCOL-HTTP2" and `grpc/health/v1/health.proto`; of the texts: kubelet
//! `pkg/probe/grpc`. What is not here: TLS, which the kubelet does not speak to probes either.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Outcome;
use crate::pod::backoff::go_duration;

/// Most of an answer that is read; a health answer has seven bytes.
const ANSWER_MAX: usize = 4096;
/// Pause after a refused connection; gRPC's first, without its jitter.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// Bytes before a message: a flag "compressed" and the length.
const PREFIX_LEN: usize = 5;

/// gRPC's status codes by number, in Go's words.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNKNOWN: usize = 2;
const UNIMPLEMENTED: usize = 12;
const UNAVAILABLE: usize = 14;

/// `HealthCheckResponse.ServingStatus` by number.
const SERVING_STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// A call that gRPC did not carry out.
#[derive(Debug, PartialEq, Eq)]
struct RpcError {
    code: usize,
    message: String,
}

impl RpcError {
    fn new(code: usize, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Probes the service at `port` of the pod; `service` may be empty: the server as a whole.
pub(crate) async fn probe(ip: IpAddr, port: u16, service: &str, limit: Duration) -> Outcome {
    let address = std::net::SocketAddr::new(ip, port);
    let clock = tokio::time::Instant::now();
    let Ok(stream) = timeout(limit, connect(address)).await else {
        let limit = go_duration(limit);
        return Outcome::Failure(format!(
            "timeout: failed to connect service \"{address}\" within {limit}: context deadline exceeded"
        ));
    };
    match timeout(limit.saturating_sub(clock.elapsed()), check(stream, address, service)).await {
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {}", go_duration(limit))),
        Ok(Ok(SERVING)) => Outcome::Success,
        Ok(Ok(status)) => {
            let name = usize::try_from(status).ok().and_then(|status| SERVING_STATUS.get(status));
            let name = name.map_or_else(|| status.to_string(), |name| (*name).to_owned());
            Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
        Ok(Err(RpcError { code: UNIMPLEMENTED, message })) => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Err(RpcError { code, message })) => {
            let code = CODES.get(code).map_or_else(|| format!("Code({code})"), |code| (*code).to_owned());
            Outcome::Failure(format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}"))
        }
    }
}

/// Connects, however often it takes: gRPC's client tries until its time is over.
async fn connect(address: std::net::SocketAddr) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            return stream;
        }
        sleep(RECONNECT_AFTER).await;
    }
}

/// One call; the number of the serving status.
async fn check(stream: TcpStream, address: std::net::SocketAddr, service: &str) -> Result<u64, RpcError> {
    let unavailable = |error: hyper::Error| RpcError::new(UNAVAILABLE, error.to_string());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(unavailable)?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36 grpc-go")
        .body(Full::new(message(service)))
        .map_err(|error| RpcError::new(UNKNOWN, error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(unavailable)?;
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err(RpcError::new(
                UNKNOWN,
                format!("unexpected HTTP status code received from server: {}", http_status(head.status)),
            ));
        }
        // An error may come without a body, its status among the headers.
        if let Some(error) = rpc_status(&head.headers) {
            return Err(error);
        }
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| RpcError::new(UNAVAILABLE, error.to_string()))?;
        if let Some(error) = body.trailers().and_then(rpc_status) {
            return Err(error);
        }
        serving_status(&body.to_bytes())
    };
    tokio::pin!(exchange);
    // The connection makes progress only while it is polled; it ends by itself or with the exchange.
    tokio::select! {
        result = &mut exchange => result,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(unavailable(error)),
        },
    }
}

fn http_status(status: StatusCode) -> String {
    format!("{} ({})", status.as_u16(), status.canonical_reason().unwrap_or_default())
}

/// What `grpc-status` says, if it says that the call failed.
fn rpc_status(headers: &HeaderMap) -> Option<RpcError> {
    let code: usize = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").and_then(|value| value.to_str().ok()).unwrap_or_default();
    (code != 0).then(|| RpcError::new(code, percent_decoded(message)))
}

/// `grpc-message` is percent-encoded.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `HealthCheckRequest { string service = 1 }` with its prefix.
fn message(service: &str) -> Bytes {
    let mut body = BytesMut::new();
    if !service.is_empty() {
        body.put_u8(0x0a);
        put_varint(&mut body, service.len() as u64);
        body.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(PREFIX_LEN + body.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    message.put(body);
    message.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1 }`; proto3 leaves a zero out.
fn serving_status(bytes: &[u8]) -> Result<u64, RpcError> {
    let broken = || RpcError::new(13, "grpc: error while marshaling: the answer is no HealthCheckResponse");
    let (prefix, body) = bytes.split_at_checked(PREFIX_LEN).ok_or_else(broken)?;
    if prefix.first() != Some(&0) {
        return Err(broken());
    }
    match body.split_first() {
        None => Ok(0),
        Some((0x08, value)) => take_varint(value).ok_or_else(broken),
        Some(_) => Err(broken()),
    }
}

fn put_varint(bytes: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    bytes.put_u8(u8::try_from(value).unwrap_or(0));
}

fn take_varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use tokio::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(5);

    /// A health server of one service, `db`; `status` is what it says of it.
    async fn server(status: u8) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(move |request| answer(request, status));
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
            }
        });
        port
    }

    async fn answer(
        request: Request<Incoming>,
        status: u8,
    ) -> Result<Response<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, std::io::Error>>>>, hyper::Error>
    {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["te"], "trailers");
        let asked = request.into_body().collect().await?.to_bytes();
        let mut trailers = HeaderMap::new();
        let mut frames = Vec::new();
        if asked == message("db") {
            let body = if status == 0 { vec![0, 0, 0, 0, 0] } else { vec![0, 0, 0, 0, 2, 8, status] };
            frames.push(Ok(Frame::data(body.into())));
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
        } else {
            trailers.insert("grpc-status", HeaderValue::from_static("5"));
            trailers.insert("grpc-message", HeaderValue::from_static("unknown%20service"));
        }
        frames.push(Ok(Frame::trailers(trailers)));
        let body = StreamBody::new(futures::stream::iter(frames));
        Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    }

    async fn probed(port: u16, service: &str, limit: Duration) -> Outcome {
        probe("127.0.0.1".parse().unwrap(), port, service, limit).await
    }

    #[tokio::test]
    async fn only_a_service_that_serves_is_healthy() {
        assert_eq!(probed(server(1).await, "db", SECOND).await, Outcome::Success);
        for (status, name) in [(2, "NOT_SERVING"), (0, "UNKNOWN")] {
            let outcome = probed(server(status).await, "db", SECOND).await;
            assert_eq!(outcome, Outcome::Failure(format!("service unhealthy (responded with \"{name}\")")));
        }
    }

    #[tokio::test]
    async fn what_went_wrong_is_told_as_go_tells_it() {
        let unknown = probed(server(1).await, "web", SECOND).await;
        let text = "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service";
        assert_eq!(unknown, Outcome::Failure(text.to_owned()));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let outcome = probed(port, "", Duration::from_millis(50)).await;
        assert_eq!(outcome, Outcome::Failure("timeout: health rpc did not complete within 50ms".to_owned()));
        drop(silent);
        let refused = probed(port, "", Duration::from_millis(50)).await;
        let text =
            format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 50ms: context deadline exceeded");
        assert_eq!(refused, Outcome::Failure(text));
    }

    #[test]
    fn messages_are_those_of_the_health_protocol() {
        assert_eq!(message(""), [0, 0, 0, 0, 0].as_slice());
        assert_eq!(message("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b'].as_slice());
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Ok(SERVING));
        for broken in [&[0, 0][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 9], &[0, 0, 0, 0, 2, 8, 0x80]] {
            assert!(serving_status(broken).is_err(), "{broken:?}");
        }
    }
}
