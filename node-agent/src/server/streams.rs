//! The remote command protocol over WebSocket: `v5.channel.k8s.io`, `v4.channel.k8s.io` and, for old clients,
//! `channel.k8s.io`.
//!
//! Every binary message begins with the number of its channel. Source: `k8s.io/apimachinery` `remotecommand`.

use http::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use reeve_engine::engine::TerminalSize;
use serde::Deserialize;
use serde_json::Value;

use super::logs::truth;

/// Channel numbers.
pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 only: the client closes the channel named in the next byte.
const CLOSE: u8 = 255;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exec,
    Attach,
}

/// Which streams are connected, and the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    pub(crate) command: Vec<String>,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

impl StreamOptions {
    /// Reads the query: the kubelet's names (`input`, `output`, `error`) and the API's (`stdin` …).
    pub(crate) fn of(pairs: &[(String, String)]) -> Self {
        let mut options = Self::default();
        for (key, value) in pairs {
            match key.as_str() {
                "command" => options.command.push(value.clone()),
                "input" | "stdin" => options.stdin = truth(value),
                "output" | "stdout" => options.stdout = truth(value),
                "error" | "stderr" => options.stderr = truth(value),
                "tty" => options.tty = truth(value),
                _ => {}
            }
        }
        // A terminal has one output.
        options.stderr &= !options.tty;
        options
    }
}

/// The best version both sides know.
pub(crate) fn protocol(headers: &HeaderMap) -> Option<&'static str> {
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    ["v5.channel.k8s.io", "v4.channel.k8s.io", OLDEST].into_iter().find(|known| offered.contains(known))
}

/// The protocol in which the last word is a text, and there is none when all is well.
const OLDEST: &str = "channel.k8s.io";

/// What a client is told last on the error channel; `status` is a `metav1.Status`.
pub(crate) fn last_word(protocol: &str, status: &Value) -> Option<String> {
    match protocol {
        OLDEST if status["status"] == "Success" => None,
        OLDEST => Some(status["message"].as_str().unwrap_or_default().to_owned()),
        _ => Some(status.to_string()),
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromClient<'m> {
    Stdin(&'m [u8]),
    CloseStdin,
    Resize(TerminalSize),
    /// Something that has no meaning here.
    Nothing,
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Reads one message.
pub(crate) fn from_client(message: &[u8]) -> FromClient<'_> {
    match message.split_first() {
        Some((&STDIN, data)) => FromClient::Stdin(data),
        Some((&CLOSE, [STDIN])) => FromClient::CloseStdin,
        Some((&RESIZE, json)) => match serde_json::from_slice::<Size>(json) {
            Ok(size) => FromClient::Resize(TerminalSize { width: size.width, height: size.height }),
            Err(_) => FromClient::Nothing,
        },
        _ => FromClient::Nothing,
    }
}

/// A message on a channel.
pub(crate) fn to_client(channel: u8, data: &[u8]) -> Vec<u8> {
    [&[channel], data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_by_their_channel() {
        for (message, meaning) in [
            (&b"\x00ls\n"[..], FromClient::Stdin(b"ls\n")),
            (b"\x00", FromClient::Stdin(b"")),
            (b"\xff\x00", FromClient::CloseStdin),
            (b"\xff\x01", FromClient::Nothing),
            (b"\x04{\"Width\":80,\"Height\":24}", FromClient::Resize(TerminalSize { width: 80, height: 24 })),
            (b"\x04{", FromClient::Nothing),
            (b"", FromClient::Nothing),
        ] {
            assert_eq!(from_client(message), meaning, "{message:?}");
        }
    }

    #[test]
    fn the_oldest_version_hears_of_failures_only_and_as_text() {
        let failed = serde_json::json!({"status": "Failure", "message": "it broke"});
        let well = serde_json::json!({"status": "Success"});
        assert_eq!(last_word("channel.k8s.io", &failed).as_deref(), Some("it broke"));
        assert_eq!(last_word("channel.k8s.io", &well), None);
        assert_eq!(last_word("v4.channel.k8s.io", &well), Some(well.to_string()));
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let chosen = |offer: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
            protocol(&headers)
        };
        assert_eq!(chosen("v4.channel.k8s.io, v5.channel.k8s.io"), Some("v5.channel.k8s.io"));
        assert_eq!(chosen("v4.channel.k8s.io"), Some("v4.channel.k8s.io"));
        assert_eq!(chosen("channel.k8s.io"), Some("channel.k8s.io"));
        assert_eq!(chosen("SPDY/3.1"), None);
    }
}
