//! DeleteShareGroupOffsets, version 0: a share group without members forgets topics (KIP-932).

use std::sync::Arc;

use fleuve_coordinator::Response;
use fleuve_coordinator::share::ShareOffsetsDeletion;
use fleuve_coordinator::share_state::ShareKey;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest;
use fleuve_protocol::messages::delete_share_group_offsets_response::{
    DeleteShareGroupOffsetsResponse, DeleteShareGroupOffsetsResponseTopic,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::share_acknowledgements::{Refusal, live_error};
use super::{errors, permission};
use crate::node::Node;
use crate::request::{Context, Outcome};
use crate::share::StateError;

pub(crate) fn handle(
    context: &Context,
    request: DeleteShareGroupOffsetsRequest,
) -> Outcome<DeleteShareGroupOffsetsResponse> {
    let group = request.group_id.detach();
    if !errors::has_share_protocol(context) {
        return Outcome::Now(refuse(ErrorCode::UnsupportedVersion));
    }
    if let Err(code) = permission::group(context, AclOperation::Delete, &group) {
        return Outcome::Now(refuse(code));
    }
    let mut topics: Vec<Str> = request.topics.into_iter().map(|topic| topic.topic_name).collect();
    let mut refused = Vec::new();
    topics.retain(|topic| {
        let denied = permission::topic(context, AclOperation::Read, topic).err();
        refused.extend(denied.map(|code| refuse_topic(topic, code)));
        denied.is_none()
    });
    let node = Arc::clone(&context.node);
    Outcome::barrier(async move {
        let answer = node.groups.request(&group, |machine, _, token| {
            machine.handle_share_offsets_delete(token, &group, &topics)
        });
        match answer.await {
            Ok(Response::ShareOffsetsDelete(Ok(deletion))) => {
                let mut response = delete(&node, &group, deletion).await;
                response.responses.extend(refused);
                response
            }
            Ok(Response::ShareOffsetsDelete(Err(error))) | Err(error) => {
                DeleteShareGroupOffsetsResponse {
                    error_code: errors::group(error).code(),
                    error_message: Some(Str::from(error.to_string())),
                    ..Default::default()
                }
            }
            Ok(other) => unreachable!("a deletion is not answered with {other:?}"),
        }
    })
}

fn refuse(code: ErrorCode) -> DeleteShareGroupOffsetsResponse {
    DeleteShareGroupOffsetsResponse {
        error_code: code.code(),
        error_message: Some(Str::from(code.message())),
        ..Default::default()
    }
}

fn refuse_topic(topic: &Str, code: ErrorCode) -> DeleteShareGroupOffsetsResponseTopic {
    DeleteShareGroupOffsetsResponseTopic {
        topic_name: topic.clone(),
        error_code: code.code(),
        error_message: Some(Str::from(code.message())),
        ..Default::default()
    }
}

async fn delete(
    node: &Arc<Node>,
    group: &Str,
    deletion: ShareOffsetsDeletion,
) -> DeleteShareGroupOffsetsResponse {
    let mut response = DeleteShareGroupOffsetsResponse::default();
    let mut deleted = Vec::new();
    for (topic_name, topic_id, outcome) in deletion.topics {
        let outcome: Result<(), Refusal> = match outcome {
            Ok(partitions) => forget_states(node, group, topic_id, &partitions)
                .await
                .map_err(|error| live_error(&error.into())),
            Err(error) => Err((errors::group(error), Some(Str::from(error.to_string())))),
        };
        let mut topic =
            DeleteShareGroupOffsetsResponseTopic { topic_name, topic_id, ..Default::default() };
        match outcome {
            Ok(()) => deleted.push(topic_id),
            Err((code, message)) => {
                topic.error_code = code.code();
                topic.error_message = message;
            }
        }
        response.responses.push(topic);
    }
    node.shares.retire_group(group);
    node.groups.tell(group, |machine, _| machine.handle_shares_deleted(group, &deleted));
    response
}

/// Deletes states of a group and waits until that survives a crash.
pub(super) async fn forget_states(
    node: &Arc<Node>,
    group: &Str,
    topic_id: Uuid,
    partitions: &[i32],
) -> Result<(), StateError> {
    let states = &node.shares.states;
    if states.shard_count() == 0 {
        return Ok(());
    }
    let mut stored = Vec::new();
    for partition in partitions {
        let key = ShareKey { group: group.clone(), topic_id, partition: *partition };
        stored.extend(states.delete(&key)?);
    }
    for stored in &stored {
        states.durable(stored).await?;
    }
    Ok(())
}
