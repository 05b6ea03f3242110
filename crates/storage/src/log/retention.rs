//! Taking away old records: on request, by age, by size.
//!
//! Whole segments go, oldest first, and only below the high watermark: what is not committed must
//! stay readable for followers. The active segment goes only after a new one was begun.

use fleuve_types::Offset;

use super::partition_log::Log;
use crate::error::LogError;
use crate::names::{self, FileKind};

impl Log {
    /// Raises the first offset that can be read (DeleteRecords); the caller checks that `offset`
    /// does not exceed the high watermark. The space is freed by [`Log::enforce_retention`].
    pub fn delete_records_to(&mut self, offset: Offset) -> Result<(), LogError> {
        if offset.0 > self.next_offset {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_start: Offset(self.log_start),
                log_end: Offset(self.next_offset),
            });
        }
        self.raise_log_start(offset.0);
        Ok(())
    }

    /// Deletes the segments that no rule keeps any more and returns how many.
    pub fn enforce_retention(&mut self, high_watermark: Offset) -> Result<usize, LogError> {
        self.check_usable()?;
        let now_ms = self.environment.clock.wall_ms();
        let outcome = self.find_expired(high_watermark.0, now_ms).and_then(|count| {
            self.delete_oldest(count)?;
            Ok(count)
        });
        outcome.inspect_err(|error| self.fail_unless_full(error))
    }

    /// Counts the oldest segments that may go.
    fn find_expired(&mut self, high_watermark: i64, now_ms: i64) -> Result<usize, LogError> {
        let environment = self.environment.clone();
        let config = self.config.clone();
        let total = self.size()?;
        let limit = config.retention_bytes.filter(|_| config.cleanup.delete);
        let mut surplus = limit.and_then(|limit| total.checked_sub(limit));
        let mut count = 0;
        while count < self.segments.len() {
            let end = match self.segments.get(count + 1) {
                Some(next) => next.base_offset(),
                None => self.next_offset,
            };
            let is_last = count + 1 == self.segments.len();
            let segment = &mut self.segments[count];
            let size = segment.size(&environment)?;
            if high_watermark < end || (is_last && size == 0) {
                break;
            }
            let is_below_start = !is_last && end <= self.log_start;
            let is_too_old = match config.retention_ms {
                Some(limit_ms) if config.cleanup.delete && !is_below_start => {
                    now_ms.saturating_sub(segment.newest_ms(&environment)?) > limit_ms
                }
                _ => false,
            };
            // By size a segment goes only if what remains is still no less than allowed. Empty ones,
            // which compaction may leave, go with those before them.
            let is_surplus = surplus.is_some_and(|surplus| surplus >= size);
            if !(is_below_start || is_too_old || is_surplus) {
                break;
            }
            surplus = surplus.map(|surplus| surplus.saturating_sub(size));
            count += 1;
        }
        Ok(count)
    }

    fn delete_oldest(&mut self, count: usize) -> Result<(), LogError> {
        if count == 0 {
            return Ok(());
        }
        if count == self.segments.len() {
            self.roll()?;
        }
        let environment = self.environment.clone();
        let delay_ms = self.config.file_delete_delay_ms;
        for _ in 0..count {
            let base_offset = self.segments[0].base_offset();
            self.segments[0].delete(&environment, delay_ms)?;
            self.segments.remove(0);
            self.raise_log_start(self.segments[0].base_offset());
            let snapshot =
                names::file_path(&self.directory, base_offset, FileKind::ProducerSnapshot);
            match environment.disk.remove_file(&snapshot) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        tracing::info!(
            log = %self.directory.display(), count, log_start = self.log_start,
            "deleted old segments"
        );
        Ok(())
    }

    fn raise_log_start(&mut self, offset: i64) {
        if offset > self.log_start {
            self.log_start = offset;
            self.durability.epochs_changed |= self.epochs.truncate_start(offset);
        }
    }
}
