//! AlterShareGroupOffsets, version 0: sets where a share group without members goes on (KIP-932).
//!
//! The group's epoch rises first, so that whoever still works on the old states is fenced; then the
//! states begin anew; then the group is told that they have.

use std::sync::Arc;

use fleuve_coordinator::share::ShareAlteration;
use fleuve_coordinator::share_state::ShareKey;
use fleuve_coordinator::{GroupError, Response};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestTopic,
};
use fleuve_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponse, AlterShareGroupOffsetsResponsePartition,
    AlterShareGroupOffsetsResponseTopic,
};
use fleuve_protocol::{ErrorCode, Str};

use super::share_acknowledgements::{Refusal, live_error};
use super::{errors, permission};
use crate::node::Node;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: AlterShareGroupOffsetsRequest,
) -> Outcome<AlterShareGroupOffsetsResponse> {
    let group = request.group_id.detach();
    if !errors::has_share_protocol(context) {
        let code = ErrorCode::UnsupportedVersion;
        return Outcome::Now(refusal(code, Some(Str::from(code.message()))));
    }
    if let Err(code) = permission::group(context, AclOperation::Read, &group) {
        return Outcome::Now(refusal(code, Some(Str::from(code.message()))));
    }
    let mut refused = Vec::new();
    let mut permitted = |topic: &AlterShareGroupOffsetsRequestTopic| {
        let denied = permission::topic(context, AclOperation::Read, &topic.topic_name).err();
        refused.extend(denied.map(|code| refuse_topic(topic, code)));
        denied.is_none()
    };
    let topics: Vec<(Str, Vec<(i32, i64)>)> = request
        .topics
        .into_iter()
        .filter(|topic| permitted(topic))
        .map(|topic| {
            let partitions = topic.partitions.into_iter();
            let partitions =
                partitions.map(|partition| (partition.partition_index, partition.start_offset));
            (topic.topic_name, partitions.collect())
        })
        .collect();
    let node = Arc::clone(&context.node);
    if topics.is_empty() && !refused.is_empty() {
        let responses = refused;
        return Outcome::Now(AlterShareGroupOffsetsResponse { responses, ..Default::default() });
    }
    Outcome::barrier(async move {
        if let Err(code) = ensure_topics(&node).await {
            return refusal(code, None);
        }
        let answer = node.groups.request(&group, |machine, _, token| {
            machine.handle_share_alter(token, &group, &topics)
        });
        match answer.await {
            Ok(Response::ShareAlter(Ok(alteration))) => {
                let mut response = alter(&node, group, alteration).await;
                response.responses.extend(refused);
                response
            }
            Ok(Response::ShareAlter(Err(error))) | Err(error) => group_refusal(error),
            Ok(other) => unreachable!("an alteration is not answered with {other:?}"),
        }
    })
}

fn refuse_topic(
    topic: &AlterShareGroupOffsetsRequestTopic,
    code: ErrorCode,
) -> AlterShareGroupOffsetsResponseTopic {
    let partitions =
        topic.partitions.iter().map(|partition| AlterShareGroupOffsetsResponsePartition {
            partition_index: partition.partition_index,
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
        });
    AlterShareGroupOffsetsResponseTopic {
        topic_name: topic.topic_name.clone(),
        partitions: partitions.collect(),
        ..Default::default()
    }
}

/// Makes the topics that groups and their states lie in.
async fn ensure_topics(node: &Arc<Node>) -> Result<(), ErrorCode> {
    let mut outcome = Ok(());
    if node.groups.shard_count() == 0 {
        outcome = node.create_offsets_topic().await;
    }
    if outcome.is_ok() && node.shares.states.shard_count() == 0 {
        outcome = node.create_share_state_topic().await;
    }
    outcome.map_err(|error| {
        tracing::warn!(%error, "a topic for share groups cannot be created");
        ErrorCode::CoordinatorNotAvailable
    })
}

async fn alter(
    node: &Arc<Node>,
    group: Str,
    alteration: ShareAlteration,
) -> AlterShareGroupOffsetsResponse {
    let mut response = AlterShareGroupOffsetsResponse::default();
    let mut initialized = Vec::new();
    for topic in alteration.topics {
        let mut set = Vec::new();
        let mut partitions = Vec::new();
        for (index, outcome) in topic.partitions {
            let key = ShareKey { group: group.clone(), topic_id: topic.topic_id, partition: index };
            let outcome = match outcome {
                Ok(start) => begin_anew(node, &key, alteration.state_epoch, start).await,
                Err(error) => Err((errors::group(error), Some(Str::from(error.to_string())))),
            };
            let mut partition = AlterShareGroupOffsetsResponsePartition {
                partition_index: index,
                ..Default::default()
            };
            match outcome {
                Ok(()) => set.push(index),
                Err((code, message)) => {
                    partition.error_code = code.code();
                    partition.error_message = message;
                }
            }
            partitions.push(partition);
        }
        if !set.is_empty() {
            initialized.push((topic.topic_id, set));
        }
        response.responses.push(AlterShareGroupOffsetsResponseTopic {
            topic_name: topic.topic,
            topic_id: topic.topic_id,
            partitions,
        });
    }
    node.shares.retire_group(&group);
    node.groups.tell(&group, |machine, _| machine.handle_shares_initialized(&group, &initialized));
    response
}

async fn begin_anew(
    node: &Arc<Node>,
    key: &ShareKey,
    state_epoch: i32,
    start: i64,
) -> Result<(), Refusal> {
    let states = &node.shares.states;
    let stored = states.initialize(key, state_epoch, start);
    let stored = stored.map_err(|error| live_error(&error.into()))?;
    states.durable(&stored).await.map_err(|error| live_error(&error.into()))
}

fn group_refusal(error: GroupError) -> AlterShareGroupOffsetsResponse {
    refusal(errors::group(error), Some(Str::from(error.to_string())))
}

fn refusal(code: ErrorCode, message: Option<Str>) -> AlterShareGroupOffsetsResponse {
    AlterShareGroupOffsetsResponse {
        error_code: code.code(),
        error_message: message,
        ..Default::default()
    }
}
