//! Encryption of backups: AES-256-GCM in chunks, each of which is bound to its place and the last one to being last, so
//! that what is cut off, put elsewhere or changed shows.
//!
//! ```text
//! "REEVESEA" · version · key kind · rounds (4) · salt (32) · check (16) · CRC-32 of all that (4)
//! chunk: length of what follows (4) · ciphertext · tag (16)      nonce: number (11) · 1 for the last chunk, else 0 (1)
//! ```
//!
//! The key is made anew for every backup, from a random salt and a passphrase (PBKDF2-HMAC-SHA256) or a key file
//! (HKDF-SHA256), so nonces never meet twice. The check tells a wrong passphrase from a damaged file. The head is
//! authenticated with every chunk. Numbers are big-endian.

use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::sync::Arc;

use reeve_store::backup::BackupError;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, pbkdf2};

/// What a sealed backup begins with.
const MAGIC: [u8; 8] = *b"REEVESEA";
const VERSION: u8 = 1;
const SALT_LEN: usize = 32;
const CHECK_LEN: usize = 16;
const HEAD_LEN: usize = MAGIC.len() + 2 + 4 + SALT_LEN + CHECK_LEN + 4;
const CHUNK_LEN: usize = 64 * 1024;
const SEALED_LEN_MAX: usize = CHUNK_LEN + MAX_TAG_LEN;
/// Of PBKDF2: what OWASP's "Password Storage Cheat Sheet" recommends for HMAC-SHA256.
const ROUNDS: u32 = 600_000;
/// A file that asks for more is not ours: it would only keep us busy.
const ROUNDS_MAX: u32 = 20_000_000;
/// A key file has at least so many bytes.
pub(crate) const KEY_LEN_MIN: usize = 32;

/// What a backup is sealed with.
pub(crate) enum Secret {
    /// Words that a person remembers.
    Passphrase(Vec<u8>),
    /// Random bytes.
    Key(Vec<u8>),
}

/// Which kind of secret a sealed backup wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretKind {
    /// A passphrase.
    Passphrase,
    /// A key file.
    Key,
}

impl Secret {
    fn kind(&self) -> SecretKind {
        match self {
            Self::Passphrase(_) => SecretKind::Passphrase,
            Self::Key(_) => SecretKind::Key,
        }
    }

    /// The key of one backup, and what shows that it is the right one.
    fn derive(&self, rounds: u32, salt: &[u8]) -> Option<(LessSafeKey, [u8; CHECK_LEN])> {
        let mut out = [0; 32 + CHECK_LEN];
        match self {
            Self::Passphrase(words) => {
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, NonZeroU32::new(rounds)?, salt, words, &mut out);
            }
            Self::Key(key) => {
                let made = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
                made.expand(&[b"reeve backup"], Wanted(out.len())).ok()?.fill(&mut out).ok()?;
            }
        }
        let key = UnboundKey::new(&AES_256_GCM, &out[..32]).ok()?;
        Some((LessSafeKey::new(key), out[32..].try_into().ok()?))
    }
}

/// How many bytes are wanted of HKDF.
struct Wanted(usize);

impl hkdf::KeyType for Wanted {
    fn len(&self) -> usize {
        self.0
    }
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}

fn no_randomness() -> io::Error {
    io::Error::other("the system has no randomness")
}

/// Encrypts what is written to it. Without [`Sealer::finish`] nobody can open it.
pub(crate) struct Sealer<W> {
    out: W,
    key: LessSafeKey,
    head: Vec<u8>,
    buffer: Vec<u8>,
    number: u64,
}

impl<W: Write> Sealer<W> {
    pub(crate) fn new(out: W, secret: &Secret) -> io::Result<Self> {
        Self::with_rounds(out, secret, ROUNDS)
    }

    fn with_rounds(mut out: W, secret: &Secret, rounds: u32) -> io::Result<Self> {
        let mut salt = [0; SALT_LEN];
        SystemRandom::new().fill(&mut salt).map_err(|_| no_randomness())?;
        let kind = match secret.kind() {
            SecretKind::Passphrase => 1,
            SecretKind::Key => 2,
        };
        let (key, check) = secret.derive(rounds, &salt).ok_or_else(no_randomness)?;
        let mut head = [&MAGIC[..], &[VERSION, kind], &rounds.to_be_bytes(), &salt, &check].concat();
        head.extend_from_slice(&crc(&head).to_be_bytes());
        out.write_all(&head)?;
        Ok(Self { out, key, head, buffer: Vec::new(), number: 0 })
    }

    /// Writes the last chunk; what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.buffer);
        let sealed = self.key.seal_in_place_append_tag(nonce(self.number, is_last), Aad::from(&self.head), &mut chunk);
        sealed.map_err(|_| io::Error::other("the backup cannot be encrypted"))?;
        let len = u32::try_from(chunk.len()).map_err(io::Error::other)?;
        self.out.write_all(&len.to_be_bytes())?;
        self.out.write_all(&chunk)?;
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until something follows: it may be the last.
        if self.buffer.len() == CHUNK_LEN {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK_LEN - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // chunks have one size
    }
}

/// Decrypts as it is read. What has been read is sound, but whether it was all is only known at the end.
pub(crate) struct Opener<R> {
    from: R,
    key: LessSafeKey,
    head: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
    number: u64,
    offset: u64,
    ended: bool,
}

/// A backup as it lies there: sealed, or not.
pub(crate) enum Opened<R> {
    /// It is not encrypted.
    Plain(io::Chain<io::Cursor<Vec<u8>>, R>),
    /// It is.
    Sealed(Box<Opener<R>>),
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.read(buffer),
            Self::Sealed(sealed) => sealed.read(buffer),
        }
    }
}

/// Looks at the beginning of a backup; if it is sealed, asks for the secret of that kind.
pub(crate) fn open<R: Read, E: From<BackupError>>(
    mut from: R,
    ask: impl FnOnce(SecretKind) -> Result<Arc<Secret>, E>,
) -> Result<Opened<R>, E> {
    let mut begin = Vec::new();
    let failed = |err| E::from(BackupError::Io(err));
    from.by_ref().take(HEAD_LEN as u64).read_to_end(&mut begin).map_err(failed)?;
    if !begin.starts_with(&MAGIC) {
        return Ok(Opened::Plain(io::Cursor::new(begin).chain(from)));
    }
    let damaged = |what: &str| E::from(BackupError::Damaged { offset: 0, what: what.to_owned() });
    if begin.len() < HEAD_LEN {
        return Err(BackupError::Truncated { offset: begin.len() as u64 }.into());
    }
    let version = begin[MAGIC.len()];
    if version > VERSION {
        return Err(BackupError::Newer { found: version.into() }.into());
    }
    let (head, sum) = begin.split_at(HEAD_LEN - 4);
    let rounds = u32::from_be_bytes([head[10], head[11], head[12], head[13]]);
    if sum != crc(head).to_be_bytes() || rounds == 0 || rounds > ROUNDS_MAX {
        return Err(damaged("the head of its encryption is not what was written"));
    }
    let kind = match head[MAGIC.len() + 1] {
        1 => SecretKind::Passphrase,
        2 => SecretKind::Key,
        _ => return Err(damaged("it is encrypted in a way that is not known")),
    };
    let secret = ask(kind)?;
    let (salt, check) = head[14..].split_at(SALT_LEN);
    let (key, own) =
        secret.derive(rounds, salt).filter(|_| secret.kind() == kind).ok_or_else(|| damaged("it cannot be opened"))?;
    if own != check {
        let what = match kind {
            SecretKind::Passphrase => "the passphrase is wrong",
            SecretKind::Key => "the key file is not the one that it was encrypted with",
        };
        return Err(BackupError::Io(io::Error::other(what)).into());
    }
    let (offset, head) = (HEAD_LEN as u64, begin);
    let opener = Opener { from, key, head, chunk: Vec::new(), at: 0, number: 0, offset, ended: false };
    Ok(Opened::Sealed(Box::new(opener)))
}

impl<R: Read> Opener<R> {
    fn next(&mut self) -> io::Result<()> {
        let mut len = [0; 4];
        self.fill(&mut len)?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if !(MAX_TAG_LEN..=SEALED_LEN_MAX).contains(&len) {
            return Err(self.damaged("no chunk begins here"));
        }
        let mut sealed = vec![0; len];
        self.fill(&mut sealed)?;
        for is_last in [false, true] {
            let mut chunk = sealed.clone();
            let nonce = nonce(self.number, is_last);
            if let Ok(plain) = self.key.open_in_place(nonce, Aad::from(&self.head), &mut chunk) {
                self.chunk = plain.to_vec();
                (self.at, self.ended) = (0, is_last);
                self.number += 1;
                self.offset += 4 + len as u64;
                return if is_last { self.check_end() } else { Ok(()) };
            }
        }
        Err(self.damaged("a chunk is not what was written there"))
    }

    fn check_end(&mut self) -> io::Result<()> {
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(self.damaged("something stands behind its end")),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let offset = self.offset;
        self.from.read_exact(buffer).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other(BackupError::Truncated { offset }),
            _ => err,
        })
    }

    fn damaged(&self, what: &str) -> io::Error {
        io::Error::other(BackupError::Damaged { offset: self.offset, what: what.to_owned() })
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// CRC-32 (IEEE), bit by bit: for a head of some bytes.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Secret {
        Secret::Passphrase(text.as_bytes().to_vec())
    }

    fn sealed(plain: &[u8], secret: &Secret) -> Vec<u8> {
        let mut sealer = Sealer::with_rounds(Vec::new(), secret, 3).unwrap();
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(sealed: &[u8], secret: Secret) -> Result<Vec<u8>, BackupError> {
        let mut plain = Vec::new();
        open::<_, BackupError>(sealed, |_| Ok(Arc::new(secret)))?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_was_sealed_is_opened_by_the_same_secret_and_by_no_other() {
        let key = || Secret::Key(vec![9; 32]);
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
            let plain: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            assert_eq!(opened(&sealed(&plain, &words("open")), words("open")).unwrap(), plain);
            assert_eq!(opened(&sealed(&plain, &key()), key()).unwrap(), plain);
        }
        let text = b"a secret of the cluster".as_slice();
        assert!(!sealed(text, &key()).windows(6).any(|window| window == b"secret"));
        let told = opened(&sealed(text, &words("open")), words("sesame")).unwrap_err().to_string();
        assert_eq!(told, "the passphrase is wrong");
        let told = opened(&sealed(text, &key()), Secret::Key(vec![8; 32])).unwrap_err().to_string();
        assert!(told.starts_with("the key file is not the one"), "{told}");
        assert_ne!(sealed(text, &key()), sealed(text, &key()), "no two are alike");
    }

    #[test]
    fn what_was_cut_off_changed_or_put_elsewhere_is_not_opened() {
        let plain = vec![5; 3 * CHUNK_LEN];
        let whole = sealed(&plain, &words("w"));
        let chunk = 4 + SEALED_LEN_MAX;
        for len in [HEAD_LEN - 1, HEAD_LEN, HEAD_LEN + 2, HEAD_LEN + chunk, HEAD_LEN + 2 * chunk, whole.len() - 1] {
            let told = opened(&whole[..len], words("w")).unwrap_err().to_string();
            assert!(told.contains("cut short"), "{len}: {told}");
        }
        for at in [9, 12, 20, HEAD_LEN - 1, HEAD_LEN, HEAD_LEN + 5, HEAD_LEN + chunk + 9, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            let told = opened(&bad, words("w")).unwrap_err().to_string();
            assert!(told.contains("damaged") || told.contains("cut short"), "{at}: {told}");
        }
        let mut swapped = whole.clone();
        swapped[HEAD_LEN..HEAD_LEN + chunk].copy_from_slice(&whole[HEAD_LEN + chunk..HEAD_LEN + 2 * chunk]);
        swapped[HEAD_LEN + chunk..HEAD_LEN + 2 * chunk].copy_from_slice(&whole[HEAD_LEN..HEAD_LEN + chunk]);
        assert!(opened(&swapped, words("w")).unwrap_err().to_string().contains("damaged"));
        let longer = [&whole[..], b"x"].concat();
        assert!(opened(&longer, words("w")).unwrap_err().to_string().contains("behind its end"));
        let mut newer = whole.clone();
        newer[MAGIC.len()] = 2;
        assert!(matches!(opened(&newer, words("w")), Err(BackupError::Newer { found: 2 })));
    }

    #[test]
    fn what_is_not_sealed_comes_through_as_it_is() {
        assert_eq!(opened(b"plain", words("unasked")).unwrap(), b"plain");
    }
}
