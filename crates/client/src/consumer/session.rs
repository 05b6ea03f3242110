//! Incremental fetch sessions (KIP-227): a broker remembers what a consumer fetches, and requests
//! name only what has changed.
//!
//! ```text
//! id 0, epoch 0    full request: open a session      answer carries the new id, or 0 for none
//! id N, epoch K    changes since K-1
//! after an error   id 0, epoch 0 again
//! ```

use std::collections::HashMap;

use fleuve_protocol::messages::fetch_request::{
    FetchPartition, FetchRequest, FetchTopic, ForgottenTopic,
};
use fleuve_types::{TopicPartition, Uuid};

/// What is wanted of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) topic_id: Uuid,
    pub(super) fetch_offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) bytes_max: i32,
}

/// The session with one broker.
#[derive(Debug, Default)]
pub(super) struct FetchSession {
    id: i32,
    epoch: i32,
    known: HashMap<TopicPartition, Wanted>,
}

impl FetchSession {
    /// Puts into `request` what the broker must be told to fetch `wanted`.
    pub(super) fn prepare(
        &mut self,
        wanted: HashMap<TopicPartition, Wanted>,
        request: &mut FetchRequest,
    ) {
        request.session_id = self.id;
        request.session_epoch = self.epoch;
        let is_full = self.epoch == 0;
        let mut topics: HashMap<&str, FetchTopic> = HashMap::new();
        let mut forgotten: HashMap<(&str, Uuid), Vec<i32>> = HashMap::new();
        for (partition, now) in &wanted {
            let before = if is_full { None } else { self.known.get(partition) };
            if before == Some(now) {
                continue;
            }
            if let Some(before) = before
                && before.topic_id != now.topic_id
            {
                // The topic was deleted and created again under its old name.
                let key = (&*partition.topic, before.topic_id);
                forgotten.entry(key).or_default().push(partition.partition);
            }
            let topic = topics.entry(&partition.topic).or_insert_with(|| FetchTopic {
                topic: partition.topic.to_string().into(),
                topic_id: now.topic_id,
                ..FetchTopic::default()
            });
            topic.partitions.push(FetchPartition {
                partition: partition.partition,
                current_leader_epoch: now.leader_epoch,
                fetch_offset: now.fetch_offset,
                partition_max_bytes: now.bytes_max,
                ..FetchPartition::default()
            });
        }
        if !is_full {
            for (partition, before) in &self.known {
                if !wanted.contains_key(partition) {
                    let key = (&*partition.topic, before.topic_id);
                    forgotten.entry(key).or_default().push(partition.partition);
                }
            }
        }
        request.topics = topics.into_values().collect();
        request.forgotten_topics_data = forgotten
            .into_iter()
            .map(|((topic, topic_id), partitions)| ForgottenTopic {
                topic: topic.to_owned().into(),
                topic_id,
                partitions,
            })
            .collect();
        self.known = wanted;
    }

    /// Goes on after a good answer, which names the session.
    pub(super) fn advance(&mut self, session_id: i32) {
        if session_id == 0 {
            // The broker keeps no session for us; the next request is full again.
            self.reset();
        } else {
            self.id = session_id;
            // Epochs count on from the largest number at 1, because 0 opens a session.
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
    }

    /// Begins anew after an error.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partitions: &[(i32, i64)]) -> HashMap<TopicPartition, Wanted> {
        partitions
            .iter()
            .map(|&(partition, fetch_offset)| {
                let wanted =
                    Wanted { topic_id: Uuid([1; 16]), fetch_offset, leader_epoch: 0, bytes_max: 1 };
                (TopicPartition::new("t", partition), wanted)
            })
            .collect()
    }

    /// Session id and epoch, partitions named, partitions forgotten.
    fn told(
        session: &mut FetchSession,
        partitions: &[(i32, i64)],
    ) -> (i32, i32, Vec<i32>, Vec<i32>) {
        let mut request = FetchRequest::default();
        session.prepare(wanted(partitions), &mut request);
        let named = request.topics.iter().flat_map(|topic| &topic.partitions);
        let mut named: Vec<_> = named.map(|partition| partition.partition).collect();
        named.sort_unstable();
        let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| &topic.partitions);
        (request.session_id, request.session_epoch, named, forgotten.copied().collect())
    }

    #[test]
    fn only_changes_are_told_once_a_session_stands() {
        let mut session = FetchSession::default();
        assert_eq!(told(&mut session, &[(0, 0), (1, 0)]), (0, 0, vec![0, 1], vec![]));
        session.advance(9);
        assert_eq!(told(&mut session, &[(0, 5), (1, 0)]), (9, 1, vec![0], vec![]));
        session.advance(9);
        assert_eq!(told(&mut session, &[(1, 0), (2, 0)]), (9, 2, vec![2], vec![0]));
        session.reset();
        assert_eq!(told(&mut session, &[(1, 0)]), (0, 0, vec![1], vec![]));
    }

    #[test]
    fn without_a_session_every_request_is_full() {
        let mut session = FetchSession::default();
        for _ in 0..2 {
            assert_eq!(told(&mut session, &[(0, 0)]), (0, 0, vec![0], vec![]));
            session.advance(0);
        }
    }

    #[test]
    fn a_topic_created_again_is_forgotten_under_its_old_id() {
        let mut session = FetchSession::default();
        told(&mut session, &[(0, 0)]);
        session.advance(9);
        let mut again = wanted(&[(0, 0)]);
        again.values_mut().for_each(|wanted| wanted.topic_id = Uuid([2; 16]));
        let mut request = FetchRequest::default();
        session.prepare(again, &mut request);
        assert_eq!(request.forgotten_topics_data[0].topic_id, Uuid([1; 16]));
        assert_eq!(request.topics[0].topic_id, Uuid([2; 16]));
    }
}
