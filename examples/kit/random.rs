//! Random numbers from a seed, so that a demo can be repeated.

/// A generator after Steele, Lea and Flood's SplitMix64: small, fast, and good enough for made-up data.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number from 0 up to but without `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias is below 2^-32 for the small ranges that are asked for.
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there is none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn numbers_follow_from_the_seed_and_reach_every_value() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| random.below(7)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        for value in 0..7 {
            assert!(numbers(1).contains(&value), "{value} never came");
        }
        assert_eq!(Random::new(1).below(0), 0);
    }
}
