//! Examining batches before they are appended.
//!
//! The header alone is looked at, with two exceptions: batches that are not compressed are walked
//! over record by record, because that costs next to nothing and keeps malformed records out; and
//! batches are decompressed when the topic is compacted, as every record must have a key then,
//! stored under another codec than they came in, or when their headers leave open whether all
//! records have a time that the topic allows.
//!
//! Departs from Kafka on purpose where the records of a batch do not count up from its base offset by
//! ones although its header says so. Kafka stores such a batch as it came if it is not compressed,
//! so that consumers may find an offset twice or miss one, and makes it anew if it is compressed.
//! Here it is refused wherever its records are looked at. A compressed one that is not looked at is
//! stored as it came: to find it out, every batch would have to be decompressed.

use fleuve_protocol::records::{
    Batch, BatchHeader, Batches, Compression, Decompressor, RecordIter, RecordsSummary,
    TimestampType, validate_records,
};
use fleuve_types::TimestampMs;

use super::append::{Append, Origin};
use crate::config::LogConfig;
use crate::error::{AppendError, RecordFaults};
use crate::segment::NO_TIMESTAMP;

/// Cuts `append` into batches and examines each by the rules for where it comes from.
pub(super) fn examine(
    append: &Append,
    config: &LogConfig,
    now_ms: i64,
) -> Result<Vec<Batch>, AppendError> {
    let mut batches = Vec::with_capacity(1);
    let mut size = 0;
    for batch in Batches::new(append.records.clone()) {
        let batch = batch?;
        // A follower takes what its leader took, whatever the limits are by now.
        if append.origin != Origin::Replication {
            check_size(&batch, config)?;
        }
        batch.verify_crc()?;
        let batch = match append.origin {
            Origin::Replication => batch,
            Origin::Client => {
                check_client_header(&batch)?;
                check_records(batch, config, now_ms)?
            }
            Origin::Coordinator => check_records(batch, config, now_ms)?,
        };
        size += batch.bytes.len();
        batches.push(batch);
    }
    if batches.is_empty() {
        return Err(AppendError::Empty);
    }
    // Nor does it matter how small segments are meant to be now.
    if append.origin != Origin::Replication && size > config.segment_bytes as usize {
        return Err(AppendError::AppendTooLarge { size, max: config.segment_bytes });
    }
    Ok(batches)
}

fn check_size(batch: &Batch, config: &LogConfig) -> Result<(), AppendError> {
    let (size, max) = (batch.bytes.len(), config.max_message_bytes);
    if size > max as usize {
        return Err(AppendError::BatchTooLarge { size, max });
    }
    Ok(())
}

/// Checks what only clients can get wrong.
fn check_client_header(batch: &Batch) -> Result<(), AppendError> {
    let header = &batch.header;
    let attributes = header.attributes;
    let reason = if header.base_offset.0 != 0 {
        "its base offset is not 0"
    } else if attributes.is_control() {
        "clients may not write control records"
    } else if attributes.is_transactional() && !header.has_producer() {
        "it is transactional and has no producer id"
    } else if header.has_producer() && header.base_sequence < 0 {
        "it has a producer id and no sequence"
    } else {
        return Ok(());
    };
    Err(AppendError::InvalidBatch { reason })
}

/// Checks offsets, keys and timestamps, and changes what the topic wants otherwise.
fn check_records(batch: Batch, config: &LogConfig, now_ms: i64) -> Result<Batch, AppendError> {
    let header = &batch.header;
    if header.count == 0 || !header.is_dense() {
        return Err(AppendError::InvalidBatch {
            reason: "its offsets and its number of records differ",
        });
    }
    let codec = header.compression()?;
    let is_control = header.attributes.is_control();
    let limit_bytes = config.decompressed_bytes_max.unwrap_or(config.usual_decompressed_bytes());
    let mut decompressor = Decompressor::new(limit_bytes);
    let wanted = config.compression.filter(|wanted| wanted.compression() != codec && !is_control);
    let times = Times::allowed(config, now_ms);
    let must_look = codec == Compression::None
        || config.cleanup.compact
        || wanted.is_some()
        || (!is_control && times.are_uncertain(header, config));
    let summary = if must_look {
        let records = batch.records(&mut decompressor)?;
        let summary = validate_records(header, &records)?;
        check_summary(&summary)?;
        if !is_control {
            check_each(header, &summary, &records, config, times)?;
        }
        Some(summary)
    } else {
        None
    };
    let batch = match wanted {
        None => batch,
        Some(codec) => {
            let batch = batch.recompress(codec, &mut decompressor)?;
            check_size(&batch, config)?;
            batch
        }
    };
    if is_control {
        return Ok(batch);
    }
    let (timestamp_type, max_timestamp) = match config.message_timestamp_type {
        TimestampType::LogAppendTime => (TimestampType::LogAppendTime, TimestampMs(now_ms)),
        TimestampType::CreateTime => {
            let counted = summary.and_then(|summary| summary.max_timestamp);
            (TimestampType::CreateTime, counted.unwrap_or(batch.header.max_timestamp))
        }
    };
    let header = batch.header_with_timestamps(timestamp_type, max_timestamp);
    Ok(Batch { header, ..batch })
}

fn check_summary(summary: &RecordsSummary) -> Result<(), AppendError> {
    if summary.offsets_are_dense {
        return Ok(());
    }
    Err(AppendError::InvalidBatch { reason: "its records do not count up from its base offset" })
}

/// The times that records of a topic may have now.
#[derive(Clone, Copy, Debug)]
struct Times {
    earliest: i64,
    latest: i64,
}

impl Times {
    fn allowed(config: &LogConfig, now_ms: i64) -> Self {
        Self {
            earliest: now_ms.saturating_sub(config.message_timestamp_before_max_ms),
            latest: now_ms.saturating_add(config.message_timestamp_after_max_ms),
        }
    }

    fn allow(&self, timestamp: TimestampMs) -> bool {
        timestamp.0 == NO_TIMESTAMP || (self.earliest..=self.latest).contains(&timestamp.0)
    }

    /// Reports whether the header of a closed batch leaves open if each of its records has a time
    /// that is allowed. It tells the latest time and that of the first record, but not the
    /// earliest.
    fn are_uncertain(&self, header: &BatchHeader, config: &LogConfig) -> bool {
        if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
            return true;
        }
        config.message_timestamp_type == TimestampType::CreateTime
            && (config.message_timestamp_before_max_ms < i64::MAX
                || !self.allow(header.base_timestamp)
                || !self.allow(header.max_timestamp))
    }
}

/// Checks key and time of each record, if the summary gives a reason to.
fn check_each(
    header: &BatchHeader,
    summary: &RecordsSummary,
    records: &[u8],
    config: &LogConfig,
    times: Times,
) -> Result<(), AppendError> {
    let lacks_keys = config.cleanup.compact && summary.keyless > 0;
    let is_append_time = header.attributes.timestamp_type() == TimestampType::LogAppendTime;
    // As in Kafka: where the broker sets the time, only a producer that claims to have set it in
    // the broker's name is refused.
    let by_creation = config.message_timestamp_type == TimestampType::CreateTime;
    let extremes = [summary.min_timestamp, summary.max_timestamp];
    let may_lack_time = match by_creation {
        true => is_append_time || !extremes.iter().flatten().all(|time| times.allow(*time)),
        false => is_append_time,
    };
    if !lacks_keys && !may_lack_time {
        return Ok(());
    }
    let mut faults = RecordFaults::default();
    for (index, record) in (0..).zip(RecordIter::new(header, records)) {
        let record = record?;
        let is_timed = by_creation && record.timestamp.0 != NO_TIMESTAMP;
        if config.cleanup.compact && record.key.is_none() {
            faults.add(index, || "a compacted topic takes no record without a key".to_owned());
        } else if is_timed && !times.allow(record.timestamp) {
            faults.concerns_time = true;
            faults.add(index, || {
                let Times { earliest, latest } = times;
                format!("timestamp {} is not within {earliest} to {latest}", record.timestamp)
            });
        } else if !is_timed && is_append_time {
            faults.concerns_time = true;
            faults.add(index, || "only brokers may set the log append time".to_owned());
        }
    }
    if faults.total == 0 { Ok(()) } else { Err(AppendError::InvalidRecords(faults)) }
}
