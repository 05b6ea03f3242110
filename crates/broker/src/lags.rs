//! Drives the watch over consumers' lag: tells it of commits and of the ends of logs.
//!
//! Commits come from the driver of groups, once their records are in the log. The end of a
//! partition is its high watermark: what lies beyond no consumer can see yet.

use std::sync::Arc;

use fleuve_coordinator::lag::{Commit, GroupLag, LagSettings, LagWatch};
use fleuve_coordinator::{GroupCoordinator, Record};
use fleuve_os::Clock;
use fleuve_protocol::Str;
use parking_lot::Mutex;

use crate::topics::Topics;

/// The watch, and where it looks up the ends of logs.
#[derive(Debug)]
pub(crate) struct Lags {
    topics: Arc<Topics>,
    clock: Arc<dyn Clock>,
    watch: Mutex<LagWatch>,
}

impl Lags {
    /// Begins to watch.
    pub(crate) fn new(topics: Arc<Topics>, clock: Arc<dyn Clock>) -> Self {
        let watch = Mutex::new(LagWatch::new(LagSettings::default(), clock.wall_ms()));
        Self { topics, clock, watch }
    }

    /// Takes in records about groups that were just appended.
    pub(crate) fn appended(&self, records: &[Record]) {
        if !records.iter().any(|record| matches!(record, Record::Offset { .. })) {
            return;
        }
        let now_ms = self.clock.wall_ms();
        let mut watch = self.watch.lock();
        for record in records {
            let Record::Offset { key, value } = record else { continue };
            match value {
                Some(value) => {
                    let commit = Commit {
                        group: &key.group,
                        topic: &key.topic,
                        partition: key.partition,
                        offset: value.offset,
                        timestamp_ms: value.commit_timestamp,
                        log_end: self.end_of(&key.topic, key.partition),
                    };
                    watch.handle_commit(commit, now_ms);
                }
                None => watch.handle_forgotten(&key.group, &key.topic, key.partition),
            }
        }
    }

    /// Takes in what a coordinator has read from its log.
    pub(crate) fn loaded(&self, machine: &GroupCoordinator) {
        let Ok(groups) = machine.overviews() else { return };
        let now_ms = self.clock.wall_ms();
        let mut watch = self.watch.lock();
        for group in groups {
            for (topic, partition, committed) in machine.offsets_of(&group.group_id) {
                let commit = Commit {
                    group: &group.group_id,
                    topic,
                    partition,
                    offset: committed.offset,
                    timestamp_ms: committed.commit_timestamp.0,
                    log_end: None,
                };
                watch.handle_replayed(commit, now_ms);
            }
        }
    }

    /// Notes where logs end now.
    pub(crate) fn tick(&self) {
        self.watch.lock().tick(|topic, partition| self.end_of(topic, partition));
    }

    /// Forgets everything, because the offsets topic is gone.
    pub(crate) fn clear(&self) {
        *self.watch.lock() = LagWatch::new(LagSettings::default(), self.clock.wall_ms());
    }

    /// The groups that have committed something, by name.
    pub(crate) fn groups(&self) -> Vec<Str> {
        self.watch.lock().groups().cloned().collect()
    }

    /// The groups that have committed something for a topic, by name.
    pub(crate) fn groups_of(&self, topic: &str) -> Vec<Str> {
        self.watch.lock().groups_of(topic).cloned().collect()
    }

    /// Judges a group; none if it has committed nothing.
    pub(crate) fn evaluate(&self, group: &str) -> Option<GroupLag> {
        let now_ms = self.clock.wall_ms();
        self.watch.lock().evaluate(group, now_ms, |topic, index| self.end_of(topic, index))
    }

    fn end_of(&self, topic: &Str, partition: i32) -> Option<i64> {
        let topic = self.topics.by_name(topic)?;
        Some(topic.partition(partition)?.high_watermark())
    }
}
