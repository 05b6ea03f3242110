//! Asking for offsets: what a group committed, and what a log holds.

use std::collections::HashMap;

use fleuve_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use fleuve_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use fleuve_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use fleuve_protocol::messages::offset_fetch_response::OffsetFetchResponse;
use fleuve_types::TopicPartition;

use super::state::{Member, Place};
use crate::client::Client;
use crate::config::IsolationLevel;
use crate::error::{Error, Result, check, check_said, code_of};

/// The timestamp that asks for the end of a log.
pub const LATEST: i64 = -1;
/// The timestamp that asks for the beginning of a log.
pub const EARLIEST: i64 = -2;
/// The timestamp that asks for the record with the largest timestamp.
pub const MAX_TIMESTAMP: i64 = -3;

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to be read.
    pub offset: i64,
    /// The leader epoch of the record before it; -1 when nobody said.
    pub leader_epoch: i32,
    /// The text committed beside it.
    pub metadata: String,
}

impl Committed {
    /// Makes what a commit says that knows nothing but an offset.
    pub fn at(offset: i64) -> Self {
        Self { offset, leader_epoch: -1, metadata: String::new() }
    }
}

impl From<Place> for Committed {
    fn from(Place { offset, epoch }: Place) -> Self {
        Self { offset, leader_epoch: epoch, metadata: String::new() }
    }
}

/// What a log says about a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffset {
    /// The offset; -1 when no record is that young.
    pub offset: i64,
    /// The timestamp of the record there; -1 when there is none.
    pub timestamp: i64,
    /// The leader epoch of the record there; -1 when unknown.
    pub leader_epoch: i32,
}

/// Topics go by name up to these versions; ids would need metadata of every topic.
const COMMIT_VERSION_WITH_NAMES: i16 = 9;
const FETCH_VERSION_WITH_NAMES: i16 = 9;
/// The first version that asks for several groups.
const FETCH_VERSION_WITH_GROUPS: i16 = 8;

/// Asks the leaders for the offsets of timestamps, or of [`LATEST`] and [`EARLIEST`].
pub(crate) async fn list_offsets(
    client: &Client,
    timestamps: &HashMap<TopicPartition, i64>,
    isolation: IsolationLevel,
) -> Result<HashMap<TopicPartition, Result<LogOffset>>> {
    let partitions: Vec<_> = timestamps.keys().cloned().collect();
    let timeout_ms = client.config().request_timeout.as_millis() as i32;
    let build = |theirs: &[TopicPartition], version: i16| {
        let mut topics: Vec<ListOffsetsTopic> = Vec::new();
        for partition in theirs {
            let asked = ListOffsetsPartition {
                partition_index: partition.partition,
                timestamp: timestamps[partition],
                ..ListOffsetsPartition::default()
            };
            match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                Some(topic) => topic.partitions.push(asked),
                None => topics.push(ListOffsetsTopic {
                    name: partition.topic.to_string().into(),
                    partitions: vec![asked],
                }),
            }
        }
        let isolation_level = if version >= 2 { isolation.code() } else { 0 };
        ListOffsetsRequest { replica_id: -1, isolation_level, topics, timeout_ms }
    };
    client
        .call_leaders::<ListOffsetsRequest, _>(&partitions, build, |response| {
            let answers = response.topics.into_iter().flat_map(|topic| {
                let name: std::sync::Arc<str> = (&*topic.name).into();
                topic.partitions.into_iter().map(move |answer| crate::client::PartitionAnswer {
                    partition: TopicPartition::new(name.clone(), answer.partition_index),
                    error_code: answer.error_code,
                    value: LogOffset {
                        offset: answer.offset,
                        timestamp: answer.timestamp,
                        leader_epoch: answer.leader_epoch,
                    },
                })
            });
            answers.collect()
        })
        .await
}

/// Asks for what `group` has committed; for all partitions it has if `partitions` is `None`.
pub(crate) async fn fetch_committed(
    client: &Client,
    group: &str,
    partitions: Option<&[TopicPartition]>,
    require_stable: bool,
) -> Result<HashMap<TopicPartition, Committed>> {
    let by_topic = partitions.map(|partitions| {
        let mut by_topic: HashMap<&str, Vec<i32>> = HashMap::new();
        for partition in partitions {
            by_topic.entry(&partition.topic).or_default().push(partition.partition);
        }
        by_topic
    });
    let build = |version: i16| {
        let require_stable = require_stable && version >= 7;
        if version < FETCH_VERSION_WITH_GROUPS {
            let topics = by_topic.as_ref().map(|by_topic| {
                let topic = |(name, indexes): (&&str, &Vec<i32>)| OffsetFetchRequestTopic {
                    name: (*name).to_owned().into(),
                    partition_indexes: indexes.clone(),
                };
                by_topic.iter().map(topic).collect()
            });
            let group_id = group.to_owned().into();
            return OffsetFetchRequest { group_id, topics, require_stable, ..Default::default() };
        }
        let topics = by_topic.as_ref().map(|by_topic| {
            let topic = |(name, indexes): (&&str, &Vec<i32>)| OffsetFetchRequestTopics {
                name: (*name).to_owned().into(),
                partition_indexes: indexes.clone(),
                ..Default::default()
            };
            by_topic.iter().map(topic).collect()
        });
        let group = OffsetFetchRequestGroup {
            group_id: group.to_owned().into(),
            topics,
            ..Default::default()
        };
        OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() }
    };
    let error_of = |response: &OffsetFetchResponse| match response.groups.first() {
        Some(group) if group.error_code == 0 => group
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|answer| answer.error_code)
            .find(|&code| code_of(code).is_retriable())
            .unwrap_or(0),
        Some(group) => group.error_code,
        None => response.error_code,
    };
    let response = client
        .call_coordinator::<OffsetFetchRequest>(group, FETCH_VERSION_WITH_NAMES, build, error_of)
        .await?;
    let mut committed = HashMap::new();
    let mut keep = |topic: &str, index: i32, place: Place, metadata: Option<&str>, code: i16| {
        let partition = TopicPartition::new(topic, index);
        check(code, || format!("group {group}, {partition}"))?;
        // -1 stands for "nothing committed".
        if place.offset >= 0 {
            let metadata = metadata.unwrap_or_default().to_owned();
            committed.insert(partition, Committed { metadata, ..place.into() });
        }
        Ok::<_, Error>(())
    };
    for topic in response.groups.iter().flat_map(|group| &group.topics) {
        for p in &topic.partitions {
            let metadata = p.metadata.as_deref();
            let place = Place { offset: p.committed_offset, epoch: p.committed_leader_epoch };
            keep(&topic.name, p.partition_index, place, metadata, p.error_code)?;
        }
    }
    for topic in &response.topics {
        for p in &topic.partitions {
            let metadata = p.metadata.as_deref();
            let place = Place { offset: p.committed_offset, epoch: p.committed_leader_epoch };
            keep(&topic.name, p.partition_index, place, metadata, p.error_code)?;
        }
    }
    Ok(committed)
}

/// Commits offsets in the name of `member`, or of nobody in particular.
pub(crate) async fn commit(
    client: &Client,
    group: &str,
    member: &Member,
    instance_id: Option<&str>,
    offsets: &HashMap<TopicPartition, Committed>,
) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    let build = |version: i16| {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (partition, committed) in offsets {
            let committed = OffsetCommitRequestPartition {
                partition_index: partition.partition,
                committed_offset: committed.offset,
                committed_leader_epoch: if version >= 6 { committed.leader_epoch } else { -1 },
                committed_metadata: Some(committed.metadata.clone().into()),
            };
            match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                Some(topic) => topic.partitions.push(committed),
                None => topics.push(OffsetCommitRequestTopic {
                    name: partition.topic.to_string().into(),
                    partitions: vec![committed],
                    ..OffsetCommitRequestTopic::default()
                }),
            }
        }
        OffsetCommitRequest {
            group_id: group.to_owned().into(),
            generation_id_or_member_epoch: member.generation,
            member_id: member.id.clone().into(),
            group_instance_id: instance_id
                .filter(|_| version >= 7)
                .map(|instance| instance.to_owned().into()),
            topics,
            ..OffsetCommitRequest::default()
        }
    };
    let response = client
        .call_coordinator::<OffsetCommitRequest>(
            group,
            COMMIT_VERSION_WITH_NAMES,
            build,
            |response| {
                let answers = response.topics.iter().flat_map(|topic| &topic.partitions);
                let mut codes = answers.map(|answer| answer.error_code);
                codes.find(|&code| code_of(code).is_retriable()).unwrap_or(0)
            },
        )
        .await?;
    let mut answered = 0;
    for topic in &response.topics {
        for answer in &topic.partitions {
            answered += 1;
            check_said(answer.error_code, None, || {
                format!("group {group}, {}-{}", topic.name, answer.partition_index)
            })?;
        }
    }
    if answered < offsets.len() {
        return Err(Error::unanswered(format!("group {group}")));
    }
    Ok(())
}
