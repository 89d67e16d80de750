//! Frames of SPDY/3.1: from bytes and to bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::headers::{Packer, Unpacker};

/// Longest control frame that is read; a client's headers take some hundred bytes.
const CONTROL_MAX: usize = 64 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const HEADERS: u16 = 8;

const FIN: u8 = 1;
const VERSION: u16 = 0x8003;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Opens a stream; `last`: and sends nothing on it.
    Open { id: u32, headers: Vec<(String, String)>, last: bool },
    /// So many bytes of data follow, and have to be read.
    Data { id: u32, len: usize, last: bool },
    /// Ends a stream at once.
    Reset { id: u32 },
    /// Wants to hear the same number again.
    Ping { id: u32 },
    /// Opens no more streams.
    GoAway,
    /// Something that needs no answer.
    Other,
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_be_bytes).ok_or_else(|| bad("a frame is too short"))
}

/// Reads frames.
#[derive(Default)]
pub(super) struct Reader {
    unpacker: Unpacker,
}

impl Reader {
    /// The next frame; `None` at the end of the connection.
    pub(super) async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
        let mut head = [0; 8];
        if from.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..]).await?;
        let [kind @ .., flags, a, b, c] = head;
        let len = u32::from_be_bytes([0, a, b, c]);
        let len = usize::try_from(len).map_err(|_| bad("a frame is too long"))?;
        let (last, word) = (flags & FIN != 0, u32::from_be_bytes(kind));
        if word >> 31 == 0 {
            return Ok(Some(Frame::Data { id: word, len, last }));
        }
        if len > CONTROL_MAX {
            return Err(bad(format!("a control frame of {len} bytes is too long")));
        }
        let mut body = vec![0; len];
        from.read_exact(&mut body).await?;
        let [_, _, high, low] = kind;
        self.control(u16::from_be_bytes([high, low]), last, &body).map(Some)
    }

    fn control(&mut self, kind: u16, last: bool, body: &[u8]) -> io::Result<Frame> {
        let id = |at| number(body, at).map(|id| id & 0x7fff_ffff);
        Ok(match kind {
            SYN_STREAM => {
                let packed = body.get(10..).ok_or_else(|| bad("a frame is too short"))?;
                Frame::Open { id: id(0)?, headers: self.unpacker.block(packed)?, last }
            }
            // What is packed has to be unpacked, or what follows cannot be: all of a connection is one text.
            SYN_REPLY | HEADERS => {
                self.unpacker.block(body.get(4..).ok_or_else(|| bad("a frame is too short"))?)?;
                Frame::Other
            }
            RST_STREAM => Frame::Reset { id: id(0)? },
            PING => Frame::Ping { id: number(body, 0)? },
            GO_AWAY => Frame::GoAway,
            _ => Frame::Other,
        })
    }
}

/// Writes those frames that hold headers.
#[derive(Default)]
pub(super) struct Writer {
    packer: Packer,
}

impl Writer {
    /// Says that a stream is taken; there are no headers.
    pub(super) fn reply(&mut self, id: u32, out: &mut Vec<u8>) {
        let block = self.packer.block(&[]);
        control(SYN_REPLY, 4 + block.len(), out);
        out.extend(id.to_be_bytes());
        out.extend(block);
    }

    /// Opens a stream, as a client.
    pub(super) fn open(&mut self, id: u32, headers: &[(&str, &str)], out: &mut Vec<u8>) {
        let block = self.packer.block(headers);
        control(SYN_STREAM, 10 + block.len(), out);
        out.extend(id.to_be_bytes());
        // No stream that it belongs to, no priority.
        out.extend([0; 6]);
        out.extend(block);
    }
}

fn control(kind: u16, len: usize, out: &mut Vec<u8>) {
    out.extend(VERSION.to_be_bytes());
    out.extend(kind.to_be_bytes());
    length(0, len, out);
}

/// Flags and length; what is written here is never longer than a piece.
fn length(flags: u8, len: usize, out: &mut Vec<u8>) {
    let [_, a, b, c] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    out.extend([flags, a, b, c]);
}

pub(super) fn data(id: u32, bytes: &[u8], last: bool, out: &mut Vec<u8>) {
    out.extend(id.to_be_bytes());
    length(if last { FIN } else { 0 }, bytes.len(), out);
    out.extend(bytes);
}

pub(super) fn reset(id: u32, why: u32, out: &mut Vec<u8>) {
    control(RST_STREAM, 8, out);
    out.extend(id.to_be_bytes());
    out.extend(why.to_be_bytes());
}

pub(super) fn ping(id: u32, out: &mut Vec<u8>) {
    control(PING, 4, out);
    out.extend(id.to_be_bytes());
}
