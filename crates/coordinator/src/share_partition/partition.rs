//! The share-partition itself: its bounds, how it is loaded, and what a change does to it.

use fleuve_protocol::Str;

use super::acknowledge::Change;
use super::runs::{RecordState, Run, Runs};

/// Offsets in one state, as `__share_group_state` keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// The first offset.
    pub first: i64,
    /// The last offset.
    pub last: i64,
    /// The state of all of them; never [`RecordState::Acquired`].
    pub state: RecordState,
    /// How often they were delivered.
    pub delivery_count: i16,
}

/// The records that a share group has in flight of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharePartition {
    /// The first offset that is not done with.
    pub(super) start: i64,
    /// The first offset that was never acquired.
    pub(super) next: i64,
    pub(super) runs: Runs,
    /// No lock ends before this; locks may have been given up since.
    pub(super) earliest_deadline_ms: Option<i64>,
}

impl SharePartition {
    /// Takes up what was written down: the start and the states from there on.
    ///
    /// Between the batches lie records that were acquired and not answered for; they are available.
    /// Batches that contradict the start or each other, as only a damaged log can bring, give way
    /// to what comes later.
    pub fn load(start: i64, batches: &[StoredBatch]) -> Self {
        let start = start.max(0);
        let mut partition =
            Self { start, next: start, runs: Runs::default(), earliest_deadline_ms: None };
        for batch in batches {
            let first = batch.first.max(start);
            // The offset after the last one must be a number as well.
            if first > batch.last || batch.last == i64::MAX {
                continue;
            }
            if first > partition.next {
                partition.set(partition.next, first - 1, RecordState::Available, 0);
            }
            let state = match batch.state {
                RecordState::Acquired => RecordState::Available,
                state => state,
            };
            partition.set(first, batch.last, state, batch.delivery_count.max(0));
            partition.next = partition.next.max(batch.last + 1);
        }
        partition.advance();
        partition
    }

    /// The first offset that is not done with (SPSO).
    pub fn start_offset(&self) -> i64 {
        self.start
    }

    /// The first offset that was never acquired; one past Kafka's end offset (SPEO).
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// Offsets between the start and the end, whatever their state.
    pub fn in_flight(&self) -> i64 {
        self.next - self.start
    }

    /// Offsets from the start on that are done with.
    pub fn delivery_complete_count(&self) -> i32 {
        i32::try_from(self.runs.terminal()).unwrap_or(i32::MAX)
    }

    /// Where to read for records that may be acquired.
    pub fn fetch_offset(&self) -> i64 {
        self.runs.first_available().unwrap_or(self.next)
    }

    /// Whether anything might be acquired, given the most records that may be in flight.
    pub fn can_acquire(&self, locks_max: i64) -> bool {
        self.fetch_offset() < self.next || self.in_flight() < locks_max
    }

    /// Whether the member has records.
    pub fn is_held_by(&self, member: &str) -> bool {
        self.runs
            .iter()
            .any(|(_, run)| run.lock.as_ref().is_some_and(|lock| lock.member == *member))
    }

    /// When [`Self::expire`] has to be called; a moment too early does no harm.
    pub fn next_deadline(&self) -> Option<i64> {
        self.earliest_deadline_ms
    }

    /// The records of the log before `log_start` are gone.
    ///
    /// Nothing is written for that: the next change carries the new start along.
    pub fn handle_log_start(&mut self, log_start: i64) {
        if log_start <= self.start {
            return;
        }
        self.runs.forget_below(log_start);
        self.start = log_start;
        self.next = self.next.max(log_start);
        self.advance();
    }

    /// Takes in a change that is in the log.
    pub fn apply(&mut self, change: &Change) {
        for batch in &change.settled {
            // The start may have moved since the change was decided.
            let first = batch.first.max(self.start);
            if first <= batch.last {
                self.set(first, batch.last, batch.state, batch.delivery_count);
            }
        }
        for (first, last, lock) in &change.renewed {
            let parts: Vec<(i64, Run)> = self
                .runs
                .within(*first, *last)
                .filter(|(_, _, run)| run.state == RecordState::Acquired)
                .map(|(first, last, run)| {
                    (first, Run { last, lock: Some(lock.clone()), ..run.clone() })
                })
                .collect();
            for (first, run) in parts {
                self.runs.set(first, run);
            }
        }
        self.advance();
    }

    /// The states that would be written down for all of it; for checks.
    pub fn stored(&self) -> Vec<StoredBatch> {
        let batches = self.runs.iter().map(|(first, run)| StoredBatch {
            first,
            last: run.last,
            state: run.state,
            delivery_count: run.delivery_count,
        });
        batches.collect()
    }

    /// The member that has the record, if anyone.
    pub fn holder(&self, offset: i64) -> Option<&Str> {
        let (_, _, run) = self.runs.within(offset, offset).next()?;
        run.lock.as_ref().map(|lock| &lock.member)
    }

    pub(super) fn set(&mut self, first: i64, last: i64, state: RecordState, delivery_count: i16) {
        self.runs.set(first, Run { last, state, delivery_count, lock: None });
    }

    /// Moves the start past everything that is done with.
    pub(super) fn advance(&mut self) {
        let first = self.runs.iter().next();
        let Some((_, run)) = first.filter(|(_, run)| run.state.is_terminal()) else { return };
        let mut start = run.last + 1;
        // Acknowledged and archived runs may lie next to each other.
        for (_, last, run) in self.runs.within(start, self.next - 1) {
            if !run.state.is_terminal() {
                break;
            }
            start = last + 1;
        }
        self.runs.forget_below(start);
        self.start = start;
    }
}
