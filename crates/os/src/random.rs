//! Randomness as an argument, so that a run can be repeated from a seed.

use std::fmt;

/// A source of random bytes.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// Returns a random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Returns a number below `bound`, or 0 when `bound` is 0.
    ///
    /// The bias of the plain remainder is below 2^-32 for every bound we use (jitter, ids), which
    /// is no concern for spreading load; it must not be used for secrets.
    fn below(&self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

/// The operating system's cryptographic random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Since Linux 5.6 this cannot fail once the system has booted; going on with predictable
        // ids instead would be worse than stopping.
        getrandom::fill(bytes).expect("the operating system provides randomness");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_and_stay_below_their_bound() {
        let random = OsRandom;
        assert_ne!((random.next_u64(), random.next_u64()), (random.next_u64(), random.next_u64()));
        assert!((0..100).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
