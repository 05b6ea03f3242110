//! OffsetCommit, versions 2–10: where a group goes on reading.

use fleuve_coordinator::Response;
use fleuve_coordinator::offsets::{CommitPartition, CommitRequest, CommitTopic};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestTopic,
};
use fleuve_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// From here on a group that does not exist may be called so.
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;
/// From here on topics are named by id.
const TOPIC_IDS_FROM: i16 = 10;

/// A topic of the response while some partitions await the coordinator.
struct Draft {
    response: OffsetCommitResponseTopic,
    /// Positions in the response of the partitions handed to the coordinator, in order.
    submitted: Vec<usize>,
}

pub(crate) fn handle(
    context: &Context,
    request: OffsetCommitRequest,
) -> Outcome<OffsetCommitResponse> {
    let refusal = permission::group(context, AclOperation::Read, &request.group_id).err();
    let mut drafts = Vec::new();
    let mut topics = Vec::new();
    for topic in request.topics {
        let (draft, commit) = sort_out(context, topic, refusal);
        if let Some(commit) = commit {
            topics.push(commit);
        }
        drafts.push(draft);
    }
    if topics.is_empty() {
        let topics = drafts.into_iter().map(|draft| draft.response).collect();
        return Outcome::Now(OffsetCommitResponse { topics, ..Default::default() });
    }
    let commit = CommitRequest {
        group_id: request.group_id,
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        retention_ms: Some(request.retention_time_ms).filter(|ms| *ms >= 0),
        knows_group_id_not_found: context.version >= GROUP_ID_NOT_FOUND_FROM,
        topics,
    };
    let answer = context.node.groups.request(&commit.group_id, |machine, now, token| {
        machine.handle_offset_commit(now, token, &commit)
    });
    Outcome::later(async move {
        let outcome = match answer.await {
            Ok(Response::OffsetCommit(outcome)) => outcome,
            Ok(other) => unreachable!("a commit is not answered with {other:?}"),
            Err(error) => Err(error),
        };
        let submitted = drafts.iter_mut().filter(|draft| !draft.submitted.is_empty());
        for (topic_index, draft) in submitted.enumerate() {
            for (partition_index, position) in draft.submitted.iter().enumerate() {
                let error_code = match &outcome {
                    Err(error) => errors::group(*error).code(),
                    Ok(topics) => {
                        errors::group_outcome(&topics[topic_index].partitions[partition_index].1)
                    }
                };
                draft.response.partitions[*position].error_code = error_code;
            }
        }
        let topics = drafts.into_iter().map(|draft| draft.response).collect();
        OffsetCommitResponse { topics, ..Default::default() }
    })
}

/// Separates the partitions that exist, for the coordinator, from those that do not.
fn sort_out(
    context: &Context,
    topic: OffsetCommitRequestTopic,
    refusal: Option<ErrorCode>,
) -> (Draft, Option<CommitTopic>) {
    let topics = &context.node.topics;
    let (found, missing) = if context.version >= TOPIC_IDS_FROM {
        (topics.by_id(&topic.topic_id), ErrorCode::UnknownTopicId)
    } else {
        (topics.by_name(&topic.name), ErrorCode::UnknownTopicOrPartition)
    };
    let name = match context.version >= TOPIC_IDS_FROM {
        true => found.as_ref().map(|found| &found.name),
        false => Some(&topic.name),
    };
    let refusal = refusal.or_else(|| {
        name.and_then(|name| permission::topic(context, AclOperation::Read, name).err())
    });
    let found = found.filter(|_| refusal.is_none());
    let mut partitions = Vec::new();
    let mut draft = Draft {
        response: OffsetCommitResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: Vec::new(),
        },
        submitted: Vec::new(),
    };
    for (position, partition) in topic.partitions.into_iter().enumerate() {
        let partition_index = partition.partition_index;
        let error = match &found {
            None => Some(refusal.unwrap_or(missing)),
            Some(found) if found.partition(partition_index).is_none() => {
                Some(ErrorCode::UnknownTopicOrPartition)
            }
            Some(_) => None,
        };
        draft.response.partitions.push(OffsetCommitResponsePartition {
            partition_index,
            error_code: error.map_or(0, ErrorCode::code),
        });
        if error.is_none() {
            draft.submitted.push(position);
            partitions.push(CommitPartition {
                partition: partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata,
            });
        }
    }
    let commit = found.filter(|_| !partitions.is_empty()).map(|found| CommitTopic {
        name: found.name.clone(),
        topic_id: found.id,
        partitions,
    });
    (draft, commit)
}
