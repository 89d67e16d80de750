//! The body of a list in JSON: written piece by piece as the connection takes it, so that a list of many megabytes
//! costs the server one piece and not a copy of itself, and its beginning is on the wire before its end is joined.
//!
//! Not here: which objects are in it (the registry), other forms than plain JSON (`encode`).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::response::BoxError;
use crate::registry::Object;

/// Size of a piece. Four TLS records: large enough that a piece's own cost does not count.
const PIECE_BYTES: usize = 64 * 1024;

/// What stands behind the last object.
const END: &[u8] = b"]}\n";

/// The rest of a list that is still to be sent.
pub(crate) struct ListBody<F> {
    /// What stands before the first object; empty once it is sent.
    head: Vec<u8>,
    items: std::vec::IntoIter<Object>,
    /// How much of an object's text behind its opening brace is left out in the list.
    left_out: F,
    is_first: bool,
    bytes_left: u64,
}

impl<F: Fn(&Object) -> usize + Unpin> ListBody<F> {
    /// A list that begins with `head`; `left_out` says how many bytes of an object's text behind its opening brace
    /// do not stand in the list, and says the same when it is asked again.
    pub(crate) fn new(head: Vec<u8>, items: Vec<Object>, left_out: F) -> Self {
        let texts: usize = items.iter().map(|item| item.len() - left_out(item)).sum();
        let commas = items.len().saturating_sub(1);
        let bytes_left = (head.len() + texts + commas + END.len()) as u64;
        Self { head, items: items.into_iter(), left_out, is_first: true, bytes_left }
    }

    /// How long it is.
    pub(crate) fn len(&self) -> u64 {
        self.bytes_left
    }

    /// All that is left, in one text.
    pub(crate) fn collect(mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(usize::try_from(self.bytes_left).unwrap_or_default());
        self.fill(&mut all, usize::MAX);
        all
    }

    /// Appends until there is a piece, or the list ends.
    fn fill(&mut self, out: &mut Vec<u8>, piece: usize) {
        out.append(&mut self.head);
        while out.len() < piece {
            let Some(item) = self.items.next() else {
                out.extend_from_slice(END);
                self.bytes_left = 0;
                return;
            };
            if !std::mem::take(&mut self.is_first) {
                out.push(b',');
            }
            item.write_without((self.left_out)(&item), out);
        }
        self.bytes_left -= out.len() as u64;
    }
}

impl<F: Fn(&Object) -> usize + Unpin> Body for ListBody<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = self.get_mut();
        if body.is_end_stream() {
            return Poll::Ready(None);
        }
        // Room for the object that passes the mark, if it is not a large one.
        let room = usize::try_from(body.bytes_left).unwrap_or(usize::MAX).min(PIECE_BYTES + PIECE_BYTES / 8);
        let mut piece = Vec::with_capacity(room);
        body.fill(&mut piece, PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use reeve_store::Revision;

    use super::*;

    /// Objects of which `"kind":1,` is left out.
    fn list(items: &[&str]) -> ListBody<impl Fn(&Object) -> usize + Unpin> {
        let object = |text: &&str| Object::whole(text.replacen('{', "{\"kind\":1,", 1), Revision(1));
        ListBody::new(b"{\"items\":[".to_vec(), items.iter().map(object).collect(), |_: &Object| "\"kind\":1,".len())
    }

    #[tokio::test]
    async fn a_list_says_how_long_it_is_and_is_so_long() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(PIECE_BYTES));
        for items in [&[][..], &["{}"], &["{}\n", "{\"a\":1}"], &[&large, "{}", &large, &large]] {
            let wanted = format!("{{\"items\":[{}]}}\n", items.join(",").replace('\n', ""));
            assert_eq!(list(items).len(), wanted.len() as u64);
            assert_eq!(list(items).collect(), wanted.as_bytes());
            assert_eq!(http_body_util::BodyExt::collect(list(items)).await.unwrap().to_bytes(), wanted.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_long_list_comes_in_pieces_that_do_not_grow_with_it() {
        let items = vec!["{\"a\":\"0123456789\"}"; 100_000];
        let mut body = list(&items);
        let mut pieces = 0;
        while let Some(frame) = body.frame().await {
            assert!(frame.unwrap().into_data().unwrap().len() <= PIECE_BYTES + 32);
            pieces += 1;
        }
        assert!(pieces > 20);
    }
}
