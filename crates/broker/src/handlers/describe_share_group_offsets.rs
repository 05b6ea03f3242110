//! DescribeShareGroupOffsets, versions 0–1: where share groups stand (KIP-932).

use fleuve_coordinator::share_state::ShareKey;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
};
use fleuve_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponse, DescribeShareGroupOffsetsResponseGroup,
    DescribeShareGroupOffsetsResponsePartition, DescribeShareGroupOffsetsResponseTopic,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::{errors, permission};
use crate::request::{Context, Outcome};

const UNKNOWN: i64 = -1;

pub(crate) fn handle(
    context: &Context,
    request: DescribeShareGroupOffsetsRequest,
) -> Outcome<DescribeShareGroupOffsetsResponse> {
    let groups = request.groups.into_iter().map(|group| describe(context, group));
    Outcome::Now(DescribeShareGroupOffsetsResponse {
        groups: groups.collect(),
        ..Default::default()
    })
}

fn describe(
    context: &Context,
    request: DescribeShareGroupOffsetsRequestGroup,
) -> DescribeShareGroupOffsetsResponseGroup {
    let group_id = request.group_id;
    let refuse = |group_id, code: ErrorCode| DescribeShareGroupOffsetsResponseGroup {
        group_id,
        error_code: code.code(),
        error_message: Some(Str::from(code.message())),
        ..Default::default()
    };
    if !errors::has_share_protocol(context) {
        return refuse(group_id, ErrorCode::UnsupportedVersion);
    }
    if let Err(code) = permission::group(context, AclOperation::Describe, &group_id) {
        return refuse(group_id, code);
    }
    let mut denied = Vec::new();
    let asked = request.topics.map(|topics| {
        let permitted = topics.into_iter().filter_map(|topic| {
            match permission::topic(context, AclOperation::Describe, &topic.topic_name) {
                Ok(()) => Some(topic),
                Err(code) => {
                    denied.push(refuse_topic(topic.topic_name, topic.partitions, code));
                    None
                }
            }
        });
        permitted.collect::<Vec<_>>()
    });
    let mut response = DescribeShareGroupOffsetsResponseGroup { group_id, ..Default::default() };
    match asked {
        Some(topics) => {
            // Nobody is asked whether there is such a group: one that is not has no offsets.
            for topic in topics {
                let found = context.node.topics.by_name(&topic.topic_name);
                let topic_id = found.map_or(Uuid::ZERO, |found| found.id);
                let partitions = topic.partitions.into_iter();
                let partitions = partitions
                    .map(|index| describe_partition(context, &response.group_id, topic_id, index));
                response.topics.push(DescribeShareGroupOffsetsResponseTopic {
                    topic_name: topic.topic_name,
                    topic_id,
                    partitions: partitions.collect(),
                });
            }
        }
        None => {
            let shard = context.node.groups.shard_of(&response.group_id);
            let begun = shard.and_then(|shard| {
                shard.read(|machine| machine.begun_share_partitions(&response.group_id))
            });
            let begun = match begun {
                Ok(begun) => begun,
                Err(error) => {
                    let message = format!("Group {}: {error}.", response.group_id);
                    response.error_code = errors::group(error).code();
                    response.error_message = Some(Str::from(message));
                    return response;
                }
            };
            for partition in begun {
                let is_visible =
                    context.may(AclOperation::Describe, AclResourceType::Topic, &partition.topic);
                if !is_visible {
                    continue;
                }
                let described = describe_partition(
                    context,
                    &response.group_id,
                    partition.topic_id,
                    partition.partition,
                );
                match response.topics.last_mut() {
                    Some(topic) if topic.topic_id == partition.topic_id => {
                        topic.partitions.push(described);
                    }
                    _ => response.topics.push(DescribeShareGroupOffsetsResponseTopic {
                        topic_name: partition.topic,
                        topic_id: partition.topic_id,
                        partitions: vec![described],
                    }),
                }
            }
        }
    }
    response.topics.extend(denied);
    response
}

fn refuse_topic(
    topic_name: Str,
    partitions: Vec<i32>,
    code: ErrorCode,
) -> DescribeShareGroupOffsetsResponseTopic {
    let partitions =
        partitions.into_iter().map(|index| DescribeShareGroupOffsetsResponsePartition {
            partition_index: index,
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
            ..Default::default()
        });
    DescribeShareGroupOffsetsResponseTopic {
        topic_name,
        partitions: partitions.collect(),
        ..Default::default()
    }
}

fn describe_partition(
    context: &Context,
    group: &Str,
    topic_id: Uuid,
    index: i32,
) -> DescribeShareGroupOffsetsResponsePartition {
    let mut described = DescribeShareGroupOffsetsResponsePartition {
        partition_index: index,
        start_offset: UNKNOWN,
        leader_epoch: 0,
        lag: UNKNOWN,
        ..Default::default()
    };
    // A partition that does not exist is one without offsets, not an error.
    let topic = context.node.topics.by_id(&topic_id);
    let Some(partition) = topic.as_ref().and_then(|topic| topic.partition(index)) else {
        return described;
    };
    let key = ShareKey { group: group.clone(), topic_id, partition: index };
    // Neither is a state that cannot be had, nor one that has yet to begin.
    if let Ok(Some(summary)) = context.node.shares.states.summary(&key) {
        described.leader_epoch = summary.leader_epoch;
        described.start_offset = summary.start_offset;
        if summary.start_offset >= 0 && summary.delivery_complete_count >= 0 {
            let ahead = partition.high_watermark() - summary.start_offset;
            let lag = ahead - i64::from(summary.delivery_complete_count);
            described.lag = lag.max(0);
        }
    }
    described
}
