//! What operators see of the task they run in.

use std::sync::Arc;

use std::task::Waker;

use bytes::Bytes;

use super::{Globals, RawRecord, Schedules, StoreSlot};
use crate::dsl::{ErrorPolicy, Policies};
use crate::error::{Cause, ProcessingError};
use crate::metrics::Tracing;
use crate::record::Headers;
use crate::state::{AnyStore, StoreError};

/// The input record that is being processed.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its event time in milliseconds.
    pub timestamp: i64,
    /// Its headers.
    pub headers: Headers,
}

impl Origin {
    /// The same place, for what an operator gave another time or headers.
    pub(crate) fn at(&self, timestamp: i64, headers: &Headers) -> Self {
        Self { timestamp, headers: headers.clone(), ..self.clone() }
    }

    /// Becomes that of a record, without touching reference counts of what is the same already.
    pub(crate) fn enter(&mut self, record: &RawRecord, timestamp: i64) {
        if !Arc::ptr_eq(&self.topic, &record.topic) {
            self.topic = record.topic.clone();
        }
        self.partition = record.partition;
        self.offset = record.offset;
        self.timestamp = timestamp;
        if !(self.headers.is_empty() && record.headers.is_empty()) {
            self.headers = record.headers.clone();
        }
    }

    /// Becomes what [`Self::at`] of `other` is, without touching reference counts of what is the same already.
    pub(crate) fn follow(&mut self, other: &Self, timestamp: i64, headers: &Headers) {
        if !Arc::ptr_eq(&self.topic, &other.topic) {
            self.topic = other.topic.clone();
        }
        self.partition = other.partition;
        self.offset = other.offset;
        self.timestamp = timestamp;
        if !(self.headers.is_empty() && headers.is_empty()) {
            self.headers = headers.clone();
        }
    }
}

/// The running task, as its operators see it.
pub struct Cx {
    pub(crate) origin: Origin,
    /// Wall-clock time in milliseconds, given from outside.
    pub(crate) now_ms: i64,
    pub(crate) partition: i32,
    pub(crate) emit_interval_ms: i64,
    /// The highest event time of the task's input.
    pub(crate) stream_time_ms: i64,
    /// Whether that is told by those that write the task's repartition topics, instead of being the newest record's.
    pub(crate) follows_watermarks: bool,
    pub(crate) schedules: Schedules,
    pub(crate) commit_requested: bool,
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) stores: Vec<Box<dyn AnyStore>>,
    /// Per store, up to where its closed windows were sent.
    pub(crate) emitted_until: Vec<Option<i64>>,
    /// Whether windows were sent because time has passed without a record.
    pub(crate) closed_windows: bool,
    /// Set while a record is traced.
    pub(crate) tracing: Option<Box<Tracing>>,
    /// Records that operators dropped, by the reason.
    pub(crate) dropped: Vec<(&'static str, u64)>,
    pub(crate) policies: Arc<Policies>,
    /// What all tasks of the instance share.
    pub(crate) globals: Globals,
    /// Rung by what the task waits for.
    pub(crate) waker: Waker,
    /// Whether the program has a dead-letter topic.
    pub(crate) keeps_raw: bool,
    /// The input record's key and value, for a dead-letter topic; nothing without one.
    pub(crate) raw: (Option<Bytes>, Option<Bytes>),
}

/// A record on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: OutgoingTopic,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) timestamp: i64,
    pub(crate) headers: Headers,
    /// The input record behind it, where the program says what to do if it cannot be sent.
    pub(crate) source: Option<Box<SourceRecord>>,
}

/// An input record as it came, with the origin that errors name.
#[derive(Clone, Debug)]
pub(crate) struct SourceRecord {
    pub(crate) origin: Origin,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
}

/// Where it goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutgoingTopic {
    pub(crate) name: Arc<str>,
    /// The partition, or `None` for the usual choice by key.
    pub(crate) partition: Option<i32>,
}

impl Cx {
    /// The input record that is being processed.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Wall-clock time in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// How long in wall-clock time outer joins wait between two searches for events without a partner.
    pub(crate) fn emit_interval_ms(&self) -> i64 {
        self.emit_interval_ms
    }

    /// The partition number of the task.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// What a record with this timestamp says about event time.
    pub(crate) fn event_time_ms(&self, timestamp: i64) -> i64 {
        if self.follows_watermarks { self.stream_time_ms } else { timestamp }
    }

    /// A store of the task. The slot remembers the store's type, so a mismatch is a mistake of ours.
    pub(crate) fn store<S: 'static>(&mut self, slot: StoreSlot<S>) -> (&mut S, &Origin) {
        let store = self.stores[slot.index()]
            .as_any()
            .downcast_mut()
            .expect("a slot is made from the store it points to");
        (store, &self.origin)
    }

    /// Goes on without an input record, at this time.
    pub(crate) fn punctuating(&mut self, timestamp: i64) {
        self.origin = Origin {
            topic: Arc::from(""),
            partition: -1,
            offset: -1,
            timestamp,
            headers: Headers::default(),
        };
        self.raw = (None, None);
    }

    /// Applies the program's error policy: goes on without the record, or gives the problem back.
    pub(crate) fn absorb(&mut self, problem: Problem) -> Result<(), Problem> {
        let policies = self.policies.clone();
        self.give_up(policies.for_cause(&problem.cause), problem)
    }

    /// Does with the input record what the policy says when there is no attempt left.
    pub(crate) fn give_up(
        &mut self,
        policy: &ErrorPolicy,
        problem: Problem,
    ) -> Result<(), Problem> {
        match policy.without_attempts() {
            ErrorPolicy::Fail | ErrorPolicy::Retry(_) => Err(problem),
            ErrorPolicy::Skip => {
                tracing::warn!(
                    node = %problem.node,
                    topic = %self.origin.topic,
                    partition = self.origin.partition,
                    offset = self.origin.offset,
                    cause = %problem.cause,
                    "record skipped"
                );
                self.drop_record("failed");
                Ok(())
            }
            ErrorPolicy::DeadLetter(topic) => {
                let source = self.source();
                self.outgoing.push(source.dead_letter(topic, &problem.cause));
                self.drop_record("dead letter");
                Ok(())
            }
        }
    }

    /// The input record that is being processed.
    pub(crate) fn source(&self) -> SourceRecord {
        let (key, value) = self.raw.clone();
        SourceRecord { origin: self.origin.clone(), key, value }
    }

    /// Counts a record that an operator drops, as Kafka Streams' `dropped-records` does.
    pub(crate) fn drop_record(&mut self, reason: &'static str) {
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.dropped.push((reason, 1)),
        }
        tracing::debug!(
            topic = %self.origin.topic,
            partition = self.origin.partition,
            offset = self.origin.offset,
            reason,
            "record dropped"
        );
    }
}

impl SourceRecord {
    /// The record on its way to a dead-letter topic, the cause in headers of the names of KIP-1034.
    pub(crate) fn dead_letter(self, topic: &str, cause: &Cause) -> Outgoing {
        let Self { origin, key, value } = self;
        let mut headers = origin.headers;
        headers.add("__streams.errors.exception", cause.kind());
        headers.add("__streams.errors.message", cause.to_string());
        headers.add("__streams.errors.topic", origin.topic.to_string());
        headers.add("__streams.errors.partition", origin.partition.to_string());
        headers.add("__streams.errors.offset", origin.offset.to_string());
        Outgoing {
            topic: OutgoingTopic { name: Arc::from(topic), partition: None },
            key,
            value,
            timestamp: origin.timestamp,
            headers,
            source: None,
        }
    }
}

/// A failure on its way up to the task, which knows the record.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) node: Arc<str>,
    pub(crate) cause: Cause,
}

impl Problem {
    pub(crate) fn new(node: &Arc<str>, cause: Cause) -> Self {
        Self { node: node.clone(), cause }
    }

    pub(crate) fn store(node: &Arc<str>, error: StoreError) -> Self {
        let cause = match error {
            StoreError::Transformer(error) => Cause::User(error),
            error => Cause::Store(Arc::new(error)),
        };
        Self::new(node, cause)
    }

    pub(crate) fn at(self, origin: &Origin) -> ProcessingError {
        ProcessingError {
            node: self.node.to_string(),
            topic: origin.topic.clone(),
            partition: origin.partition,
            offset: origin.offset,
            cause: self.cause,
        }
    }
}
