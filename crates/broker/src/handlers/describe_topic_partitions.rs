//! DescribeTopicPartitions, version 0: topics page by page (KIP-966).
//!
//! Topics come in the order of their names. When the limit of partitions is reached, the answer
//! carries a cursor: the first partition that did not fit.

use std::collections::BTreeSet;

use fleuve_metadata::image::{AclOperation, AclResourceType, Partition, Topic};
use fleuve_protocol::messages::describe_topic_partitions_request::{
    self as request, DescribeTopicPartitionsRequest, TopicRequest,
};
use fleuve_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{operations, permission};
use crate::metadata_log::is_valid_topic_name;
use crate::request::{Context, Outcome};
use crate::topics::is_internal;

const NO_LEADER: i32 = -1;

pub(crate) fn handle(
    context: &Context,
    request: DescribeTopicPartitionsRequest,
) -> Outcome<DescribeTopicPartitionsResponse> {
    let image = context.node.image();
    let (first_topic, first_partition) = match &request.cursor {
        Some(cursor) if points_nowhere(cursor, &request.topics) => {
            return Outcome::Now(refuse(request.topics));
        }
        Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index),
        None => (Str::EMPTY, 0),
    };
    let asks_for_all = request.topics.is_empty();
    let names: BTreeSet<Str> = if asks_for_all {
        let all = image.topics().starting_at(&first_topic).map(|topic| topic.name.clone());
        all.filter(|name| context.may_quietly(AclOperation::Describe, AclResourceType::Topic, name))
            .collect()
    } else {
        let wanted = request.topics.into_iter().map(|topic| topic.name);
        wanted.filter(|name| *name >= first_topic).collect()
    };
    let limit_max = context.node.settings().fetch.described_partitions_max;
    let mut room =
        usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, limit_max.max(1));
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut refused = Vec::new();
    for name in names {
        if !asks_for_all
            && let Err(code) = permission::topic(context, AclOperation::Describe, &name)
        {
            refused.push(DescribeTopicPartitionsResponseTopic {
                error_code: code.code(),
                name: Some(name),
                ..Default::default()
            });
            continue;
        }
        if room == 0 {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0 });
            break;
        }
        let Some(topic) = image.topics().by_name(&name) else {
            let code = if is_valid_topic_name(&name) {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::InvalidTopicException
            };
            response.topics.push(DescribeTopicPartitionsResponseTopic {
                error_code: code.code(),
                is_internal: is_internal(&name),
                topic_authorized_operations: operations::on_topic(context, &name),
                name: Some(name),
                ..Default::default()
            });
            continue;
        };
        let begin = if name == first_topic { first_partition } else { 0 };
        let remaining: Vec<_> = topic.partitions().iter().filter(|p| p.index >= begin).collect();
        let fits = remaining.len().min(room);
        room -= fits;
        response.topics.push(describe(context, topic, &remaining[..fits]));
        if let Some(next) = remaining.get(fits) {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: next.index });
            break;
        }
    }
    response.topics.extend(refused);
    Outcome::Now(response)
}

/// Reports whether a cursor was made up: ours name a partition of a topic that was asked for.
fn points_nowhere(cursor: &request::Cursor, topics: &[TopicRequest]) -> bool {
    let is_asked_for =
        topics.is_empty() || topics.iter().any(|topic| topic.name == cursor.topic_name);
    !is_asked_for || cursor.partition_index < 0
}

/// The answer to a request whose cursor points nowhere; it has no place for an error of its own.
fn refuse(topics: Vec<TopicRequest>) -> DescribeTopicPartitionsResponse {
    let row = |topic: TopicRequest| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name),
        ..Default::default()
    };
    DescribeTopicPartitionsResponse {
        topics: topics.into_iter().map(row).collect(),
        ..Default::default()
    }
}

fn describe(
    context: &Context,
    topic: &Topic,
    partitions: &[&std::sync::Arc<Partition>],
) -> DescribeTopicPartitionsResponseTopic {
    let numbers = |nodes: &[fleuve_types::NodeId]| nodes.iter().map(|node| node.0).collect();
    let held = context.node.topics.by_id(&topic.id);
    let describe = |partition: &&std::sync::Arc<Partition>| {
        let held = held.as_ref().and_then(|held| held.partition(partition.index));
        let is_offline = held.is_some_and(|partition| partition.is_offline());
        let leader = partition.leader.map(|leader| leader.0).filter(|_| !is_offline);
        let unavailable = ErrorCode::LeaderNotAvailable.code();
        DescribeTopicPartitionsResponsePartition {
            error_code: if leader.is_some() { 0 } else { unavailable },
            partition_index: partition.index,
            leader_id: leader.unwrap_or(NO_LEADER),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: numbers(&partition.replicas),
            isr_nodes: numbers(&partition.isr),
            eligible_leader_replicas: Some(numbers(&partition.eligible_leader_replicas)),
            last_known_elr: Some(numbers(&partition.last_known_eligible)),
            offline_replicas: if is_offline { vec![context.node.id] } else { Vec::new() },
        }
    };
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.iter().map(describe).collect(),
        topic_authorized_operations: operations::on_topic(context, &topic.name),
        ..Default::default()
    }
}
