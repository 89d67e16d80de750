//! Netlink messages and attributes as bytes.

/// `nlmsghdr.nlmsg_flags`: a question.
pub const NLM_F_REQUEST: u16 = 0x1;
/// An answer is wanted also if all went well.
pub const NLM_F_ACK: u16 = 0x4;
/// Made if it is not there.
pub const NLM_F_CREATE: u16 = 0x400;
/// Put at the end.
pub const NLM_F_APPEND: u16 = 0x800;

const HEADER_LEN: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_F_NET_BYTEORDER: u16 = 0x4000;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NFNETLINK_V0: u8 = 0;

/// Builds one buffer of messages. Lengths are filled in when a message or attribute ends.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
}

/// What stands in a message's header.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Subsystem in the high byte, message in the low one.
    pub kind: u16,
    /// `NLM_F_…`
    pub flags: u16,
    /// Comes back in the kernel's answer.
    pub sequence: u32,
    /// `nfgenmsg.nfgen_family`
    pub family: u8,
    /// `nfgenmsg.res_id`
    pub resource: u16,
}

impl Buffer {
    /// The finished bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// One message with what `body` writes into it.
    pub fn message(&mut self, header: Header, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&header.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&header.flags.to_ne_bytes());
        self.bytes.extend_from_slice(&header.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.push(header.family);
        self.bytes.push(NFNETLINK_V0);
        self.bytes.extend_from_slice(&header.resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        debug_assert!(self.bytes.len() - start >= HEADER_LEN);
    }

    /// An attribute with raw bytes, padded to four.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |buffer| buffer.bytes.extend_from_slice(value));
    }

    /// An attribute with a text and its final NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |buffer| {
            buffer.bytes.extend_from_slice(value.as_bytes());
            buffer.bytes.push(0);
        });
    }

    /// An attribute with a number in network order.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute that holds others.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NLA_F_NESTED, body);
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// One message of a datagram from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// What was asked for: attributes, after the header of netfilter's messages.
    Body(&'a [u8]),
    /// `NLMSG_ERROR`: to which request, and the error, 0 for an acknowledgement.
    Verdict {
        /// The request's number.
        sequence: u32,
        /// `-errno`
        code: i32,
    },
    /// The end of a list.
    Done,
}

/// The messages of a datagram. What is cut off at its end is passed over.
pub fn messages(datagram: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<HEADER_LEN>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let Some(body) = rest.get(HEADER_LEN..length) else { break };
        match (kind, body.first_chunk::<4>()) {
            (NLMSG_ERROR, Some(code)) => found.push(Message::Verdict { sequence, code: i32::from_ne_bytes(*code) }),
            (NLMSG_DONE, _) => found.push(Message::Done),
            (NLMSG_ERROR, None) => {}
            (_, Some(_)) => found.push(Message::Body(&body[4..])),
            (_, None) => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The value of the first attribute of that kind.
pub fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let Some(header) = rest.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let own = u16::from_ne_bytes([header[2], header[3]]) & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);
        let value = rest.get(4..length)?;
        if own == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_that_lie_about_their_length_end_the_reading() {
        for length in [0_u32, 3, 15, 17, 4000, u32::MAX] {
            let datagram = [&length.to_ne_bytes()[..], &[0; 12]].concat();
            assert_eq!(messages(&datagram), []);
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            assert_eq!(attribute(&[&length.to_ne_bytes()[..], &[1, 0, 7, 7, 7, 7]].concat(), 1), None);
        }
        assert_eq!(attribute(&[5, 0, 2, 0, 9, 0, 0, 0, 5, 0, 1, 0x80, 7], 1), Some(&[7][..]));
    }

    #[test]
    fn attributes_are_padded_and_lengths_are_not() {
        let mut buffer = Buffer::default();
        let header = Header { kind: 0x0a00, flags: 1, sequence: 7, family: 2, resource: 0 };
        buffer.message(header, |body| body.text(1, "ab"));
        let bytes = buffer.into_bytes();
        assert_eq!(bytes.len(), 16 + 4 + 8);
        assert_eq!(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), 28);
        assert_eq!(bytes[20..28], [7, 0, 1, 0, b'a', b'b', 0, 0]);
    }
}
