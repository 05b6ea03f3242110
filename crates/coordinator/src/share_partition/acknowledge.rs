//! What members do with records they have, and what happens when they do nothing.

use std::cmp::Ordering;

use fleuve_protocol::Str;

use super::partition::{SharePartition, StoredBatch};
use super::runs::{Lock, RecordState};

/// What a member says about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// There is no such record, or none for consumers.
    Gap,
    /// It is dealt with.
    Accept,
    /// It is to be delivered again.
    Release,
    /// It never will be dealt with.
    Reject,
    /// The member needs more time (KIP-1222).
    Renew,
}

impl Acknowledge {
    /// Finds a type by the number in requests.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Gap),
            1 => Some(Self::Accept),
            2 => Some(Self::Release),
            3 => Some(Self::Reject),
            4 => Some(Self::Renew),
            _ => None,
        }
    }
}

/// What a member says about a range of offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcknowledgementBatch {
    /// The first offset.
    pub first: i64,
    /// The last offset.
    pub last: i64,
    /// One type for all offsets, or one for each.
    pub types: Vec<Acknowledge>,
}

/// Why an acknowledgement is refused; then none of its batches had any effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// The request contradicts itself or the log: `INVALID_REQUEST`.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The member does not have these records: `INVALID_RECORD_STATE`.
    #[error("{0}")]
    InvalidRecordState(&'static str),
}

/// A decision, to be written down and then applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The start after the change.
    pub start: i64,
    /// Offsets from the start on that are done with, after the change.
    pub delivery_complete_count: i32,
    /// New states, in order; none of them overlaps another.
    pub settled: Vec<StoredBatch>,
    /// Locks that last longer, which is not written down.
    pub(super) renewed: Vec<(i64, i64, Lock)>,
}

impl Change {
    /// Whether there is nothing to write down.
    pub fn is_soft(&self) -> bool {
        self.settled.is_empty()
    }

    /// Whether it makes records available.
    pub fn releases(&self) -> bool {
        self.settled.iter().any(|batch| batch.state == RecordState::Available)
    }

    /// The states to write: those that the start has not left behind.
    pub fn to_write(&self) -> Vec<StoredBatch> {
        let above = self.settled.iter().filter(|batch| batch.last >= self.start);
        let cut = above.map(|batch| StoredBatch { first: batch.first.max(self.start), ..*batch });
        cut.collect()
    }

    fn push(&mut self, first: i64, last: i64, state: RecordState, delivery_count: i16) {
        if let Some(previous) = self.settled.last_mut()
            && previous.last + 1 == first
            && previous.state == state
            && previous.delivery_count == delivery_count
        {
            previous.last = last;
            return;
        }
        self.settled.push(StoredBatch { first, last, state, delivery_count });
    }
}

/// What acknowledgements depend on beside the records.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// `share.delivery.count.limit`: records that were delivered so often are not delivered again.
    pub delivery_count_max: i16,
    /// When renewed locks end, in monotonic milliseconds; none if they may not be renewed.
    pub renew_until_ms: Option<i64>,
}

impl SharePartition {
    /// Decides on what a member says about its records. The batches must be in order.
    pub fn acknowledge(
        &self,
        member: &Str,
        batches: &[AcknowledgementBatch],
        terms: Terms,
    ) -> Result<Change, AcknowledgeError> {
        use AcknowledgeError::{InvalidRecordState, InvalidRequest};
        let mut change = Change::default();
        let mut begin = i64::MIN;
        for batch in batches {
            if batch.first > batch.last || batch.first < begin {
                return Err(InvalidRequest(
                    "The acknowledgement batches overlap or are unordered.",
                ));
            }
            let length = batch.last.saturating_sub(batch.first).saturating_add(1);
            let is_per_offset = batch.types.len() > 1;
            if batch.types.is_empty() || (is_per_offset && batch.types.len() as i64 != length) {
                return Err(InvalidRequest("There must be one type, or one for each offset."));
            }
            begin = batch.last.saturating_add(1);
            // What the log has dropped since is nobody's business any more.
            if batch.last < self.start {
                continue;
            }
            if self.start == self.next {
                return Err(InvalidRecordState("None of the records is in flight."));
            }
            if batch.last >= self.next {
                return Err(InvalidRequest("The last offset is past the acquired records."));
            }
            let first = batch.first.max(self.start);
            for (first, last, run) in self.runs.within(first, batch.last) {
                let Some(lock) = run.lock.as_ref() else {
                    return Err(InvalidRecordState("The record is not acquired."));
                };
                if lock.member != *member {
                    return Err(InvalidRecordState("The record is acquired by another member."));
                }
                let mut offset = first;
                while offset <= last {
                    let (kind, end) = batch.kind_at(offset, last);
                    self.settle(&mut change, (offset, end), run.delivery_count, kind, lock, terms)?;
                    offset = end + 1;
                }
            }
        }
        self.complete(&mut change);
        Ok(change)
    }

    /// Decides that a member gives everything back that it has.
    pub fn release(&self, member: &str, delivery_count_max: i16) -> Change {
        self.give_back(delivery_count_max, |lock| lock.member == *member)
    }

    /// Decides that everything is given back whose lock has ended.
    pub fn expire(&mut self, now_ms: i64, delivery_count_max: i16) -> Change {
        let change = self.give_back(delivery_count_max, |lock| lock.deadline_ms <= now_ms);
        let left = self.runs.iter().filter_map(|(_, run)| run.lock.as_ref());
        self.earliest_deadline_ms =
            left.map(|lock| lock.deadline_ms).filter(|deadline| *deadline > now_ms).min();
        change
    }

    fn give_back(&self, delivery_count_max: i16, is_meant: impl Fn(&Lock) -> bool) -> Change {
        let mut change = Change::default();
        for (first, run) in self.runs.iter() {
            if run.lock.as_ref().is_some_and(&is_meant) {
                let state = returned(run.delivery_count, delivery_count_max);
                change.push(first, run.last, state, run.delivery_count);
            }
        }
        self.complete(&mut change);
        change
    }

    fn settle(
        &self,
        change: &mut Change,
        (first, last): (i64, i64),
        delivery_count: i16,
        kind: Acknowledge,
        lock: &Lock,
        terms: Terms,
    ) -> Result<(), AcknowledgeError> {
        let state = match kind {
            Acknowledge::Accept => RecordState::Acknowledged,
            Acknowledge::Gap | Acknowledge::Reject => RecordState::Archived,
            Acknowledge::Release => returned(delivery_count, terms.delivery_count_max),
            Acknowledge::Renew => {
                let deadline_ms =
                    terms.renew_until_ms.ok_or(AcknowledgeError::InvalidRecordState(
                        "Renewing acquisition locks is not enabled for the group.",
                    ))?;
                let lock = Lock { member: lock.member.clone(), deadline_ms };
                change.renewed.push((first, last, lock));
                return Ok(());
            }
        };
        change.push(first, last, state, delivery_count);
        Ok(())
    }

    /// Works out where the start will be.
    fn complete(&self, change: &mut Change) {
        let mut start = self.start;
        let mut settled = change.settled.iter().peekable();
        for (first, run) in self.runs.iter() {
            if first > start {
                break;
            }
            if run.state.is_terminal() {
                start = run.last + 1;
                continue;
            }
            // The run may be settled in several parts.
            while let Some(batch) = settled.peek() {
                match batch.first.cmp(&start) {
                    Ordering::Less => {
                        settled.next();
                    }
                    Ordering::Equal if batch.state.is_terminal() => {
                        start = batch.last + 1;
                        settled.next();
                    }
                    _ => break,
                }
            }
            // A batch may reach over several runs; they are passed then.
            if start <= run.last {
                break;
            }
        }
        let newly: i64 = change
            .settled
            .iter()
            .filter(|batch| batch.state.is_terminal())
            .map(|batch| batch.last - batch.first + 1)
            .sum();
        let count = self.runs.terminal() + newly - (start - self.start);
        change.start = start;
        change.delivery_complete_count = i32::try_from(count).unwrap_or(i32::MAX);
    }
}

impl AcknowledgementBatch {
    /// The type for `offset`, and how far it reaches, at most up to `last`.
    fn kind_at(&self, offset: i64, last: i64) -> (Acknowledge, i64) {
        if let [only] = self.types[..] {
            return (only, last);
        }
        let at = (offset - self.first) as usize;
        let kind = self.types[at];
        let until = (last - self.first) as usize;
        let same = self.types[at..=until].iter().take_while(|other| **other == kind).count();
        (kind, offset + same as i64 - 1)
    }
}

/// What becomes of a record that comes back.
fn returned(delivery_count: i16, delivery_count_max: i16) -> RecordState {
    if delivery_count >= delivery_count_max {
        RecordState::Archived
    } else {
        RecordState::Available
    }
}
