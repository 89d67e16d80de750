//! Blocks of headers: names and values, packed with zlib and SPDY's dictionary into one text per connection.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

/// Most headers in a block, and most bytes of it when it is unpacked.
const HEADERS_MAX: u32 = 100;
const BLOCK_MAX: usize = 64 * 1024;

/// The words of the dictionary: each stands in it behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// What stands behind them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
    text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// Checksum of the dictionary: names it in the head of a packed text.
const DICTIONARY_ID: u32 = 0xe3c6_a7c2;

/// In the second byte of a packed text: it needs a dictionary.
const NEEDS_DICTIONARY: u8 = 0x20;

fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        let word = word.replace('_', " ");
        all.extend(u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        all.extend(word.as_bytes());
    }
    all.extend(TAIL.as_bytes());
    all
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad headers: {why}"))
}

/// Unpacks the blocks of one connection, in order.
#[derive(Default)]
pub(super) struct Unpacker {
    text: Option<Decompress>,
}

impl Unpacker {
    /// The names and values of a block.
    pub(super) fn block(&mut self, packed: &[u8]) -> io::Result<Vec<(String, String)>> {
        let (text, packed) = match &mut self.text {
            Some(text) => (text, packed),
            None => {
                let (text, rest) = begin(packed)?;
                (self.text.insert(text), rest)
            }
        };
        pairs(&inflate(text, packed)?)
    }
}

/// Reads the head of the packed text and makes what unpacks the rest.
fn begin(packed: &[u8]) -> io::Result<(Decompress, &[u8])> {
    let (head, rest) = packed.split_at_checked(2).ok_or_else(|| bad("no zlib header"))?;
    if head.first().is_none_or(|method| method & 0x0f != 8) {
        return Err(bad("not packed with deflate"));
    }
    let mut text = Decompress::new(false);
    if head.get(1).is_none_or(|flags| flags & NEEDS_DICTIONARY == 0) {
        return Ok((text, rest));
    }
    let (id, rest) = rest.split_at_checked(4).ok_or_else(|| bad("no dictionary"))?;
    if id != DICTIONARY_ID.to_be_bytes() {
        return Err(bad("an unknown dictionary"));
    }
    // A dictionary is text that has gone before: as a stored block it is just that.
    inflate(&mut text, &stored(&dictionary()))?;
    Ok((text, rest))
}

/// A piece of packed text that holds `bytes` (at most 65,535) as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = vec![0];
    out.extend(len.to_le_bytes());
    out.extend((!len).to_le_bytes());
    out.extend(bytes.iter().take(usize::from(len)));
    out
}

fn inflate(text: &mut Decompress, mut packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(1024);
    loop {
        let (read, written) = (text.total_in(), text.total_out());
        let status = text.decompress_vec(packed, &mut out, FlushDecompress::Sync);
        let status = status.map_err(|_| bad("not packed as they have to be"))?;
        let used = usize::try_from(text.total_in() - read).map_err(|_| bad("too long"))?;
        packed = packed.get(used..).unwrap_or_default();
        let has_room = out.len() < out.capacity();
        if status == Status::StreamEnd || (packed.is_empty() && has_room) {
            return Ok(out);
        }
        if has_room && used == 0 && text.total_out() == written {
            return Err(bad("cut off"));
        }
        if out.len() >= BLOCK_MAX {
            return Err(bad("too long"));
        }
        out.reserve(out.len());
    }
}

fn pairs(mut block: &[u8]) -> io::Result<Vec<(String, String)>> {
    let number = take_number(&mut block)?;
    if number > HEADERS_MAX {
        return Err(bad("too many"));
    }
    let mut all = Vec::new();
    for _ in 0..number {
        all.push((take_text(&mut block)?.to_ascii_lowercase(), take_text(&mut block)?));
    }
    Ok(all)
}

fn take_number(block: &mut &[u8]) -> io::Result<u32> {
    let (four, rest) = block.split_first_chunk().ok_or_else(|| bad("cut off"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*four))
}

fn take_text(block: &mut &[u8]) -> io::Result<String> {
    let len = usize::try_from(take_number(block)?).map_err(|_| bad("too long"))?;
    let (text, rest) = block.split_at_checked(len).ok_or_else(|| bad("cut off"))?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Packs the blocks of one connection, in order.
#[derive(Default)]
pub(super) struct Packer {
    has_begun: bool,
}

impl Packer {
    /// A block of these headers, some hundred bytes.
    pub(super) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        let mut plain = len(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(len(text.len()));
            plain.extend(text.as_bytes());
        }
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            out.extend([0x78, NEEDS_DICTIONARY]);
            out.extend(DICTIONARY_ID.to_be_bytes());
        }
        out.extend(stored(&plain));
        // An empty block behind it: without one, Go's reader looks for more before it gives out what it has.
        out.extend(stored(&[]));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_spdys() {
        let all = dictionary();
        assert_eq!(all.len(), 1423);
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &all {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(b << 16 | a, DICTIONARY_ID);
    }

    /// Two blocks as zlib packs them with the dictionary, flushed behind each.
    const FIRST: &str =
        "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c6061606100a4398b20d198094ade8c0600000000ffff";
    const SECOND: &str = "c2aa19540e2512d60b000000ffff";

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
        hex.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
    }

    #[test]
    fn blocks_are_read_in_order_and_refer_to_what_went_before() {
        let mut unpacker = Unpacker::default();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut first = unpacker.block(&bytes(FIRST)).unwrap();
        first.sort();
        assert_eq!(first, [pair("port", "8080"), pair("requestid", "0"), pair("streamtype", "error")]);
        let mut second = unpacker.block(&bytes(SECOND)).unwrap();
        second.sort();
        assert_eq!(second, [pair("port", "8080"), pair("requestid", "0"), pair("streamtype", "data")]);
    }

    #[test]
    fn what_is_packed_here_can_be_read() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for headers in [&[][..], &[("streamtype", "data"), ("port", "80")], &[]] {
            let block = packer.block(headers);
            assert!(block.ends_with(&[0, 0, 0, 0xff, 0xff]), "flushed, as Go's reader needs it");
            let read = unpacker.block(&block).unwrap();
            let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(read, headers);
        }
    }

    #[test]
    fn nonsense_is_refused_and_takes_no_room() {
        for packed in [&b""[..], b"\x78", b"\x78\x20\0\0\0\0", b"\x79\0", b"\x78\x01\xff\xff\xff"] {
            assert!(Unpacker::default().block(packed).is_err(), "{packed:?}");
        }
        let mut bomb = flate2::Compress::new(flate2::Compression::best(), true);
        let mut packed = Vec::with_capacity(1 << 20);
        bomb.compress_vec(&vec![0; 4 << 20], &mut packed, flate2::FlushCompress::Sync).unwrap();
        assert_eq!(Unpacker::default().block(&packed).unwrap_err().to_string(), "bad headers: too long");
    }
}
