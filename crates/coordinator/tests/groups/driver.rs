//! The thinnest driver there can be: a vector is the log, and time passes when a test says so.
//!
//! It checks, whatever the test is about, that no token is answered twice, that records survive
//! their bytes, and that the machine is never asked to tick without getting anywhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fleuve_coordinator::{
    AppendError, Effect, GroupConfig, GroupConfigs, GroupCoordinator, GroupSettings, Now, Record,
    Response, Step, Token,
};
use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_types::{Offset, ProducerId, TimestampMs};

use crate::topics::Topics;

/// Where the wall clock stands when the monotonic one stands at zero.
const WALL_AT_START_MS: i64 = 1_700_000_000_000;

/// Random bytes that count: the first member id ends in 1.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        bytes.fill(0);
        let begin = bytes.len().saturating_sub(8);
        for (byte, value) in bytes[begin..].iter_mut().zip(number.to_be_bytes()) {
            *byte = value;
        }
    }
}

/// What stands in the log at an offset.
#[derive(Clone, Debug)]
pub(crate) enum Logged {
    /// A record, perhaps written in a producer's transaction.
    Record { record: Box<Record>, producer: Option<ProducerId> },
    /// The end of a producer's transaction.
    Marker { producer: ProducerId, committed: bool },
}

pub(crate) struct Driver {
    pub(crate) shard: GroupCoordinator,
    pub(crate) log: Vec<Logged>,
    pub(crate) now_ms: i64,
    /// Fate of the next appends; none left means success.
    pub(crate) failures: VecDeque<AppendError>,
    /// While set, the high watermark stands there and replies that rest on more are held back.
    pub(crate) high_watermark: Option<Offset>,
    /// Answered requests, in order, with the time of their answer.
    pub(crate) answers: Vec<(i64, Token, Response)>,
    pub(crate) topics: Topics,
    /// Members of share groups that went, and what is to be done about states of share-partitions.
    pub(crate) share_effects: Vec<Effect>,
    held: Vec<(Offset, Token, Response)>,
    /// Requests by whether they were answered.
    tokens: BTreeMap<Token, bool>,
    settings: GroupSettings,
    configs: GroupConfigs,
    random: Arc<Counting>,
    next_token: u64,
}

impl Driver {
    pub(crate) fn new(settings: GroupSettings) -> Self {
        let random = Arc::new(Counting::default());
        let mut driver = Self {
            shard: GroupCoordinator::new(settings.clone(), random.clone()),
            log: Vec::new(),
            now_ms: 0,
            failures: VecDeque::new(),
            high_watermark: None,
            answers: Vec::new(),
            topics: Topics::default(),
            share_effects: Vec::new(),
            held: Vec::new(),
            tokens: BTreeMap::new(),
            settings,
            configs: GroupConfigs::new(),
            random,
            next_token: 0,
        };
        let step = driver.shard.handle_loaded(driver.now());
        driver.carry_out(step);
        driver
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall: TimestampMs(WALL_AT_START_MS + self.now_ms), monotonic_ms: self.now_ms }
    }

    /// Sends a request: `handle` gets a fresh token.
    pub(crate) fn request(
        &mut self,
        handle: impl FnOnce(&mut GroupCoordinator, Now, Token) -> Step,
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
            for effect in step.effects {
                let Effect::Reply { token, response, after } = effect else {
                    self.share_effects.push(effect);
                    continue;
                };
                match (after, self.high_watermark) {
                    (Some(after), Some(high_watermark)) if after > high_watermark => {
                        self.held.push((after, token, response));
                    }
                    _ => self.answer(token, response),
                }
            }
            for write in step.writes {
                assert!(!write.records().is_empty(), "a write without records");
                let now = self.now();
                if let Some(error) = self.failures.pop_front() {
                    steps.push_back(self.shard.handle_append_failed(now, write, error));
                    continue;
                }
                let base = Offset(self.log.len() as i64);
                let producer = write.producer().map(|producer| producer.id);
                for record in write.records() {
                    let (key, value) = record.encode().expect("the record fits its format");
                    let read = Record::decode(key, value).expect("the record can be read back");
                    assert_eq!(&read, record, "a record changed on its way through the log");
                    self.log.push(Logged::Record { record: Box::new(read), producer });
                }
                steps.push_back(self.shard.handle_appended(now, write, base));
            }
        }
    }

    /// Lets the log become durable, all of it, from now on at once.
    pub(crate) fn flush(&mut self) {
        self.high_watermark = None;
        for (_, token, response) in std::mem::take(&mut self.held) {
            self.answer(token, response);
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

    /// Reads the log into a new shard, which takes the place of the old one.
    pub(crate) fn reload(&mut self) {
        let step = self.shard.handle_unload(self.now());
        self.carry_out(step);
        self.shard = self.replayed();
        let step = self.shard.handle_loaded(self.now());
        self.carry_out(step);
    }

    /// A shard that has read the log and nothing else.
    pub(crate) fn replayed(&self) -> GroupCoordinator {
        let mut shard = GroupCoordinator::new(self.settings.clone(), self.random.clone());
        shard.handle_topics_changed(Arc::new(self.topics.clone()));
        shard.handle_configs_changed(Arc::new(self.configs.clone()));
        for (offset, logged) in self.log.iter().enumerate() {
            let offset = Offset(offset as i64);
            match logged {
                Logged::Record { record, producer } => {
                    let (key, value) = record.encode().expect("the record was written before");
                    let known = shard.replay_in(key, value, offset, *producer);
                    assert!(known.expect("the record can be read"), "the record is one of ours");
                }
                Logged::Marker { producer, committed } => {
                    shard.replay_marker(*producer, *committed, offset);
                }
            }
        }
        shard
    }

    /// Ends the transaction of a producer.
    pub(crate) fn end_transaction(&mut self, producer: ProducerId, committed: bool) {
        let offset = Offset(self.log.len() as i64);
        self.log.push(Logged::Marker { producer, committed });
        self.shard.handle_marker(producer, committed, offset);
    }

    /// Changes the topics and shows them to the shard.
    pub(crate) fn change_topics(&mut self, change: impl FnOnce(&mut Topics)) {
        change(&mut self.topics);
        self.shard.handle_topics_changed(Arc::new(self.topics.clone()));
    }

    /// Changes the settings, for this shard and those loaded later.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut GroupSettings)) {
        change(&mut self.settings);
        self.shard.update_settings(self.settings.clone());
    }

    /// Changes the configs of a group.
    pub(crate) fn configure(&mut self, group: Str, config: GroupConfig) {
        self.configs.insert(group, config);
        self.shard.handle_configs_changed(Arc::new(self.configs.clone()));
    }

    /// Requests that have no answer yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.tokens.values().filter(|answered| !**answered).count()
    }

    fn answer(&mut self, token: Token, response: Response) {
        let answered = self.tokens.get_mut(&token).expect("the token was given out");
        assert!(!*answered, "{token:?} is answered twice");
        *answered = true;
        self.answers.push((self.now_ms, token, response));
    }
}
