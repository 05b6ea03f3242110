//! Randomness that repeats.

use std::sync::atomic::{AtomicU64, Ordering};

use fleuve_os::Random;

/// A seeded generator (SplitMix64): short, fast, and good enough to choose what a crash keeps.
#[derive(Debug)]
pub struct SimRandom {
    state: AtomicU64,
}

impl SimRandom {
    /// Makes the generator that `seed` stands for.
    pub fn seeded(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// Returns true once in `in_how_many` on average.
    pub fn once_in(&self, in_how_many: u64) -> bool {
        self.below(in_how_many) == 0
    }

    /// Makes an independent generator that goes on from here.
    pub fn fork(&self) -> Self {
        Self::seeded(self.next_u64())
    }
}

impl Random for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let random = SimRandom::seeded(seed);
            (0..10).map(|_| random.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        // The published first value for seed 1234567.
        assert_eq!(SimRandom::seeded(1_234_567).next_u64(), 6_457_827_717_110_365_317);
    }
}
