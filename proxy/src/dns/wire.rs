//! What is read and changed of other servers' packets without understanding all of them (RFC 1035, section 4).
//!
//! An upstream's answer is passed on byte for byte, also with records that nobody here knows; only its header and
//! question are looked at.

const HEADER_LEN: usize = 12;
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const RCODE_MASK: u8 = 0x0f;
const SERVER_FAILURE: u8 = 2;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;
/// The two highest bits of a length say that it is none but a pointer.
const LABEL_MAX: u8 = 63;

/// Whether the packet answers the query: its id, and its one question to the letter. Names are the same in either case
/// of letters.
pub(super) fn is_answer_to(packet: &[u8], query: &[u8]) -> bool {
    let Some(end) = question_end(query) else { return false };
    let (Some(head), Some(own_head)) = (packet.first_chunk::<HEADER_LEN>(), query.first_chunk::<HEADER_LEN>()) else {
        return false;
    };
    let question = |packet: &[u8]| packet.get(HEADER_LEN..end).map(<[u8]>::to_ascii_lowercase);
    head[..2] == own_head[..2]
        && head[2] & RESPONSE != 0
        && head[4..6] == [0, 1]
        && question(packet).is_some_and(|own| Some(own) == question(query))
}

/// Whether a server says that it cannot or will not answer.
pub(super) fn is_refusal(packet: &[u8]) -> bool {
    packet.get(3).is_some_and(|flags| [SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED].contains(&(flags & RCODE_MASK)))
}

/// Whether there is more than the packet holds.
pub(super) fn is_truncated(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// The answer without its records, marked as truncated: the client asks again over TCP.
pub(super) fn truncated(packet: &[u8]) -> Option<Vec<u8>> {
    let mut short = packet.get(..question_end(packet)?)?.to_vec();
    *short.get_mut(2)? |= TRUNCATED;
    short.get_mut(6..HEADER_LEN)?.fill(0);
    Some(short)
}

/// Where the first question ends. A question is the first name of a packet: it cannot be compressed.
fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER_LEN;
    loop {
        match *packet.get(at)? {
            0 => break,
            length @ 1..=LABEL_MAX => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= packet.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01";

    fn answer() -> Vec<u8> {
        let mut packet = QUERY.to_ascii_uppercase();
        packet[2] |= RESPONSE;
        packet[7] = 1;
        packet.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x01\x02\x03\x04");
        packet
    }

    #[test]
    fn only_an_answer_to_the_very_question_counts() {
        assert!(is_answer_to(&answer(), QUERY));
        assert!(!is_answer_to(QUERY, QUERY), "a query is no answer");
        for (at, what) in [(0, "id"), (5, "number of questions"), (13, "name"), (18, "type"), (20, "class")] {
            let mut other = answer();
            other[at] ^= 1;
            assert!(!is_answer_to(&other, QUERY), "another {what}");
        }
        for length in 0..QUERY.len() {
            assert!(!is_answer_to(&answer()[..length], QUERY), "{length} bytes");
        }
        assert!(!is_answer_to(&answer(), &[0; HEADER_LEN + 1][..]));
        assert!(!is_answer_to(&answer(), b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"), "a loop");
    }

    #[test]
    fn what_is_truncated_keeps_its_question_and_says_so() {
        let short = truncated(&answer()).expect("shortened");
        assert_eq!(short.len(), QUERY.len());
        assert_eq!((short[2] & TRUNCATED, &short[4..12]), (TRUNCATED, &[0, 1, 0, 0, 0, 0, 0, 0][..]));
    }
}
