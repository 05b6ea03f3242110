//! Share sessions (KIP-932): a broker remembers what a member reads, and requests name only what
//! has changed.
//!
//! ```text
//! epoch 0     begins a session; nothing can be acknowledged with it
//! epoch K     the K-th request after it, be it ShareFetch or ShareAcknowledge
//! epoch -1    ends the session
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleuve_protocol::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch as Batch,
};
use fleuve_protocol::messages::share_fetch_request::{
    AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic,
};
use fleuve_types::{TopicPartition, Uuid};

use super::state::Outgoing;

/// The epoch that ends a session.
pub(super) const FINAL_EPOCH: i32 = -1;

/// The session with one broker.
#[derive(Debug, Default)]
pub(super) struct ShareSession {
    epoch: i32,
    known: BTreeSet<(Uuid, i32)>,
}

impl ShareSession {
    /// Returns the epoch of the next request.
    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Reports whether the broker has no session for us, so that it takes no acknowledgement.
    pub(super) fn is_new(&self) -> bool {
        self.epoch == 0
    }

    /// Returns the topics to name in a fetch of `wanted`, and those to forget.
    pub(super) fn prepare(
        &mut self,
        wanted: BTreeSet<(Uuid, i32)>,
        acknowledgements: &HashMap<TopicPartition, Outgoing>,
    ) -> (Vec<FetchTopic>, Vec<ForgottenTopic>) {
        let mut topics: BTreeMap<Uuid, Vec<FetchPartition>> = BTreeMap::new();
        let mut said: BTreeMap<(Uuid, i32), Vec<AcknowledgementBatch>> = acknowledgements
            .iter()
            .map(|(partition, outgoing)| {
                let runs = outgoing.runs.iter();
                let batches = runs.map(|&(first_offset, last_offset, code)| AcknowledgementBatch {
                    first_offset,
                    last_offset,
                    acknowledge_types: vec![code],
                });
                ((outgoing.topic_id, partition.partition), batches.collect())
            })
            .collect();
        for &(topic_id, partition_index) in &wanted {
            let acknowledgement_batches = said.remove(&(topic_id, partition_index));
            if acknowledgement_batches.is_none()
                && self.known.contains(&(topic_id, partition_index))
            {
                continue;
            }
            topics.entry(topic_id).or_default().push(FetchPartition {
                partition_index,
                acknowledgement_batches: acknowledgement_batches.unwrap_or_default(),
            });
        }
        let mut forgotten: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for &(topic_id, partition) in self.known.difference(&wanted) {
            forgotten.entry(topic_id).or_default().push(partition);
        }
        self.known = wanted;
        let topics = topics.into_iter();
        let forgotten = forgotten.into_iter();
        (
            topics.map(|(topic_id, partitions)| FetchTopic { topic_id, partitions }).collect(),
            forgotten
                .map(|(topic_id, partitions)| ForgottenTopic { topic_id, partitions })
                .collect(),
        )
    }

    /// Goes on after a good answer.
    pub(super) fn advance(&mut self) {
        // Epochs count on from the largest number at 1, because 0 opens a session.
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// Begins anew after an error.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Returns the topics to name in a request that only acknowledges.
pub(super) fn acknowledge_topics(
    acknowledgements: &HashMap<TopicPartition, Outgoing>,
) -> Vec<AcknowledgeTopic> {
    let mut topics: BTreeMap<Uuid, Vec<AcknowledgePartition>> = BTreeMap::new();
    for (partition, outgoing) in acknowledgements {
        let runs = outgoing.runs.iter();
        let batches = runs.map(|&(first_offset, last_offset, code)| Batch {
            first_offset,
            last_offset,
            acknowledge_types: vec![code],
        });
        topics.entry(outgoing.topic_id).or_default().push(AcknowledgePartition {
            partition_index: partition.partition,
            acknowledgement_batches: batches.collect(),
        });
    }
    let topics = topics.into_iter();
    topics.map(|(topic_id, partitions)| AcknowledgeTopic { topic_id, partitions }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partitions: &[i32]) -> BTreeSet<(Uuid, i32)> {
        partitions.iter().map(|&partition| (Uuid([1; 16]), partition)).collect()
    }

    fn named(topics: &[FetchTopic]) -> Vec<(i32, usize)> {
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|p| (p.partition_index, p.acknowledgement_batches.len())).collect()
    }

    #[test]
    fn a_request_names_what_is_new_what_is_said_and_what_is_gone() {
        let mut session = ShareSession::default();
        let nothing = HashMap::new();
        let (topics, _) = session.prepare(wanted(&[0, 1]), &nothing);
        assert_eq!(named(&topics), [(0, 0), (1, 0)]);
        session.advance();
        assert_eq!((session.epoch(), session.is_new()), (1, false));
        let mut outgoing = Outgoing { topic_id: Uuid([1; 16]), ..Outgoing::default() };
        outgoing.add(5, 5, 1);
        outgoing.add(6, 6, 1);
        outgoing.add(8, 8, 2);
        let said = HashMap::from([(TopicPartition::new("t", 1), outgoing)]);
        let (topics, forgotten) = session.prepare(wanted(&[1, 2]), &said);
        assert_eq!(named(&topics), [(1, 2), (2, 0)]);
        assert_eq!(forgotten[0].partitions, [0]);
        session.reset();
        assert!(session.is_new());
    }
}
