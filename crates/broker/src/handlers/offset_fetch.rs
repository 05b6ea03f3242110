//! OffsetFetch, versions 1–10: where groups go on reading.

use fleuve_coordinator::GroupError;
use fleuve_coordinator::offsets::{FetchRequest, FetchTopic, FetchedOffset, FetchedOffsets};
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use fleuve_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// From here on several groups can be asked for at once.
const MANY_GROUPS_FROM: i16 = 8;
/// From here on an error of the whole group has a field of its own.
const GROUP_ERROR_FROM: i16 = 2;
/// From here on topics are named by id.
const TOPIC_IDS_FROM: i16 = 10;
const NO_OFFSET: i64 = -1;
const NO_EPOCH: i32 = -1;

pub(crate) fn handle(
    context: &Context,
    request: OffsetFetchRequest,
) -> Outcome<OffsetFetchResponse> {
    let context = context.clone();
    if context.version >= MANY_GROUPS_FROM {
        return Outcome::later(async move {
            let mut response = OffsetFetchResponse::default();
            for group in request.groups {
                response.groups.push(fetch(&context, group, request.require_stable).await);
            }
            response
        });
    }
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        member_epoch: NO_EPOCH,
        topics: request.topics.map(|topics| {
            let renamed = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: topic.partition_indexes,
                ..Default::default()
            });
            renamed.collect()
        }),
        ..Default::default()
    };
    Outcome::later(async move {
        let version = context.version;
        as_single_group(fetch(&context, group, request.require_stable).await, version)
    })
}

async fn fetch(
    context: &Context,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    if let Err(code) = permission::group(context, AclOperation::Describe, &group.group_id) {
        return refuse(context, group, code);
    }
    let by_id = context.version >= TOPIC_IDS_FROM;
    let topics = &context.node.topics;
    // Those that cannot be looked up, and why.
    let mut unknown = Vec::new();
    let wanted = group.topics.map(|wanted| {
        let known = wanted.into_iter().filter_map(|topic| {
            let (name, topic_id) = if by_id {
                match topics.by_id(&topic.topic_id) {
                    Some(found) => (found.name.clone(), found.id),
                    None => {
                        unknown.push((topic, ErrorCode::UnknownTopicId));
                        return None;
                    }
                }
            } else {
                (topic.name.clone(), Uuid::ZERO)
            };
            if let Err(code) = permission::topic(context, AclOperation::Describe, &name) {
                unknown.push((topic, code));
                return None;
            }
            Some(FetchTopic { name, topic_id, partitions: topic.partition_indexes })
        });
        known.collect::<Vec<_>>()
    });
    let all = wanted.is_none();
    let request = FetchRequest {
        group_id: group.group_id.clone(),
        member_id: group.member_id,
        member_epoch: group.member_epoch,
        topics: wanted,
        require_stable,
    };
    let mut response = OffsetFetchResponseGroup { group_id: group.group_id, ..Default::default() };
    match look_up(context, &request).await {
        Err(error) => {
            response.error_code = errors::group(error).code();
            if context.version >= MANY_GROUPS_FROM {
                // Partitions beside the error would look as if nothing were committed for them.
                return response;
            }
            let failed = request.topics.into_iter().flatten();
            response.topics.extend(failed.map(|topic| OffsetFetchResponseTopics {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions: {
                    let failed = topic.partitions.into_iter();
                    failed.map(|index| answer(index, FetchedOffset::None)).collect()
                },
            }));
        }
        Ok(offsets) => {
            for topic in offsets.topics {
                let is_visible =
                    context.may(AclOperation::Describe, AclResourceType::Topic, &topic.name);
                if all && !is_visible {
                    continue;
                }
                let mut topic_id = topic.topic_id;
                if by_id && all {
                    // A topic that is gone has no id to be named by.
                    let Some(found) = topics.by_name(&topic.name) else { continue };
                    topic_id = found.id;
                }
                let partitions = topic.partitions.into_iter();
                response.topics.push(OffsetFetchResponseTopics {
                    name: topic.name,
                    topic_id,
                    partitions: partitions.map(|(index, offset)| answer(index, offset)).collect(),
                });
            }
        }
    }
    response.topics.extend(unknown.into_iter().map(|(topic, code)| {
        let partitions = topic.partition_indexes.into_iter().map(|index| {
            let error_code = code.code();
            OffsetFetchResponsePartitions { error_code, ..answer(index, FetchedOffset::None) }
        });
        OffsetFetchResponseTopics {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
        }
    }));
    response
}

/// Refuses a whole group. From the version with many groups on nothing is said of partitions.
fn refuse(
    context: &Context,
    group: OffsetFetchRequestGroup,
    code: ErrorCode,
) -> OffsetFetchResponseGroup {
    let named = group.topics.into_iter().flatten().filter(|_| context.version < MANY_GROUPS_FROM);
    let topics = named.map(|topic| OffsetFetchResponseTopics {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: {
            let indexes = topic.partition_indexes.into_iter();
            indexes.map(|index| answer(index, FetchedOffset::None)).collect()
        },
    });
    OffsetFetchResponseGroup {
        group_id: group.group_id,
        topics: topics.collect(),
        error_code: code.code(),
    }
}

async fn look_up(context: &Context, request: &FetchRequest) -> Result<FetchedOffsets, GroupError> {
    let groups = &context.node.groups;
    let shard = groups.shard_of(&request.group_id)?;
    let offsets = shard.read(|machine| machine.fetch_offsets(request))?;
    if let Some(after) = offsets.after {
        // As Kafka does: consumers before 3.9 do not try again after a coordinator that is not
        // available.
        groups.wait_until_durable(&shard, after.0).await.map_err(|error| match error {
            GroupError::NotAvailable => GroupError::NotCoordinator,
            error => error,
        })?;
    }
    Ok(offsets)
}

fn answer(partition_index: i32, offset: FetchedOffset) -> OffsetFetchResponsePartitions {
    let nothing = (NO_OFFSET, NO_EPOCH, Str::EMPTY);
    let (code, (committed_offset, committed_leader_epoch, metadata)) = match offset {
        FetchedOffset::Committed(offset) => {
            (ErrorCode::None, (offset.offset, offset.leader_epoch, offset.metadata))
        }
        FetchedOffset::None => (ErrorCode::None, nothing),
        FetchedOffset::Unstable => (ErrorCode::UnstableOffsetCommit, nothing),
    };
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset,
        committed_leader_epoch,
        metadata: Some(metadata),
        error_code: code.code(),
    }
}

/// Puts the one group of older versions where they expect it.
fn as_single_group(group: OffsetFetchResponseGroup, version: i16) -> OffsetFetchResponse {
    let group_error = group.error_code;
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: if group_error != 0 { group_error } else { partition.error_code },
            })
            .collect(),
    });
    // From version 2 on the error has a field of its own, and partitions may be left out.
    let listed = group_error == 0 || version < GROUP_ERROR_FROM;
    OffsetFetchResponse {
        topics: if listed { topics.collect() } else { Vec::new() },
        error_code: group_error,
        ..Default::default()
    }
}
