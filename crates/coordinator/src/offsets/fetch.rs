//! OffsetFetch.

use fleuve_types::Uuid;

use super::api::{FetchRequest, FetchTopic, FetchedOffset, FetchedOffsets, FetchedTopic};
use crate::coordinator::GroupCoordinator;
use crate::error::GroupError;
use crate::ledger::{CommittedOffset, TopicOffsets};

impl GroupCoordinator {
    /// Reads the offsets of a group; a group that does not exist has none.
    pub fn fetch_offsets(&self, request: &FetchRequest) -> Result<FetchedOffsets, GroupError> {
        self.check_serving()?;
        if let Some(group) = self.ledger().consumer_group(&request.group_id) {
            group.check_fetch(request.member_id.as_deref(), request.member_epoch)?;
        }
        if let Some(group) = self.ledger().streams_group(&request.group_id) {
            group.check_fetch(request.member_id.as_deref(), request.member_epoch)?;
        }
        let offsets = self.ledger().offsets_of(&request.group_id);
        let mut topics = match &request.topics {
            Some(topics) => topics.iter().map(|topic| fetch_topic(topic, offsets)).collect(),
            None => offsets.map(fetch_all).unwrap_or_default(),
        };
        if request.require_stable && self.ledger().pending().has_group(&request.group_id) {
            self.hide_unstable(&request.group_id, &mut topics);
        }
        Ok(FetchedOffsets { topics, after: self.next_offset() })
    }

    /// Hides the offsets that an open transaction may be about to change.
    fn hide_unstable(&self, group: &str, topics: &mut [FetchedTopic]) {
        let pending = self.ledger().pending();
        for topic in topics {
            for (partition, offset) in &mut topic.partitions {
                if pending.contains(group, &topic.name, *partition) {
                    *offset = FetchedOffset::Unstable;
                }
            }
        }
    }
}

fn fetch_topic(topic: &FetchTopic, offsets: Option<&TopicOffsets>) -> FetchedTopic {
    let committed = offsets.and_then(|topics| topics.get(&topic.name));
    let partitions = topic.partitions.iter().map(|partition| {
        let found = committed
            .and_then(|partitions| partitions.get(partition))
            .filter(|offset| is_for_topic(offset, topic.topic_id));
        (*partition, found.cloned().map_or(FetchedOffset::None, FetchedOffset::Committed))
    });
    FetchedTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    }
}

fn fetch_all(offsets: &TopicOffsets) -> Vec<FetchedTopic> {
    offsets
        .iter()
        .map(|(name, partitions)| FetchedTopic {
            name: name.clone(),
            topic_id: Uuid::ZERO,
            partitions: partitions
                .iter()
                .map(|(partition, offset)| (*partition, FetchedOffset::Committed(offset.clone())))
                .collect(),
        })
        .collect()
}

/// Whether the offset may be one of the topic with this id, as far as both are known.
fn is_for_topic(offset: &CommittedOffset, topic_id: Uuid) -> bool {
    offset.topic_id.is_zero() || topic_id.is_zero() || offset.topic_id == topic_id
}
