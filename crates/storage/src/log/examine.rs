//! Examining batches before they are appended.
//!
//! The header alone is looked at, with two exceptions: batches that are not compressed are walked
//! over record by record, because that costs next to nothing and keeps malformed records out; and
//! batches are decompressed when the topic is compacted, as every record must have a key then, or
//! stored under another codec than they came in.

use fleuve_protocol::records::{
    Batch, Batches, Compression, Decompressor, RecordsSummary, TimestampType, validate_records,
};
use fleuve_types::TimestampMs;

use super::append::{Append, Origin};
use crate::config::LogConfig;
use crate::error::AppendError;
use crate::segment::NO_TIMESTAMP;

/// A batch may decompress to this many times `max.message.bytes`, and always to the floor.
const DECOMPRESSED_RATIO_MAX: usize = 64;
const DECOMPRESSED_FLOOR: usize = 64 << 20;

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
    if size > config.segment_bytes as usize {
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
    let mut decompressor = Decompressor::new(
        DECOMPRESSED_FLOOR.max(config.max_message_bytes as usize * DECOMPRESSED_RATIO_MAX),
    );
    let wanted = config.compression.filter(|wanted| wanted.compression() != codec && !is_control);
    let summary = if codec == Compression::None || config.cleanup.compact || wanted.is_some() {
        let records = batch.records(&mut decompressor)?;
        Some(validate_records(header, &records)?)
    } else {
        None
    };
    if let Some(summary) = &summary {
        check_summary(summary, config, is_control)?;
    }
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
    check_timestamps(batch, summary, config, now_ms)
}

fn check_summary(
    summary: &RecordsSummary,
    config: &LogConfig,
    is_control: bool,
) -> Result<(), AppendError> {
    let reason = if !summary.offsets_are_dense {
        "its records do not count up from its base offset"
    } else if config.cleanup.compact && summary.keyless > 0 && !is_control {
        "a record without a key cannot go to a compacted topic"
    } else {
        return Ok(());
    };
    Err(AppendError::InvalidBatch { reason })
}

fn check_timestamps(
    batch: Batch,
    summary: Option<RecordsSummary>,
    config: &LogConfig,
    now_ms: i64,
) -> Result<Batch, AppendError> {
    let (timestamp_type, max_timestamp) = match config.message_timestamp_type {
        TimestampType::LogAppendTime => (TimestampType::LogAppendTime, TimestampMs(now_ms)),
        TimestampType::CreateTime => {
            if batch.header.attributes.timestamp_type() == TimestampType::LogAppendTime {
                return Err(AppendError::InvalidBatch {
                    reason: "only brokers may set the log append time",
                });
            }
            // Of a closed batch the header must be believed: its base timestamp is that of the
            // first record.
            let from_header = (batch.header.base_timestamp, batch.header.max_timestamp);
            let (min, max) = summary
                .and_then(|summary| summary.min_timestamp.zip(summary.max_timestamp))
                .unwrap_or(from_header);
            let earliest = now_ms.saturating_sub(config.message_timestamp_before_max_ms);
            let latest = now_ms.saturating_add(config.message_timestamp_after_max_ms);
            for timestamp in [min, max] {
                let within = (earliest..=latest).contains(&timestamp.0);
                if timestamp.0 != NO_TIMESTAMP && !within {
                    return Err(AppendError::InvalidTimestamp { timestamp, earliest, latest });
                }
            }
            (TimestampType::CreateTime, max)
        }
    };
    let header = batch.header_with_timestamps(timestamp_type, max_timestamp);
    Ok(Batch { header, ..batch })
}
