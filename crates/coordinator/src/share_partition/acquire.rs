//! Acquiring: a member gets records that nobody has.
//!
//! The driver reads the log at [`SharePartition::fetch_offset`] and says which offsets it found
//! ([`Fetched`]). Offsets that it did not find there, because compaction removed them, and those
//! that no consumer is to see, control records and aborted transactions, are archived on the way.
//! Kafka leaves most of these to its clients, who have to report them as gaps.

use fleuve_protocol::Str;

use super::partition::SharePartition;
use super::runs::{Lock, RecordState, Run};

/// Delivery counts below this are never a reason to deliver less at a time.
const THROTTLE_COUNT_MIN: i32 = 3;

/// How strictly the number of records is meant (KIP-1206).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcquireMode {
    /// Whole batches are acquired, also where that is more than asked for.
    #[default]
    BatchOptimized,
    /// No more records are acquired than were asked for.
    RecordLimit,
}

impl AcquireMode {
    /// Finds a mode by the number in ShareFetch.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::BatchOptimized),
            1 => Some(Self::RecordLimit),
            _ => None,
        }
    }
}

/// A member asks for records.
#[derive(Clone, Debug)]
pub struct Acquire<'a> {
    /// Who asks.
    pub member: &'a Str,
    /// How strictly `records_max` is meant.
    pub mode: AcquireMode,
    /// The most records, by the mode's meaning.
    pub records_max: i64,
    /// New records are handed out in pieces of about so many.
    pub batch_size: i64,
    /// `share.partition.max.record.locks`: the most records in flight.
    pub locks_max: i64,
    /// `share.delivery.count.limit`.
    pub delivery_count_max: i16,
    /// When the locks end, in monotonic milliseconds.
    pub deadline_ms: i64,
    /// Where the log was read; what it does not have between here and the last batch found does
    /// not exist.
    pub fetch_offset: i64,
}

/// A batch that was read from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its first offset.
    pub first: i64,
    /// Its last offset.
    pub last: i64,
    /// Whether consumers are to see its records.
    pub is_deliverable: bool,
}

/// Records that a member now has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The first offset.
    pub first: i64,
    /// The last offset.
    pub last: i64,
    /// How often they were delivered, this time included.
    pub delivery_count: i16,
}

impl SharePartition {
    /// Gives the member what may be acquired of the batches that were read, in order.
    pub fn acquire(&mut self, request: &Acquire<'_>, fetched: &[Fetched]) -> Vec<Acquired> {
        let Some(end) = fetched.last().map(|batch| batch.last) else { return Vec::new() };
        if request.records_max <= 0 || end < self.start || end == i64::MAX {
            return Vec::new();
        }
        self.archive_absent(request.fetch_offset, fetched);
        let from = fetched[0].first.max(self.start);
        let mut taking = Taking { request, acquired: Vec::new(), count: 0, is_done: false };
        let available: Vec<(i64, i64, i16)> = self
            .runs
            .within(from, end.min(self.next - 1))
            .filter(|(_, _, run)| run.state == RecordState::Available)
            .map(|(first, last, run)| (first, last, run.delivery_count))
            .collect();
        for (first, last, delivery_count) in available {
            if taking.is_full() {
                break;
            }
            if let Some(last) = taking.again(first, last, delivery_count) {
                self.lock(first, last, delivery_count.saturating_add(1), request);
            }
        }
        if !taking.is_full() && end >= self.next {
            self.take_new(&mut taking, fetched);
        }
        self.advance();
        taking.acquired
    }

    /// Archives what is available and turns out not to exist, or not to be for consumers.
    fn archive_absent(&mut self, fetch_offset: i64, fetched: &[Fetched]) {
        let mut absent = Vec::new();
        let mut expected = fetch_offset.max(self.start);
        for batch in fetched {
            if batch.first > expected {
                absent.push((expected, batch.first - 1));
            }
            if !batch.is_deliverable {
                absent.push((batch.first.max(self.start), batch.last));
            }
            expected = expected.max(batch.last + 1);
        }
        for (first, last) in absent {
            let parts: Vec<(i64, i64, i16)> = self
                .runs
                .within(first, last)
                .filter(|(_, _, run)| run.state == RecordState::Available)
                .map(|(first, last, run)| (first, last, run.delivery_count))
                .collect();
            for (first, last, delivery_count) in parts {
                self.set(first, last, RecordState::Archived, delivery_count);
            }
        }
    }

    /// Acquires for the first time what was read from `next` on.
    fn take_new(&mut self, taking: &mut Taking<'_>, fetched: &[Fetched]) {
        let request = taking.request;
        let room = request.locks_max - self.in_flight();
        let mut wanted = (request.records_max - taking.count).min(room);
        let mut piece: Option<(i64, i64)> = None;
        for batch in fetched {
            if batch.last < self.next {
                continue;
            }
            if wanted <= 0 {
                break;
            }
            let first = batch.first.max(self.next);
            // The log was read from an offset that is not beyond this one, so nothing is there.
            if first > self.next && request.fetch_offset <= self.next {
                self.set(self.next, first - 1, RecordState::Archived, 0);
            } else if first > self.next {
                break;
            }
            if !batch.is_deliverable {
                self.set(first, batch.last, RecordState::Archived, 0);
                self.next = batch.last + 1;
                continue;
            }
            let last = match request.mode {
                AcquireMode::BatchOptimized => batch.last,
                AcquireMode::RecordLimit => batch.last.min(first + wanted - 1),
            };
            self.lock(first, last, 1, request);
            self.next = last + 1;
            wanted -= last - first + 1;
            piece = match piece {
                Some((begin, before))
                    if before + 1 == first && first - begin < request.batch_size =>
                {
                    Some((begin, last))
                }
                finished => {
                    taking.push_piece(finished);
                    Some((first, last))
                }
            };
        }
        taking.push_piece(piece);
    }

    fn lock(&mut self, first: i64, last: i64, delivery_count: i16, request: &Acquire<'_>) {
        let deadline_ms = request.deadline_ms;
        let lock = Some(Lock { member: request.member.clone(), deadline_ms });
        self.runs.set(first, Run { last, state: RecordState::Acquired, delivery_count, lock });
        let earliest =
            self.earliest_deadline_ms.map_or(deadline_ms, |known| known.min(deadline_ms));
        self.earliest_deadline_ms = Some(earliest);
    }
}

/// What a member has got so far.
struct Taking<'a> {
    request: &'a Acquire<'a>,
    acquired: Vec<Acquired>,
    count: i64,
    /// Nothing more may come into the same answer.
    is_done: bool,
}

impl Taking<'_> {
    fn is_full(&self) -> bool {
        self.is_done || self.count >= self.request.records_max
    }

    /// Decides how much of a run that was delivered before is delivered again; returns the last
    /// offset of that.
    ///
    /// A record that breaks its consumer takes the records down that are delivered with it. So the
    /// more often records came back, the fewer are delivered together, and alone at last.
    fn again(&mut self, first: i64, last: i64, delivery_count: i16) -> Option<i64> {
        let count_max = i32::from(self.request.delivery_count_max);
        let count = i32::from(delivery_count);
        let throttled_from = ((count_max + 1) / 2).max(THROTTLE_COUNT_MIN);
        let is_last_attempt = count_max > 2 && count == count_max - 1;
        let mut end = last;
        if is_last_attempt || count >= throttled_from {
            if self.count > 0 {
                self.is_done = true;
                return None;
            }
            let length = last - first + 1;
            let length = if is_last_attempt { 1 } else { (length / 2).max(1) };
            end = first + length - 1;
            self.is_done = true;
        }
        if self.request.mode == AcquireMode::RecordLimit {
            end = end.min(first + (self.request.records_max - self.count) - 1);
        }
        self.push(first, end, delivery_count.saturating_add(1));
        Some(end)
    }

    fn push(&mut self, first: i64, last: i64, delivery_count: i16) {
        self.count += last - first + 1;
        self.acquired.push(Acquired { first, last, delivery_count });
    }

    fn push_piece(&mut self, piece: Option<(i64, i64)>) {
        if let Some((first, last)) = piece {
            self.push(first, last, 1);
        }
    }
}
