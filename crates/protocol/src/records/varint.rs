//! Zigzag variable-length integers, as Protocol Buffers encode `sint32` and `sint64`.
//!
//! Like Apache Kafka we accept encodings that are longer than necessary, up to 5 or 10 bytes, and
//! ignore the bits that the type has no room for.

use super::RecordFault;

/// Longest encoding of an `i32`.
const VARINT_SIZE_MAX: usize = 5;
/// Longest encoding of an `i64`.
pub(super) const VARLONG_SIZE_MAX: usize = 10;

/// Takes an `i32` off the front of `input`.
#[inline]
pub(super) fn take_i32(input: &mut &[u8]) -> Result<i32, RecordFault> {
    // Nearly every length and delta fits one byte.
    if let [byte @ 0..0x80, rest @ ..] = *input {
        *input = rest;
        return Ok(zigzag_i32(u32::from(*byte)));
    }
    Ok(zigzag_i32(take_long::<VARINT_SIZE_MAX>(input)? as u32))
}

/// Takes an `i64` off the front of `input`.
#[inline]
pub(super) fn take_i64(input: &mut &[u8]) -> Result<i64, RecordFault> {
    if let [byte @ 0..0x80, rest @ ..] = *input {
        *input = rest;
        return Ok(zigzag_i64(u64::from(*byte)));
    }
    Ok(zigzag_i64(take_long::<VARLONG_SIZE_MAX>(input)?))
}

/// Encodes `value` at the front of `output` and returns the size.
#[inline]
pub(super) fn put_i32(value: i32, output: &mut [u8]) -> usize {
    put_unsigned(u64::from((value << 1 ^ value >> 31) as u32), output)
}

/// Encodes `value` at the front of `output` and returns the size.
#[inline]
pub(super) fn put_i64(value: i64, output: &mut [u8]) -> usize {
    put_unsigned((value << 1 ^ value >> 63) as u64, output)
}

/// Size of `value` when encoded.
#[inline]
pub(super) fn size_i32(value: i32) -> usize {
    size_unsigned(u64::from((value << 1 ^ value >> 31) as u32))
}

/// Size of `value` when encoded.
#[inline]
pub(super) fn size_i64(value: i64) -> usize {
    size_unsigned((value << 1 ^ value >> 63) as u64)
}

/// Takes an integer of at most `SIZE_MAX` bytes.
#[inline]
fn take_long<const SIZE_MAX: usize>(input: &mut &[u8]) -> Result<u64, RecordFault> {
    // All bytes at once: lengths and offsets take two or three, and guessing how many costs a
    // branch that is often mispredicted.
    if let Some(chunk) = input.first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let last_bytes = !word & 0x8080_8080_8080_8080;
        let size = last_bytes.trailing_zeros() as usize / 8 + 1;
        if last_bytes != 0 && size <= SIZE_MAX {
            *input = &input[size..];
            let ours = word & (last_bytes ^ (last_bytes - 1));
            return Ok(join_groups(ours));
        }
    }
    take_bytewise::<SIZE_MAX>(input)
}

/// Joins the low seven bits of each byte.
#[inline]
fn join_groups(word: u64) -> u64 {
    let pairs = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let quads = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    quads & 0x0fff_ffff | (quads & 0x0fff_ffff_0000_0000) >> 4
}

#[cold]
fn take_bytewise<const SIZE_MAX: usize>(input: &mut &[u8]) -> Result<u64, RecordFault> {
    let mut value = 0;
    for (index, byte) in input.iter().take(SIZE_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(if input.len() < SIZE_MAX { RecordFault::Truncated } else { RecordFault::LongInteger })
}

fn put_unsigned(mut value: u64, output: &mut [u8]) -> usize {
    let mut size = 0;
    while value >= 0x80 {
        output[size] = value as u8 | 0x80;
        value >>= 7;
        size += 1;
    }
    output[size] = value as u8;
    size + 1
}

fn size_unsigned(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The number that `value` stands for.
pub(super) fn zigzag_i32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// The number that `value` stands for.
pub(super) fn zigzag_i64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The bytes of an integer, for tests that write records by hand.
#[cfg(test)]
pub(super) fn encoded(value: i64) -> Vec<u8> {
    let mut bytes = [0; VARLONG_SIZE_MAX];
    let size = put_i64(value, &mut bytes);
    bytes[..size].to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn i32_reads_back(value in integer().prop_map(|value| value as i32)) {
            let mut bytes = [0xa5; 2 * VARLONG_SIZE_MAX];
            let size = put_i32(value, &mut bytes);
            prop_assert_eq!(size, size_i32(value));
            // Alone, and before other bytes.
            for end in [size, bytes.len()] {
                let mut input = &bytes[..end];
                prop_assert_eq!(take_i32(&mut input), Ok(value));
                prop_assert_eq!(input, &bytes[size..end]);
            }
            prop_assert_eq!(take_i32(&mut &bytes[..size - 1]), Err(RecordFault::Truncated));
        }

        #[test]
        fn i64_reads_back(value in integer()) {
            let mut bytes = [0xa5; 2 * VARLONG_SIZE_MAX];
            let size = put_i64(value, &mut bytes);
            prop_assert_eq!(size, size_i64(value));
            for end in [size, bytes.len()] {
                let mut input = &bytes[..end];
                prop_assert_eq!(take_i64(&mut input), Ok(value));
                prop_assert_eq!(input, &bytes[size..end]);
            }
            prop_assert_eq!(take_i64(&mut &bytes[..size - 1]), Err(RecordFault::Truncated));
        }
    }

    /// Integers of every size.
    fn integer() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
    }

    #[test]
    fn extremes_have_their_known_bytes() {
        let mut bytes = [0; VARLONG_SIZE_MAX];
        assert_eq!(put_i32(i32::MIN, &mut bytes), 5);
        assert_eq!(bytes[..5], [0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(put_i64(i64::MIN, &mut bytes), 10);
        assert_eq!(bytes, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(put_i32(-1, &mut bytes), 1);
        assert_eq!(bytes[0], 1);
    }

    #[test]
    fn endless_integers_are_refused() {
        assert_eq!(take_i32(&mut &[0x80; 5][..]), Err(RecordFault::LongInteger));
        assert_eq!(take_i64(&mut &[0x80; 10][..]), Err(RecordFault::LongInteger));
        assert_eq!(take_i32(&mut &[0x80; 40][..]), Err(RecordFault::LongInteger));
        assert_eq!(take_i64(&mut &[0x80; 40][..]), Err(RecordFault::LongInteger));
        // A sixth byte would end it, which is one too late for 32 bits.
        let six = [0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0, 0, 0];
        assert_eq!(take_i32(&mut &six[..]), Err(RecordFault::LongInteger));
    }

    #[test]
    fn longer_than_necessary_is_accepted() {
        assert_eq!(take_i32(&mut &[0x82, 0x80, 0x00][..]), Ok(1));
    }
}
