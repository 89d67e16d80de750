//! Reads tar streams from strangers: one header at a time, with a limit on everything a header can claim.
//! Writes nothing. (The `tar` crate, which we write with, reads extension headers of any size into memory.)
//!
//! Source: POSIX.1-2017 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".

use std::io::{self, Read};

/// Size of a header, and what payloads are padded to.
const BLOCK: usize = 512;
/// Largest extension headers of one entry, taken together (long names, pax records): far more than PATH_MAX and the
/// largest xattr.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Largest file a header may announce (1 PiB); what is really read is limited elsewhere.
const FILE_BYTES_MAX: u64 = 1 << 50;
/// Longest path or link target: the kernel's PATH_MAX.
const PATH_LEN_MAX: usize = 4096;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry. Its payload, if it is a file, is what the reader yields until the next entry is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Extended attributes.
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

/// Why a stream is not a tar archive we take: the archive's fault, or the reader's below.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// The stream broke off or its decompression failed.
    #[error("failed to read the archive: {0}")]
    Read(#[from] io::Error),
    /// A header breaks the format.
    #[error("invalid tar header: {0}")]
    Header(&'static str),
    /// A header asks for more than we give.
    #[error("tar header of {what} is too large")]
    TooLarge { what: &'static str },
    /// Something we do not make.
    #[error("unsupported tar entry: {0}")]
    Unsupported(&'static str),
}

/// Reads entries off a stream.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    inner: R,
    /// Payload of the current entry not read yet.
    payload: u64,
    /// Padding behind it.
    padding: u64,
}

/// What extension headers said of the entry that follows them.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, payload: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        let mut left = EXTENSION_BYTES_MAX;
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            let size = number(field(&block, 124, 12))?;
            let kind = byte(&block, 156);
            if matches!(kind, b'x' | b'g' | b'L' | b'K') {
                // Each takes at least its header, so that empty ones have an end as well.
                let cost = size.saturating_add(BLOCK as u64);
                left = left.checked_sub(cost).ok_or(TarError::TooLarge { what: "extensions" })?;
            }
            match kind {
                b'x' => extension.add_pax(&self.extension(size)?)?,
                // Global records: comments of git and the like; none bears on us.
                b'g' => drop(self.extension(size)?),
                b'L' => extension.path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => extension.link = Some(until_nul(&self.extension(size)?).to_vec()),
                _ => {
                    let entry = entry(&block, size, extension)?;
                    self.start_payload(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Gives the stream back, what lies behind the archive's end included.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn start_payload(&mut self, size: u64) {
        self.payload = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// A header whose checksum fits. An archive may end with a block of zeros or, sloppily, without.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let rest = self.payload + self.padding;
        if io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())? != rest {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        (self.payload, self.padding) = (0, 0);
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 =
            block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) }).sum();
        if number(field(&block, 148, 8))? != sum {
            return Err(TarError::Header("wrong checksum: not a tar archive, or damaged"));
        }
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        self.start_payload(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: Read> Read for TarReader<R> {
    /// The current entry's payload. A stream that ends inside it is an error, never a short file.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.payload == 0 || buf.is_empty() {
            return Ok(0);
        }
        let n = (&mut self.inner).take(self.payload).read(buf)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.payload -= n as u64;
        Ok(n)
    }
}

impl Extension {
    /// Adds pax records: `LENGTH KEY=VALUE\n`, the length counting itself.
    fn add_pax(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        const BAD: TarError = TarError::Header("malformed pax record");
        while !bytes.is_empty() {
            let space = bytes.iter().position(|b| *b == b' ').ok_or(BAD)?;
            let len: usize = ascii(bytes.get(..space).ok_or(BAD)?).and_then(|t| t.parse().ok()).ok_or(BAD)?;
            let record = bytes.get(space + 1..len).and_then(|r| r.strip_suffix(b"\n")).ok_or(BAD)?;
            bytes = bytes.get(len..).ok_or(BAD)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
            let (key, value) = record.split_at(equals);
            self.set(ascii(key).ok_or(BAD)?, value.get(1..).unwrap_or_default())?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), TarError> {
        const BAD: TarError = TarError::Header("malformed value of a pax record");
        fn parse<T: std::str::FromStr>(value: &[u8]) -> Result<T, TarError> {
            ascii(value).and_then(|text| text.parse().ok()).ok_or(BAD)
        }
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(parse(value)?),
            "uid" => self.uid = Some(parse(value)?),
            "gid" => self.gid = Some(parse(value)?),
            "mtime" => self.mtime = Some(pax_time(value).ok_or(BAD)?),
            _ if key.starts_with("GNU.sparse.") => return Err(TarError::Unsupported("sparse file")),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn entry(block: &[u8; BLOCK], size: u64, extension: Extension) -> Result<Entry, TarError> {
    let mut path = extension.path.unwrap_or_else(|| ustar_path(block));
    let kind = match byte(block, 156) {
        // Old archives mark a folder only by the slash at its name's end.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => return Err(TarError::Unsupported("sparse file")),
        _ => return Err(TarError::Unsupported("unknown type flag")),
    };
    while path.len() > 1 && path.ends_with(b"/") {
        path.pop();
    }
    let link = extension.link.unwrap_or_else(|| until_nul(field(block, 157, 100)).to_vec());
    if path.len() > PATH_LEN_MAX || link.len() > PATH_LEN_MAX {
        return Err(TarError::TooLarge { what: "a path" });
    }
    if path.contains(&0) || link.contains(&0) {
        return Err(TarError::Header("a NUL byte in a path"));
    }
    // Only files have a payload, whatever size other types claim: as Go's archive/tar reads them.
    let size = if kind == Kind::File { extension.size.unwrap_or(size) } else { 0 };
    if size > FILE_BYTES_MAX {
        return Err(TarError::TooLarge { what: "a file" });
    }
    Ok(Entry {
        kind,
        mode: u32::try_from(number(field(block, 100, 8))? & 0o7777).unwrap_or(0),
        uid: id(extension.uid, field(block, 108, 8))?,
        gid: id(extension.gid, field(block, 116, 8))?,
        size,
        mtime: match extension.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(number(field(block, 136, 12))?).unwrap_or(0), 0),
        },
        device: (device(field(block, 329, 8))?, device(field(block, 337, 8))?),
        xattrs: extension.xattrs,
        path,
        link,
    })
}

/// Name and, in POSIX archives, the prefix that made room for a longer one.
fn ustar_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(field(block, 0, 100));
    let prefix = until_nul(field(block, 345, 155));
    if field(block, 257, 6) != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn id(extension: Option<u32>, bytes: &[u8]) -> Result<u32, TarError> {
    match extension {
        Some(id) => Ok(id),
        None => u32::try_from(number(bytes)?).map_err(|_| TarError::Header("a user or group id out of range")),
    }
}

fn device(bytes: &[u8]) -> Result<u32, TarError> {
    u32::try_from(number(bytes)?).map_err(|_| TarError::Header("a device number out of range"))
}

fn field(block: &[u8; BLOCK], start: usize, len: usize) -> &[u8] {
    block.get(start..start + len).unwrap_or_default()
}

fn byte(block: &[u8; BLOCK], at: usize) -> u8 {
    block.get(at).copied().unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Octal digits between blanks and NULs, or GNU's base 256 when the first bit is set.
fn number(bytes: &[u8]) -> Result<u64, TarError> {
    const BAD: TarError = TarError::Header("malformed number");
    if let Some((first, rest)) = bytes.split_first()
        && first & 0x80 != 0
    {
        // Negative times exist (before 1970) and count as 1970.
        if first & 0x40 != 0 {
            return Ok(0);
        }
        return rest.iter().try_fold(u64::from(first & 0x3f), |n, byte| {
            n.checked_mul(256).and_then(|n| n.checked_add(u64::from(*byte))).ok_or(BAD)
        });
    }
    let text = ascii(until_nul(bytes)).ok_or(BAD)?.trim_matches(' ');
    if text.is_empty() { Ok(0) } else { u64::from_str_radix(text, 8).map_err(|_| BAD) }
}

/// Seconds with an optional fraction, perhaps negative.
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = ascii(value)?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanos): (i64, u32) = (seconds.parse().ok()?, digits.parse().ok()?);
    Some(if text.starts_with('-') && nanos > 0 {
        (seconds.saturating_sub(1), 1_000_000_000 - nanos)
    } else {
        (seconds, nanos)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_mtime(1_600_000_000);
        builder.append_data(&mut header, path, content).unwrap();
    }

    #[test]
    fn what_the_tar_crate_writes_is_read_back() {
        let long = "d/".repeat(90) + "file";
        let bytes = archive(|builder| {
            append(builder, "a", b"alpha");
            let records: [(&str, &[u8]); 3] =
                [("SCHILY.xattr.user.k", b"v"), ("mtime", b"12.5"), ("path", "ä".as_bytes())];
            builder.append_pax_extensions(records).unwrap();
            append(builder, "b", &[7; 1000]);
            append(builder, &long, b"deep");
        });
        let mut reader = TarReader::new(bytes.as_slice());
        let first = reader.next().unwrap().unwrap();
        assert_eq!(
            (first.path.as_slice(), first.mode, first.uid, first.mtime),
            (&b"a"[..], 0o4755, 7, (1_600_000_000, 0))
        );
        let mut content = String::new();
        reader.read_to_string(&mut content).unwrap();
        assert_eq!(content, "alpha");
        let second = reader.next().unwrap().unwrap();
        assert_eq!((second.path.as_slice(), second.mtime), ("ä".as_bytes(), (12, 500_000_000)));
        assert_eq!(second.xattrs, [("user.k".to_owned(), b"v".to_vec())]);
        assert_eq!(reader.next().unwrap().unwrap().path, long.as_bytes());
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn archives_that_are_none_are_refused() {
        let whole = archive(|builder| append(builder, "a", &[1; 2000]));
        let mut huge_name = archive(|builder| append(builder, "a", b""));
        huge_name[156] = b'L';
        huge_name[124..136].copy_from_slice(b"77777777777\0");
        fix_checksum(&mut huge_name);
        for (bytes, words) in [
            (vec![b'x'; 512], "malformed number"),
            (whole[..700].to_vec(), "failed to read the archive"),
            (whole[..100].to_vec(), "failed to read the archive"),
            (huge_name, "tar header of extensions is too large"),
        ] {
            let mut reader = TarReader::new(bytes.as_slice());
            let error = loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("taken, but {words} was expected"),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn extensions_of_one_entry_cannot_pile_up() {
        let value = vec![b'x'; 600 << 10];
        let records = || [("SCHILY.xattr.user.k", value.as_slice())];
        let once = archive(|builder| {
            builder.append_pax_extensions(records()).unwrap();
            append(builder, "a", b"");
        });
        assert!(TarReader::new(once.as_slice()).next().unwrap().is_some());
        let twice = archive(|builder| {
            builder.append_pax_extensions(records()).unwrap();
            builder.append_pax_extensions(records()).unwrap();
            append(builder, "a", b"");
        });
        assert!(matches!(TarReader::new(twice.as_slice()).next(), Err(TarError::TooLarge { .. })));
    }

    fn fix_checksum(bytes: &mut [u8]) {
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn no_byte_of_an_archive_makes_the_reader_panic() {
        use reeve_api::rng::{Rng as _, RngExt as _, SeededRng};
        let whole = archive(|builder| {
            let records: [(&str, &[u8]); 2] = [("SCHILY.xattr.user.k", b"v"), ("mtime", b"-12.5")];
            builder.append_pax_extensions(records).unwrap();
            append(builder, &"d/".repeat(90), &[7; 600]);
            append(builder, "a", b"alpha");
        });
        let rng = SeededRng::new(20);
        for _ in 0..5_000 {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(3) {
                let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
                bytes[at] = rng.next_u64().to_le_bytes()[0];
            }
            // Checksums would refuse nearly all: they are made right, as an attacker would.
            for start in (0..bytes.len()).step_by(512) {
                fix_checksum(&mut bytes[start..start + 512]);
            }
            let mut reader = TarReader::new(bytes.as_slice());
            while let Ok(Some(entry)) = reader.next() {
                let _ = crate::snapshot::unpack::relative(&entry.path);
            }
        }
    }

    #[test]
    fn malformed_pax_records_are_refused() {
        for record in ["", "5 a=b", "99 a=b\n", "6 ab\n", "x a=b\n", "3\n", "18446744073709551615 a=b\n", "0 a=b\n"] {
            let result = Extension::default().add_pax(record.as_bytes());
            assert_eq!(result.is_ok(), record.is_empty(), "{record:?}");
        }
    }
}
