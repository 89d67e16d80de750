//! How a message lies in a file: a header of length, checksum and number, then its bytes. Tells a whole record
//! from a torn or damaged one; knows nothing of what the message means.
//!
//! All files of the store are sequences of such records: log segments, snapshots, the small state files.

use crate::disk::{Disk, DiskError, read_file, replace_file};

/// Length (4 bytes), CRC-32 of everything else (4), number (8); little-endian.
pub(crate) const HEADER_LEN: usize = 16;
/// A record longer than this is damage: a batch of transactions or a part of a snapshot is far shorter.
pub(crate) const PAYLOAD_MAX: usize = 64 * 1024 * 1024;

/// A file is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{path} is damaged at offset {offset}: {what}")]
pub struct Damage {
    /// The full path.
    pub path: String,
    /// Where, in bytes from the beginning of the file.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// The header of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) len: usize,
    checksum: u32,
    pub(crate) number: u64,
}

impl Header {
    /// `None` when there are too few bytes or the length is absurd.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let len = usize::try_from(u32::from_le_bytes(bytes.get(0..4)?.try_into().ok()?)).ok()?;
        let checksum = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
        let number = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
        (len <= PAYLOAD_MAX).then_some(Self { len, checksum, number })
    }

    /// Whether these bytes are what was written under this header.
    pub(crate) fn fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.len && checksum(self.number, payload) == self.checksum
    }
}

/// Appends a record to `out`.
pub(crate) fn encode(number: u64, message: &impl prost::Message, out: &mut Vec<u8>) {
    let payload = message.encode_to_vec();
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX); // PAYLOAD_MAX is far below
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(number, &payload).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&payload);
}

/// The payload of the whole record with this number at the beginning of `bytes`, if there is one.
pub(crate) fn decode(number: u64, bytes: &[u8]) -> Option<&[u8]> {
    let header = Header::decode(bytes)?;
    let payload = bytes.get(HEADER_LEN..HEADER_LEN + header.len)?;
    (header.number == number && header.fits(payload)).then_some(payload)
}

/// What is left without the zeros at the end: room that was made for records. For what lies behind the last whole one;
/// a record may end with zeros of its own.
pub(crate) fn written(rest: &[u8]) -> &[u8] {
    let len = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &rest[..len]
}

/// Whether any whole record with one of the next numbers begins somewhere in `bytes`.
pub(crate) fn any_later(after: u64, bytes: &[u8]) -> bool {
    find_later(after, bytes).is_some()
}

/// Where the first whole record with one of the next numbers begins in `bytes`, and its number.
pub(crate) fn find_later(after: u64, bytes: &[u8]) -> Option<(usize, u64)> {
    const NUMBERS_AHEAD: u64 = 1 << 20; // more records than a segment can hold
    (0..bytes.len()).find_map(|at| {
        let rest = &bytes[at..];
        let header = Header::decode(rest)?;
        let is_later = header.number > after && header.number - after < NUMBERS_AHEAD;
        let is_whole = || rest.get(HEADER_LEN..HEADER_LEN + header.len).is_some_and(|payload| header.fits(payload));
        (is_later && is_whole()).then_some((at, header.number))
    })
}

/// Replaces a file that holds one message.
pub(crate) fn write_message(disk: &dyn Disk, file: &str, message: &impl prost::Message) -> Result<(), DiskError> {
    let mut bytes = Vec::new();
    encode(0, message, &mut bytes);
    replace_file(disk, file, &bytes)
}

/// Reads a file that holds one message; `None` when there is none.
pub(crate) fn read_message<M: prost::Message + Default>(disk: &dyn Disk, file: &str) -> Result<Option<M>, ReadError> {
    let Some(bytes) = read_file(disk, file)? else { return Ok(None) };
    let message = decode(0, &bytes).and_then(|payload| M::decode(payload).ok());
    let damage = || Damage { path: disk.path_of(file), offset: 0, what: "checksum does not fit".to_owned() };
    Ok(Some(message.ok_or_else(damage)?))
}

fn checksum(number: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
