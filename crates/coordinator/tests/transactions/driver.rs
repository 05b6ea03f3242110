//! The thinnest driver there can be: a vector is the log, and time passes when a test says so.
//!
//! It checks, whatever the test is about, that
//! - no token is answered twice;
//! - records survive their bytes, and each follows the one before it legally;
//! - the epochs of a producer id never go back in the log;
//! - no transaction is completed before each of its partitions has its marker;
//! - no two markers ever contradict each other: neither for one transaction nor, in version 2, for
//!   one epoch, whatever was lost in between;
//! - the machine is never asked to tick without getting anywhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use fleuve_coordinator::transaction::{
    Decision, Effect, MarkerKey, MarkerOutcome, Markers, Producer, ProducerIds, Record, Response,
    State, Step, Transaction, TransactionCoordinator, TransactionSettings, TransactionVersion,
    Write,
};
use fleuve_coordinator::{AppendError, Now, Token};
use fleuve_protocol::Str;
use fleuve_types::{Offset, ProducerId, TimestampMs, TopicPartition};

/// Where the wall clock stands when the monotonic one stands at zero.
pub(crate) const WALL_AT_START_MS: i64 = 1_700_000_000_000;

/// Producer ids that count up from 1.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    last: AtomicI64,
    is_empty: AtomicBool,
}

impl Counting {
    /// Lets the block of ids run out, or brings a new one.
    pub(crate) fn set_empty(&self, is_empty: bool) {
        self.is_empty.store(is_empty, Ordering::Relaxed);
    }
}

impl ProducerIds for Counting {
    fn next(&self) -> Option<ProducerId> {
        let is_empty = self.is_empty.load(Ordering::Relaxed);
        (!is_empty).then(|| ProducerId(self.last.fetch_add(1, Ordering::Relaxed) + 1))
    }
}

/// A transaction: its id, and how many of the id were completed before it.
type Place = (Str, usize);

/// One marker that the machine has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Marker {
    key: MarkerKey,
    pub(crate) partition: TopicPartition,
    of: Place,
}

pub(crate) struct Driver {
    pub(crate) shard: TransactionCoordinator,
    pub(crate) log: Vec<Record>,
    /// Number of records of each batch in the log.
    pub(crate) batches: Vec<usize>,
    pub(crate) now_ms: i64,
    /// How far the wall clock has been set forth, or back.
    pub(crate) skew_ms: i64,
    /// Fate of the next appends; none left means success.
    pub(crate) failures: VecDeque<Option<AppendError>>,
    pub(crate) producer_ids: Arc<Counting>,
    /// Answered requests, in order, with the time of their answer; none for those that the driver
    /// had to send away.
    pub(crate) answers: Vec<(i64, Token, Option<Response>)>,
    /// Every effect that asked for markers, in order.
    pub(crate) asked: Vec<Markers>,
    /// Markers that have been asked for and not been reported.
    pub(crate) outstanding: Vec<Marker>,
    /// Markers that have been reported, in order, with what was said of them.
    pub(crate) reported: Vec<(Marker, MarkerOutcome)>,
    /// Partitions that need no marker any more.
    delivered: BTreeSet<(Place, TopicPartition)>,
    high_watermark: usize,
    /// Whether the high watermark stands still.
    is_held: bool,
    held: Vec<Effect>,
    /// Writes that wait to be appended, while they do.
    stalled: Option<VecDeque<Write>>,
    /// Requests by whether they were answered.
    tokens: BTreeMap<Token, bool>,
    /// Decisions that left the house.
    by_transaction: BTreeMap<Place, (Decision, Producer)>,
    /// The same by producer, where every transaction has an epoch of its own.
    by_epoch: BTreeMap<Producer, Decision>,
    settings: TransactionSettings,
    next_token: u64,
    coordinator_epoch: i32,
}

impl Driver {
    pub(crate) fn new(settings: TransactionSettings) -> Self {
        let producer_ids = Arc::new(Counting::default());
        let mut driver = Self {
            shard: TransactionCoordinator::new(settings.clone(), producer_ids.clone(), 0),
            log: Vec::new(),
            batches: Vec::new(),
            now_ms: 0,
            skew_ms: 0,
            failures: VecDeque::new(),
            producer_ids,
            answers: Vec::new(),
            asked: Vec::new(),
            outstanding: Vec::new(),
            reported: Vec::new(),
            delivered: BTreeSet::new(),
            high_watermark: 0,
            is_held: false,
            held: Vec::new(),
            stalled: None,
            tokens: BTreeMap::new(),
            by_transaction: BTreeMap::new(),
            by_epoch: BTreeMap::new(),
            settings,
            next_token: 0,
            coordinator_epoch: 0,
        };
        let step = driver.shard.handle_loaded(driver.now());
        driver.carry_out(step);
        driver
    }

    pub(crate) fn now(&self) -> Now {
        let wall = TimestampMs(WALL_AT_START_MS + self.now_ms + self.skew_ms);
        Now { wall, monotonic_ms: self.now_ms }
    }

    /// Sends a request: `handle` gets a fresh token.
    pub(crate) fn request(
        &mut self,
        handle: impl FnOnce(&mut TransactionCoordinator, Now, Token) -> Step,
    ) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.tokens.insert(token, false);
        let now = self.now();
        let step = handle(&mut self.shard, now, token);
        self.carry_out(step);
        token
    }

    /// Does what a step asks for, and what follows from it.
    pub(crate) fn carry_out(&mut self, step: Step) {
        let mut steps = VecDeque::from([step]);
        while let Some(step) = steps.pop_front() {
            self.held.extend(step.effects);
            for write in step.writes {
                assert!(!write.records().is_empty(), "a write without records");
                match &mut self.stalled {
                    Some(stalled) => stalled.push_back(write),
                    None => steps.push_back(self.append(write)),
                }
            }
            self.release();
        }
    }

    /// The driver has tried to write those of the outstanding markers that are `meant`.
    pub(crate) fn report(
        &mut self,
        outcome: MarkerOutcome,
        meant: impl Fn(&TopicPartition) -> bool,
    ) {
        let all = std::mem::take(&mut self.outstanding);
        let (tried, rest): (Vec<_>, _) = all.into_iter().partition(|one| meant(&one.partition));
        self.outstanding = rest;
        for marker in tried {
            if outcome != MarkerOutcome::Unavailable {
                self.delivered.insert((marker.of.clone(), marker.partition.clone()));
            }
            self.tell(&marker, outcome);
            self.reported.push((marker, outcome));
        }
    }

    /// Tells the machine of a marker, whether it wants to hear of it or not.
    pub(crate) fn tell(&mut self, marker: &Marker, outcome: MarkerOutcome) {
        let told = [(marker.partition.clone(), outcome)];
        let now = self.now();
        let step = self.shard.handle_markers(now, &marker.key, &told);
        self.carry_out(step);
    }

    /// Keeps the high watermark where it is.
    pub(crate) fn hold(&mut self) {
        self.is_held = true;
    }

    /// Lets the log become durable, all of it, from now on at once.
    pub(crate) fn flush(&mut self) {
        self.is_held = false;
        self.release();
    }

    /// Leaves writes lying about.
    pub(crate) fn stall(&mut self) {
        self.stalled.get_or_insert_default();
    }

    /// Appends what has been left lying about.
    pub(crate) fn resume(&mut self) {
        for write in self.stalled.take().into_iter().flatten() {
            let step = self.append(write);
            self.carry_out(step);
        }
    }

    /// Lets time pass, with a tick at every deadline on the way.
    pub(crate) fn wait(&mut self, duration_ms: i64) {
        let end = self.now_ms + duration_ms;
        while let Some(deadline) = self.shard.next_deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline >= self.now_ms, "a deadline was passed over");
            self.now_ms = deadline;
            let step = self.shard.tick(self.now());
            self.carry_out(step);
            let next = self.shard.next_deadline();
            assert!(next.is_none_or(|next| next > deadline), "a tick left a due deadline behind");
        }
        self.now_ms = end;
    }

    /// Gives the shard up; whoever waits is sent away.
    pub(crate) fn unload(&mut self) {
        let now = self.now();
        let step = self.shard.handle_unload(now);
        assert!(step.writes.is_empty(), "a shard that is given up writes nothing");
        self.held.extend(step.effects);
        for write in self.stalled.take().into_iter().flatten() {
            let step = self.shard.handle_append_failed(now, write, AppendError::NotLeader);
            assert!(step.writes.is_empty(), "a shard that is gone writes nothing");
            self.held.extend(step.effects);
        }
        for effect in std::mem::take(&mut self.held) {
            match effect {
                Effect::Reply { token, response, after: None } => {
                    self.answer(token, Some(response));
                }
                Effect::Reply { token, .. } => self.answer(token, None),
                Effect::WriteMarkers { .. } => {}
            }
        }
        self.outstanding.clear();
    }

    /// Reads the log into a new shard, which takes the place of the old one.
    pub(crate) fn reload(&mut self) {
        self.unload();
        self.coordinator_epoch += 1;
        self.shard = self.replayed();
        let step = self.shard.handle_loaded(self.now());
        self.carry_out(step);
    }

    /// The same, after everything was lost that is not durable.
    pub(crate) fn crash(&mut self) {
        self.log.truncate(self.high_watermark);
        self.reload();
    }

    /// A shard that has read the log and nothing else.
    pub(crate) fn replayed(&self) -> TransactionCoordinator {
        let (settings, ids) = (self.settings.clone(), self.producer_ids.clone());
        let mut shard = TransactionCoordinator::new(settings, ids, self.coordinator_epoch);
        for (offset, record) in self.log.iter().enumerate() {
            let (key, value) = record.encode().expect("the record was written before");
            let known = shard.replay(key, value, Offset(offset as i64));
            assert!(known.expect("the record can be read"), "the record is one of ours");
        }
        shard
    }

    /// Changes the settings, for this shard and those loaded later.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut TransactionSettings)) {
        change(&mut self.settings);
        self.shard.update_settings(self.settings.clone());
    }

    /// Requests that have no answer yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.tokens.values().filter(|answered| !**answered).count()
    }

    /// What no crash can take back of an id.
    pub(crate) fn durable<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Transaction> {
        let of_id = self.log[..self.high_watermark.min(self.log.len())].iter();
        of_id.filter(move |record| &*record.transactional_id == id).filter_map(Record::transaction)
    }

    fn append(&mut self, write: Write) -> Step {
        let now = self.now();
        if let Some(Some(error)) = self.failures.pop_front() {
            return self.shard.handle_append_failed(now, write, error);
        }
        let base = Offset(self.log.len() as i64);
        for record in write.records() {
            let (key, value) = record.encode().expect("the record fits its format");
            let read = Record::decode(key, value).expect("the record can be read back");
            assert_eq!(&read, record, "a record changed on its way through the log");
            self.check_sequence(&read);
            self.log.push(read);
        }
        self.batches.push(write.records().len());
        self.shard.handle_appended(now, write, base)
    }

    /// Carries out the effects whose time has come.
    fn release(&mut self) {
        if !self.is_held {
            self.high_watermark = self.log.len();
        }
        let high_watermark = Offset(self.high_watermark as i64);
        for effect in std::mem::take(&mut self.held) {
            match effect {
                Effect::Reply { after: Some(after), .. }
                | Effect::WriteMarkers { after: Some(after), .. }
                    if after > high_watermark =>
                {
                    self.held.push(effect);
                }
                Effect::Reply { token, response, .. } => self.answer(token, Some(response)),
                Effect::WriteMarkers { markers, .. } => self.receive(markers),
            }
        }
    }

    fn receive(&mut self, markers: Markers) {
        let Markers { key, version, partitions } = &markers;
        assert!(!partitions.is_empty(), "markers for nobody");
        assert_eq!(key.coordinator_epoch, self.coordinator_epoch);
        let of = self.place(&key.transactional_id);
        let said = (key.decision, key.producer);
        let before = *self.by_transaction.entry(of.clone()).or_insert(said);
        assert_eq!(before, said, "two decisions for a transaction of {}", key.transactional_id);
        if *version >= TransactionVersion::V2 {
            let before = *self.by_epoch.entry(key.producer).or_insert(key.decision);
            assert_eq!(before, key.decision, "two decisions for {:?}", key.producer);
        }
        self.outstanding.extend(partitions.iter().map(|partition| Marker {
            key: key.clone(),
            partition: partition.clone(),
            of: of.clone(),
        }));
        self.asked.push(markers);
    }

    /// The transaction of an id that is under way.
    fn place(&self, id: &Str) -> Place {
        let of_id = self.log.iter().filter(|record| record.transactional_id == *id);
        let is_end = |state| matches!(state, State::CompleteCommit | State::CompleteAbort);
        let ends = of_id.filter_map(Record::transaction).filter(|known| is_end(known.state));
        (id.clone(), ends.count())
    }

    fn check_sequence(&self, next: &Record) {
        let id = next.transactional_id.clone();
        let mut of_id = self.log.iter().rev();
        let last = of_id.find(|record| record.transactional_id == next.transactional_id);
        let last = last.and_then(Record::transaction);
        let (Some(last), Some(next)) = (last, next.transaction()) else {
            let state = next.transaction().map(|next| next.state);
            assert!(state.is_none_or(|state| state == State::Empty), "{next:?} comes first");
            return;
        };
        assert!(next.state.may_follow(last.state), "{:?} after {:?}", next.state, last.state);
        if next.state.may_follow(State::PrepareCommit) || next.state.may_follow(State::PrepareAbort)
        {
            for partition in &last.partitions {
                let marker = (self.place(&id), partition.clone());
                assert!(self.delivered.contains(&marker), "{id} is complete without {partition:?}");
            }
        }
        assert!(next.producer >= last.producer, "{:?} after {:?}", next.producer, last.producer);
    }

    fn answer(&mut self, token: Token, response: Option<Response>) {
        let answered = self.tokens.get_mut(&token).expect("the token was given out");
        assert!(!*answered, "{token:?} is answered twice");
        *answered = true;
        self.answers.push((self.now_ms, token, response));
    }
}
