//! The one way to ask for randomness, so that a simulation with one seed replays exactly.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Characters of the random suffixes in generated names: no vowels, no digits that look like letters.
/// Source: `k8s.io/apimachinery/pkg/util/rand`.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Where randomness comes from. Implementations never block.
pub trait Rng: Send + Sync + Debug {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// A source that can be handed to many tasks.
pub type SharedRng = Arc<dyn Rng>;

/// Questions that everybody asks of an [`Rng`].
pub trait RngExt: Rng {
    /// A number below `n`; 0 when `n` is 0.
    fn below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next_u64() % n }
    }

    /// A random (version 4) UUID in its usual text form, as in `metadata.uid`.
    fn uuid(&self) -> String {
        let high = (self.next_u64() & 0xffff_ffff_ffff_0fff) | 0x4000;
        let low = (self.next_u64() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// `len` characters of Kubernetes' alphabet for generated names.
    fn suffix(&self, len: usize) -> String {
        (0..len)
            .map(|_| {
                let index = usize::try_from(self.below(SUFFIX_ALPHABET.len() as u64)).unwrap_or(0);
                char::from(SUFFIX_ALPHABET[index])
            })
            .collect()
    }
}

impl<T: Rng + ?Sized> RngExt for T {}

/// A generator that starts from a seed; [`SeededRng::from_os`] takes the seed from the kernel.
#[derive(Debug)]
pub struct SeededRng(Mutex<StdRng>);

impl SeededRng {
    /// Every generator with the same seed yields the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// The usual source in a binary. A cryptographic generator: its numbers may be used in secrets.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the seam that everybody else must go through")]
    pub fn from_os() -> Self {
        Self(Mutex::new(rand::make_rng()))
    }

    /// The usual way to get a [`SharedRng`] in a binary.
    #[must_use]
    pub fn shared() -> SharedRng {
        Arc::new(Self::from_os())
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (a, b) = (SeededRng::new(7), SeededRng::new(7));
        assert_eq!(a.uuid(), b.uuid());
        assert_eq!(a.suffix(5), b.suffix(5));
    }

    #[test]
    fn a_uuid_is_of_version_4_and_of_the_rfc_variant() {
        let uuid = SeededRng::new(1).uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!("89ab".contains(&uuid[19..20]));
    }

    #[test]
    fn below_stays_below() {
        let rng = SeededRng::new(3);
        assert!((0..1000).all(|_| rng.below(27) < 27));
        assert_eq!(rng.below(0), 0);
    }
}
