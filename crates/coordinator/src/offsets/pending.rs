//! Offsets of transactions that have not ended: nobody sees them, and a marker decides about them.
//!
//! A commit marker moves a producer's offsets to the others, unless a later record has committed
//! another one meanwhile; an abort marker drops them. What is pending is a function of the log, as
//! everything in the [`crate::Ledger`] is.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_types::ProducerId;

use crate::ledger::{CommittedOffset, TopicOffsets};

/// Offsets by the producer in whose transaction they were committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PendingOffsets {
    by_producer: BTreeMap<ProducerId, BTreeMap<Str, TopicOffsets>>,
    /// The producers with open transactions of each group.
    by_group: BTreeMap<Str, BTreeSet<ProducerId>>,
}

impl PendingOffsets {
    /// Enters an offset.
    pub(crate) fn put(
        &mut self,
        producer: ProducerId,
        group: &Str,
        topic: &Str,
        partition: i32,
        offset: CommittedOffset,
    ) {
        let groups = self.by_producer.entry(producer).or_default();
        let topics = match groups.get_mut(group) {
            Some(topics) => topics,
            None => groups.entry(group.detach()).or_default(),
        };
        match topics.get_mut(topic) {
            Some(partitions) => partitions.insert(partition, offset),
            None => topics.entry(topic.detach()).or_default().insert(partition, offset),
        };
        match self.by_group.get_mut(group) {
            Some(producers) => producers.insert(producer),
            None => self.by_group.entry(group.detach()).or_default().insert(producer),
        };
    }

    /// Drops an offset in all transactions: it was deleted after they committed it.
    pub(crate) fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        for producer in self.by_group.get(group).into_iter().flatten() {
            let groups = self.by_producer.get_mut(producer);
            let Some(topics) = groups.and_then(|groups| groups.get_mut(group)) else { continue };
            if let Some(partitions) = topics.get_mut(topic) {
                partitions.remove(&partition);
                if partitions.is_empty() {
                    topics.remove(topic);
                }
            }
        }
    }

    /// Takes out what a producer has pending, because its transaction has ended.
    pub(crate) fn take(&mut self, producer: ProducerId) -> BTreeMap<Str, TopicOffsets> {
        let taken = self.by_producer.remove(&producer).unwrap_or_default();
        for group in taken.keys() {
            if let Some(producers) = self.by_group.get_mut(group) {
                producers.remove(&producer);
                if producers.is_empty() {
                    self.by_group.remove(group);
                }
            }
        }
        taken
    }

    /// Reports whether an offset is pending for a partition.
    pub(crate) fn contains(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.of_group(group).any(|topics| {
            topics.get(topic).is_some_and(|partitions| partitions.contains_key(&partition))
        })
    }

    /// Reports whether a group takes part in an open transaction.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    /// Returns the pending offsets of a group, one item for each transaction.
    pub(crate) fn of_group(&self, group: &str) -> impl Iterator<Item = &TopicOffsets> {
        let found = self.by_group.get_key_value(group).into_iter();
        found.flat_map(move |(group, producers)| {
            let topics = move |producer| self.by_producer.get(producer)?.get(group);
            producers.iter().filter_map(topics)
        })
    }

    /// Returns the groups that take part in open transactions.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Str> {
        self.by_group.keys()
    }
}
