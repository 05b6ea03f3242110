//! What the two sides of a foreign-key join send each other.
//!
//! ```text
//! subscription:  | version: u8, 0x80 added without a hash | instruction: u8 | hash: 16 bytes | primary key ... | partition: i32 |
//! response:      | version: u8, 0x80 added without a hash | hash: 16 bytes | foreign value, if there is one ... |
//! ```
//!
//! The hash is the 128-bit murmur3 of the left value's bytes: a response whose hash is no longer that of the left value
//! is out of date. Version 0 of subscriptions, which old releases wrote, lacks the partition.

use bytes::{Buf, Bytes};

use super::{Presence, Serde, SerdeError, SerdeOf};
use crate::record::Headers;

/// The hash of a left value.
pub(crate) type Hash = [u64; 2];

/// A left row's interest in a foreign key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subscription<K> {
    pub(crate) hash: Option<Hash>,
    pub(crate) instruction: Instruction,
    pub(crate) key: K,
    /// The partition that the answer goes to.
    pub(crate) partition: Option<i32>,
}

/// What the right side does with a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Forgets it.
    Delete = 0,
    /// Forgets it and answers with nothing.
    DeleteAndAnswer = 1,
    /// Answers in any case.
    Answer = 2,
    /// Answers if there is a right row.
    AnswerIfFound = 3,
}

/// The right side's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Response<W> {
    pub(crate) hash: Option<Hash>,
    pub(crate) value: Option<W>,
    /// Where it goes; not written.
    pub(crate) partition: Option<i32>,
}

/// The serde of [`Subscription`].
pub(crate) struct SubscriptionSerde<K>(pub(crate) SerdeOf<K>);

impl<K: 'static> Serde<Subscription<K>> for SubscriptionSerde<K> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &Subscription<K>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        let version = u8::from(value.partition.is_some());
        out.push(version | if value.hash.is_none() { NO_HASH } else { 0 });
        out.push(value.instruction as u8);
        write_hash(value.hash, out);
        self.0.write(topic, headers, &value.key, out)?;
        if let Some(partition) = value.partition {
            out.extend_from_slice(&partition.to_be_bytes());
        }
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Subscription<K>, SerdeError> {
        let mut bytes =
            bytes.ok_or_else(|| SerdeError::new("null where a subscription is needed"))?;
        let short = |_| SerdeError::new("a subscription cut short");
        let version = bytes.try_get_u8().map_err(short)?;
        let instruction = match bytes.try_get_u8().map_err(short)? {
            0 => Instruction::Delete,
            1 => Instruction::DeleteAndAnswer,
            2 => Instruction::Answer,
            3 => Instruction::AnswerIfFound,
            other => {
                return Err(SerdeError::new(format_args!("unknown instruction {other}")));
            }
        };
        let hash = read_hash(version, &mut bytes)?;
        let partition = match version & !NO_HASH {
            0 => None,
            1 => {
                let length = bytes
                    .len()
                    .checked_sub(size_of::<i32>())
                    .ok_or_else(|| SerdeError::new("a subscription without its partition"))?;
                Some(bytes.split_off(length).get_i32())
            }
            other => {
                return Err(SerdeError::new(format_args!("unknown version {other}")));
            }
        };
        Ok(Subscription {
            hash,
            instruction,
            key: self.0.read(topic, headers, Some(bytes))?,
            partition,
        })
    }
}

/// The serde of [`Response`].
pub(crate) struct ResponseSerde<W>(pub(crate) SerdeOf<W>);

impl<W: 'static> Serde<Response<W>> for ResponseSerde<W> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &Response<W>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        out.push(if value.hash.is_none() { NO_HASH } else { 0 });
        write_hash(value.hash, out);
        if let Some(value) = &value.value {
            self.0.write(topic, headers, value, out)?;
        }
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Response<W>, SerdeError> {
        let mut bytes = bytes.ok_or_else(|| SerdeError::new("null where a response is needed"))?;
        let version = bytes.try_get_u8().map_err(|_| SerdeError::new("an empty response"))?;
        if version & !NO_HASH != 0 {
            return Err(SerdeError::new(format_args!("unknown version {version} of a response")));
        }
        let hash = read_hash(version, &mut bytes)?;
        let value = match bytes.is_empty() {
            true => None,
            false => Some(self.0.read(topic, headers, Some(bytes))?),
        };
        Ok(Response { hash, value, partition: None })
    }
}

fn write_hash(hash: Option<Hash>, out: &mut Vec<u8>) {
    for half in hash.iter().flatten() {
        out.extend_from_slice(&half.to_be_bytes());
    }
}

fn read_hash(version: u8, bytes: &mut Bytes) -> Result<Option<Hash>, SerdeError> {
    if version & NO_HASH != 0 {
        return Ok(None);
    }
    let mut half = || bytes.try_get_u64().map_err(|_| SerdeError::new("a hash cut short"));
    Ok(Some([half()?, half()?]))
}

/// The bit of the version that says there is no hash.
const NO_HASH: u8 = 0x80;

/// The 128-bit murmur3 (x64) of bytes, with the seed that Kafka Streams uses.
pub(crate) fn murmur3(data: &[u8]) -> Hash {
    let mix_first = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix_second = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let word =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let (mut h1, mut h2) = (SEED, SEED);
    let blocks = data.chunks_exact(16);
    let tail = blocks.remainder();
    for block in blocks {
        let (first, second) = block.split_at(8);
        h1 ^= mix_first(word(first));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix_second(word(second));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let (first, second) = tail.split_at(tail.len().min(8));
    if !second.is_empty() {
        h2 ^= mix_second(word(second));
    }
    if !first.is_empty() {
        h1 ^= mix_first(word(first));
    }
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = finish(h1);
    h2 = finish(h2);
    h1 = h1.wrapping_add(h2);
    [h1, h2.wrapping_add(h1)]
}

fn finish(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;
const SEED: u64 = 104_729;
