//! Answers that are HTML: unpacked, their links rewritten, and packed again, piece by piece.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use futures::StreamExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};

use super::html::Rewriter;
use super::location::Links;
use crate::http::{Body, BoxError};

/// So much is unpacked at a time: what it becomes stays below 1 MiB.
const PIECE: usize = 1024;

/// How a page is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    Deflate,
}

/// How the page is packed; `None` when the answer is no page, or packed in a way that is not understood.
pub(super) fn coding(headers: &HeaderMap) -> Option<Coding> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    match text(CONTENT_ENCODING) {
        _ if kind != "text/html" => None,
        "" => Some(Coding::Plain),
        "gzip" => Some(Coding::Gzip),
        "deflate" => Some(Coding::Deflate),
        _ => None,
    }
}

enum Unpack {
    Plain,
    Gzip(GzDecoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>),
}

enum Pack {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(DeflateEncoder<Vec<u8>>),
}

struct Page<F> {
    unpack: Unpack,
    rewriter: Rewriter<F>,
    pack: Pack,
}

impl<F: Fn(&str) -> Option<String>> Page<F> {
    fn new(coding: Coding, rewrite: F) -> Self {
        let (unpack, pack) = match coding {
            Coding::Plain => (Unpack::Plain, Pack::Plain(Vec::new())),
            Coding::Gzip => {
                let pack = GzEncoder::new(Vec::new(), Compression::default());
                (Unpack::Gzip(GzDecoder::new(Vec::new())), Pack::Gzip(pack))
            }
            Coding::Deflate => {
                let pack = DeflateEncoder::new(Vec::new(), Compression::best());
                (Unpack::Deflate(DeflateDecoder::new(Vec::new())), Pack::Deflate(pack))
            }
        };
        Self { unpack, rewriter: Rewriter::new(rewrite), pack }
    }

    fn push(&mut self, piece: &[u8]) -> std::io::Result<Bytes> {
        for part in piece.chunks(PIECE) {
            let text = match &mut self.unpack {
                Unpack::Plain => part.to_vec(),
                Unpack::Gzip(unpack) => {
                    unpack.write_all(part)?;
                    std::mem::take(unpack.get_mut())
                }
                Unpack::Deflate(unpack) => {
                    unpack.write_all(part)?;
                    std::mem::take(unpack.get_mut())
                }
            };
            self.write(&text)?;
        }
        Ok(self.taken())
    }

    fn write(&mut self, text: &[u8]) -> std::io::Result<()> {
        let mut out = Vec::with_capacity(text.len());
        self.rewriter.push(text, &mut out);
        self.pack(&out)
    }

    fn pack(&mut self, text: &[u8]) -> std::io::Result<()> {
        match &mut self.pack {
            Pack::Plain(out) => out.write_all(text),
            Pack::Gzip(pack) => pack.write_all(text),
            Pack::Deflate(pack) => pack.write_all(text),
        }
    }

    fn taken(&mut self) -> Bytes {
        let out = match &mut self.pack {
            Pack::Plain(out) => out,
            Pack::Gzip(pack) => pack.get_mut(),
            Pack::Deflate(pack) => pack.get_mut(),
        };
        std::mem::take(out).into()
    }

    fn finish(mut self) -> std::io::Result<Bytes> {
        let last = match &mut self.unpack {
            Unpack::Plain => Vec::new(),
            Unpack::Gzip(unpack) => {
                unpack.try_finish()?;
                std::mem::take(unpack.get_mut())
            }
            Unpack::Deflate(unpack) => {
                unpack.try_finish()?;
                std::mem::take(unpack.get_mut())
            }
        };
        self.write(&last)?;
        let mut out = Vec::new();
        self.rewriter.finish(&mut out);
        self.pack(&out)?;
        Ok(match self.pack {
            Pack::Plain(out) => out.into(),
            Pack::Gzip(pack) => pack.finish()?.into(),
            Pack::Deflate(pack) => pack.finish()?.into(),
        })
    }
}

/// The page with its links rewritten. Whoever is slow to read it holds up whoever sends it.
pub(super) fn rewritten(body: Incoming, coding: Coding, links: Links) -> Body {
    let page = Page::new(coding, move |url: &str| links.rewrite(url));
    let pieces = body.into_data_stream();
    let frames = futures::stream::try_unfold((pieces, Some(page)), |(mut pieces, page)| async move {
        let Some(mut page) = page else { return Ok(None) };
        loop {
            let (out, page_left) = match pieces.next().await {
                Some(piece) => (page.push(&piece?)?, Some(page)),
                None => (page.finish()?, None),
            };
            match page_left {
                // Nothing to say yet.
                Some(left) if out.is_empty() => page = left,
                left => return Ok::<_, BoxError>(Some((Frame::data(out), (pieces, left)))),
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const GIVEN: &[u8] = b"<html><a href=\"/x\">x</a></html>";
    const WANTED: &str = "<html><a href=\"/p/x\">x</a></html>";

    fn through(coding: Coding, packed: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut page = Page::new(coding, |url: &str| Some(format!("/p{url}")));
        let mut out = Vec::new();
        for piece in packed.chunks(5) {
            out.extend(page.push(piece)?);
        }
        out.extend(page.finish()?);
        Ok(out)
    }

    #[test]
    fn a_page_is_rewritten_however_it_is_packed() {
        assert_eq!(through(Coding::Plain, GIVEN).unwrap(), WANTED.as_bytes());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(GIVEN).unwrap();
        let mut text = String::new();
        let out = through(Coding::Gzip, &gzip.finish().unwrap()).unwrap();
        flate2::read::GzDecoder::new(&out[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, WANTED);
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(GIVEN).unwrap();
        text.clear();
        let out = through(Coding::Deflate, &deflate.finish().unwrap()).unwrap();
        flate2::read::DeflateDecoder::new(&out[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, WANTED);
        assert!(through(Coding::Gzip, b"no gzip at all").is_err());
    }

    #[test]
    fn only_pages_are_touched() {
        let headers = |kind: &'static str, packed: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
            if !packed.is_empty() {
                headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(packed));
            }
            coding(&headers)
        };
        assert_eq!(headers("text/html; charset=utf-8", ""), Some(Coding::Plain));
        assert_eq!(headers("text/html", "gzip"), Some(Coding::Gzip));
        assert_eq!(headers("text/html", "br"), None);
        assert_eq!(headers("application/json", ""), None);
    }
}
