//! Protobuf's wire format: field numbers and payloads, no meaning.

use super::ProtobufError;

/// What stands behind a field number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'b> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'b [u8]),
    /// Wire type 5.
    Fixed32,
}

impl<'b> Payload<'b> {
    /// The bytes of a message, a text or bytes.
    pub(super) fn bytes(self, field: &'static str) -> Result<&'b [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::WrongType(field)),
        }
    }

    /// A text.
    pub(super) fn text(self, field: &'static str) -> Result<&'b str, ProtobufError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| ProtobufError::Malformed("invalid UTF-8 string"))
    }

    /// A whole number. Negative ones are written as 64 bits in two's complement.
    pub(super) fn integer(self, field: &'static str) -> Result<i64, ProtobufError> {
        match self {
            Self::Varint(value) => Ok(i64::from_ne_bytes(value.to_ne_bytes())),
            _ => Err(ProtobufError::WrongType(field)),
        }
    }

    /// A number.
    pub(super) fn float(self, field: &'static str) -> Result<f64, ProtobufError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(ProtobufError::WrongType(field)),
        }
    }

    /// The items of a repeated field: several when numbers are packed into one payload.
    pub(super) fn unpacked(self, numbers: bool) -> Result<Vec<Payload<'b>>, ProtobufError> {
        let Self::Bytes(bytes) = self else { return Ok(vec![self]) };
        if !numbers {
            return Ok(vec![self]);
        }
        let mut reader = Reader::new(bytes);
        let mut items = Vec::new();
        while !reader.rest.is_empty() {
            items.push(Payload::Varint(reader.varint()?));
        }
        Ok(items)
    }
}

/// Reads fields one after the other.
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    /// Over the bytes of one message.
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and payload; `None` at the end.
    pub(super) fn next_field(&mut self) -> Result<Option<(u64, Payload<'b>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Payload::Bytes(self.take(len)?)
            }
            5 => {
                self.array::<4>()?;
                Payload::Fixed32
            }
            _ => return Err(ProtobufError::Malformed("illegal wireType")),
        };
        match tag >> 3 {
            0 => Err(ProtobufError::Malformed("illegal tag 0")),
            number => Ok(Some((number, payload))),
        }
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(ProtobufError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Malformed("integer overflow"))
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError::Truncated)
    }
}

fn put_raw_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or_default()
}

/// Appends a whole number or a truth value.
pub(crate) fn put_varint(number: u64, value: i64, out: &mut Vec<u8>) {
    put_raw_varint(number << 3, out);
    put_raw_varint(u64::from_ne_bytes(value.to_ne_bytes()), out);
}

/// Appends the bits of a float.
pub(crate) fn put_fixed64(number: u64, bits: u64, out: &mut Vec<u8>) {
    put_raw_varint(number << 3 | 1, out);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// Appends a text, bytes or a finished message.
pub(crate) fn put_bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    put_raw_varint(number << 3 | 2, out);
    put_raw_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Begins a message whose length is not known yet: [`set_length`] at the place that is answered ends it.
pub(super) fn put_zeroed_length(number: u64, out: &mut Vec<u8>) -> usize {
    put_raw_varint(number << 3 | 2, out);
    out.push(0);
    out.len() - 1
}

/// Writes the length of the message that reaches from behind `at` to the end, moving it if the length needs room.
pub(super) fn set_length(out: &mut Vec<u8>, at: usize) {
    let end = out.len();
    let mut length = end - at - 1;
    let mut more = 0;
    while length >> (7 * (more + 1)) > 0 {
        more += 1;
    }
    out.resize(end + more, 0);
    out.copy_within(at + 1..end, at + 1 + more);
    for place in out.iter_mut().skip(at).take(more) {
        *place = low_bits(length as u64) | 0x80;
        length >>= 7;
    }
    if let Some(place) = out.get_mut(at + more) {
        *place = low_bits(length as u64);
    }
}

/// Appends a message that `fill` writes.
pub(crate) fn nested<E>(
    number: u64,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let at = put_zeroed_length(number, out);
    fill(out)?;
    set_length(out, at);
    Ok(())
}
