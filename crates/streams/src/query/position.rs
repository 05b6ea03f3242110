//! How far a store has come in its input.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::QueryError;
use crate::runtime::TaskId;

/// The offsets of the last records that are in an answer, by topic and partition, as Kafka Streams' `Position`.
///
/// Given to [`super::Query::at_least`], it asks for an answer that is no older: whoever reads his own writes passes the
/// position of what he wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    offsets: BTreeMap<Arc<str>, BTreeMap<i32, i64>>,
}

impl Position {
    /// A position that asks for nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, having processed this offset; the highest one counts.
    pub fn with(mut self, topic: &str, partition: i32, offset: i64) -> Self {
        self.reach(&Arc::from(topic), partition, offset);
        self
    }

    /// The offset that was processed last, if any was.
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.offsets.get(topic)?.get(&partition).copied()
    }

    /// Topic, partition and offset of everything in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.offsets.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, offset)| (&**topic, *partition, *offset))
        })
    }

    pub(crate) fn reach(&mut self, topic: &Arc<str>, partition: i32, offset: i64) {
        let reached =
            self.offsets.entry(topic.clone()).or_default().entry(partition).or_insert(offset);
        *reached = offset.max(*reached);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (topic, partitions) in &other.offsets {
            for (partition, offset) in partitions {
                self.reach(topic, *partition, *offset);
            }
        }
    }

    /// Checks that a task at this position has come as far as `bound` wants of its partition.
    pub(crate) fn check(&self, task: TaskId, bound: &Self) -> Result<(), QueryError> {
        for (topic, partition, wanted) in bound.iter() {
            let found = self.get(topic, partition);
            if partition == task.partition && found.is_none_or(|found| found < wanted) {
                return Err(QueryError::Behind {
                    task: task.to_string(),
                    topic: topic.to_owned(),
                    wanted,
                    found,
                });
            }
        }
        Ok(())
    }
}
