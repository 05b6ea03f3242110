//! Random messages for tests: every field that a version has, filled with something it can carry.
//!
//! Behind the feature `testing`, so that a released program holds none of it.

use bytes::Bytes;
use fleuve_types::Uuid;

use crate::Str;
use crate::wire::{Struct, Version};

/// Draws random values from a seed; the same seed gives the same message.
///
/// A small generator of our own (SplitMix64) rather than a dependency: tests need variety, not
/// quality.
#[derive(Clone, Debug)]
pub struct Sampler {
    state: u64,
    /// Elements that may still be drawn; keeps nested arrays from multiplying.
    elements_left: usize,
}

impl Sampler {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, elements_left: ELEMENTS_MAX }
    }

    /// Draws 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws a number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// Draws a value that `version` can carry.
    pub(crate) fn get<T: Sample>(&mut self, version: Version) -> T {
        T::sample(self, version)
    }

    /// Draws a value that is null only where `nullable` says so.
    pub(crate) fn get_nullable<T>(&mut self, nullable: bool, version: Version) -> Option<T>
    where
        T: Sample,
        Option<T>: Sample,
    {
        if nullable { self.get(version) } else { Some(self.get(version)) }
    }

    /// Draws a length: mostly short, sometimes where length prefixes take another byte.
    fn length(&mut self) -> usize {
        match self.below(16) {
            0..=3 => 0,
            4..=13 => 1 + self.below(12),
            14 => 120 + self.below(16),
            _ => 1000 + self.below(3000),
        }
    }

    /// Draws an integer: extremes and small numbers as often as any other.
    fn integer(&mut self) -> i64 {
        match self.below(8) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            4 | 5 => self.below(100) as i64,
            _ => self.bits() as i64,
        }
    }
}

/// A type of which random values can be drawn.
pub trait Sample: Sized {
    /// Draws a value that version `v` can carry.
    #[doc(hidden)]
    fn sample(s: &mut Sampler, v: Version) -> Self;
}

/// Draws a message that `version` can carry.
pub fn sample<M: crate::Message + Sample>(s: &mut Sampler, version: i16) -> M {
    M::sample(s, M::layout(version))
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Sample for $type {
            fn sample(s: &mut Sampler, _: Version) -> Self {
                s.integer() as $type
            }
        }
    )*};
}

integers!(i8 i16 i32 i64 u16 u32);

impl Sample for f64 {
    fn sample(s: &mut Sampler, _: Version) -> Self {
        // Never NaN, which equals nothing.
        s.integer() as f64 / 8.0
    }
}

impl Sample for bool {
    fn sample(s: &mut Sampler, _: Version) -> Self {
        s.below(2) == 1
    }
}

impl Sample for Uuid {
    fn sample(s: &mut Sampler, _: Version) -> Self {
        if s.below(4) == 0 {
            return Self::ZERO;
        }
        let bits = u128::from(s.bits()) << 64 | u128::from(s.bits());
        Self(bits.to_be_bytes())
    }
}

impl Sample for Str {
    fn sample(s: &mut Sampler, _: Version) -> Self {
        let characters = ['a', 'Z', '0', '-', '\0', 'é', '☃', '𝄞'];
        (0..s.length()).map(|_| characters[s.below(characters.len())]).collect::<String>().into()
    }
}

impl Sample for Bytes {
    fn sample(s: &mut Sampler, _: Version) -> Self {
        (0..s.length()).map(|_| s.bits() as u8).collect()
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(s: &mut Sampler, v: Version) -> Self {
        let count = if s.below(40) == 0 { 130 } else { s.below(4) }.min(s.elements_left);
        s.elements_left -= count;
        (0..count).map(|_| s.get(v)).collect()
    }
}

impl Sample for Option<Str> {
    fn sample(s: &mut Sampler, v: Version) -> Self {
        (s.below(4) > 0).then(|| s.get(v))
    }
}

impl Sample for Option<Bytes> {
    fn sample(s: &mut Sampler, v: Version) -> Self {
        (s.below(4) > 0).then(|| s.get(v))
    }
}

impl<T: Sample> Sample for Option<Vec<T>> {
    fn sample(s: &mut Sampler, v: Version) -> Self {
        (s.below(4) > 0).then(|| s.get(v))
    }
}

impl<T: Sample + Struct> Sample for Option<T> {
    fn sample(s: &mut Sampler, v: Version) -> Self {
        (s.below(4) > 0).then(|| s.get(v))
    }
}

/// Elements in one message, arrays of all depths together.
const ELEMENTS_MAX: usize = 300;
