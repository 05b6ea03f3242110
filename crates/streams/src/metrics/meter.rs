//! Where a thread's time goes.

use std::time::Duration;

use super::{Spread, ThreadMetrics};

/// The numbers of a thread, counted by itself.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    totals: ThreadMetrics,
    poll: Spread,
    process: Spread,
    commit: Spread,
}

impl Meter {
    pub(crate) fn polled(&mut self, now_ms: i64, took: Duration, records: usize) {
        self.totals.polls += 1;
        self.totals.polled += records as u64;
        self.poll.record(now_ms, took.as_nanos() as i64);
    }

    pub(crate) fn processed(&mut self, now_ms: i64, took: Duration, records: usize) {
        self.totals.processed += records as u64;
        self.process.record(now_ms, took.as_nanos() as i64);
    }

    pub(crate) fn committed(&mut self, now_ms: i64, took: Duration) {
        self.totals.commits += 1;
        self.commit.record(now_ms, took.as_nanos() as i64);
    }

    pub(crate) fn task_created(&mut self) {
        self.totals.tasks_created += 1;
    }

    pub(crate) fn task_closed(&mut self) {
        self.totals.tasks_closed += 1;
    }

    pub(crate) fn metrics(&self, now_ms: i64) -> ThreadMetrics {
        ThreadMetrics {
            poll_time: self.poll.summary(now_ms),
            process_time: self.process.summary(now_ms),
            commit_time: self.commit.summary(now_ms),
            ..self.totals.clone()
        }
    }
}
