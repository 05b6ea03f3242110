//! What operators see of the task they run in.

use std::sync::Arc;

use bytes::Bytes;

use super::{Schedules, StoreSlot};
use crate::dsl::ErrorPolicy;
use crate::error::{Cause, ProcessingError};
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

/// The running task, as its operators see it.
pub struct Cx {
    pub(crate) origin: Origin,
    /// Wall-clock time in milliseconds, given from outside.
    pub(crate) now_ms: i64,
    pub(crate) partition: i32,
    pub(crate) emit_interval_ms: i64,
    /// The highest event time of the task's input.
    pub(crate) stream_time_ms: i64,
    pub(crate) schedules: Schedules,
    pub(crate) commit_requested: bool,
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) stores: Vec<Box<dyn AnyStore>>,
    /// Per store, up to where its closed windows were sent.
    pub(crate) emitted_until: Vec<Option<i64>>,
    /// Records that operators dropped, by the reason.
    pub(crate) dropped: Vec<(&'static str, u64)>,
    pub(crate) on_error: ErrorPolicy,
    /// The input record's key and value, for a dead-letter topic.
    pub(crate) raw: (Option<Bytes>, Option<Bytes>),
}

/// A record on its way out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) topic: OutgoingTopic,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) timestamp: i64,
    pub(crate) headers: Headers,
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
        match &self.on_error {
            ErrorPolicy::Fail => Err(problem),
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
                let mut headers = self.origin.headers.clone();
                // The names of KIP-1034.
                let message = problem.cause.to_string();
                headers.add("__streams.errors.exception", problem.cause.kind());
                headers.add("__streams.errors.message", message);
                headers.add("__streams.errors.topic", self.origin.topic.to_string());
                headers.add("__streams.errors.partition", self.origin.partition.to_string());
                headers.add("__streams.errors.offset", self.origin.offset.to_string());
                let (key, value) = self.raw.clone();
                self.outgoing.push(Outgoing {
                    topic: OutgoingTopic { name: Arc::from(topic.as_str()), partition: None },
                    key,
                    value,
                    timestamp: self.origin.timestamp,
                    headers,
                });
                self.drop_record("dead letter");
                Ok(())
            }
        }
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
        Self::new(node, Cause::Store(Arc::new(error)))
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
