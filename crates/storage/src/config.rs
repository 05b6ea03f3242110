//! The settings of one log: Kafka's topic settings in typed form.

use fleuve_protocol::records::{Codec, TimestampType};

/// The settings of one log, each named like Kafka's topic setting, with Kafka's default.
///
/// A log holds them behind an `Arc` and takes new ones at run time ([`crate::Log::set_config`]).
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it grows beyond this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when its records span more than this.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much is subtracted from `segment.ms`, at random, so that
    /// the logs of a broker do not all roll at once.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a segment is rolled when an index would grow beyond this.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: an index entry is made after this many bytes.
    pub index_interval_bytes: u32,
    /// `retention.ms`: segments whose newest record is older are deleted; `None` keeps them.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`: the oldest segments beyond this size are deleted; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy`: what happens to old records.
    pub cleanup: CleanupPolicy,
    /// `min.cleanable.dirty.ratio`: the share of bytes not yet compacted from which compaction is
    /// worth its effort.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: records younger than this are not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: records older than this are compacted, however small their share.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long compaction keeps tombstones and transaction markers.
    pub delete_retention_ms: i64,
    /// `file.delete.delay.ms`: how long a removed file stays, under another name, for readers.
    pub file_delete_delay_ms: i64,
    /// `max.message.bytes`: the largest batch accepted.
    pub max_message_bytes: u32,
    /// `fleuve.decompressed.bytes.max`: what a batch may decompress to where it has to be looked
    /// into; `None` for 64 times `max.message.bytes`, and 64 MiB at least.
    pub decompressed_bytes_max: Option<usize>,
    /// `message.timestamp.type`: whose clock counts.
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record's time may lie in the past.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a record's time may lie in the future.
    pub message_timestamp_after_max_ms: i64,
    /// `compression.type`: the codec to store batches with; `None` is Kafka's `producer`, which
    /// keeps what the producer chose.
    pub compression: Option<Codec>,
    /// `flush.messages`: records after which a flush is due.
    pub flush_messages: i64,
    /// `flush.ms`: time after which a flush is due.
    pub flush_ms: i64,
    /// `preallocate`: whether disk space for a whole segment is reserved when it begins.
    pub preallocate: bool,
    /// `producer.id.expiration.ms`: an idle producer is forgotten after this.
    pub producer_id_expiration_ms: i64,
}

/// What `cleanup.policy` lists; neither keeps everything for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted by time and size.
    pub delete: bool,
    /// Records are replaced by newer ones of the same key.
    pub compact: bool,
}

impl LogConfig {
    /// Returns what a batch may decompress to unless another limit is set.
    pub(crate) fn usual_decompressed_bytes(&self) -> usize {
        const FLOOR: usize = 64 << 20;
        FLOOR.max(self.max_message_bytes as usize * 64)
    }

    /// Returns the time after which a segment is rolled: what is in the active segment cannot be
    /// compacted, so `max.compaction.lag.ms` bounds its age as well.
    pub(crate) fn roll_ms(&self) -> i64 {
        match self.cleanup.compact && self.max_compaction_lag_ms > 0 {
            true => self.segment_ms.min(self.max_compaction_lag_ms),
            false => self.segment_ms,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            cleanup: CleanupPolicy { delete: true, compact: false },
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: DAY_MS,
            file_delete_delay_ms: 60_000,
            max_message_bytes: (1 << 20) + 12,
            decompressed_bytes_max: None,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 60 * 60 * 1000,
            compression: None,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            preallocate: false,
            producer_id_expiration_ms: DAY_MS,
        }
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
