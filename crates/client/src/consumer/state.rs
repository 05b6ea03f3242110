//! What a consumer knows about its partitions: where it stands, and what has been fetched ahead.
//!
//! ```text
//!   assigned ──▶ Committed ──────────────┐ no commit
//!            └─▶ Lookup(timestamp) ◀─────┴──── out of range
//!                     │ offset found              ▲
//!                     ▼                           │ the log ends before it (KIP-320)
//!                   Known ── fetched, buffered, taken by poll
//!                     │ new leader                │
//!                     └─────▶ Unchecked ──────────┴──▶ Known
//! ```
//!
//! A seek or a new assignment raises `version`; answers to questions asked before are dropped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::offsets::EARLIEST;
use super::offsets::LATEST;
use super::records::Records;
use crate::config::OffsetReset;
use crate::error::{Error, Result};
use crate::timing::now_ms;

/// Where to begin reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the group's committed offset; without one, as `auto.offset.reset` says.
    Committed,
    /// At the oldest record.
    Beginning,
    /// After the newest record.
    End,
    /// At this offset.
    Offset(i64),
    /// At the first record that is not older than this many milliseconds since 1970; after the
    /// newest record if all are older.
    Timestamp(i64),
}

/// How the position of a partition is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// By asking the group's coordinator.
    Committed,
    /// By asking the leader for the offset of a timestamp or of a special one.
    Lookup(i64),
    /// It is known, but a new leader has yet to say whether its log goes that far.
    Unchecked,
    /// It is known.
    Known,
}

/// A place in a log with the leader epoch of the record before it; -1 if that is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: i64,
    pub(super) epoch: i32,
}

impl Place {
    pub(super) fn at(offset: i64) -> Self {
        Self { offset, epoch: -1 }
    }
}

/// One assigned partition.
pub(super) struct Partition {
    pub(super) version: u64,
    /// The version when it was assigned or sought last. Records of before are of no use any more;
    /// those that a poll gave before the log was truncated are.
    pub(super) sent: u64,
    pub(super) position: Position,
    /// Not to be asked about before this time, after a failure.
    pub(super) not_before: Option<Instant>,
    /// What is to be fetched next.
    pub(super) fetch: Place,
    /// The leader epoch under which `fetch` is known to lie in the log.
    pub(super) checked_epoch: i32,
    /// A replica nearer than the leader, and until when to prefer it (KIP-392).
    pub(super) preferred: Option<(i32, Instant)>,
    /// What `poll` gives next.
    pub(super) consumed: Place,
    /// Everything before it has been worked on: what a commit says.
    pub(super) processed: Option<Place>,
    pub(super) committed: Option<i64>,
    /// Whether records of it were given out.
    given: bool,
    pub(super) high_watermark: Option<i64>,
    /// When a broker last answered what there is from where this consumer is.
    pub(super) answered: Option<Instant>,
    pub(super) paused: bool,
    /// It is being taken away: nothing of it is given out any more.
    pub(super) withheld: bool,
    buffered: VecDeque<Records>,
    buffered_bytes: usize,
}

/// A subscription by a regular expression, which must match a topic's whole name.
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) regex: regex::Regex,
}

/// What the lock of a consumer guards.
pub(super) struct State {
    pub(super) partitions: HashMap<TopicPartition, Partition>,
    /// Partitions with something buffered, each as often as it has answers.
    ready: VecDeque<TopicPartition>,
    next_version: u64,
    /// To be reported by the next poll.
    pub(super) errors: VecDeque<Error>,
    pub(super) subscription: Arc<[Arc<str>]>,
    /// Subscribes to all topics it matches.
    pub(super) pattern: Option<Arc<Pattern>>,
    /// Raised by every change of the subscription.
    pub(super) subscription_version: u64,
    pub(super) assigned_by_hand: bool,
    pub(super) closing: bool,
    /// The partition whose records the application holds, from the last poll.
    pub(super) lent: Option<TopicPartition>,
    pub(super) last_poll: Instant,
    /// Whether the application waits inside a poll.
    pub(super) polling: bool,
    /// Whether the membership waits for the application's next poll; waking it for every one would
    /// cost more than the poll.
    pub(super) poll_awaited: bool,
    /// Whether the fetcher asks for nothing more until the application has taken something.
    pub(super) room_awaited: bool,
    pub(super) member: Member,
    /// Whether the group gave partitions to others since the last poll, with records that were
    /// given out and not committed.
    pub(super) forfeited: bool,
    /// Whether a JoinGroup is under way, whose answer brings another generation.
    pub(super) joining: bool,
}

/// Who the consumer is in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(super) id: String,
    pub(super) generation: i32,
}

impl Default for Member {
    fn default() -> Self {
        Self { id: String::new(), generation: -1 }
    }
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            partitions: HashMap::new(),
            ready: VecDeque::new(),
            next_version: 0,
            errors: VecDeque::new(),
            subscription: Arc::new([]),
            pattern: None,
            subscription_version: 0,
            assigned_by_hand: false,
            closing: false,
            lent: None,
            last_poll: Instant::now(),
            polling: false,
            poll_awaited: false,
            room_awaited: false,
            joining: false,
            forfeited: false,
            member: Member::default(),
        }
    }

    /// Adds a partition, to be read from `start`.
    pub(super) fn add(&mut self, partition: TopicPartition, start: Start) {
        let version = self.new_version();
        let mut added = Partition {
            version,
            sent: version,
            position: Position::Committed,
            not_before: None,
            fetch: Place::at(0),
            checked_epoch: -1,
            preferred: None,
            consumed: Place::at(0),
            processed: None,
            committed: None,
            given: false,
            high_watermark: None,
            answered: None,
            paused: false,
            withheld: false,
            buffered: VecDeque::new(),
            buffered_bytes: 0,
        };
        added.go_to(start, version);
        self.partitions.insert(partition, added);
    }

    /// Takes partitions away with all that was fetched for them.
    pub(super) fn remove(&mut self, gone: &HashSet<TopicPartition>) {
        self.partitions.retain(|partition, _| !gone.contains(partition));
        self.ready.retain(|partition| !gone.contains(partition));
        self.forget_missing_offsets(|partition| gone.contains(partition));
    }

    /// Gives out nothing more of partitions that are about to be removed.
    pub(super) fn withhold(&mut self, leaving: &HashSet<TopicPartition>) {
        for partition in leaving {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.withheld = true;
            }
        }
    }

    /// Notes what the application cannot commit any more of partitions that are lost.
    pub(super) fn forfeit(&mut self, lost: &HashSet<TopicPartition>) {
        let mut states = lost.iter().filter_map(|partition| self.partitions.get(partition));
        let forfeits =
            |state: &Partition| state.given && state.committed != Some(state.consumed.offset);
        self.forfeited |= states.any(forfeits);
    }

    /// Moves a partition to `start`.
    pub(super) fn seek(&mut self, partition: &TopicPartition, start: Start) -> Result<()> {
        let version = self.new_version();
        let state = self.assigned_mut(partition)?;
        state.go_to(start, version);
        state.sent = version;
        self.ready.retain(|ready| ready != partition);
        self.forget_missing_offsets(|sought| sought == partition);
        Ok(())
    }

    /// Forgets what was to be told about offsets of before: who answered it now would leave the place that was chosen since.
    fn forget_missing_offsets(&mut self, of: impl Fn(&TopicPartition) -> bool) {
        let is_old =
            |error: &Error| matches!(error, Error::NoOffset { partition, .. } if of(partition));
        self.errors.retain(|error| !is_old(error));
    }

    /// Reports whether there is something to join a group for.
    pub(super) fn is_subscribed(&self) -> bool {
        !self.subscription.is_empty() || self.pattern.is_some()
    }

    /// Reports whether a group gives the partitions, which it may do for a moment longer than the
    /// subscription.
    pub(super) fn reads_for_group(&self) -> bool {
        self.is_subscribed() || !self.assigned_by_hand && !self.partitions.is_empty()
    }

    /// Subscribes to the topics in `names` that the pattern matches, if they are not the same as
    /// before.
    pub(super) fn match_topics(&mut self, names: impl Iterator<Item = Arc<str>>) {
        let Some(pattern) = self.pattern.clone() else { return };
        let mut matched: Vec<_> = names.filter(|name| pattern.regex.is_match(name)).collect();
        matched.sort_unstable();
        if *matched != *self.subscription {
            self.subscription = matched.into();
            self.subscription_version += 1;
        }
    }

    /// Takes topics into the subscription that the group's leader has found before this client did. This is no change that
    /// the group has to hear of.
    pub(super) fn match_assigned(&mut self, assigned: &[TopicPartition]) {
        let Some(pattern) = self.pattern.clone() else { return };
        let new = assigned.iter().map(|partition| &partition.topic);
        let new = new.filter(|topic| pattern.regex.is_match(topic));
        let mut matched: Vec<_> = self.subscription.iter().chain(new).cloned().collect();
        matched.sort_unstable();
        matched.dedup();
        if matched.len() > self.subscription.len() {
            self.subscription = matched.into();
        }
    }

    /// Stops or resumes giving records of a partition.
    pub(super) fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<()> {
        let state = self.assigned_mut(partition)?;
        let resumed = state.paused && !paused;
        state.paused = paused;
        let waiting = state.buffered.len();
        if resumed {
            self.ready.retain(|ready| ready != partition);
            self.ready.extend(std::iter::repeat_n(partition.clone(), waiting));
        }
        Ok(())
    }

    /// Keeps a fetched answer, unless the partition has moved since it was asked for, or another broker has answered.
    pub(super) fn store(&mut self, mut records: Records, version: u64) -> bool {
        let Some(state) = self.partitions.get_mut(records.partition()) else { return false };
        if !state.awaits(version, records.fetch_offset()) {
            return false;
        }
        state.fetch = Place { offset: records.next_offset(), epoch: records.last_epoch() };
        state.high_watermark = Some(records.high_watermark());
        state.buffered_bytes += records.bytes();
        records.sent = state.sent;
        self.ready.push_back(records.partition().clone());
        state.buffered.push_back(records);
        true
    }

    /// Returns the bytes that are fetched ahead of the application.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.partitions.values().map(|state| state.buffered_bytes).sum()
    }

    /// Takes the answer that has waited longest, of the partitions in turn.
    pub(super) fn take_ready(&mut self) -> Option<Records> {
        while let Some(partition) = self.ready.pop_front() {
            let Some(state) = self.partitions.get_mut(&partition) else { continue };
            if state.paused || state.withheld {
                continue;
            }
            let Some(records) = state.buffered.pop_front() else { continue };
            state.buffered_bytes -= records.bytes();
            state.consumed = Place { offset: records.next_offset(), epoch: records.last_epoch() };
            // Control records move the position and are of no use to the application.
            if records.bytes() > 0 {
                state.given = true;
                return Some(records);
            }
        }
        None
    }

    /// Reports whether the partition of these records has been read on from there ever since.
    pub(super) fn is_current(&self, records: &Records) -> bool {
        let state = self.partitions.get(records.partition());
        state.is_some_and(|state| state.sent == records.sent)
    }

    /// Counts everything that was given out as worked on.
    pub(super) fn mark_processed(&mut self) {
        for state in self.partitions.values_mut() {
            if matches!(state.position, Position::Known | Position::Unchecked) {
                state.processed = Some(state.consumed);
            }
        }
    }

    /// Returns what a commit would say that the last one did not.
    pub(super) fn uncommitted(&self) -> HashMap<TopicPartition, Place> {
        self.partitions
            .iter()
            .filter_map(|(partition, state)| {
                let processed = state.processed?;
                let news = state.committed != Some(processed.offset);
                news.then(|| (partition.clone(), processed))
            })
            .collect()
    }

    /// Sets a found position, unless the partition has moved since it was asked for.
    pub(super) fn found(&mut self, partition: &TopicPartition, version: u64, place: Place) {
        if let Some(state) = self.partitions.get_mut(partition)
            && state.version == version
        {
            state.position = Position::Known;
            state.fetch = place;
            state.consumed = place;
        }
    }

    /// Takes a leader's word for how far its log agrees with ours: `end` is where records of the
    /// epoch we read last end there, or nothing if it never had that epoch.
    pub(super) fn checked(
        &mut self,
        partition: &TopicPartition,
        version: u64,
        end: Option<Place>,
        policy: OffsetReset,
    ) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        if state.version != version || state.position != Position::Unchecked {
            return;
        }
        state.position = Position::Known;
        let Some(end) = end else {
            let reason = "the leader has no records of the epoch read last";
            return self.reset(partition, version, policy, reason);
        };
        if end.offset >= state.fetch.offset {
            return;
        }
        tracing::warn!(%partition, position = state.fetch.offset, end = end.offset, "the log was truncated");
        let consumed = state.consumed;
        if end.offset < consumed.offset && policy == OffsetReset::None {
            let reason = format!(
                "records up to {} were read, and the new leader's log goes to {}",
                consumed.offset, end.offset
            );
            return self.reset(partition, version, policy, &reason);
        }
        // What was fetched and not yet given out may be of the branch that is gone.
        let processed = state.processed.filter(|processed| processed.offset <= end.offset);
        let place = if end.offset < consumed.offset { end } else { consumed };
        let version = self.new_version();
        self.ready.retain(|ready| ready != partition);
        if let Some(state) = self.partitions.get_mut(partition) {
            state.go_to(Start::Offset(place.offset), version);
            (state.fetch, state.consumed, state.processed) = (place, place, processed);
        }
    }

    /// Deals with a position that the leader says is out of range, or with a missing commit.
    pub(super) fn reset(
        &mut self,
        partition: &TopicPartition,
        version: u64,
        policy: OffsetReset,
        reason: &str,
    ) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        if state.version != version {
            return;
        }
        match policy {
            OffsetReset::Earliest => state.position = Position::Lookup(EARLIEST),
            OffsetReset::Latest => state.position = Position::Lookup(LATEST),
            OffsetReset::ByDuration(duration) => {
                let since = now_ms().saturating_sub(duration.as_millis() as i64);
                state.position = Position::Lookup(since.max(0));
            }
            OffsetReset::None => {
                // Asking again would give the same answer; the application has to seek.
                state.not_before = Some(Instant::now() + FOREVER);
                state.position = Position::Committed;
                self.errors.push_back(Error::NoOffset {
                    partition: partition.clone(),
                    reason: reason.to_owned(),
                });
            }
        }
    }

    pub(super) fn assigned_mut(&mut self, partition: &TopicPartition) -> Result<&mut Partition> {
        self.partitions
            .get_mut(partition)
            .ok_or_else(|| Error::state(format!("{partition} is not assigned to this consumer")))
    }

    fn new_version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }
}

impl Partition {
    /// Returns the bytes that wait for the application.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Reports whether an answer from this offset on is still waited for. When the leader changes, two brokers are asked for
    /// the same.
    pub(super) fn awaits(&self, version: u64, fetch_offset: i64) -> bool {
        let is_there = self.version == version && self.position == Position::Known;
        is_there && self.fetch.offset == fetch_offset
    }

    /// Reports whether another answer may be fetched ahead.
    pub(super) fn has_room(&self, bytes_max: usize) -> bool {
        self.buffered_bytes < bytes_max && self.buffered.len() < ANSWERS_AHEAD_MAX
    }

    fn go_to(&mut self, start: Start, version: u64) {
        self.version = version;
        self.buffered.clear();
        self.buffered_bytes = 0;
        self.not_before = None;
        self.checked_epoch = -1;
        // What was worked on before the jump says nothing about the new place.
        self.processed = None;
        self.position = match start {
            Start::Committed => Position::Committed,
            Start::Beginning => Position::Lookup(EARLIEST),
            Start::End => Position::Lookup(LATEST),
            Start::Timestamp(timestamp) => Position::Lookup(timestamp.max(0)),
            Start::Offset(offset) => {
                self.fetch = Place::at(offset);
                self.consumed = Place::at(offset);
                self.processed = Some(Place::at(offset));
                Position::Known
            }
        };
    }
}

/// A consumer of many thin answers must not collect them without end.
const ANSWERS_AHEAD_MAX: usize = 8;

/// Longer than any consumer runs, and short enough to be added to a time.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{BatchBuilder, BatchOptions, Decompressor, NewRecord};
    use fleuve_types::Offset;

    use super::*;
    use crate::consumer::records::Fetched;

    /// A partition with records up to 100 given out and up to 150 fetched, all of epoch 3, while a
    /// new leader is asked.
    fn unchecked() -> (State, TopicPartition) {
        let partition = TopicPartition::new("t", 0);
        let mut state = State::new();
        state.add(partition.clone(), Start::Offset(0));
        let assigned = state.assigned_mut(&partition).expect("added");
        assigned.consumed = Place { offset: 100, epoch: 3 };
        assigned.fetch = Place { offset: 150, epoch: 3 };
        assigned.position = Position::Unchecked;
        (state, partition)
    }

    fn after(end: Option<i64>, policy: OffsetReset) -> (Position, i64, Option<Error>) {
        let (mut state, partition) = unchecked();
        let version = state.partitions[&partition].version;
        let end = end.map(|offset| Place { offset, epoch: 3 });
        state.checked(&partition, version, end, policy);
        let assigned = &state.partitions[&partition];
        (assigned.position, assigned.fetch.offset, state.errors.pop_front())
    }

    #[test]
    fn a_log_that_goes_as_far_as_we_read_changes_nothing() {
        for end in [150, 200] {
            let (position, fetch, error) = after(Some(end), OffsetReset::None);
            assert_eq!((position, fetch), (Position::Known, 150));
            assert!(error.is_none());
        }
    }

    #[test]
    fn what_was_fetched_of_a_lost_branch_is_fetched_anew() {
        let (position, fetch, error) = after(Some(120), OffsetReset::None);
        assert_eq!((position, fetch), (Position::Known, 100), "from where the application is");
        assert!(error.is_none());
    }

    #[test]
    fn of_two_brokers_that_were_asked_for_the_same_one_is_heard() {
        let options = BatchOptions { base_offset: Offset(150), ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        for value in [b"a", b"b"] {
            builder
                .append(&NewRecord { value: Some(value), ..NewRecord::default() })
                .expect("room");
        }
        let bytes = builder.finish();
        let (mut state, partition) = unchecked();
        let version = state.partitions[&partition].version;
        state.assigned_mut(&partition).expect("added").position = Position::Known;
        let mut answer = || {
            let fetched = Fetched {
                partition: partition.clone(),
                fetch_offset: 150,
                high_watermark: 152,
                aborted: None,
            };
            let decompressor = &mut Decompressor::new(1 << 20);
            let records = Records::decode(fetched, vec![bytes.clone()], decompressor);
            state.store(records.expect("sound"), version)
        };
        assert!(answer());
        assert!(!answer(), "the records are there already");
        assert_eq!(state.take_ready().map(|records| records.count()), Some(2));
        assert!(state.take_ready().is_none());
    }

    #[test]
    fn a_missing_offset_is_not_told_of_a_partition_that_has_moved_since() {
        type Change = fn(&mut State, &TopicPartition);
        let seek: Change = |state, partition| {
            state.seek(partition, Start::Offset(7)).expect("assigned");
        };
        let assign_anew: Change = |state, partition| {
            state.remove(&HashSet::from([partition.clone()]));
            state.add(partition.clone(), Start::Committed);
        };
        for change in [seek, assign_anew] {
            let (mut state, partition) = unchecked();
            let other = TopicPartition::new("t", 1);
            state.add(other.clone(), Start::Committed);
            for missing in [&partition, &other] {
                let version = state.partitions[missing].version;
                state.reset(missing, version, OffsetReset::None, "nothing was committed for it");
            }
            change(&mut state, &partition);
            let told: Vec<_> = state.errors.iter().map(ToString::to_string).collect();
            assert!(told.len() == 1 && told[0].contains("t-1"), "{told:?}");
        }
    }

    #[test]
    fn records_given_out_that_are_lost_are_told_or_reset() {
        let (position, fetch, error) = after(Some(60), OffsetReset::Latest);
        assert_eq!((position, fetch), (Position::Known, 60), "where the branches part");
        assert!(error.is_none());
        let (_, _, error) = after(Some(60), OffsetReset::None);
        let error = error.expect("told").to_string();
        assert!(error.contains("the new leader's log goes to 60"), "{error}");
        let (position, _, _) = after(None, OffsetReset::Earliest);
        assert_eq!(position, Position::Lookup(EARLIEST), "the leader never had our epoch");
    }
}
