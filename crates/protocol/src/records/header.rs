//! The batch header and its attributes.

use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::{BatchError, Compression, layout};

/// The smallest length field of any format: magic 0 without key and value.
const OLD_LENGTH_MIN: i32 = 14;
/// The smallest length field of the current format: a header and no records.
const LENGTH_MIN: i32 = (layout::HEADER_SIZE - layout::LENGTH_OVERHEAD) as i32;

/// The first 61 bytes of a record batch.
///
/// Parsing checks what makes the other fields meaningful: magic, length, and that the count fits
/// the offsets. It does not check the checksum, see [`BatchHeader::verify_crc`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record the batch was written with.
    pub base_offset: Offset,
    /// Bytes after the length field; [`BatchHeader::size`] is the whole.
    pub length: i32,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything after the checksum.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Distance from the base offset to the last offset.
    pub last_offset_delta: i32,
    /// What the records' timestamps are counted from, or the delete horizon.
    pub base_timestamp: TimestampMs,
    /// Highest timestamp of the records, or the append time.
    pub max_timestamp: TimestampMs,
    /// Id of the idempotent producer, −1 for none.
    pub producer_id: ProducerId,
    /// Epoch of the idempotent producer, −1 for none.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record, −1 for none.
    pub base_sequence: i32,
    /// Number of records that are still in the batch.
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header at the beginning of `bytes`, which may end before the records do.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let incomplete = |needed| BatchError::Incomplete { needed, available: bytes.len() };

        let Some(prefix) = bytes.first_chunk::<{ layout::LENGTH_OVERHEAD }>() else {
            return Err(incomplete(layout::LENGTH_OVERHEAD));
        };
        let length = i32::from_be_bytes(field(prefix, layout::LENGTH));
        if length < OLD_LENGTH_MIN {
            return Err(BatchError::LengthTooSmall { length });
        }
        let Some(&magic) = bytes.get(layout::MAGIC) else {
            return Err(incomplete(layout::MAGIC_PREFIX_SIZE));
        };
        match magic as i8 {
            layout::CURRENT_MAGIC => {}
            magic @ (0 | 1) => return Err(BatchError::OldFormat { magic }),
            magic => return Err(BatchError::UnknownMagic { magic }),
        }
        if length < LENGTH_MIN {
            return Err(BatchError::LengthTooSmall { length });
        }
        let Some(header) = bytes.first_chunk::<{ layout::HEADER_SIZE }>() else {
            return Err(incomplete(layout::LENGTH_OVERHEAD + length as usize));
        };

        let parsed = Self {
            base_offset: Offset(i64::from_be_bytes(field(header, layout::BASE_OFFSET))),
            length,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(header, layout::LEADER_EPOCH))),
            crc: u32::from_be_bytes(field(header, layout::CRC)),
            attributes: Attributes(i16::from_be_bytes(field(header, layout::ATTRIBUTES))),
            last_offset_delta: i32::from_be_bytes(field(header, layout::LAST_OFFSET_DELTA)),
            base_timestamp: TimestampMs(i64::from_be_bytes(field(header, layout::BASE_TIMESTAMP))),
            max_timestamp: TimestampMs(i64::from_be_bytes(field(header, layout::MAX_TIMESTAMP))),
            producer_id: ProducerId(i64::from_be_bytes(field(header, layout::PRODUCER_ID))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(
                header,
                layout::PRODUCER_EPOCH,
            ))),
            base_sequence: i32::from_be_bytes(field(header, layout::BASE_SEQUENCE)),
            count: i32::from_be_bytes(field(header, layout::COUNT)),
        };
        let (count, last_offset_delta) = (parsed.count, parsed.last_offset_delta);
        // Compaction takes records away and leaves the offsets, so fewer records are fine.
        if count < 0 || last_offset_delta < 0 || i64::from(count) > i64::from(last_offset_delta) + 1
        {
            return Err(BatchError::ImpossibleCount { count, last_offset_delta });
        }
        Ok(parsed)
    }

    /// Returns the header as the 61 bytes it is read from.
    pub fn to_bytes(&self) -> [u8; layout::HEADER_SIZE] {
        let mut bytes = [0; layout::HEADER_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(layout::BASE_OFFSET, &self.base_offset.0.to_be_bytes());
        put(layout::LENGTH, &self.length.to_be_bytes());
        put(layout::LEADER_EPOCH, &self.leader_epoch.0.to_be_bytes());
        put(layout::MAGIC, &layout::CURRENT_MAGIC.to_be_bytes());
        put(layout::CRC, &self.crc.to_be_bytes());
        put(layout::ATTRIBUTES, &self.attributes.0.to_be_bytes());
        put(layout::LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(layout::BASE_TIMESTAMP, &self.base_timestamp.0.to_be_bytes());
        put(layout::MAX_TIMESTAMP, &self.max_timestamp.0.to_be_bytes());
        put(layout::PRODUCER_ID, &self.producer_id.0.to_be_bytes());
        put(layout::PRODUCER_EPOCH, &self.producer_epoch.0.to_be_bytes());
        put(layout::BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(layout::COUNT, &self.count.to_be_bytes());
        bytes
    }

    /// Size of the whole batch in bytes.
    pub fn size(&self) -> usize {
        layout::LENGTH_OVERHEAD + self.length as usize
    }

    /// Offset of the last record the batch was written with.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// The first offset after the batch.
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Whether every offset of the batch has its record, as in a batch fresh from a producer.
    pub fn is_dense(&self) -> bool {
        i64::from(self.count) == i64::from(self.last_offset_delta) + 1
    }

    /// Sequence number of the last record, −1 for none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }

    /// Whether an idempotent producer wrote the batch.
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The time until which tombstones and transaction markers stay, once compaction has set it.
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// The codec, unless the attributes name one that does not exist.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        self.attributes.compression()
    }

    /// Checks size and checksum of `batch`, the whole batch with its header.
    pub fn verify_crc(&self, batch: &[u8]) -> Result<(), BatchError> {
        if batch.len() != self.size() {
            return Err(BatchError::SizeMismatch { expected: self.size(), actual: batch.len() });
        }
        let computed = checksum(batch);
        if computed != self.crc {
            return Err(BatchError::ChecksumMismatch { stored: self.crc, computed });
        }
        Ok(())
    }

    /// The first 16 bytes of the batch once it stands at `base_offset` in a leader's log.
    ///
    /// Nothing else changes and the checksum does not cover them, so a log can write these and the
    /// batch from byte 16 on as it came.
    pub fn placed_prefix(
        &self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
    ) -> [u8; layout::MAGIC] {
        let mut bytes = [0; layout::MAGIC];
        bytes[..layout::LENGTH].copy_from_slice(&base_offset.0.to_be_bytes());
        bytes[layout::LENGTH..layout::LEADER_EPOCH].copy_from_slice(&self.length.to_be_bytes());
        bytes[layout::LEADER_EPOCH..].copy_from_slice(&leader_epoch.0.to_be_bytes());
        bytes
    }
}

/// Codec and flags of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;

    /// The codec, unless there is none with this id.
    pub fn compression(self) -> Result<Compression, BatchError> {
        Compression::from_id((self.0 & Self::CODEC) as u8)
    }

    /// What the timestamps mean.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records, which consumers do not see.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is the delete horizon.
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// The same flags with another codec.
    pub fn with_compression(self, codec: Compression) -> Self {
        Self(self.0 & !Self::CODEC | i16::from(codec.id()))
    }

    /// The same attributes with another timestamp type.
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with(Self::LOG_APPEND_TIME, timestamp_type == TimestampType::LogAppendTime)
    }

    /// The same attributes with the transaction flag set or cleared.
    pub fn with_transactional(self, set: bool) -> Self {
        self.with(Self::TRANSACTIONAL, set)
    }

    /// The same attributes with the control flag set or cleared.
    pub fn with_control(self, set: bool) -> Self {
        self.with(Self::CONTROL, set)
    }

    /// The same attributes with the delete horizon flag set or cleared.
    pub fn with_delete_horizon(self, set: bool) -> Self {
        self.with(Self::DELETE_HORIZON, set)
    }

    fn with(self, flag: i16, set: bool) -> Self {
        Self(if set { self.0 | flag } else { self.0 & !flag })
    }
}

/// What the timestamps of a batch mean, as in `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer set them, each record its own.
    #[default]
    CreateTime,
    /// The broker set one for the whole batch when it appended it.
    LogAppendTime,
}

/// The CRC-32C that belongs into the header of `batch`, a whole batch with its header.
///
/// # Panics
///
/// If `batch` is shorter than a header: callers have parsed one from it.
pub(super) fn checksum(batch: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(&batch[layout::ATTRIBUTES..])
}

/// The same for a batch whose header and records are not one piece.
pub(super) fn checksum_parts(header: &[u8; layout::HEADER_SIZE], payload: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&header[layout::ATTRIBUTES..]);
    digest.update(payload);
    digest.finalize() as u32
}

/// Adds to a sequence number, which follows `i32::MAX` with 0.
///
/// `increment` must not be negative.
pub fn sequence_plus(sequence: i32, increment: i32) -> i32 {
    sequence.wrapping_add(increment) & i32::MAX
}

/// The `SIZE` bytes of `header` at `position`.
fn field<const SIZE: usize, const TOTAL: usize>(
    header: &[u8; TOTAL],
    position: usize,
) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes.copy_from_slice(&header[position..position + SIZE]);
    bytes
}
