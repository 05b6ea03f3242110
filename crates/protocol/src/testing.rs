//! Random messages for tests: every field that a version has, filled with something it can carry.
//!
//! Behind the feature `testing`, so that a released program holds none of it.

use bytes::Bytes;
use fleuve_types::Uuid;

use crate::generated::specimens;
use crate::wire::{Struct, Version, Wire};
use crate::{DecodeError, EncodeError, Message, Reader, Str, VersionRange, Writer};

/// Lists all messages.
pub fn messages() -> &'static [Specimen] {
    specimens::MESSAGES
}

/// Lists the sizes of all structs of all messages.
pub fn structs() -> &'static [StructSize] {
    specimens::STRUCTS
}

/// One message, for tests that go over all of them.
#[derive(Clone, Copy, Debug)]
pub struct Specimen {
    /// Kafka's name of the message.
    pub name: &'static str,
    /// The versions it has.
    pub versions: VersionRange,
    /// Draws a message, writes it in a version, asserts that reading gives it back, and returns
    /// what was written.
    pub round_trip: fn(&mut Sampler, i16) -> Bytes,
    /// Reads a message and writes it again; also returns how many bytes were left unread.
    pub recode: fn(Bytes, i16) -> Result<(Bytes, usize), DecodeError>,
    /// Reads a message in one version and writes it in another, where that can carry it.
    pub translate: fn(Bytes, i16, i16) -> Result<Bytes, EncodeError>,
    /// Writes the default message, where the version can carry it.
    pub default: fn(i16) -> Result<Bytes, EncodeError>,
    /// Reads a message and drops it.
    pub decode: fn(Bytes, i16) -> Result<(), DecodeError>,
}

impl Specimen {
    pub(crate) const fn of<M: Message + Sample>() -> Self {
        Self {
            name: M::NAME,
            versions: M::VALID_VERSIONS,
            round_trip: round_trip::<M>,
            recode: recode::<M>,
            translate: translate::<M>,
            default: encode_default::<M>,
            decode: |bytes, version| M::decode(&mut Reader::new(bytes), version).map(drop),
        }
    }
}

fn round_trip<M: Message + Sample>(s: &mut Sampler, version: i16) -> Bytes {
    let message: M = sample(s, version);
    let mut writer = Writer::new();
    if let Err(error) = message.encode(&mut writer, version) {
        panic!("a sample is within its version: {error}");
    }
    let length = writer.len();
    let bytes = writer.into_bytes();
    assert_eq!(bytes.len(), length, "{} {version}: length", M::NAME);
    let mut reader = Reader::new(bytes.clone());
    match M::decode(&mut reader, version) {
        Ok(again) => assert_eq!(again, message, "{} {version}", M::NAME),
        Err(error) => panic!("what we wrote, we can read: {error}"),
    }
    assert_eq!(reader.remaining(), 0, "{} {version}: bytes left", M::NAME);
    bytes
}

fn translate<M: Message>(bytes: Bytes, from: i16, to: i16) -> Result<Bytes, EncodeError> {
    let message = M::decode(&mut Reader::new(bytes), from);
    encode(&message.expect("a translation starts from a valid message"), to)
}

fn encode_default<M: Message>(version: i16) -> Result<Bytes, EncodeError> {
    encode(&M::default(), version)
}

fn encode<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    Ok(writer.into_bytes())
}

fn recode<M: Message>(bytes: Bytes, version: i16) -> Result<(Bytes, usize), DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version)?;
    let mut writer = Writer::new();
    if let Err(error) = message.encode(&mut writer, version) {
        panic!("what was read in a version can be written in it: {error}");
    }
    Ok((writer.into_bytes(), reader.remaining()))
}

/// How much memory a struct takes for how few bytes.
#[derive(Clone, Copy, Debug)]
pub struct StructSize {
    /// The message and the struct in it.
    pub name: &'static str,
    /// Bytes in memory, what it points to aside.
    pub in_memory: usize,
    /// Fewest bytes on the wire.
    pub on_wire_min: usize,
}

impl StructSize {
    pub(crate) const fn of<T: Wire>(name: &'static str) -> Self {
        Self { name, in_memory: size_of::<T>(), on_wire_min: T::MIN_SIZE }
    }
}

/// Draws random values from a seed; the same seed gives the same message.
///
/// A small generator of our own (SplitMix64) rather than a dependency: tests need variety, not
/// quality.
#[derive(Clone, Debug)]
pub struct Sampler {
    state: u64,
    /// Elements that may still be drawn; keeps nested arrays from multiplying.
    elements_left: usize,
    /// Whether values may be long enough to need longer length prefixes.
    long: bool,
}

impl Sampler {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, elements_left: ELEMENTS_MAX, long: true }
    }

    /// Starts from `seed` and keeps to short values and few elements.
    pub fn short(seed: u64) -> Self {
        Self { state: seed, elements_left: ELEMENTS_MAX_SHORT, long: false }
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
        match self.below(if self.long { 16 } else { 8 }) {
            0..=3 => 0,
            _ if !self.long => 1 + self.below(4),
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
pub fn sample<M: Message + Sample>(s: &mut Sampler, version: i16) -> M {
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
        let count = if s.long && s.below(40) == 0 { 130 } else { s.below(4) }.min(s.elements_left);
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

/// The same for short messages.
const ELEMENTS_MAX_SHORT: usize = 8;
