//! Writing batches.

use bytes::{BufMut, Bytes, BytesMut};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use thiserror::Error;

use super::compress::Compressor;
use super::header::checksum;
use super::varint::{VARLONG_SIZE_MAX, put_i32, put_i64, size_i32, size_i64};
use super::{Attributes, BatchHeader, Codec, Compression, Header, Record, TimestampType, layout};

/// A record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewRecord<'a> {
    /// Creation time.
    pub timestamp: TimestampMs,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers, in order and with their duplicates.
    pub headers: &'a [Header<'a>],
}

/// The idempotent producer in whose name a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchProducer {
    /// Id of the producer.
    pub id: ProducerId,
    /// Epoch of the producer.
    pub epoch: ProducerEpoch,
    /// Sequence number of the first record; −1 in batches that a broker writes for a producer.
    pub base_sequence: i32,
}

/// What a batch says beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Offset of the first record; producers leave it at 0.
    pub base_offset: Offset,
    /// Epoch of the leader; producers leave it unknown.
    pub leader_epoch: LeaderEpoch,
    /// How the records are compressed.
    pub codec: Codec,
    /// The time at which a broker appends the batch, if that is to be the time of all records.
    pub log_append_time: Option<TimestampMs>,
    /// The idempotent producer.
    pub producer: Option<BatchProducer>,
    /// Whether the batch belongs to a transaction.
    pub transactional: bool,
    /// Whether the records are control records.
    pub control: bool,
    /// Until when compaction keeps the tombstones and markers in the batch.
    pub delete_horizon: Option<TimestampMs>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::UNKNOWN,
            codec: Codec::default(),
            log_append_time: None,
            producer: None,
            transactional: false,
            control: false,
            delete_horizon: None,
        }
    }
}

impl BatchOptions {
    /// The options under which the batch of `header` was written, codec at its usual level.
    pub fn of(header: &BatchHeader) -> Result<Self, super::BatchError> {
        let attributes = header.attributes;
        Ok(Self {
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            codec: Codec::new(header.compression()?),
            log_append_time: match attributes.timestamp_type() {
                TimestampType::CreateTime => None,
                TimestampType::LogAppendTime => Some(header.max_timestamp),
            },
            producer: header.has_producer().then_some(BatchProducer {
                id: header.producer_id,
                epoch: header.producer_epoch,
                base_sequence: header.base_sequence,
            }),
            transactional: attributes.is_transactional(),
            control: attributes.is_control(),
            delete_horizon: header.delete_horizon(),
        })
    }

    fn attributes(&self) -> Attributes {
        let timestamp_type = match self.log_append_time {
            None => TimestampType::CreateTime,
            Some(_) => TimestampType::LogAppendTime,
        };
        Attributes::default()
            .with_compression(self.codec.compression())
            .with_timestamp_type(timestamp_type)
            .with_transactional(self.transactional)
            .with_control(self.control)
            .with_delete_horizon(self.delete_horizon.is_some())
    }
}

/// Why a record was not appended; the batch is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The batch would become larger than the format can express.
    #[error("a batch of {size} bytes is larger than the format allows")]
    TooLarge {
        /// The size it would have.
        size: usize,
    },
    /// The offset is below that of the last record, or too far from the base offset.
    #[error("offset {offset} cannot follow in a batch at {next} that begins at {base}")]
    BadOffset {
        /// The refused offset.
        offset: Offset,
        /// The lowest offset that would do.
        next: Offset,
        /// The base offset of the batch.
        base: Offset,
    },
}

/// Writes records into a batch.
///
/// Records go into one growing buffer, behind room for the header that [`BatchBuilder::finish`]
/// fills in. A builder can be used again after that and keeps its memory.
///
/// ```
/// use fleuve_protocol::records::{Batch, BatchBuilder, BatchOptions, NewRecord, RecordIter};
///
/// let mut builder = BatchBuilder::new(BatchOptions::default());
/// builder.append(&NewRecord { value: Some(b"hello"), ..NewRecord::default() })?;
/// let batch = Batch::parse(builder.finish())?;
///
/// let mut records = RecordIter::new(&batch.header, &batch.bytes[61..]);
/// assert_eq!(records.next().unwrap()?.value, Some(&b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the records as they are before compression.
    buffer: BytesMut,
    count: i32,
    next_offset_delta: i32,
    last_offset: Option<Offset>,
    base_timestamp: Option<TimestampMs>,
    max_timestamp: TimestampMs,
    compressor: Compressor,
    /// Compressed size by uncompressed size, in the batches finished so far.
    ratio: f32,
}

impl BatchBuilder {
    /// Begins an empty batch.
    pub fn new(options: BatchOptions) -> Self {
        Self::with_capacity(options, layout::HEADER_SIZE)
    }

    /// Begins an empty batch with room for `capacity` bytes before compression.
    pub fn with_capacity(options: BatchOptions, capacity: usize) -> Self {
        Self::with_buffer(options, BytesMut::with_capacity(capacity))
    }

    /// Begins an empty batch in the memory of `buffer`, whose contents are forgotten.
    pub fn with_buffer(options: BatchOptions, buffer: BytesMut) -> Self {
        let mut builder = Self {
            options,
            buffer,
            count: 0,
            next_offset_delta: 0,
            last_offset: None,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            compressor: Compressor::default(),
            ratio: 1.0,
        };
        builder.begin();
        builder
    }

    /// Appends a record at the next offset.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<(), AppendError> {
        let (base, next) = (self.options.base_offset, self.next_offset());
        // Of one more record, the count would not fit its field.
        if self.next_offset_delta == i32::MAX {
            return Err(AppendError::BadOffset { offset: next, next, base });
        }
        let raw = RawRecord {
            offset_delta: self.next_offset_delta,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            header_count: record.headers.len(),
            headers_size: size_of_headers(record.headers),
        };
        self.append_raw(&raw, |buffer| {
            for header in record.headers {
                put_bytes(buffer, Some(header.key));
                put_bytes(buffer, header.value);
            }
        })
    }

    /// Appends a record that was read from another batch at the offset it had there.
    ///
    /// Offsets may have gaps but must not go back.
    pub fn append_kept(&mut self, record: &Record<'_>) -> Result<(), AppendError> {
        let (base, next) = (self.options.base_offset, self.next_offset());
        let offset_delta = record
            .offset
            .0
            .checked_sub(base.0)
            .and_then(|delta| i32::try_from(delta).ok())
            .filter(|delta| *delta >= self.next_offset_delta && *delta < i32::MAX)
            .ok_or(AppendError::BadOffset { offset: record.offset, next, base })?;
        let encoded = record.headers.encoded();
        let raw = RawRecord {
            offset_delta,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            header_count: record.headers.len(),
            headers_size: encoded.len(),
        };
        self.append_raw(&raw, |buffer| buffer.put_slice(encoded))
    }

    /// Lets the finished batch end at `offset`, although its last record does not.
    ///
    /// Compaction does so, because followers and producers' sequences count on the offsets that a
    /// batch once covered. An offset before the last record or out of reach is ignored.
    pub fn keep_last_offset(&mut self, offset: Offset) {
        self.last_offset = Some(offset);
    }

    /// Number of records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Whether the batch will be compressed.
    pub fn is_compressing(&self) -> bool {
        self.options.codec.compression() != Compression::None
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch so far, before compression.
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// A guess at the size after compression, from how well earlier batches compressed.
    pub fn estimated_size(&self) -> usize {
        let records = self.buffer.len() - layout::HEADER_SIZE;
        layout::HEADER_SIZE + (records as f32 * self.ratio) as usize
    }

    /// The most bytes that `record` can add before compression, wherever it is appended.
    pub fn size_bound(record: &NewRecord<'_>) -> usize {
        RECORD_PREFIX_SIZE_MAX
            + size_of_bytes(record.key)
            + size_of_bytes(record.value)
            + size_of_headers(record.headers)
    }

    /// What the batch says beside its records; may be changed until the batch is finished.
    ///
    /// The base offset must stay once a record was appended with [`BatchBuilder::append_kept`],
    /// and the delete horizon once any record was.
    pub fn options_mut(&mut self) -> &mut BatchOptions {
        &mut self.options
    }

    /// Gives the batch, and no room for a next one; see [`BatchBuilder::finish`].
    pub fn into_batch(mut self) -> Bytes {
        if self.is_compressing() {
            return self.finish();
        }
        let mut batch = std::mem::take(&mut self.buffer);
        self.seal(&mut batch);
        batch.freeze()
    }

    /// Gives the batch and begins the next one under the same options.
    ///
    /// A batch without records is valid too; it is what compaction leaves of a producer's last
    /// batch.
    pub fn finish(&mut self) -> Bytes {
        let batch = if self.options.codec.compression() == Compression::None {
            let mut batch = self.buffer.split();
            self.seal(&mut batch);
            batch.freeze()
        } else {
            let mut batch = self.compressed();
            self.seal(&mut batch);
            Bytes::from(batch)
        };
        self.begin();
        batch
    }

    fn next_offset(&self) -> Offset {
        Offset(self.options.base_offset.0.saturating_add(i64::from(self.next_offset_delta)))
    }

    fn begin(&mut self) {
        self.buffer.clear();
        self.buffer.put_bytes(0, layout::HEADER_SIZE);
        self.count = 0;
        self.next_offset_delta = 0;
        self.last_offset = None;
        self.base_timestamp = None;
        self.max_timestamp = NO_TIMESTAMP;
    }

    fn append_raw(
        &mut self,
        record: &RawRecord<'_>,
        put_headers: impl FnOnce(&mut BytesMut),
    ) -> Result<(), AppendError> {
        let base_timestamp =
            self.base_timestamp.or(self.options.delete_horizon).unwrap_or(record.timestamp);
        let timestamp_delta = record.timestamp.0.wrapping_sub(base_timestamp.0);
        let body_size = 1
            + size_i64(timestamp_delta)
            + size_i32(record.offset_delta)
            + size_of_bytes(record.key)
            + size_of_bytes(record.value)
            + size_i64(record.header_count as i64)
            + record.headers_size;
        let size = self.buffer.len() + body_size + VARLONG_SIZE_MAX;
        if size > BATCH_SIZE_MAX {
            return Err(AppendError::TooLarge { size });
        }

        // One copy for the small fields: many single-byte writes would each check the capacity.
        let mut prefix = [0; RECORD_PREFIX_SIZE_MAX + VARLONG_SIZE_MAX];
        let mut end = put_i32(body_size as i32, &mut prefix);
        end += 1;
        end += put_i64(timestamp_delta, &mut prefix[end..]);
        end += put_i32(record.offset_delta, &mut prefix[end..]);
        end += put_i32(length(record.key), &mut prefix[end..]);
        self.buffer.reserve(body_size + VARLONG_SIZE_MAX);
        self.buffer.put_slice(&prefix[..end]);
        self.buffer.put_slice(record.key.unwrap_or_default());
        put_bytes(&mut self.buffer, record.value);
        let end = put_i32(record.header_count as i32, &mut prefix);
        self.buffer.put_slice(&prefix[..end]);
        put_headers(&mut self.buffer);

        self.count += 1;
        self.next_offset_delta = record.offset_delta + 1;
        self.base_timestamp = Some(base_timestamp);
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        Ok(())
    }

    /// The compressed records behind room for the header.
    fn compressed(&mut self) -> Vec<u8> {
        let records = &self.buffer[layout::HEADER_SIZE..];
        let mut output = Vec::with_capacity(self.estimated_size());
        output.resize(layout::HEADER_SIZE, 0);
        if !records.is_empty() {
            self.compressor.compress(self.options.codec, records, &mut output);
            self.ratio = (output.len() - layout::HEADER_SIZE) as f32 / records.len() as f32;
        }
        output
    }

    /// Writes the header before the records.
    fn seal(&self, batch: &mut [u8]) {
        let header = self.header(batch.len());
        batch[..layout::HEADER_SIZE].copy_from_slice(&header.to_bytes());
        let crc = checksum(batch);
        batch[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    }

    fn header(&self, size: usize) -> BatchHeader {
        let options = &self.options;
        let producer = options.producer.unwrap_or(BatchProducer {
            id: ProducerId::NONE,
            epoch: ProducerEpoch(-1),
            base_sequence: -1,
        });
        // An empty batch still covers the offset it stands at.
        let last_offset_delta = (self.next_offset_delta - 1).max(0);
        let last_offset_delta = self
            .last_offset
            .and_then(|offset| i32::try_from(offset.0.checked_sub(options.base_offset.0)?).ok())
            .map_or(last_offset_delta, |kept| kept.max(last_offset_delta));
        BatchHeader {
            base_offset: options.base_offset,
            length: i32::try_from(size - layout::LENGTH_OVERHEAD)
                .expect("append keeps batches within the format, and no codec inflates that much"),
            leader_epoch: options.leader_epoch,
            crc: 0,
            attributes: options.attributes(),
            last_offset_delta,
            base_timestamp: options.delete_horizon.or(self.base_timestamp).unwrap_or(NO_TIMESTAMP),
            max_timestamp: options.log_append_time.unwrap_or(self.max_timestamp),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: producer.base_sequence,
            count: self.count,
        }
    }
}

/// Size of a batch before compression up to which its length surely fits, even when a codec
/// makes incompressible records a little larger.
const BATCH_SIZE_MAX: usize = 1 << 30;

/// The most bytes of a record beside key, value and headers: length, attributes, timestamp,
/// offset and header count.
const RECORD_PREFIX_SIZE_MAX: usize = 5 + 1 + 10 + 5 + 5;

const NO_TIMESTAMP: TimestampMs = TimestampMs(-1);

/// A record whose headers are counted but not yet written.
struct RawRecord<'a> {
    offset_delta: i32,
    timestamp: TimestampMs,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: usize,
    headers_size: usize,
}

/// The length field before `bytes`.
fn length(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |bytes| bytes.len() as i32)
}

/// Size of `bytes` with the length before them.
fn size_of_bytes(bytes: Option<&[u8]>) -> usize {
    size_i64(bytes.map_or(-1, |bytes| bytes.len() as i64)) + bytes.map_or(0, <[u8]>::len)
}

fn size_of_headers(headers: &[Header<'_>]) -> usize {
    headers.iter().map(|header| size_of_bytes(Some(header.key)) + size_of_bytes(header.value)).sum()
}

fn put_bytes(buffer: &mut BytesMut, bytes: Option<&[u8]>) {
    let mut prefix = [0; VARLONG_SIZE_MAX];
    let end = put_i32(length(bytes), &mut prefix);
    buffer.put_slice(&prefix[..end]);
    buffer.put_slice(bytes.unwrap_or_default());
}
