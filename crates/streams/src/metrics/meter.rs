//! Where a thread's time goes.

use std::time::Duration;

use super::spread::Part;
use super::{Spread, Summary, ThreadMetrics, ThreadState};

/// The numbers of a thread, counted by itself.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    totals: ThreadMetrics,
    poll: Spread,
    poll_records: Spread,
    process: Spread,
    process_records: Spread,
    punctuate: Spread,
    commit: Spread,
    assigned: Spread,
    revoked: Spread,
    lost: Spread,
    /// Whether the group has said anything yet.
    is_member: bool,
}

/// What the group told the thread about its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Assigned,
    Revoked,
    Lost,
}

impl Meter {
    pub(crate) fn new(started_ms: i64) -> Self {
        Self { totals: ThreadMetrics { started_ms, ..Default::default() }, ..Self::default() }
    }

    pub(crate) fn polled(&mut self, now_ms: i64, took: Duration, records: usize) {
        self.totals.polls += 1;
        self.totals.polled += records as u64;
        self.poll_records.record(now_ms, records as i64);
        self.waited(took);
        self.poll.record(now_ms, took.as_nanos() as i64);
    }

    /// Counts what a task has processed at a stretch.
    pub(crate) fn processed(&mut self, now_ms: i64, took: Duration, records: usize) {
        self.totals.processed += records as u64;
        self.process.record_part(now_ms, Part::of_sum(records as u64, took.as_nanos() as i64));
    }

    /// Counts what all tasks together have processed in a round.
    pub(crate) fn round(&mut self, now_ms: i64, records: usize) {
        if records > 0 {
            self.process_records.record(now_ms, records as i64);
        }
    }

    pub(crate) fn punctuated(&mut self, now_ms: i64, calls: Part) {
        self.totals.punctuations += calls.count;
        self.punctuate.record_part(now_ms, calls);
    }

    pub(crate) fn committed(&mut self, now_ms: i64, took: Duration) {
        self.totals.commits += 1;
        self.waited(took);
        self.commit.record(now_ms, took.as_nanos() as i64);
    }

    pub(crate) fn task_created(&mut self) {
        self.totals.tasks_created += 1;
    }

    pub(crate) fn task_closed(&mut self) {
        self.totals.tasks_closed += 1;
    }

    /// Notes how long it took to do what the group said.
    pub(crate) fn told(&mut self, now_ms: i64, what: Told, took: Duration) {
        self.is_member = true;
        let spread = match what {
            Told::Assigned => &mut self.assigned,
            Told::Revoked => &mut self.revoked,
            Told::Lost => &mut self.lost,
        };
        spread.record(now_ms, took.as_nanos() as i64);
    }

    /// The state of a thread that is not told to stop.
    pub(crate) fn state(&self, is_joining: bool, is_restoring: bool) -> ThreadState {
        match (self.is_member, is_joining, is_restoring) {
            (false, ..) => ThreadState::Starting,
            (true, true, _) => ThreadState::PartitionsRevoked,
            (true, false, true) => ThreadState::PartitionsAssigned,
            (true, false, false) => ThreadState::Running,
        }
    }

    pub(crate) fn metrics(&self, now_ms: i64, state: ThreadState) -> ThreadMetrics {
        let summary = |spread: &Spread| -> Summary { spread.summary(now_ms) };
        ThreadMetrics {
            state,
            poll_time: summary(&self.poll),
            poll_records: summary(&self.poll_records),
            process_time: summary(&self.process),
            process_records: summary(&self.process_records),
            punctuate_time: summary(&self.punctuate),
            commit_time: summary(&self.commit),
            assigned_time: summary(&self.assigned),
            revoked_time: summary(&self.revoked),
            lost_time: summary(&self.lost),
            ..self.totals.clone()
        }
    }

    fn waited(&mut self, took: Duration) {
        self.totals.blocked_ns += took.as_nanos() as u64;
    }
}
