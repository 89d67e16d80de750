//! Shuffle sharding: which queues a flow may use.
//!
//! A flow's hash deals it a hand of a level's queues. Two flows rarely hold the same hand, so that one that floods its
//! queues leaves the others at least one that is short. Source: `k8s.io/apiserver/pkg/util/shufflesharding`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Largest hand: what validation lets pass takes at most 60 bits of the hash.
pub(super) const HAND_MAX: usize = 15;

/// The hash of a flow. `seed` differs from server to server: nobody can choose names that share another's hand.
pub(super) fn flow_hash(seed: u64, schema: &str, distinguisher: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, schema, distinguisher).hash(&mut hasher);
    hasher.finish()
}

/// Deals `size` different queues of `deck` into `hand`; the first ones of it are set. How many that are.
pub(super) fn deal(hash: u64, deck: u32, size: u32, hand: &mut [u32; HAND_MAX]) -> usize {
    let size = usize::try_from(size.min(deck)).unwrap_or(HAND_MAX).min(HAND_MAX);
    let mut rest = hash;
    let mut left = u64::from(deck);
    for card in &mut hand[..size] {
        let drawn = rest % left;
        rest /= left;
        left -= 1;
        *card = u32::try_from(drawn).unwrap_or(0);
    }
    // Each was drawn from what the ones before it had left: its number counts those only.
    for place in (1..size).rev() {
        let mut card = hand[place];
        for before in (0..place).rev() {
            card += u32::from(card >= hand[before]);
        }
        hand[place] = card;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_different_queues_of_the_deck() {
        for hash in (0..5000).map(|number: u64| flow_hash(1, "schema", &number.to_string())) {
            let mut hand = [0; HAND_MAX];
            let size = deal(hash, 12, 8, &mut hand);
            let mut dealt = hand[..size].to_vec();
            dealt.sort_unstable();
            dealt.dedup();
            assert_eq!((size, dealt.len()), (8, 8));
            assert!(dealt.iter().all(|queue| *queue < 12));
        }
    }

    #[test]
    fn every_queue_is_dealt_about_as_often_as_every_other() {
        let mut counts = [0_u32; 64];
        for number in 0..64_000_u32 {
            let mut hand = [0; HAND_MAX];
            let size = deal(flow_hash(7, "schema", &number.to_string()), 64, 6, &mut hand);
            hand[..size].iter().for_each(|queue| counts[*queue as usize] += 1);
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*least > 5500 && *most < 6500, "{counts:?}");
    }

    #[test]
    fn a_hand_is_dealt_as_kubernetes_deals_it() {
        // The digits of the hash, in bases 128, 127, 126 and 125, are 5, 5, 5 and 3.
        let mut hand = [0; HAND_MAX];
        assert_eq!(deal(128 * 127 * 126 * 3 + 128 * 127 * 5 + 128 * 5 + 5, 128, 4, &mut hand), 4);
        assert_eq!(hand[..4], [5, 6, 7, 3]);
        assert_eq!(deal(0, 3, 3, &mut hand), 3);
        assert_eq!(hand[..3], [0, 1, 2]);
        assert_eq!(deal(u64::MAX, 1, 1, &mut hand), 1);
        assert_eq!(hand[0], 0);
    }
}
