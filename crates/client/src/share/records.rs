//! Records that a share consumer has acquired.

use std::ops::Deref;

use bytes::Bytes;
use fleuve_protocol::records::Decompressor;
use fleuve_types::TopicPartition;

use crate::consumer::{Iter, Record, Records, TimestampType};
use crate::error::Result;

/// Acquired records of one partition, in order.
#[derive(Clone, Debug)]
pub struct ShareRecords {
    records: Records,
    /// First offset, last offset and delivery count, in order.
    acquired: Vec<(i64, i64, i16)>,
}

/// An acquired record; it reads like a [`Record`].
#[derive(Clone, Copy, Debug)]
pub struct ShareRecord<'a> {
    record: Record<'a>,
    /// How often it was given to somebody, this time included.
    pub delivery_count: i16,
}

impl<'a> Deref for ShareRecord<'a> {
    type Target = Record<'a>;

    fn deref(&self) -> &Record<'a> {
        &self.record
    }
}

/// Undoes the batches that came with the `acquired` ranges; beside the records come the runs of
/// acquired offsets without one, as compaction and transactions leave them.
pub(super) fn undo(
    partition: TopicPartition,
    bytes: Bytes,
    mut acquired: Vec<(i64, i64, i16)>,
    decompressor: &mut Decompressor,
) -> Result<(ShareRecords, Vec<(i64, i64)>)> {
    acquired.sort_unstable();
    let first = acquired.first().map_or(0, |(first, _, _)| *first);
    let records = Records::decode_acquired(partition, first, bytes, decompressor)?;
    let share = ShareRecords { records, acquired };
    let gaps = share.gaps();
    Ok((share, gaps))
}

impl ShareRecords {
    /// Returns the partition.
    pub fn partition(&self) -> &TopicPartition {
        self.records.partition()
    }

    /// Reports whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Iterates over the records.
    pub fn iter(&self) -> ShareIter<'_> {
        ShareIter { records: self.records.iter(), acquired: &self.acquired }
    }

    fn gaps(&self) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut offsets = self.iter().map(|record| record.offset.0).peekable();
        for &(first, last, _) in &self.acquired {
            let mut next = first;
            while let Some(&offset) = offsets.peek()
                && offset <= last
            {
                if offset > next {
                    gaps.push((next, offset - 1));
                }
                next = offset.saturating_add(1);
                offsets.next();
            }
            if next <= last {
                gaps.push((next, last));
            }
        }
        gaps
    }
}

impl<'a> IntoIterator for &'a ShareRecords {
    type Item = ShareRecord<'a>;
    type IntoIter = ShareIter<'a>;

    fn into_iter(self) -> ShareIter<'a> {
        self.iter()
    }
}

/// Iterator over acquired records.
pub struct ShareIter<'a> {
    records: Iter<'a>,
    /// The ranges not behind us yet.
    acquired: &'a [(i64, i64, i16)],
}

impl ShareIter<'_> {
    /// Returns what the timestamp of the record given last means.
    pub fn timestamp_type(&self) -> TimestampType {
        self.records.timestamp_type()
    }
}

impl<'a> Iterator for ShareIter<'a> {
    type Item = ShareRecord<'a>;

    fn next(&mut self) -> Option<ShareRecord<'a>> {
        loop {
            let record = self.records.next()?;
            let offset = record.offset.0;
            while let Some((&(_, last, _), rest)) = self.acquired.split_first()
                && last < offset
            {
                self.acquired = rest;
            }
            let &(first, _, delivery_count) = self.acquired.first()?;
            // A batch may hold records that somebody else has.
            if offset >= first {
                return Some(ShareRecord { record, delivery_count });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
    use fleuve_types::Offset;

    use super::*;

    fn acquired(ranges: &[(i64, i64, i16)]) -> (ShareRecords, Vec<(i64, i64)>) {
        // Offsets 10 to 14 and 20 to 22; between them is nothing.
        let mut bytes = Vec::new();
        for (base, count) in [(10, 5), (20, 3)] {
            let options = BatchOptions { base_offset: Offset(base), ..BatchOptions::default() };
            let mut builder = BatchBuilder::new(options);
            for _ in 0..count {
                builder.append(&NewRecord::default()).expect("room");
            }
            bytes.extend_from_slice(&builder.finish());
        }
        let partition = TopicPartition::new("t", 0);
        let mut decompressor = Decompressor::new(1 << 20);
        undo(partition, bytes.into(), ranges.to_vec(), &mut decompressor).expect("well-formed")
    }

    #[test]
    fn only_acquired_records_are_given_with_their_delivery_counts() {
        let (records, gaps) = acquired(&[(20, 21, 3), (11, 12, 1)]);
        let seen: Vec<_> = records.iter().map(|r| (r.offset.0, r.delivery_count)).collect();
        assert_eq!(seen, [(11, 1), (12, 1), (20, 3), (21, 3)]);
        assert_eq!(gaps, []);
    }

    #[test]
    fn acquired_offsets_without_a_record_are_gaps_however_many() {
        let (records, gaps) = acquired(&[(10, 20, 1), (22, i64::MAX, 1)]);
        assert_eq!(records.iter().count(), 7);
        assert_eq!(gaps, [(15, 19), (23, i64::MAX)]);
    }
}
