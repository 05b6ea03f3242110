//! Records that begin as the one before them.
//!
//! Where records have one size and no key, as those of measurements have, nearly every one begins as
//! the one before it did, but for an offset that is greater by one. What such a record must begin
//! with is known before it is looked at, so that it takes one comparison, and the next one is found
//! without waiting for it: a fraction of the time that reading even a plain one takes.

/// Bytes that are compared at once: more than a plain record without a key has before its value.
const HEAD_BYTES: usize = size_of::<u128>();
/// Set in each byte of an integer but its last.
const CONTINUED: u128 = u128::from_le_bytes([0x80; HEAD_BYTES]);

/// Takes records off the front of `input`, `count_max` at most, that follow `plain` with the same
/// timestamp, the next offset, a value as long, no key and no headers; returns how many. Behind
/// them there may be more of the kind.
///
/// `plain` is a record without a key that [`Outline::take_plain`] took.
///
/// [`Outline::take_plain`]: super::outline::Outline::take_plain
#[inline(never)]
pub(super) fn take_alike(input: &mut &[u8], plain: &[u8], count_max: usize) -> usize {
    let Some(Head { mut bits, mask, step, room }) = Head::of(plain) else { return 0 };
    let mut count = 0;
    for record in input.chunks_exact(plain.len()).take(count_max.min(room)) {
        bits += step;
        let Some(head) = record.first_chunk::<HEAD_BYTES>() else { break };
        if (u128::from_le_bytes(*head) ^ bits) & mask != 0 || record.last() != Some(&0) {
            break;
        }
        count += 1;
    }
    *input = &input[count * plain.len()..];
    count
}

/// What a record begins with.
struct Head {
    bits: u128,
    /// Those before the value.
    mask: u128,
    /// What an offset greater by one adds.
    step: u128,
    /// How often that can be added before the offset's second byte changes.
    room: usize,
}

impl Head {
    /// `None` for a small record, and for one with a negative offset delta.
    fn of(plain: &[u8]) -> Option<Self> {
        let bits = u128::from_le_bytes(*plain.first_chunk()?);
        let ends = !bits & CONTINUED;
        let end_of_integer_at =
            |begin: usize| begin + (ends >> (8 * begin)).trailing_zeros() as usize / 8 + 1;
        // Behind the length there is a byte of attributes.
        let timestamp_at = end_of_integer_at(0) + 1;
        let offset_at = end_of_integer_at(timestamp_at);
        let key_at = end_of_integer_at(offset_at);
        let value_at = end_of_integer_at(key_at + 1);
        let offset = bits >> (8 * offset_at);
        let is_negative = offset & 1 != 0;
        (!is_negative).then(|| Self {
            bits,
            mask: u128::MAX >> (8 * (HEAD_BYTES - value_at)),
            step: 2 << (8 * offset_at),
            room: 0x3f - (offset as usize >> 1 & 0x3f),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: [u8; 12] = [7; 12];

    /// A record whose offset delta is encoded so.
    fn record(offset: &[u8]) -> Vec<u8> {
        let body = [&[0, 0], offset, &[1, 24], &VALUE, &[0]].concat();
        [&[2 * body.len() as u8], &body[..]].concat()
    }

    /// How many of `records` follow the first one.
    fn followers(records: &[Vec<u8>]) -> usize {
        let rest = records[1..].concat();
        let mut input = &rest[..];
        let count = take_alike(&mut input, &records[0], usize::MAX);
        assert_eq!(input, records[1 + count..].concat());
        count
    }

    #[test]
    fn records_follow_until_the_offset_is_encoded_otherwise() {
        let one_byte = [61, 62, 63].map(|offset| record(&[2 * offset]));
        assert_eq!(followers(&one_byte), 2);
        // What adding to 63 makes: an offset of 64, and no key's length behind it.
        assert_eq!(followers(&[record(&[126]), record(&[128])]), 0);

        let two_bytes = [125, 126, 127].map(|offset| record(&[0x80 | (2 * offset) as u8, 1]));
        assert_eq!(followers(&two_bytes), 2);
        // What adding to 127 makes: an offset of 0 and a key's length.
        assert_eq!(followers(&[record(&[0xfe, 1]), record(&[0, 2])]), 0);
    }

    #[test]
    fn a_gap_ends_them() {
        assert_eq!(followers(&[0, 1, 2, 4, 5].map(|offset| record(&[2 * offset]))), 2);
        assert_eq!(followers(&[0, 0].map(|offset| record(&[2 * offset]))), 0);
    }

    #[test]
    fn nothing_follows_a_negative_offset() {
        assert_eq!(followers(&[record(&[3]), record(&[5])]), 0);
    }

    #[test]
    fn no_more_are_taken_than_the_batch_has() {
        let records = [0, 1, 2, 3].map(|offset| record(&[2 * offset]));
        let rest = records[1..].concat();
        let mut input = &rest[..];
        assert_eq!(take_alike(&mut input, &records[0], 2), 2);
        assert_eq!(input, records[3]);
    }
}
