//! Making a partition's records durable, and telling those who wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fleuve_storage::{FlushJob, FlushMark, FlushTarget, LogError, LogPoints};

use super::{Partition, State};

impl Partition {
    /// Asks for a flush if records have waited for one longer than `flush.ms`.
    pub(crate) fn flush_if_due(self: &Arc<Self>, now_ms: i64) {
        let mut state = self.state.lock();
        let Some(flush_ms) = state.log.as_ref().map(|log| log.config().flush_ms) else { return };
        if state.unflushed_records == 0 {
            return;
        }
        // The first look that finds unflushed records starts the clock; looks come often enough.
        let since_ms = *state.unflushed_since_ms.get_or_insert(now_ms);
        let due = now_ms.saturating_sub(since_ms) >= flush_ms;
        drop(state);
        if due {
            self.request_flush();
        }
    }

    /// Asks for a flush again that has found no space.
    pub(crate) fn flush_if_unflushed(self: &Arc<Self>) {
        if self.unflushed.load(Ordering::Acquire) {
            self.request_flush();
        }
    }

    /// Has the flusher make everything durable soon.
    pub(crate) fn request_flush(self: &Arc<Self>) {
        if let Some(flusher) = self.surroundings.flusher.upgrade() {
            flusher.mark(self);
        }
    }

    /// Makes everything durable in such a way that recovery could begin at the present end, and
    /// returns where the log stands; blocks.
    pub(crate) fn checkpoint(self: &Arc<Self>) -> Result<Option<LogPoints>, LogError> {
        let job = {
            let mut state = self.state.lock();
            let Some(log) = state.log.as_mut() else { return Ok(None) };
            let job = log.begin_checkpoint()?;
            state.flushing_bytes = state.appended_bytes;
            job
        };
        if let Some(job) = job {
            let outcome = job.run();
            Arc::clone(self).finish_flush(job, outcome);
        }
        let state = self.state.lock();
        let Some(log) = state.log.as_ref() else { return Ok(None) };
        let points = log.points();
        let needs_flush = log.needs_flush();
        drop(state);
        if needs_flush && self.flush_before_ack {
            // A flush that came due meanwhile found the log busy and left it to us.
            self.request_flush();
        }
        Ok(Some(points))
    }

    /// Makes everything durable and leaves what a quick start needs; blocks. Appends and flushes
    /// must have ended.
    pub(crate) fn close(&self) -> Result<LogPoints, LogError> {
        let mut state = self.state.lock();
        let log = self.usable(&mut state.log)?;
        log.close()?;
        let points = log.points();
        state.log = None;
        Ok(points)
    }

    /// Says that all records are durable, because the log has just been copied to where they are.
    pub(crate) fn advance_to_end(&self, state: &mut State) {
        if let Some(log) = &state.log {
            self.flush_lane.store(self.surroundings.lane_of(log), Ordering::Relaxed);
        }
        let Some(log) = state.log.as_mut().filter(|log| !log.needs_flush()) else { return };
        let (end, bytes) = (log.log_end_offset().0, state.appended_bytes - state.readable_bytes);
        let has_decided = self.raise(log, end);
        state.readable_bytes = state.appended_bytes;
        state.flushing_bytes = state.appended_bytes;
        state.unflushed_records = 0;
        state.unflushed_since_ms = None;
        self.tell(end, bytes, has_decided);
    }
}

impl FlushTarget for Partition {
    fn flush_mark(&self) -> &FlushMark {
        &self.flush_mark
    }

    fn flush_lane(&self) -> usize {
        self.flush_lane.load(Ordering::Relaxed)
    }

    fn begin_flush(&self) -> Option<FlushJob> {
        let mut state = self.state.lock();
        let log = state.log.as_mut()?;
        let Some(job) = log.begin_flush() else {
            let failed = log.failure().is_some();
            drop(state);
            if failed && !self.has_failed() {
                self.note_failure();
            }
            return None;
        };
        state.unflushed_records = 0;
        state.unflushed_since_ms = None;
        state.flushing_bytes = state.appended_bytes;
        Some(job)
    }

    fn finish_flush(self: Arc<Self>, job: FlushJob, outcome: Result<(), LogError>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(log) = state.log.as_mut() else { return };
        match log.finish_flush(job, outcome) {
            Ok(durable) => {
                self.unflushed.store(log.has_lost_writes(), Ordering::Release);
                let bytes = state.flushing_bytes - state.readable_bytes;
                if self.flush_before_ack {
                    state.readable_bytes = state.flushing_bytes;
                    let has_decided = self.raise(log, durable.0);
                    drop(guard);
                    self.tell(durable.0, bytes, has_decided);
                }
            }
            Err(_) if log.has_lost_writes() => {
                // Those who wait go on waiting: nothing is lost yet, and what is kept back for the
                // broker may be enough. If not, it is tried again every now and then.
                self.unflushed.store(true, Ordering::Release);
                drop(guard);
                if self.yield_reserve() {
                    self.request_flush();
                }
            }
            Err(_) => {
                // The log has reported it and takes no more records.
                drop(guard);
                self.note_failure();
            }
        }
    }
}
