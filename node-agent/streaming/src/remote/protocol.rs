//! Versions of the remote command protocol, and what they say on each channel. Pure.
//!
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand`, and `wsstream` of `k8s.io/streaming` for WebSockets.

use bytes::Bytes;
use reeve_engine::engine::TerminalSize;
use serde::Deserialize;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::truth;
use crate::upgrade::{from_channel, to_channel};

/// Channel numbers.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 only: the client closes the channel named in the next byte.
const CLOSE: u8 = 255;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command of its own.
    Exec,
    /// The container's first process.
    Attach,
}

/// Which streams are connected, and the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// The command; none for [`Kind::Attach`].
    pub command: Vec<String>,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error; not with a terminal.
    pub stderr: bool,
    /// There is a terminal.
    pub tty: bool,
}

impl StreamOptions {
    /// Reads the query: the kubelet's names (`input`, `output`, `error`) and the API's (`stdin` …).
    #[must_use]
    pub fn of(pairs: &[(String, String)]) -> Self {
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

    /// Whether any stream is asked for; without one there is nothing to do.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// The last word is a text, and there is none when all is well. Over SPDY there is none at all.
    V1,
    V2,
    /// Tells the size of the terminal.
    V3,
    /// The last word is a `metav1.Status`.
    V4,
    /// The client can close its input. WebSocket only.
    V5,
}

impl Version {
    /// What the versions are called over SPDY, the newest first.
    pub(super) const SPDY_NAMES: [&'static str; 4] =
        ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

    /// The version of that name; the oldest has none of its own.
    pub(super) fn of(name: &str) -> Self {
        match name.split_once('.').map(|(version, _)| version) {
            Some("v5") => Self::V5,
            Some("v4") => Self::V4,
            Some("v3") => Self::V3,
            Some("v2") => Self::V2,
            _ => Self::V1,
        }
    }

    /// What a client is told last on the error channel; `status` is a `metav1.Status`.
    pub(super) fn last_word(self, status: &Value) -> Option<String> {
        if self >= Self::V4 {
            return Some(status.to_string());
        }
        let is_well = status["status"] == "Success";
        (!is_well).then(|| status["message"].as_str().unwrap_or_default().to_owned())
    }
}

/// How channels go through a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) version: Version,
    /// Messages are texts: a digit for the channel, then base64.
    pub(super) is_base64: bool,
}

const NAMES: [&str; 4] = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
const NEWEST: &str = "v5.channel.k8s.io";

impl Channels {
    /// The newest version if it is offered, else the first offer that is known, and its name. Who offers nothing speaks
    /// the oldest. `None`: nothing that is offered is known.
    pub(super) fn choose(offered: &[&str]) -> Option<(Option<&'static str>, Self)> {
        if offered.is_empty() {
            return Some((None, Self { version: Version::V1, is_base64: false }));
        }
        let known = offered.iter().find_map(|own| NAMES.into_iter().find(|known| known == own));
        let chosen = if offered.contains(&NEWEST) { Some(NEWEST) } else { known }?;
        Some((Some(chosen), Self { version: Version::of(chosen), is_base64: chosen.contains("base64") }))
    }

    /// A message on a channel.
    pub(super) fn to_client(self, channel: u8, data: &[u8]) -> Message {
        to_channel(self.is_base64, channel, data)
    }

    /// Reads one message.
    pub(super) fn read_from_client(self, message: &Bytes) -> FromClient {
        let Some((&channel, data)) = message.split_first() else { return FromClient::Nothing };
        if self.version == Version::V5 && channel == CLOSE {
            return match data {
                [STDIN] => FromClient::CloseStdin,
                [STDOUT | STDERR | ERROR | RESIZE] => FromClient::Nothing,
                _ => FromClient::Nonsense,
            };
        }
        match from_channel(self.is_base64, message) {
            Some((STDIN, data)) => FromClient::Stdin(data),
            Some((RESIZE, data)) => FromClient::Sizes(data),
            _ => FromClient::Nothing,
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FromClient {
    Stdin(Bytes),
    CloseStdin,
    /// A piece of the stream of sizes.
    Sizes(Bytes),
    /// Something that has no meaning here.
    Nothing,
    /// Something that breaks the protocol: the connection ends.
    Nonsense,
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Longest word about the terminal's size.
const SIZE_BYTES_MAX: usize = 1024;

/// Reads sizes of the terminal: JSON texts, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    text: Vec<u8>,
}

impl Sizes {
    /// The sizes that are complete with this piece; `Err`: what stands there is none.
    pub(super) fn read(&mut self, piece: &[u8]) -> Result<Vec<TerminalSize>, serde_json::Error> {
        self.text.extend_from_slice(piece);
        let mut texts = serde_json::Deserializer::from_slice(&self.text).into_iter::<Size>();
        let mut sizes = Vec::new();
        let mut read = 0;
        while let Some(next) = texts.next() {
            match next {
                Ok(size) => sizes.push(TerminalSize { width: size.width, height: size.height }),
                Err(error) if error.is_eof() && self.text.len() - read <= SIZE_BYTES_MAX => break,
                Err(error) => return Err(error),
            }
            read = texts.byte_offset();
        }
        self.text.drain(..read);
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(version: Version, is_base64: bool) -> Channels {
        Channels { version, is_base64 }
    }

    #[test]
    fn messages_are_read_by_their_channel() {
        let (newest, old) = (channels(Version::V5, false), channels(Version::V4, false));
        let read = |channels: Channels, message: &'static [u8]| channels.read_from_client(&Bytes::from_static(message));
        for (message, meaning) in [
            (&b"\x00ls\n"[..], FromClient::Stdin("ls\n".into())),
            (b"\x00", FromClient::Stdin("".into())),
            (b"\xff\x00", FromClient::CloseStdin),
            (b"\xff\x01", FromClient::Nothing),
            (b"\xff\x09", FromClient::Nonsense),
            (b"\xff", FromClient::Nonsense),
            (b"\x04{", FromClient::Sizes("{".into())),
            (b"\x01a", FromClient::Nothing),
            (b"", FromClient::Nothing),
        ] {
            assert_eq!(read(newest, message), meaning, "{message:?}");
        }
        assert_eq!(read(old, b"\xff\x00"), FromClient::Nothing, "only the newest can close");
        let base64 = channels(Version::V4, true);
        assert_eq!(read(base64, b"0Zm9vCg=="), FromClient::Stdin("foo\n".into()));
        assert_eq!(read(base64, b"0!"), FromClient::Nothing);
        assert_eq!(base64.to_client(STDOUT, b"\n"), Message::text("1Cg=="));
        assert_eq!(newest.to_client(STDOUT, b"\n"), Message::binary(&b"\x01\n"[..]));
    }

    #[test]
    fn old_versions_hear_of_failures_only_and_as_text() {
        let failed = serde_json::json!({"status": "Failure", "message": "it broke"});
        let well = serde_json::json!({"status": "Success"});
        for version in [Version::V1, Version::V2, Version::V3] {
            assert_eq!(version.last_word(&failed).as_deref(), Some("it broke"));
            assert_eq!(version.last_word(&well), None);
        }
        assert_eq!(Version::V4.last_word(&well), Some(well.to_string()));
    }

    #[test]
    fn the_newest_is_chosen_and_else_what_the_client_likes_best() {
        let chosen = |offer: &[&str]| Channels::choose(offer).map(|(name, _)| name);
        assert_eq!(chosen(&["v4.channel.k8s.io", "v5.channel.k8s.io"]), Some(Some("v5.channel.k8s.io")));
        assert_eq!(chosen(&["x", "channel.k8s.io", "v4.channel.k8s.io"]), Some(Some("channel.k8s.io")));
        assert_eq!(chosen(&["v4.base64.channel.k8s.io"]), Some(Some("v4.base64.channel.k8s.io")));
        assert_eq!(chosen(&[]), Some(None));
        assert_eq!(chosen(&["SPDY/3.1"]), None);
        assert!(Channels::choose(&["base64.channel.k8s.io"]).is_some_and(|(_, own)| own.is_base64));
    }

    #[test]
    fn sizes_follow_each_other_however_they_are_cut() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.read(br#"{"Width":80,"#).unwrap(), []);
        let read = sizes.read(br#""Height":24}{"Width":1,"Height":2} {"#).unwrap();
        assert_eq!(read, [TerminalSize { width: 80, height: 24 }, TerminalSize { width: 1, height: 2 }]);
        assert!(sizes.read(b"x").is_err());
        assert!(Sizes::default().read(&[b' '; 2 * SIZE_BYTES_MAX]).is_ok());
        assert!(Sizes::default().read(format!("{{\"Width\": {}", " ".repeat(SIZE_BYTES_MAX)).as_bytes()).is_err());
    }
}
