//! The shard: all transactional ids of one partition of `__transaction_state`.
//!
//! It keeps the ledger in step with the log, remembers what is under way for each id, and carries
//! on with what waited for a record to be appended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::error::TransactionError;
use super::ledger::Ledger;
use super::markers::Delivery;
use super::metadata::{NO_EPOCH, Transaction, Transition};
use super::record::{Record, RecordError};
use super::settings::TransactionSettings;
use super::state::State;
use super::step::{Step, Then, Write};
use super::waiting::Waiting;
use crate::error::AppendError;
use crate::step::{Now, Token};

/// Gives out producer ids that nobody else in the cluster has.
pub trait ProducerIds: Send + Sync + fmt::Debug {
    /// Takes the next id; none while a new block of ids is being fetched.
    fn next(&self) -> Option<ProducerId>;
}

/// Events counted since the shard was made, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions that began.
    pub begun: u64,
    /// Transactions that were committed, with all their markers.
    pub committed: u64,
    /// Transactions that were aborted, with all their markers.
    pub aborted: u64,
    /// Transactions that were aborted because they had been open for too long.
    pub timed_out: u64,
    /// Transactional ids that were removed because nobody used them.
    pub ids_expired: u64,
}

/// Coordinates the transactions whose state is in one partition of `__transaction_state`.
///
/// See the [module](super) for how a driver uses it.
#[derive(Debug)]
pub struct TransactionCoordinator {
    pub(crate) settings: TransactionSettings,
    pub(crate) ledger: Ledger,
    pub(crate) progress: BTreeMap<Str, Progress>,
    pub(crate) counters: Counters,
    pub(crate) coordinator_epoch: i32,
    /// Deliveries that are to be taken up again, on the monotonic clock.
    pub(crate) retries: BTreeSet<(i64, Str)>,
    /// Requests that wait, by when they no longer do.
    pub(crate) waits: BTreeSet<(i64, Str, Token)>,
    /// When timed-out transactions are looked for next.
    pub(crate) abort_check_ms: Option<i64>,
    /// When unused ids are looked for next.
    pub(crate) expiry_check_ms: Option<i64>,
    producer_ids: Arc<dyn ProducerIds>,
    phase: Phase,
    /// One past the last record applied.
    next_offset: Option<Offset>,
}

/// What is under way for a transactional id; all of it is lost in a restart.
///
/// An id without a record has one only while its first record is being written.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The state that the id is about to go to. Until it is there, or has failed to get there,
    /// no other change may begin.
    pub(crate) pending: Option<State>,
    /// The epoch before the last raise, or -1.
    pub(crate) last_epoch: ProducerEpoch,
    /// One past the last record of the id.
    pub(crate) stored_end: Option<Offset>,
    /// When the open transaction is to be aborted, on the monotonic clock.
    pub(crate) times_out_at_ms: Option<i64>,
    /// The markers of a prepared transaction.
    pub(crate) delivery: Option<Delivery>,
    /// Requests that wait until nothing is pending any more.
    pub(crate) waiting: VecDeque<Waiting>,
}

/// What the shard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loading,
    Serving,
    Unloaded,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            pending: None,
            last_epoch: NO_EPOCH,
            stored_end: None,
            times_out_at_ms: None,
            delivery: None,
            waiting: VecDeque::new(),
        }
    }
}

impl TransactionCoordinator {
    /// Makes a shard that knows nothing yet and is about to read its log, which this broker leads
    /// in `coordinator_epoch`.
    pub fn new(
        settings: TransactionSettings,
        producer_ids: Arc<dyn ProducerIds>,
        coordinator_epoch: i32,
    ) -> Self {
        Self {
            settings,
            ledger: Ledger::default(),
            progress: BTreeMap::new(),
            counters: Counters::default(),
            coordinator_epoch,
            retries: BTreeSet::new(),
            waits: BTreeSet::new(),
            abort_check_ms: None,
            expiry_check_ms: None,
            producer_ids,
            phase: Phase::Loading,
            next_offset: None,
        }
    }

    /// Takes in a record of the log: the only way in which persistent state changes.
    ///
    /// While loading, the driver calls this for every record of the partition. Later the machine
    /// does it by itself when it learns that a write was appended.
    pub fn apply(&mut self, record: &Record, offset: Offset) {
        self.ledger.apply(record);
        self.next_offset = Some(offset.plus(1));
    }

    /// Takes in key and value of a record while loading.
    ///
    /// Types and versions that we do not know are passed over, as Kafka does; says whether the
    /// record was one of ours.
    pub fn replay(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        offset: Offset,
    ) -> Result<bool, RecordError> {
        match Record::decode(key, value) {
            Ok(record) => {
                self.apply(&record, offset);
                Ok(true)
            }
            Err(RecordError::UnknownType(_) | RecordError::UnknownVersion(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The log has been read to its end: what was decided but not completed is taken up again.
    pub fn handle_loaded(&mut self, now: Now) -> Step {
        let mut step = Step::default();
        if self.phase != Phase::Loading {
            return step;
        }
        self.phase = Phase::Serving;
        // What was read need not be durable yet.
        let stored_end = self.next_offset;
        for (id, transaction) in self.ledger.transactions() {
            let times_out_at_ms = remaining_ms(transaction, now.wall)
                .map(|remaining_ms| now.monotonic_ms.saturating_add(remaining_ms));
            let progress = Progress { stored_end, times_out_at_ms, ..Progress::default() };
            self.progress.insert(id.clone(), progress);
        }
        let decided =
            self.ledger.transactions().filter(|(_, known)| known.state.decision().is_some());
        let decided: Vec<Str> = decided.map(|(id, _)| id.clone()).collect();
        for id in decided {
            self.begin_delivery(now, &id, &mut step);
        }
        self.schedule_abort_check(now);
        self.schedule_expiry_check(now);
        step
    }

    /// The shard is given up, because the partition is led elsewhere or its log has failed.
    ///
    /// Nothing more comes from it but `NOT_COORDINATOR`; writes that are still out are answered
    /// so when they are handed back.
    pub fn handle_unload(&mut self, now: Now) -> Step {
        let mut step = Step::default();
        self.phase = Phase::Unloaded;
        let progress = std::mem::take(&mut self.progress);
        self.dismiss(now, progress.into_values().flat_map(|known| known.waiting), &mut step);
        self.ledger = Ledger::default();
        self.retries.clear();
        self.abort_check_ms = None;
        self.expiry_check_ms = None;
        step
    }

    /// Changes the settings; they hold from the next event on.
    pub fn update_settings(&mut self, settings: TransactionSettings) {
        self.settings = settings;
    }

    /// A write is in the log, with its first record at `base_offset`.
    pub fn handle_appended(&mut self, now: Now, write: Write, base_offset: Offset) -> Step {
        if self.phase != Phase::Serving {
            return self.handle_append_failed(now, write, AppendError::NotLeader);
        }
        let mut step = Step::default();
        let end = base_offset.plus(write.records.len() as i64);
        for (index, record) in write.records.iter().enumerate() {
            let before = self.ledger.get(&record.transactional_id).map(|known| known.state);
            self.apply(record, base_offset.plus(index as i64));
            self.follow(now, record, before, write.last_epoch, end, &mut step);
        }
        match write.then {
            Then::Reply { token, response } => step.reply(token, response, Some(end)),
            Then::Deliver { reply } => {
                match reply {
                    Some((token, response)) => step.reply(token, response, Some(end)),
                    None => self.counters.timed_out += 1,
                }
                for record in &write.records {
                    self.begin_delivery(now, &record.transactional_id, &mut step);
                }
            }
            Then::Complete | Then::Expire => {}
        }
        for record in &write.records {
            self.wake(now, &record.transactional_id, &mut step);
        }
        step
    }

    /// A write is not in the log and never will be, or cannot be encoded
    /// ([`AppendError::TooLarge`]).
    ///
    /// A write that was appended but got lost before it was durable is another matter: then the
    /// whole shard has to be unloaded, as its state has gone too far.
    pub fn handle_append_failed(&mut self, now: Now, write: Write, error: AppendError) -> Step {
        let mut step = Step::default();
        if self.phase == Phase::Serving {
            for record in &write.records {
                match write.then {
                    Then::Complete => self.completion_failed(now, &record.transactional_id, error),
                    _ => self.settle(&record.transactional_id),
                }
            }
            for record in &write.records {
                self.wake(now, &record.transactional_id, &mut step);
            }
        }
        let error = TransactionError::from(error);
        match write.then {
            Then::Reply { token, response } | Then::Deliver { reply: Some((token, response)) } => {
                step.reply(token, response.not_stored(error), None);
            }
            Then::Deliver { reply: None } | Then::Complete | Then::Expire => {}
        }
        step
    }

    /// When [`Self::tick`] has to be called next, on the monotonic clock in milliseconds.
    pub fn next_deadline(&self) -> Option<i64> {
        let retry = self.retries.first().map(|(at_ms, _)| *at_ms);
        let wait = self.waits.first().map(|(at_ms, ..)| *at_ms);
        [self.abort_check_ms, self.expiry_check_ms, retry, wait].into_iter().flatten().min()
    }

    /// Lets everything happen whose time has come.
    pub fn tick(&mut self, now: Now) -> Step {
        let mut step = Step::default();
        let is_due = |at_ms: Option<i64>| at_ms.is_some_and(|at_ms| at_ms <= now.monotonic_ms);
        while is_due(self.retries.first().map(|(at_ms, _)| *at_ms)) {
            if let Some((_, id)) = self.retries.pop_first() {
                self.retry_delivery(now, &id, &mut step);
            }
        }
        while is_due(self.waits.first().map(|(at_ms, ..)| *at_ms)) {
            if let Some((_, id, token)) = self.waits.pop_first() {
                self.wait_is_over(now, &id, token, &mut step);
            }
        }
        if is_due(self.abort_check_ms) {
            self.schedule_abort_check(now);
            self.abort_timed_out(now, &mut step);
        }
        if is_due(self.expiry_check_ms) {
            self.schedule_expiry_check(now);
            self.expire_ids(now, &mut step);
        }
        step
    }

    /// The persistent state.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// One past the last record applied; none before the first.
    pub fn next_offset(&self) -> Option<Offset> {
        self.next_offset
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether requests can be served.
    pub(crate) fn check_serving(&self) -> Result<(), TransactionError> {
        match self.phase {
            Phase::Serving => Ok(()),
            Phase::Loading => Err(TransactionError::LoadInProgress),
            Phase::Unloaded => Err(TransactionError::NotCoordinator),
        }
    }

    /// Whether requests can be served that need a proper transactional id.
    pub(crate) fn check_id(&self, transactional_id: &str) -> Result<(), TransactionError> {
        if transactional_id.is_empty() {
            return Err(TransactionError::EmptyTransactionalId);
        }
        self.check_serving()
    }

    /// What is stored of an id that a producer claims to have initialised.
    pub(crate) fn known(&self, transactional_id: &str) -> Result<&Transaction, TransactionError> {
        self.check_id(transactional_id)?;
        self.ledger.get(transactional_id).ok_or(TransactionError::InvalidProducerIdMapping)
    }

    /// Whether a change of the id is under way.
    pub(crate) fn is_pending(&self, transactional_id: &str) -> bool {
        self.progress.get(transactional_id).is_some_and(|progress| progress.pending.is_some())
    }

    /// The offset that what is stored of the id rests on.
    pub(crate) fn stored_end(&self, transactional_id: &str) -> Option<Offset> {
        self.progress.get(transactional_id)?.stored_end
    }

    /// Takes a new producer id.
    pub(crate) fn new_producer_id(&self) -> Result<ProducerId, TransactionError> {
        self.producer_ids.next().ok_or(TransactionError::NoProducerId)
    }

    /// Asks for a change to be stored, and lets no other one begin until that is done.
    pub(crate) fn write(&mut self, id: &Str, transition: Transition, then: Then, step: &mut Step) {
        let Transition { to, last_epoch } = transition;
        // Ids come as slices of a request, which would stay in memory.
        let id = id.detach();
        self.progress.entry(id.clone()).or_default().pending = Some(to.state);
        let record = Record::new(id, to, self.settings.cluster_version);
        step.writes.push(Write { records: vec![record], last_epoch, then });
    }

    /// A change of the id has failed, and others may be tried.
    fn settle(&mut self, transactional_id: &str) {
        if self.ledger.get(transactional_id).is_none() {
            self.progress.remove(transactional_id);
        } else if let Some(progress) = self.progress.get_mut(transactional_id) {
            progress.pending = None;
        }
    }

    /// Brings what is remembered of an id in step with a record that was just applied.
    fn follow(
        &mut self,
        now: Now,
        record: &Record,
        before: Option<State>,
        last_epoch: ProducerEpoch,
        end: Offset,
        step: &mut Step,
    ) {
        let Some(transaction) = record.transaction() else {
            let gone = self.progress.remove(&record.transactional_id);
            self.dismiss(now, gone.into_iter().flat_map(|gone| gone.waiting), step);
            self.counters.ids_expired += 1;
            return;
        };
        let state = transaction.state;
        debug_assert!(
            before.map_or(state == State::Empty, |before| state.may_follow(before)),
            "{} went from {before:?} to {state:?}",
            record.transactional_id,
        );
        match state {
            State::Ongoing if before != Some(State::Ongoing) => self.counters.begun += 1,
            State::CompleteCommit => self.counters.committed += 1,
            State::CompleteAbort => self.counters.aborted += 1,
            _ => {}
        }
        let progress = self.progress.entry(record.transactional_id.clone()).or_default();
        *progress = Progress {
            pending: None,
            last_epoch,
            stored_end: Some(end),
            times_out_at_ms: match (state, progress.times_out_at_ms) {
                (State::Ongoing, Some(at_ms)) => Some(at_ms),
                (State::Ongoing, None) if transaction.has_timeout() => {
                    Some(now.monotonic_ms.saturating_add(transaction.timeout_ms.into()))
                }
                _ => None,
            },
            delivery: None,
            waiting: std::mem::take(&mut progress.waiting),
        };
    }
}

/// How long an open transaction that was read from the log may stay so.
///
/// Not longer than its timeout, whatever the wall clock has done since it began.
fn remaining_ms(transaction: &Transaction, wall: TimestampMs) -> Option<i64> {
    if transaction.state != State::Ongoing || !transaction.has_timeout() {
        return None;
    }
    let timeout_ms = i64::from(transaction.timeout_ms.max(0));
    let age_ms = wall.0.saturating_sub(transaction.start_timestamp.0);
    Some(timeout_ms.saturating_sub(age_ms).clamp(0, timeout_ms))
}
