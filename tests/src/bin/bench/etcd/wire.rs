//! The client's end of an HTTP/2 connection on which one call of gRPC is made again and again: frames, windows and the
//! little of HPACK that it takes to send (RFC 9113, RFC 7541). Without I/O, and as cheap as can be, so that the server
//! is what is measured. Headers of answers are not read: an answer that failed is one without a message.

use anyhow::Context as _;
use bytes::{Buf as _, Bytes, BytesMut};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_LEN: usize = 9;
/// What nobody has to be asked for.
const FRAME_MAX: usize = 16_384;
const WINDOW_INITIAL: i64 = 65_535;
/// What the server may have under way to us: it never has to wait.
const WINDOW_OWN: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;

/// See the module.
pub(crate) struct Wire {
    /// What is to be written to the connection.
    pub out: Vec<u8>,
    path: &'static str,
    authority: String,
    /// The server has the headers in its table.
    known: bool,
    next_stream: u32,
    window: i64,
    stream_window: i64,
    /// Bytes of answers since the server was told that there is room for them again.
    taken: u32,
}

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A piece of the answer to a call.
    Data(u32, Bytes),
    /// The answer is complete.
    End(u32),
}

impl Wire {
    /// A connection for calls of this path.
    pub(crate) fn new(path: &'static str, authority: &str) -> Self {
        let mut out = PREFACE.to_vec();
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(WINDOW_OWN.to_be_bytes());
        frame(&mut out, (SETTINGS, 0), 0, &settings);
        frame(&mut out, (WINDOW_UPDATE, 0), 0, &WINDOW_OWN.to_be_bytes());
        let (window, stream_window) = (WINDOW_INITIAL, WINDOW_INITIAL);
        let authority = authority.to_owned();
        Self { out, path, authority, known: false, next_stream: 1, window, stream_window, taken: 0 }
    }

    /// Makes a call, if the server has room for it; its stream.
    pub(crate) fn call(&mut self, message: &[u8]) -> Option<u32> {
        let len = i64::try_from(message.len() + 5).ok()?;
        if len > self.window || len > self.stream_window {
            return None;
        }
        self.window -= len;
        let stream = self.next_stream;
        self.next_stream += 2;
        let headers = self.headers();
        frame(&mut self.out, (HEADERS, END_HEADERS), stream, &headers);
        // gRPC: not compressed, and how long it is.
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend(message);
        let mut pieces = body.chunks(FRAME_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_STREAM } else { 0 };
            frame(&mut self.out, (DATA, flags), stream, piece);
        }
        Some(stream)
    }

    /// The first time written out and put into the server's table, then by their places in it.
    fn headers(&mut self) -> Vec<u8> {
        const POST: u8 = 0x80 | 3;
        const HTTPS: u8 = 0x80 | 7;
        if self.known {
            // The newest entry of the table is 62.
            return vec![POST, HTTPS, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
        }
        self.known = true;
        let mut block = vec![POST, HTTPS, 0x40 | 4];
        text(&mut block, self.path);
        block.push(0x40 | 1);
        text(&mut block, &self.authority);
        block.push(0x40 | 31);
        text(&mut block, "application/grpc");
        block.push(0x40);
        text(&mut block, "te");
        text(&mut block, "trailers");
        block
    }

    /// Takes all whole frames out of `input`; what is to be answered goes into [`Wire::out`].
    pub(crate) fn hear(&mut self, input: &mut BytesMut, heard: &mut Vec<Heard>) -> anyhow::Result<()> {
        while input.len() >= HEADER_LEN {
            let len = usize::from(input[0]) << 16 | usize::from(input[1]) << 8 | usize::from(input[2]);
            if input.len() < HEADER_LEN + len {
                break;
            }
            let mut head = input.split_to(HEADER_LEN);
            head.advance(3);
            let (kind, flags, stream) = (head.get_u8(), head.get_u8(), head.get_u32() & (u32::MAX >> 1));
            self.take((kind, flags), stream, input.split_to(len).freeze(), heard)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        (kind, flags): (u8, u8),
        stream: u32,
        mut payload: Bytes,
        heard: &mut Vec<Heard>,
    ) -> anyhow::Result<()> {
        match kind {
            DATA => {
                self.give_room(payload.len());
                heard.push(Heard::Data(stream, payload));
            }
            SETTINGS if flags & ACK == 0 => {
                while payload.len() >= 6 {
                    let (name, value) = (payload.get_u16(), payload.get_u32());
                    if name == INITIAL_WINDOW_SIZE {
                        self.stream_window = value.into();
                    }
                }
                frame(&mut self.out, (SETTINGS, ACK), 0, &[]);
            }
            PING if flags & ACK == 0 => frame(&mut self.out, (PING, ACK), 0, &payload),
            WINDOW_UPDATE if stream == 0 && payload.len() >= 4 => self.window += i64::from(payload.get_u32()),
            RST_STREAM => anyhow::bail!("the server has broken off a call: {}", payload.escape_ascii()),
            GO_AWAY => anyhow::bail!("the server ends the connection: {}", payload.escape_ascii()),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            heard.push(Heard::End(stream));
        }
        Ok(())
    }

    fn give_room(&mut self, len: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if self.taken > WINDOW_OWN / 2 {
            let given = std::mem::take(&mut self.taken);
            frame(&mut self.out, (WINDOW_UPDATE, 0), 0, &given.to_be_bytes());
        }
    }
}

/// The message in the body of an answer.
pub(crate) fn message(body: &[u8]) -> anyhow::Result<&[u8]> {
    let (head, message) =
        body.split_at_checked(5).context("the call was refused: there is no message in the answer")?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    anyhow::ensure!(u32::try_from(message.len()) == Ok(len), "a message of {len} bytes has {}", message.len());
    Ok(message)
}

fn frame(out: &mut Vec<u8>, (kind, flags): (u8, u8), stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&len[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A string of HPACK, as it is. All of ours are short.
fn text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 127, "its length would take more than a byte");
    out.push(u8::try_from(text.len()).unwrap_or(126));
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, (kind, flags), stream, payload);
        out
    }

    #[test]
    fn frames_are_read_however_they_are_cut_and_settings_and_pings_are_answered() {
        let mut wire = Wire::new("/a.B/C", "here");
        wire.out.clear();
        let mut sent = framed(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]);
        sent.extend(framed(PING, 0, 0, b"12345678"));
        sent.extend(framed(DATA, 0, 1, b"abc"));
        sent.extend(framed(HEADERS, END_STREAM | END_HEADERS, 1, b"x"));
        let (mut input, mut heard) = (BytesMut::new(), Vec::new());
        for byte in sent {
            input.extend_from_slice(&[byte]);
            wire.hear(&mut input, &mut heard).expect("frames");
        }
        assert_eq!(heard, [Heard::Data(1, "abc".into()), Heard::End(1)]);
        assert_eq!(wire.out, [framed(SETTINGS, ACK, 0, b""), framed(PING, ACK, 0, b"12345678")].concat());
        assert_eq!(wire.stream_window, 256);
    }

    #[test]
    fn a_call_waits_for_the_servers_window() {
        let mut wire = Wire::new("/a.B/C", "here");
        let (big, mut heard) = (vec![0; 40_000], Vec::new());
        assert_eq!((wire.call(&big), wire.call(&big)), (Some(1), None));
        let update = framed(WINDOW_UPDATE, 0, 0, &40_000_u32.to_be_bytes());
        wire.hear(&mut BytesMut::from(&update[..]), &mut heard).expect("a frame");
        assert_eq!(wire.call(&big), Some(3));
    }

    #[test]
    fn an_answer_without_a_message_is_a_refusal() {
        assert_eq!(message(b"\0\0\0\0\x02ab").expect("a message"), b"ab");
        assert!(message(b"").is_err() && message(b"\0\0\0\0\x02a").is_err());
    }
}
