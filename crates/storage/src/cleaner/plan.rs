//! Planning a compaction, under the partition's lock: how dirty a log is, and what to do about it.
//!
//! ```text
//!   log start                 first dirty                 end                    log end
//!   │  compacted before       │  dirty                    │  must stay as it is  │
//! ```
//!
//! What must stay as it is: the active segment; segments with records younger than
//! `min.compaction.lag.ms`; whatever is not decided and not durable: records behind the last stable
//! offset, and records that were not flushed. If a record that a crash can still take had pushed
//! older ones of its key out of durable segments, the crash would leave none at all.

use std::collections::HashMap;

use fleuve_types::Offset;

use super::filter::LastRecord;
use super::job::CleanJob;
use super::source::Source;
use crate::error::LogError;
use crate::log::Log;

/// How much of a log waits for compaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirtiness {
    /// Bytes that can be compacted and were not yet, of all that can be.
    pub ratio: f64,
    /// Bytes that can be compacted and were not yet.
    pub cleanable_bytes: u64,
    /// For how long records have waited beyond `max.compaction.lag.ms`.
    pub overdue_ms: i64,
    /// Whether it is worth it: the ratio is above `min.cleanable.dirty.ratio`, or records are
    /// overdue.
    pub is_due: bool,
}

/// Offsets between which a log can be compacted.
#[derive(Clone, Copy, Debug)]
struct Range {
    first_dirty: i64,
    end: i64,
}

impl Log {
    /// Returns how dirty the log is; `None` when it is not compacted or there is nothing in it.
    pub fn dirtiness(&mut self, high_watermark: Offset) -> Result<Option<Dirtiness>, LogError> {
        if !self.config.cleanup.compact || self.is_cleaning || self.durability_failed() {
            return Ok(None);
        }
        let now_ms = self.environment.clock.wall_ms();
        let range = self.cleanable_range(high_watermark.0, now_ms)?;
        let environment = self.environment.clone();
        let (mut clean_bytes, mut cleanable_bytes) = (0, 0);
        let first_cleanable = self.segment_index_of(range.first_dirty.min(range.end));
        for (index, segment) in self.segments.iter_mut().enumerate() {
            let base_offset = segment.base_offset();
            if base_offset < range.first_dirty {
                clean_bytes += segment.size(&environment)?;
            }
            if index >= first_cleanable && base_offset < range.end {
                cleanable_bytes += segment.size(&environment)?;
            }
        }
        let total = clean_bytes + cleanable_bytes;
        if total == 0 {
            return Ok(None);
        }
        let ratio = cleanable_bytes as f64 / total as f64;
        let overdue_ms = self.overdue_ms(range.first_dirty, now_ms)?;
        let is_due = (overdue_ms > 0 && cleanable_bytes > 0)
            || ratio > self.config.min_cleanable_dirty_ratio;
        Ok(Some(Dirtiness { ratio, cleanable_bytes, overdue_ms, is_due }))
    }

    /// Reports whether sealed segments wait for compaction that are not flushed: only what is durable
    /// pushes older records out, and where nobody waits for flushes none may come for a long time.
    pub fn compaction_awaits_flush(&self) -> bool {
        let active = self.segments.last().map_or(0, |segment| segment.base_offset());
        self.config.cleanup.compact
            && self.durability.flushed_offset < active
            && !self.durability_failed()
    }

    /// Plans a compaction; `None` when there is nothing to compact, or one is under way. After it
    /// the log must be told how it ended ([`Log::finish_clean`]).
    pub fn begin_clean(&mut self, high_watermark: Offset) -> Result<Option<CleanJob>, LogError> {
        self.check_writable()?;
        if !self.config.cleanup.compact || self.is_cleaning {
            return Ok(None);
        }
        let now_ms = self.environment.clock.wall_ms();
        let Range { first_dirty, end } = self.cleanable_range(high_watermark.0, now_ms)?;
        if first_dirty >= end {
            return Ok(None);
        }
        let environment = self.environment.clone();
        let (mut sources, mut followers) = (Vec::new(), Vec::new());
        for segment in &mut self.segments {
            let source = Source {
                base_offset: segment.base_offset(),
                path: segment.log_path().to_owned(),
                size: segment.size(&environment)?,
            };
            if source.base_offset < end { &mut sources } else { &mut followers }.push(source);
        }
        if sources.iter().all(|source| source.size == 0) {
            return Ok(None);
        }
        let last_records: HashMap<i64, LastRecord> = self
            .producers
            .producers()
            .iter()
            .map(|(id, entry)| {
                let offset = entry.batches.back().map(|batch| batch.last_offset);
                (*id, LastRecord { offset, epoch: entry.epoch })
            })
            .collect();
        self.is_cleaning = true;
        Ok(Some(CleanJob {
            partition: self.partition.clone(),
            directory: self.directory.clone(),
            config: self.config.clone(),
            sources,
            followers,
            first_dirty,
            end,
            last_records,
            now_ms,
            truncations: self.durability.truncations,
        }))
    }

    fn cleanable_range(&mut self, high_watermark: i64, now_ms: i64) -> Result<Range, LogError> {
        let first_dirty = match self.first_dirty {
            Some(offset) if (self.log_start..=self.next_offset).contains(&offset) => offset,
            // Records before the checkpoint were deleted since, or those after it are lost.
            _ => self.log_start,
        };
        self.producers.note_high_watermark(high_watermark);
        let decided = self.first_unstable_offset().map_or(i64::MAX, |offset| offset.0);
        let limit = high_watermark.min(decided).min(self.durability.flushed_offset);
        let environment = self.environment.clone();
        let active = self.segments.len() - 1;
        // The segment that holds the limit stays whole.
        let mut end_index = self.segment_index_of(limit).min(active);
        let lag_ms = self.config.min_compaction_lag_ms;
        if lag_ms > 0 {
            for index in self.segment_index_of(first_dirty)..end_index {
                let newest = self.segments[index].newest(&environment)?.timestamp;
                if newest > now_ms.saturating_sub(lag_ms) {
                    end_index = index;
                    break;
                }
            }
        }
        Ok(Range { first_dirty, end: self.segments[end_index].base_offset() })
    }

    /// Returns for how long the oldest dirty segment has waited beyond `max.compaction.lag.ms`.
    fn overdue_ms(&mut self, first_dirty: i64, now_ms: i64) -> Result<i64, LogError> {
        let lag_ms = self.config.max_compaction_lag_ms.max(0);
        if lag_ms == i64::MAX {
            return Ok(0);
        }
        let environment = self.environment.clone();
        let active = self.segments.len() - 1;
        let mut oldest = i64::MAX;
        for index in self.segment_index_of(first_dirty)..active {
            let first = self.segments[index].first_timestamp(&environment)?;
            oldest = first.filter(|first| *first > 0).map_or(oldest, |first| oldest.min(first));
        }
        Ok(now_ms.saturating_sub(lag_ms).saturating_sub(oldest).max(0))
    }

    fn segment_index_of(&self, offset: i64) -> usize {
        let after = self.segments.partition_point(|segment| segment.base_offset() <= offset);
        after.saturating_sub(1)
    }

    fn durability_failed(&self) -> bool {
        self.check_writable().is_err()
    }
}
