//! Single records, read lazily from the uncompressed records of a batch.
//!
//! ```text
//! record   length        varint   bytes that follow
//!          attributes    i8       unused
//!          timestamp     varlong  minus the batch's base timestamp
//!          offset        varint   minus the batch's base offset
//!          key length    varint   −1 for no key, then the key
//!          value length  varint   −1 for no value, then the value
//!          header count  varint   then the headers
//! header   key length    varint   then the key, which is never missing
//!          value length  varint   −1 for no value, then the value
//! ```

use std::borrow::Cow;

use fleuve_types::{Offset, TimestampMs};

use super::alike::take_alike;
use super::outline::Outline;
use super::varint::{take_i32, take_i64};
use super::{BatchError, BatchHeader, RecordFault, TimestampType};

/// A record, borrowing from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Offset in the partition, if the batch's base offset is one.
    pub offset: Offset,
    /// Creation time, or append time if the batch says so.
    pub timestamp: TimestampMs,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; a record without one deletes its key in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers, in order and with their duplicates.
    pub headers: Headers<'a>,
}

/// A record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key. Kafka means it as UTF-8 text, but no broker enforces that.
    pub key: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Makes a header.
    pub fn new(key: &'a str, value: Option<&'a [u8]>) -> Self {
        Self { key: key.as_bytes(), value }
    }

    /// The key as text, with U+FFFD for what is not UTF-8, as in Java.
    pub fn key_text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }
}

/// The headers of a record: an iterator over them that can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: usize,
    /// Exactly `count` well-formed headers.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Takes what remains of a record as its headers, after a walk over all of them.
    #[inline]
    pub(super) fn parse(input: &'a [u8]) -> Result<Self, RecordFault> {
        // One zero byte is "no headers", by far the most common case.
        if input == [0] {
            return Ok(Self::default());
        }
        Self::parse_some(input)
    }

    fn parse_some(mut input: &'a [u8]) -> Result<Self, RecordFault> {
        let count = take_i32(&mut input).map_err(within_record)?;
        let bytes = input;
        for _ in 0..count {
            Self::take_one(&mut input).map_err(within_record)?;
        }
        match usize::try_from(count) {
            Ok(_) if !input.is_empty() => Err(RecordFault::LengthMismatch),
            Ok(count) => Ok(Self { count, bytes }),
            Err(_) => Err(RecordFault::NegativeLength),
        }
    }

    /// The headers as they stand in the record, without their count.
    pub(super) fn encoded(&self) -> &'a [u8] {
        self.bytes
    }

    fn take_one(input: &mut &'a [u8]) -> Result<Header<'a>, RecordFault> {
        let key = take_bytes(input)?.ok_or(RecordFault::NegativeLength)?;
        let value = take_bytes(input)?;
        Ok(Header { key, value })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        Some(Self::take_one(&mut self.bytes).expect("headers were walked when they were parsed"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Iterator over the records of a batch.
///
/// It ends after the first error. It yields an error at the end when the batch holds more or fewer
/// records than its header says.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    input: &'a [u8],
    base_offset: Offset,
    base_timestamp: TimestampMs,
    /// The timestamp of every record, when the broker set it.
    append_time: Option<TimestampMs>,
    count: i32,
    next_index: i32,
    finished: bool,
}

impl<'a> RecordIter<'a> {
    /// Iterates over `records`, the uncompressed records of the batch that `header` begins.
    pub fn new(header: &BatchHeader, records: &'a [u8]) -> Self {
        let append_time = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp),
        };
        Self {
            input: records,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time,
            count: header.count,
            next_index: 0,
            finished: false,
        }
    }

    fn take_record(&mut self) -> Result<Record<'a>, RecordFault> {
        let raw = RawRecord::take(&mut self.input)?;
        Ok(Record {
            // Deltas are foreign: wrapping is what Java does, and panicking would be worse.
            offset: Offset(self.base_offset.0.wrapping_add(i64::from(raw.offset_delta))),
            timestamp: self
                .append_time
                .unwrap_or(TimestampMs(self.base_timestamp.0.wrapping_add(raw.timestamp_delta))),
            key: raw.key,
            value: raw.value,
            headers: Headers::parse(raw.headers)?,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        if self.next_index == self.count {
            self.finished = true;
            let size = self.input.len();
            return (size > 0).then_some(Err(BatchError::TrailingBytes { size }));
        }
        let index = self.next_index;
        self.next_index += 1;
        Some(self.take_record().map_err(|fault| {
            self.finished = true;
            BatchError::MalformedRecord { index, fault }
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count is foreign, so it must not become somebody's allocation: a record has at
        // least seven bytes.
        (0, Some(self.input.len() / RECORD_SIZE_MIN + 1))
    }
}

impl std::iter::FusedIterator for RecordIter<'_> {}

/// What a walk over all records of a batch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsSummary {
    /// Lowest timestamp, `None` for an empty batch.
    pub min_timestamp: Option<TimestampMs>,
    /// Highest timestamp, `None` for an empty batch.
    pub max_timestamp: Option<TimestampMs>,
    /// Offset of the first record with the highest timestamp.
    pub offset_of_max_timestamp: Offset,
    /// Records without a key, which a compacted topic refuses.
    pub keyless: i32,
    /// Whether the offsets count up from the base offset without a gap, as a producer's must.
    pub offsets_are_dense: bool,
}

/// Walks over `records`, the uncompressed records of the batch that `header` begins, and checks
/// the structure of each.
///
/// Nothing is allocated and no key or value is read, so this is cheap enough for every produced
/// batch that is not compressed.
pub fn validate_records(
    header: &BatchHeader,
    records: &[u8],
) -> Result<RecordsSummary, BatchError> {
    let mut input = records;
    let (mut min_delta, mut max_delta) = (i64::MAX, i64::MIN);
    let mut offset_delta_of_max = 0;
    let mut keyless = 0;
    let mut offsets_are_dense = true;
    let mut index = 0;
    let mut last_size = 0;
    while index < header.count {
        let begin = input;
        let outline = match Outline::take_plain(&mut input) {
            Some(outline) => outline,
            None => {
                // Nothing is compared with one that is not plain.
                last_size = 0;
                Outline::take(&mut input)
                    .map_err(|fault| BatchError::MalformedRecord { index, fault })?
            }
        };
        min_delta = min_delta.min(outline.timestamp_delta);
        if outline.timestamp_delta > max_delta {
            max_delta = outline.timestamp_delta;
            offset_delta_of_max = outline.offset_delta;
        }
        keyless += i32::from(outline.is_keyless);
        offsets_are_dense &= outline.offset_delta == index;
        index += 1;
        let size = begin.len() - input.len();
        // Where sizes differ, the next record is hardly ever alike.
        if size == last_size && outline.is_keyless {
            let left = usize::try_from(header.count - index).unwrap_or(0);
            let alike = take_alike(&mut input, &begin[..size], left) as i32;
            keyless += alike;
            index += alike;
        }
        last_size = size;
    }
    if !input.is_empty() {
        return Err(BatchError::TrailingBytes { size: input.len() });
    }
    let time = |delta| {
        (header.count > 0).then(|| match header.attributes.timestamp_type() {
            TimestampType::CreateTime => TimestampMs(header.base_timestamp.0.wrapping_add(delta)),
            TimestampType::LogAppendTime => header.max_timestamp,
        })
    };
    Ok(RecordsSummary {
        min_timestamp: time(min_delta),
        max_timestamp: time(max_delta),
        offset_of_max_timestamp: Offset(
            header.base_offset.0.wrapping_add(i64::from(offset_delta_of_max)),
        ),
        keyless,
        offsets_are_dense,
    })
}

/// Length, attributes, two deltas, two lengths and the header count, a byte each.
const RECORD_SIZE_MIN: usize = 7;

/// A record cut into its parts, headers not yet looked at.
pub(super) struct RawRecord<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    pub(super) headers: &'a [u8],
}

impl<'a> RawRecord<'a> {
    #[inline]
    pub(super) fn take(input: &mut &'a [u8]) -> Result<Self, RecordFault> {
        let length = take_i32(input)?;
        let length = usize::try_from(length).map_err(|_| RecordFault::NegativeLength)?;
        let (mut body, rest) = input.split_at_checked(length).ok_or(RecordFault::Truncated)?;
        let record = Self::parse(&mut body).map_err(within_record)?;
        *input = rest;
        Ok(record)
    }

    #[inline]
    fn parse(body: &mut &'a [u8]) -> Result<Self, RecordFault> {
        *body = body.get(1..).ok_or(RecordFault::Truncated)?;
        let timestamp_delta = take_i64(body)?;
        let offset_delta = take_i32(body)?;
        let key = take_bytes(body)?;
        let value = take_bytes(body)?;
        Ok(Self { timestamp_delta, offset_delta, key, value, headers: body })
    }
}

/// What a fault means that was found within the bytes that a record claims as its own.
fn within_record(fault: RecordFault) -> RecordFault {
    match fault {
        // The batch may go on, only the record's own length ends too early.
        RecordFault::Truncated => RecordFault::LengthMismatch,
        other => other,
    }
}

/// Takes a length and as many bytes; any negative length means `None`, as in Java.
#[inline]
fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordFault> {
    let length = take_i32(input)?;
    let Ok(length) = usize::try_from(length) else {
        return Ok(None);
    };
    let (bytes, rest) = input.split_at_checked(length).ok_or(RecordFault::Truncated)?;
    *input = rest;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::varint::encoded;
    use super::super::{BatchBuilder, BatchOptions};
    use super::*;

    /// A record without key, value and headers.
    const PLAIN: [u8; 7] = [12, 0, 0, 0, 1, 1, 0];

    /// What reading `records` as a batch of `count` gives, which iterator and validation agree on.
    fn read(count: i32, records: &[u8]) -> Result<usize, BatchError> {
        let empty = BatchBuilder::new(BatchOptions::default()).finish();
        let mut header = BatchHeader::parse(&empty).unwrap();
        header.count = count;
        let all: Result<Vec<_>, _> = RecordIter::new(&header, records).collect();
        let found = all.map(|all| all.len());
        assert_eq!(validate_records(&header, records).map(|_| count as usize), found);
        found
    }

    fn malformed(index: i32, fault: RecordFault) -> Result<usize, BatchError> {
        Err(BatchError::MalformedRecord { index, fault })
    }

    #[test]
    fn the_count_must_agree_with_the_bytes() {
        assert_eq!(read(0, &[]), Ok(0));
        assert_eq!(read(1, &PLAIN), Ok(1));
        assert_eq!(read(0, &PLAIN), Err(BatchError::TrailingBytes { size: 7 }));
        assert_eq!(read(2, &PLAIN), malformed(1, RecordFault::Truncated));
    }

    #[test]
    fn a_record_must_fill_its_length() {
        assert_eq!(read(1, &[10, 0, 0, 0, 1, 1, 0]), malformed(0, RecordFault::LengthMismatch));
        assert_eq!(read(1, &[14, 0, 0, 0, 1, 1, 0]), malformed(0, RecordFault::Truncated));
        assert_eq!(read(1, &[14, 0, 0, 0, 1, 1, 0, 9]), malformed(0, RecordFault::LengthMismatch));
        assert_eq!(read(1, &[0]), malformed(0, RecordFault::LengthMismatch));
        assert_eq!(read(1, &[1]), malformed(0, RecordFault::NegativeLength));
    }

    #[test]
    fn lengths_within_a_record_stay_within_it() {
        // The key claims 64 bytes, which the batch has but the record does not.
        let long_key = [&[12, 0, 0, 0, 0x80, 0x01, 0][..], &[0; 64]].concat();
        assert_eq!(read(1, &long_key), malformed(0, RecordFault::LengthMismatch));
    }

    #[test]
    fn any_negative_length_is_no_value() {
        assert_eq!(read(1, &[12, 0, 0, 0, 3, 5, 0]), Ok(1));
    }

    #[test]
    fn header_counts_are_not_trusted() {
        assert_eq!(read(1, &[12, 0, 0, 0, 1, 1, 1]), malformed(0, RecordFault::NegativeLength));
        // i32::MAX headers, of which none is there.
        let many = [20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(read(1, &many), malformed(0, RecordFault::LengthMismatch));
        // A header without a key.
        let keyless = [16, 0, 0, 0, 1, 1, 2, 1, 1];
        assert_eq!(read(1, &keyless), malformed(0, RecordFault::NegativeLength));
    }

    /// How a record differs from the one before it, besides the next offset.
    #[derive(Debug, Clone, Copy)]
    enum Change {
        None,
        LaterBy(i64),
        OffsetBy(i32),
        ValueOf(usize),
        Keyed,
        Keyless,
        WithHeader,
        /// A byte that is another one at a place.
        Damage(usize, u8),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            20 => Just(Change::None),
            1 => (-2_i64..200).prop_map(Change::LaterBy),
            1 => (-3_i32..300).prop_map(Change::OffsetBy),
            1 => (0_usize..20).prop_map(Change::ValueOf),
            1 => Just(Change::Keyed),
            1 => Just(Change::Keyless),
            1 => Just(Change::WithHeader),
        ]
    }

    /// Records that mostly go on as they began.
    fn records(first_offset: i32, changes: &[Change]) -> Vec<u8> {
        let (mut timestamp, mut offset, mut value, mut key) = (0, first_offset, 12, None);
        let mut records = Vec::new();
        for change in changes {
            let (mut headers, mut damage) = (vec![0], None);
            match *change {
                Change::None => {}
                Change::LaterBy(delta) => timestamp += delta,
                Change::OffsetBy(delta) => offset += delta,
                Change::ValueOf(size) => value = size,
                Change::Keyed => key = Some(b"key"),
                Change::Keyless => key = None,
                // It ends like a record without one.
                Change::WithHeader => headers = vec![2, 0, 2, 0],
                Change::Damage(at, byte) => damage = Some((at, byte)),
            }
            let key = key.map_or(encoded(-1), |key| [&[6], &key[..]].concat());
            let value = [encoded(value as i64), vec![7; value]].concat();
            let body =
                [vec![0], encoded(timestamp), encoded(offset.into()), key, value, headers].concat();
            let mut record = [encoded(body.len() as i64), body].concat();
            if let Some((at, byte)) = damage {
                let at = at % record.len();
                record[at] = byte;
            }
            records.extend(record);
            offset = offset.wrapping_add(1);
        }
        records
    }

    proptest! {
        #[test]
        fn records_that_go_on_as_they_began_are_checked_like_any_others(
            first_offset in prop_oneof![Just(0), -70_i32..70, 8_100_i32..8_200],
            changes in prop::collection::vec(change(), 1..200),
            damage in prop::option::of((any::<prop::sample::Index>(), 0_usize..32, any::<u8>())),
            cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
            other_count in prop::option::weighted(0.1, 0_i32..200),
        ) {
            let mut changes = changes;
            if let Some((index, at, byte)) = damage {
                *index.get_mut(&mut changes) = Change::Damage(at, byte);
            }
            let mut bytes = records(first_offset, &changes);
            if let Some(end) = cut {
                bytes.truncate(end.index(bytes.len()));
            }
            let empty = BatchBuilder::new(BatchOptions::default()).finish();
            let mut header = BatchHeader::parse(&empty).unwrap();
            header.count = other_count.unwrap_or(changes.len() as i32);
            let all: Result<Vec<_>, _> = RecordIter::new(&header, &bytes).collect();
            let expected = all.map(|all| {
                let latest = all.iter().map(|record| record.timestamp).max();
                let of_latest = all.iter().find(|record| Some(record.timestamp) == latest);
                RecordsSummary {
                    min_timestamp: all.iter().map(|record| record.timestamp).min(),
                    max_timestamp: latest,
                    offset_of_max_timestamp: of_latest.map_or(header.base_offset, |it| it.offset),
                    keyless: all.iter().filter(|record| record.key.is_none()).count() as i32,
                    offsets_are_dense: (header.base_offset.0..)
                        .zip(&all)
                        .all(|(offset, record)| record.offset.0 == offset),
                }
            });
            prop_assert_eq!(validate_records(&header, &bytes), expected);
        }
    }

    #[test]
    fn endless_integers_are_named() {
        let endless = [0xff; 30];
        assert_eq!(read(1, &endless), malformed(0, RecordFault::LongInteger));
    }
}
