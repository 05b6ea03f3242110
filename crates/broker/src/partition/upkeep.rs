//! What keeps a partition's log in shape: retention, compaction, settings, and its measures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fleuve_storage::{
    CleanError, CleanOutcome, Cleaner, Dirtiness, Log, LogConfig, LogError, LogPoints, Pace,
};
use fleuve_types::Offset;

use super::Partition;

impl Partition {
    /// Reports whether the topic's policy lets clients delete records.
    pub(crate) fn may_delete_records(&self) -> bool {
        let state = self.state.lock();
        let cleanup = state.log.as_ref().map(|log| log.config().cleanup);
        cleanup.is_none_or(|cleanup| cleanup.delete || !cleanup.compact)
    }

    /// Makes `offset` the start of the log, if it is not beyond that, and returns the start.
    pub(crate) fn delete_records_to(&self, offset: i64) -> Result<i64, LogError> {
        let mut state = self.state.lock();
        let log = self.usable(&mut state.log)?;
        log.delete_records_to(Offset(offset))?;
        let log_start = log.log_start_offset().0;
        self.log_start.store(log_start, Ordering::Release);
        self.raise(log, self.high_watermark());
        drop(state);
        self.waiters.wake_fetches();
        Ok(log_start)
    }

    /// Deletes the segments that nothing keeps and returns how many.
    pub(crate) fn enforce_retention(&self) -> Result<usize, LogError> {
        let high_watermark = Offset(self.high_watermark());
        let mut state = self.state.lock();
        let Some(log) = state.log.as_mut() else { return Ok(0) };
        let deleted = log.enforce_retention(high_watermark);
        let log_start = log.log_start_offset().0;
        self.log_start.store(log_start, Ordering::Release);
        self.raise(log, high_watermark.0);
        let failed = log.failure().is_some();
        drop(state);
        if failed {
            self.note_failure();
        }
        deleted
    }

    /// How much of the log waits for compaction, if it is compacted at all.
    pub(crate) fn dirtiness(&self) -> Option<Dirtiness> {
        if self.is_moving() {
            // The copy would have to be compacted in the same steps.
            return None;
        }
        let high_watermark = Offset(self.high_watermark());
        let mut state = self.state.lock();
        state.log.as_mut()?.dirtiness(high_watermark).ok()?
    }

    /// Makes segments durable that compaction could not touch otherwise; blocks.
    pub(crate) fn flush_for_compaction(self: &Arc<Self>) -> Result<(), LogError> {
        let awaits_flush = self.state.lock().log.as_ref().is_some_and(Log::compaction_awaits_flush);
        if awaits_flush {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Where the log stands, for the checkpoints.
    pub(crate) fn points(&self) -> Option<LogPoints> {
        self.state.lock().log.as_ref().map(Log::points)
    }

    /// Compacts the log while appends and reads go on, and until it is to be moved; blocks.
    pub(crate) fn compact(
        &self,
        cleaner: &Cleaner,
        pace: &mut dyn Pace,
    ) -> Result<Option<CleanOutcome>, CleanError> {
        let high_watermark = Offset(self.high_watermark());
        let job = {
            // A move begins under this lock, and may have since somebody saw the dirt.
            let future = self.future.lock();
            if future.is_some() {
                return Ok(None);
            }
            self.usable(&mut self.state.lock().log)?.begin_clean(high_watermark)?
        };
        let Some(job) = job else { return Ok(None) };
        let mut pace = |bytes: usize| {
            if self.is_moving() {
                // Its last step waits for us, and what we do would be done again elsewhere.
                return Err(CleanError::Stopped);
            }
            pace.spend(bytes)
        };
        let outcome = cleaner.run(&job, &mut pace, &mut |job, group| {
            self.usable(&mut self.state.lock().log)?.swap_in(job, group)
        });
        let mut guard = self.state.lock();
        let Some(log) = guard.log.as_mut() else { return Ok(None) };
        let outcome = log.finish_clean(job, outcome);
        let failed = log.failure().is_some();
        drop(guard);
        if failed {
            self.note_failure();
        }
        outcome.map(Some)
    }

    /// Forgets producers that were idle for too long.
    pub(crate) fn expire_producers(&self) {
        if let Some(log) = self.state.lock().log.as_mut() {
            log.expire_producers();
        }
    }

    /// Puts other settings in force.
    pub(crate) fn set_config(&self, config: Arc<LogConfig>) {
        if let Some(future) = self.future.lock().as_mut() {
            future.set_config(Arc::clone(&config));
        }
        if let Some(log) = self.state.lock().log.as_mut() {
            log.set_config(config);
        }
    }

    /// Bytes of all segments.
    pub(crate) fn size(&self) -> Result<u64, LogError> {
        self.state.lock().log.as_mut().map_or(Ok(0), Log::size)
    }

    /// Number of segments; 0 once the log is gone.
    pub(crate) fn segment_count(&self) -> usize {
        self.state.lock().log.as_ref().map_or(0, |log| log.segment_offsets().len())
    }

    /// Number of producers whose sequences are remembered.
    pub(crate) fn producer_count(&self) -> usize {
        self.state.lock().log.as_ref().map_or(0, |log| log.producers().count())
    }

    /// The data directory that the log lies in; none once the log is gone.
    pub(crate) fn data_directory(&self) -> Option<PathBuf> {
        let state = self.state.lock();
        state.log.as_ref()?.directory().parent().map(Path::to_owned)
    }
}
