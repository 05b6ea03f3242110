//! Records as they were fetched: batches undone, records still in the fetched bytes.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use fleuve_protocol::records::layout;
use fleuve_protocol::records::{
    Batch, BatchError, BatchHeader, Batches, ControlRecordType, Decompressor, RecordIter,
    validate_records,
};
use fleuve_types::TopicPartition;

use crate::error::{Error, Result};

pub use fleuve_protocol::records::{Headers, Record, TimestampType};

/// Records of one partition, in order.
///
/// Iterating borrows keys, values and headers from the fetched bytes and allocates nothing.
#[derive(Clone, Debug)]
pub struct Records {
    partition: TopicPartition,
    /// Records before this offset stand in the first batch but were not asked for.
    first_offset: i64,
    next_offset: i64,
    last_epoch: i32,
    high_watermark: i64,
    batches: Vec<Decoded>,
    bytes: usize,
    count: usize,
    /// The consumer's word for when it was sent to where this was read; see `state`.
    pub(super) sent: u64,
}

#[derive(Clone, Debug)]
struct Decoded {
    header: BatchHeader,
    /// Uncompressed, and known to hold well-formed records.
    records: Bytes,
}

/// A record that keeps its bytes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The epoch of the leader that wrote it; -1 if unknown.
    pub leader_epoch: i32,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// What a fetch answer says beside its records.
pub(super) struct Fetched {
    pub(super) partition: TopicPartition,
    pub(super) fetch_offset: i64,
    pub(super) high_watermark: i64,
    /// Aborted transactions as producer and first offset; only consumers of committed records get
    /// them.
    pub(super) aborted: Option<Vec<(i64, i64)>>,
}

impl Records {
    /// Undoes the batches in `pieces`: checks checksums and structure, decompresses, and leaves out
    /// control records and what aborted transactions wrote.
    ///
    /// Batches stand in one piece each, as a rule; one that does not is joined.
    pub(super) fn decode(
        fetched: Fetched,
        pieces: Vec<Bytes>,
        decompressor: &mut Decompressor,
    ) -> Result<Self> {
        let Fetched { partition, fetch_offset, high_watermark, aborted } = fetched;
        let mut aborted = aborted.map(Aborted::new);
        let size: usize = pieces.iter().map(Bytes::len).sum();
        let mut records = Self {
            partition,
            first_offset: fetch_offset,
            next_offset: fetch_offset,
            last_epoch: -1,
            high_watermark,
            batches: Vec::new(),
            bytes: 0,
            count: 0,
            sent: 0,
        };
        for batch in batches(pieces) {
            let corrupt = |offset: i64, error: BatchError| Error::CorruptRecords {
                partition: records.partition.clone(),
                offset,
                reason: error.to_string(),
            };
            let batch = match batch {
                Ok(batch) => batch,
                // The broker cuts an answer at its size limit, wherever that is.
                Err(BatchError::Incomplete { .. }) => break,
                Err(error) => return Err(corrupt(records.next_offset, error)),
            };
            let Found { header, payload, intact } = batch;
            let at = header.base_offset.0;
            intact.map_err(|error| corrupt(at, error))?;
            if header.last_offset().0 < fetch_offset {
                continue;
            }
            let codec = header.compression().map_err(|error| corrupt(at, error))?;
            let visible = match &mut aborted {
                Some(aborted) => aborted.lets_through(&header, &payload),
                None => !header.attributes.is_control(),
            };
            if visible {
                let payload =
                    decompressor.decompress(codec, &payload).map_err(|error| corrupt(at, error))?;
                validate_records(&header, &payload).map_err(|error| corrupt(at, error))?;
                records.bytes += payload.len();
                records.count += if at >= fetch_offset {
                    usize::try_from(header.count).unwrap_or(0)
                } else {
                    let wanted = |record: &std::result::Result<Record<'_>, BatchError>| {
                        record.as_ref().is_ok_and(|record| record.offset.0 >= fetch_offset)
                    };
                    RecordIter::new(&header, &payload).filter(wanted).count()
                };
                records.batches.push(Decoded { header, records: payload });
            }
            records.next_offset = header.next_offset().0;
            records.last_epoch = header.leader_epoch.0;
        }
        if records.next_offset == fetch_offset {
            // Asking again would bring the same again, without end.
            return Err(Error::CorruptRecords {
                partition: records.partition,
                offset: fetch_offset,
                reason: format!("{size} bytes without a whole batch that reaches the offset"),
            });
        }
        Ok(records)
    }

    /// Undoes batches that a member of a share group acquired from `first_offset` on; the broker
    /// has left out what a transaction aborted.
    pub(crate) fn decode_acquired(
        partition: TopicPartition,
        first_offset: i64,
        bytes: Bytes,
        decompressor: &mut Decompressor,
    ) -> Result<Self> {
        let fetched =
            Fetched { partition, fetch_offset: first_offset, high_watermark: -1, aborted: None };
        Self::decode(fetched, vec![bytes], decompressor)
    }

    /// Returns the partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Returns the offset that was asked for.
    pub(super) fn fetch_offset(&self) -> i64 {
        self.first_offset
    }

    /// Returns the offset of the first record that comes after these.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Returns the leader epoch of the last of them; -1 if the leader did not say.
    pub fn last_epoch(&self) -> i32 {
        self.last_epoch
    }

    /// Returns the high watermark that the leader told with these records.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Returns the size of the records, uncompressed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many records there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Reports whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Iterates over the records.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            batches: self.batches.iter(),
            timestamp_type: TimestampType::default(),
            current: None,
            first_offset: self.first_offset,
        }
    }

    /// Gives the records one by one, each keeping its bytes: slices of what was fetched, not copies.
    pub fn into_owned(mut self) -> impl Iterator<Item = OwnedRecord> {
        std::iter::from_fn(move || self.take_batch()).flatten()
    }

    /// Takes the records of the next batch, each keeping its bytes; nothing if no batch is left.
    pub(super) fn take_batch(&mut self) -> Option<VecDeque<OwnedRecord>> {
        if self.batches.is_empty() {
            return None;
        }
        let batch = self.batches.remove(0);
        let owned = RecordIter::new(&batch.header, &batch.records)
            .map(|record| record.expect(VALIDATED))
            .filter(|record| record.offset.0 >= self.first_offset)
            .map(|record| OwnedRecord::new(&self.partition, &batch, &record));
        Some(owned.collect())
    }
}

/// A batch that was found, with what its checksum says.
struct Found {
    header: BatchHeader,
    payload: Bytes,
    intact: std::result::Result<(), BatchError>,
}

impl Found {
    fn whole(batch: &Batch) -> Self {
        Self { header: batch.header, payload: batch.payload(), intact: batch.verify_crc() }
    }

    /// A batch whose header stands apart from its records, as a broker of this process gives it
    /// that has placed the batch in its log: it writes the header anew, and keeps the rest.
    fn placed(header: BatchHeader, bytes: &Bytes, payload: Bytes) -> Self {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&bytes[layout::ATTRIBUTES..layout::HEADER_SIZE]);
        digest.update(&payload);
        let computed = digest.finalize() as u32;
        let intact = match computed == header.crc {
            true => Ok(()),
            false => Err(BatchError::ChecksumMismatch { stored: header.crc, computed }),
        };
        Self { header, payload, intact }
    }
}

/// Walks over the batches in `pieces`, and joins only what is cut anywhere but behind a header.
fn batches(pieces: Vec<Bytes>) -> impl Iterator<Item = std::result::Result<Found, BatchError>> {
    let mut pieces = VecDeque::from(pieces);
    let mut rest = Bytes::new();
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                rest = pieces.pop_front()?;
            }
            match (Batches::new(rest.clone()).next(), pieces.front_mut()) {
                (None, _) => rest = Bytes::new(),
                (Some(Ok(batch)), _) => {
                    rest.advance(batch.header.size());
                    return Some(Ok(Found::whole(&batch)));
                }
                (Some(Err(BatchError::Incomplete { .. })), Some(next)) => {
                    let header = BatchHeader::parse(&rest).ok();
                    let header = header.filter(|header| {
                        let missing = header.size().saturating_sub(layout::HEADER_SIZE);
                        rest.len() == layout::HEADER_SIZE && next.len() >= missing
                    });
                    if let Some(header) = header {
                        let payload = next.split_to(header.size() - layout::HEADER_SIZE);
                        let found = Found::placed(header, &rest, payload);
                        rest = Bytes::new();
                        return Some(Ok(found));
                    }
                    rest = [std::mem::take(&mut rest), std::mem::take(next)].concat().into();
                    pieces.pop_front();
                }
                (Some(Err(error)), _) => {
                    // Nothing behind it can be found.
                    (rest, pieces) = (Bytes::new(), VecDeque::new());
                    return Some(Err(error));
                }
            }
        }
    })
}

impl<'a> IntoIterator for &'a Records {
    type Item = Record<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterator over fetched records.
pub struct Iter<'a> {
    batches: std::slice::Iter<'a, Decoded>,
    /// That of the present batch.
    timestamp_type: TimestampType,
    current: Option<RecordIter<'a>>,
    first_offset: i64,
}

impl Iter<'_> {
    /// Returns what the timestamp of the record given last means.
    pub fn timestamp_type(&self) -> TimestampType {
        self.timestamp_type
    }
}

const VALIDATED: &str = "the structure of the records was checked when they were fetched";

impl<'a> Iterator for Iter<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            if let Some(records) = &mut self.current {
                for record in records {
                    let record = record.expect(VALIDATED);
                    if record.offset.0 >= self.first_offset {
                        return Some(record);
                    }
                }
            }
            let batch = self.batches.next()?;
            self.timestamp_type = batch.header.attributes.timestamp_type();
            self.current = Some(RecordIter::new(&batch.header, &batch.records));
        }
    }
}

impl OwnedRecord {
    /// Keeps `record`, which borrows from `batch`, by counting another reference to its bytes.
    fn new(partition: &TopicPartition, batch: &Decoded, record: &Record<'_>) -> Self {
        let bytes = &batch.records;
        Self {
            topic: partition.topic.clone(),
            partition: partition.partition,
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            leader_epoch: batch.header.leader_epoch.0,
            key: record.key.map(|key| bytes.slice_ref(key)),
            value: record.value.map(|value| bytes.slice_ref(value)),
            headers: record
                .headers
                .map(|header| {
                    let value = header.value.map(|value| bytes.slice_ref(value));
                    (header.key_text().into_owned(), value)
                })
                .collect(),
        }
    }
}

/// Knows which transactions were aborted, while walking over a fetch answer.
struct Aborted {
    /// Producer and first offset of transactions further on, by first offset.
    ahead: VecDeque<(i64, i64)>,
    /// Producers inside an aborted transaction.
    inside: HashSet<i64>,
}

impl Aborted {
    fn new(mut transactions: Vec<(i64, i64)>) -> Self {
        transactions.sort_unstable_by_key(|(_, first_offset)| *first_offset);
        Self { ahead: transactions.into(), inside: HashSet::new() }
    }

    fn lets_through(&mut self, header: &BatchHeader, payload: &Bytes) -> bool {
        while let Some(&(producer, first_offset)) = self.ahead.front()
            && first_offset <= header.last_offset().0
        {
            self.inside.insert(producer);
            self.ahead.pop_front();
        }
        let producer = header.producer_id.0;
        if header.attributes.is_control() {
            // Control batches hold one record and are never compressed.
            let marker = RecordIter::new(header, payload).next().and_then(Result::ok);
            let kind = marker.and_then(|record| ControlRecordType::of(&record).ok());
            if kind == Some(ControlRecordType::Abort) {
                self.inside.remove(&producer);
            }
            return false;
        }
        !(header.attributes.is_transactional() && self.inside.contains(&producer))
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{
        BatchBuilder, BatchOptions, BatchProducer, Codec, Compression, NewRecord, control_batch,
    };
    use fleuve_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

    use super::*;

    fn batch(base_offset: i64, values: &[&[u8]], options: BatchOptions) -> Bytes {
        let options = BatchOptions { base_offset: Offset(base_offset), ..options };
        let mut builder = BatchBuilder::new(options);
        for value in values {
            builder
                .append(&NewRecord { value: Some(value), ..NewRecord::default() })
                .expect("room");
        }
        builder.finish()
    }

    fn decode(
        bytes: Vec<u8>,
        fetch_offset: i64,
        aborted: Option<Vec<(i64, i64)>>,
    ) -> Result<Records> {
        let partition = TopicPartition::new("t", 0);
        let fetched = Fetched { partition, fetch_offset, high_watermark: 100, aborted };
        Records::decode(fetched, vec![bytes.into()], &mut Decompressor::new(1 << 20))
    }

    fn values(records: &Records) -> Vec<(i64, Vec<u8>)> {
        records.iter().map(|r| (r.offset.0, r.value.unwrap_or_default().to_vec())).collect()
    }

    #[test]
    fn records_before_the_wanted_offset_and_a_cut_tail_are_left_out() {
        let codec = Codec::new(Compression::Lz4);
        let mut bytes =
            batch(10, &[b"a", b"b", b"c"], BatchOptions { codec, ..Default::default() });
        let second = batch(13, &[b"d"], BatchOptions::default());
        let cut = batch(14, &[b"e"], BatchOptions::default());
        bytes = [&bytes[..], &second, &cut[..cut.len() - 1]].concat().into();
        let mut records = decode(bytes.to_vec(), 12, None).expect("valid");
        assert_eq!(values(&records), [(12, b"c".to_vec()), (13, b"d".to_vec())]);
        assert_eq!(records.next_offset(), 14);
        let owned = records.take_batch().expect("first batch");
        assert_eq!(owned.len(), 1);
        assert_eq!((owned[0].offset, owned[0].value.as_deref()), (12, Some(&b"c"[..])));
    }

    #[test]
    fn what_a_timestamp_means_is_known_of_each_record() {
        let by_broker =
            BatchOptions { log_append_time: Some(TimestampMs(7)), ..BatchOptions::default() };
        let created = batch(0, &[b"a", b"b"], BatchOptions::default());
        let appended = batch(2, &[b"c"], by_broker);
        let records = decode([created, appended].concat(), 0, None).expect("valid");
        let mut iter = records.iter();
        let mut seen = Vec::new();
        while let Some(record) = iter.next() {
            seen.push((record.offset.0, iter.timestamp_type()));
        }
        let (created, appended) = (TimestampType::CreateTime, TimestampType::LogAppendTime);
        assert_eq!(seen, [(0, created), (1, created), (2, appended)]);
    }

    #[test]
    fn batches_are_found_in_their_pieces_and_across_them() {
        let batches: Vec<_> =
            (0..4).map(|at| batch(at, &[b"v"], BatchOptions::default())).collect();
        let whole = Bytes::from(batches.concat());
        let place = || Fetched {
            partition: TopicPartition::new("t", 0),
            fetch_offset: 0,
            high_watermark: 4,
            aborted: None,
        };
        let read = |pieces: Vec<Bytes>| {
            Records::decode(place(), pieces, &mut Decompressor::new(1 << 20)).expect("valid")
        };
        let apart = read(batches.clone());
        assert_eq!((apart.count(), apart.next_offset()), (4, 4));
        for (batch, record) in batches.iter().zip(&apart) {
            let value = record.value.expect("a value").as_ptr_range();
            let bytes = batch.as_ptr_range();
            assert!(bytes.start < value.start && value.end <= bytes.end, "a copy");
        }
        let placed = batches.iter().flat_map(|batch| {
            [batch.slice(..layout::HEADER_SIZE), batch.slice(layout::HEADER_SIZE..)]
        });
        let placed = read(placed.collect());
        for (batch, record) in batches.iter().zip(&placed) {
            let value = record.value.expect("a value").as_ptr_range();
            assert!(batch.as_ptr_range().contains(&value.start), "a copy");
        }
        let mut broken = batches[0].slice(layout::HEADER_SIZE..).to_vec();
        *broken.last_mut().expect("bytes") ^= 1;
        let broken = vec![batches[0].slice(..layout::HEADER_SIZE), broken.into()];
        let error = Records::decode(place(), broken, &mut Decompressor::new(1 << 20));
        assert!(matches!(error, Err(Error::CorruptRecords { offset: 0, .. })), "{error:?}");
        for cut in 0..=whole.len() {
            let read = read(vec![whole.slice(..cut), whole.slice(cut..)]);
            assert_eq!((read.count(), read.next_offset()), (4, 4), "cut at {cut}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_reported_with_its_offset() {
        let mut bytes = batch(7, &[b"a"], BatchOptions::default()).to_vec();
        *bytes.last_mut().expect("bytes") ^= 1;
        let error = decode(bytes, 7, None).expect_err("corrupt");
        assert!(matches!(error, Error::CorruptRecords { offset: 7, .. }), "{error}");
    }

    #[test]
    fn an_answer_that_leads_nowhere_is_an_error_and_no_endless_loop() {
        let bytes = batch(7, &[b"a"], BatchOptions::default());
        for (bytes, fetch_offset) in [(bytes.slice(..bytes.len() - 1), 7), (bytes, 8)] {
            let error = decode(bytes.to_vec(), fetch_offset, None).expect_err("no progress");
            assert!(error.to_string().contains("without a whole batch"), "{error}");
        }
    }

    #[test]
    fn aborted_transactions_are_invisible_to_readers_of_committed_records() {
        let of = |id| BatchOptions {
            producer: Some(BatchProducer {
                id: ProducerId(id),
                epoch: ProducerEpoch(0),
                base_sequence: 0,
            }),
            transactional: true,
            ..Default::default()
        };
        let marker = |offset, id, kind: ControlRecordType| {
            let options = BatchOptions { base_offset: Offset(offset), ..of(id) };
            control_batch(options, kind, &[0; 6], TimestampMs(0))
        };
        let bytes = [
            batch(0, &[b"aborted"], of(1)),
            batch(1, &[b"kept"], of(2)),
            marker(2, 1, ControlRecordType::Abort),
            batch(3, &[b"next transaction"], of(1)),
            marker(4, 2, ControlRecordType::Commit),
            marker(5, 1, ControlRecordType::Commit),
        ]
        .concat();
        let committed = decode(bytes.clone(), 0, Some(vec![(1, 0)])).expect("valid");
        assert_eq!(values(&committed), [(1, b"kept".to_vec()), (3, b"next transaction".to_vec())]);
        assert_eq!(committed.next_offset(), 6);
        let all = decode(bytes, 0, None).expect("valid");
        assert_eq!(all.iter().count(), 3);
    }
}
