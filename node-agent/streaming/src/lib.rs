//! What the kubelet's streaming server speaks: commands, attached streams and forwarded ports on upgraded connections.
//!
//! The node agent's server and the CRI server of `reeve engine` share it: which container or pod is meant they find
//! out themselves, then they hand the request over and get the answer, and what is to run beside it. What is not here:
//! listening, TLS, and who may ask.

pub mod client;
pub mod port_forward;
pub mod remote;
mod spdy;
mod upgrade;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};

/// A response of a streaming server.
pub type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// What became of a request.
pub struct Begun {
    /// What to answer.
    pub answer: Answer,
    /// What has to run until it ends, once the answer is given; `None`: the request was refused.
    pub session: Option<BoxFuture<'static, ()>>,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun").field("status", &self.answer.status()).finish_non_exhaustive()
    }
}

impl From<Answer> for Begun {
    /// Nothing begins.
    fn from(answer: Answer) -> Self {
        Self { answer, session: None }
    }
}

/// A short answer.
pub fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    let body = Full::new(Bytes::from(body.into())).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

/// The pairs of a query, decoded.
#[must_use]
pub fn query(query: Option<&str>) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let hex = rest.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                bytes = rest.get(2..).unwrap_or_default();
            }
            None => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Source: Kubernetes `Convert_Slice_string_To_bool`: anything but a clear no is a yes.
#[must_use]
pub fn truth(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let pairs = query(Some("command=sh&command=-c&command=echo+a%26b%20c&tty=1&x"));
        let values: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        assert_eq!(values, ["command:sh", "command:-c", "command:echo a&b c", "tty:1", "x:"]);
    }
}
