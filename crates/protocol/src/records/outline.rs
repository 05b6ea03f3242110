//! What the validation of produced records needs of each: its deltas, and that it is well-formed.
//!
//! Nearly all records are plain: a key of less than 64 bytes or none, no headers, an offset delta of
//! at most three bytes, and no length or timestamp delta beyond two. What such a record has between
//! its attributes and its key, or without a key its value, fits one word, so that it is read by
//! shifts, at a third of the time that reading field by field takes.

use super::RecordFault;
use super::record::{Headers, RawRecord};
use super::varint::{zigzag_i32, zigzag_i64};

/// What a well-formed record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outline {
    /// Its timestamp minus that of the batch.
    pub(super) timestamp_delta: i64,
    /// Its offset minus that of the batch.
    pub(super) offset_delta: i32,
    /// Whether it has no key.
    pub(super) is_keyless: bool,
}

impl Outline {
    /// Takes any record off the front of `input`.
    pub(super) fn take(input: &mut &[u8]) -> Result<Self, RecordFault> {
        let raw = RawRecord::take(input)?;
        Headers::parse(raw.headers)?;
        Ok(Self {
            timestamp_delta: raw.timestamp_delta,
            offset_delta: raw.offset_delta,
            is_keyless: raw.key.is_none(),
        })
    }

    /// Takes a plain record off the front of `input`. `None`, and nothing taken, for one that is
    /// not plain, and for one that is wrong.
    #[inline(always)]
    pub(super) fn take_plain(input: &mut &[u8]) -> Option<Self> {
        let head = input.first_chunk::<HEAD_BYTES>()?;
        let low = u64::from(head[0]);
        // Behind the length there is a byte of attributes.
        let (length, length_bytes, bits) = if low & CONTINUED == 0 {
            let [_, _, word @ .., _] = head;
            (low, 1, u64::from_le_bytes(*word))
        } else {
            let high = u64::from(head[1]);
            if high & CONTINUED != 0 {
                return None;
            }
            let [_, _, _, word @ ..] = head;
            (low & 0x7f | high << 7, 2, u64::from_le_bytes(*word))
        };
        // An odd number is a negative one.
        if length & 1 != 0 {
            return None;
        }
        let (record, rest) = input.split_at_checked(length_bytes + (length >> 1) as usize)?;
        let mut word = Word { bits, taken: length_bytes + 1 };
        let timestamp_delta = zigzag_i64(word.take_short()?);
        let offset_delta = zigzag_i32(word.take_medium()? as u32);
        let key = word.take_byte();
        let is_keyless = key == KEYLESS;
        let (value, taken) = if is_keyless {
            (word.take_short()?, word.taken)
        } else {
            if key & (CONTINUED | 1) != 0 {
                return None;
            }
            let value_at = word.taken + (key >> 1) as usize;
            let mut tail = record.get(value_at..)?;
            let value = take_short(&mut tail)?;
            (value, record.len() - tail.len())
        };
        let value_size = if value & 1 != 0 { 0 } else { (value >> 1) as usize };
        // Behind the value there is one byte: no headers.
        if record.len() != taken + value_size + 1 || record.last() != Some(&0) {
            return None;
        }
        *input = rest;
        Some(Self { timestamp_delta, offset_delta, is_keyless })
    }
}

/// The length, the attributes, and a [`Word`].
const HEAD_BYTES: usize = 2 + 1 + 8;
/// Set in each byte of an integer but its last.
const CONTINUED: u64 = 0x80;
/// A length of -1.
const KEYLESS: u64 = 1;

/// Eight bytes of a record behind its attributes: as many as the deltas, the length of the key and,
/// without a key, that of the value have in a plain one at most.
struct Word {
    bits: u64,
    /// Where in the record they go on.
    taken: usize,
}

impl Word {
    #[inline(always)]
    fn take_byte(&mut self) -> u64 {
        let byte = self.bits & 0xff;
        self.bits >>= 8;
        self.taken += 1;
        byte
    }

    /// An integer of one or two bytes, still in zigzag.
    #[inline(always)]
    fn take_short(&mut self) -> Option<u64> {
        let low = self.take_byte();
        if low & CONTINUED == 0 {
            return Some(low);
        }
        let high = self.take_byte();
        (high & CONTINUED == 0).then_some(low & 0x7f | high << 7)
    }

    /// An integer of one to three bytes, still in zigzag.
    #[inline(always)]
    fn take_medium(&mut self) -> Option<u64> {
        let low = self.take_byte();
        if low & CONTINUED == 0 {
            return Some(low);
        }
        Some(low & 0x7f | self.take_short()? << 7)
    }
}

/// An integer of one or two bytes off the front of `input`, still in zigzag.
#[inline(always)]
fn take_short(input: &mut &[u8]) -> Option<u64> {
    let (low, rest) = input.split_first()?;
    let low = u64::from(*low);
    if low & CONTINUED == 0 {
        *input = rest;
        return Some(low);
    }
    let (high, rest) = rest.split_first()?;
    let high = u64::from(*high);
    *input = rest;
    (high & CONTINUED == 0).then_some(low & 0x7f | high << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::varint::encoded;
    use super::*;

    fn sized(bytes: &Option<Vec<u8>>) -> Vec<u8> {
        match bytes {
            Some(bytes) => [encoded(bytes.len() as i64), bytes.clone()].concat(),
            None => encoded(-1),
        }
    }

    prop_compose! {
        /// Records around the edges of what is plain, with a few bytes behind them.
        fn record()(
            timestamp in prop_oneof![-70_i64..70, 8_000_i64..9_000, any::<i64>()],
            offset in prop_oneof![
                0_i32..70,
                8_100_i32..8_300,
                1_048_570_i32..1_048_580,
                any::<i32>(),
            ],
            key in prop::option::of(prop_oneof![0_usize..4, 60_usize..70]),
            value in prop::option::of(prop_oneof![0_usize..4, 60_usize..70, 8_180_usize..8_200]),
            headers in prop::option::weighted(0.2, 0_usize..3),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) -> (Vec<u8>, usize) {
            let headers = headers.map_or(vec![0], |count| {
                [encoded(count as i64), [2, b'h', 1].repeat(count)].concat()
            });
            let body = [
                vec![0],
                encoded(timestamp),
                encoded(offset.into()),
                sized(&key.map(|size| vec![1; size])),
                sized(&value.map(|size| vec![0; size])),
                headers,
            ]
            .concat();
            let record = [encoded(body.len() as i64), body].concat();
            let size = record.len();
            ([record, rest].concat(), size)
        }
    }

    proptest! {
        #[test]
        fn a_plain_record_reads_as_any_other(
            (mut bytes, size) in record(),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            if let Some((at, byte)) = damage {
                // Where the lengths stand.
                let at = at.index(size.min(12));
                bytes[at] = byte;
            }
            if let Some(end) = cut {
                bytes.truncate(end.index(bytes.len()));
            }
            let (mut quickly, mut fully) = (&bytes[..], &bytes[..]);
            match Outline::take_plain(&mut quickly) {
                Some(outline) => {
                    prop_assert_eq!(Outline::take(&mut fully), Ok(outline));
                    prop_assert_eq!(quickly, fully);
                }
                None => prop_assert_eq!(quickly.len(), bytes.len()),
            }
        }
    }

    #[test]
    fn what_producers_write_is_plain() {
        for (offset_delta, value, is_keyless) in
            [(500, 100, true), (500, 1024, false), (500, 0, true), (10_000, 100, true)]
        {
            let key = (!is_keyless).then(|| b"key".to_vec());
            let value = sized(&Some(vec![9; value]));
            let body =
                [vec![0, 20], encoded(offset_delta.into()), sized(&key), value, vec![0]].concat();
            // More is read at once than a small record has.
            let bytes = [encoded(body.len() as i64), body, vec![0; HEAD_BYTES]].concat();
            let mut input = &bytes[..];
            let outline = Outline { timestamp_delta: 10, offset_delta, is_keyless };
            assert_eq!(Outline::take_plain(&mut input), Some(outline));
            assert_eq!(input, [0; HEAD_BYTES]);
        }
    }
}
