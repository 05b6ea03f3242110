//! ShareGroupHeartbeat, version 1: a member of a share group lives (KIP-932).

use fleuve_coordinator::share::ShareHeartbeatRequest;
use fleuve_coordinator::{GroupError, Response};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use fleuve_protocol::messages::share_group_heartbeat_response::{
    Assignment, ShareGroupHeartbeatResponse, TopicPartitions,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: ShareGroupHeartbeatRequest,
) -> Outcome<ShareGroupHeartbeatResponse> {
    if !errors::has_share_protocol(context) {
        return Outcome::Now(refuse(ErrorCode::UnsupportedVersion));
    }
    let names = request.subscribed_topic_names.as_deref().unwrap_or_default();
    let permitted = permission::group(context, AclOperation::Read, &request.group_id)
        .and_then(|()| permission::all_topics(context, AclOperation::Describe, names));
    if let Err(code) = permitted {
        return Outcome::Now(refuse(code));
    }
    let heartbeat = ShareHeartbeatRequest {
        group_id: request.group_id,
        member_id: request.member_id,
        member_epoch: request.member_epoch,
        rack_id: request.rack_id,
        subscribed_topic_names: request.subscribed_topic_names,
        client_id: context.client_id.clone(),
        client_host: Str::from(format!("/{}", context.peer.address.ip())),
    };
    let answer = context.node.groups.request(&heartbeat.group_id, |machine, now, token| {
        machine.handle_share_heartbeat(now, token, &heartbeat)
    });
    Outcome::later(async move {
        match answer.await {
            Ok(Response::ShareHeartbeat(Ok(reply))) => ShareGroupHeartbeatResponse {
                member_id: Some(reply.member_id),
                member_epoch: reply.member_epoch,
                heartbeat_interval_ms: reply.heartbeat_interval_ms,
                assignment: reply.assignment.map(|topics| {
                    let topics = topics
                        .into_iter()
                        .map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions });
                    Assignment { topic_partitions: topics.collect() }
                }),
                ..Default::default()
            },
            Ok(Response::ShareHeartbeat(Err(error))) | Err(error) => refusal(error),
            Ok(other) => unreachable!("a heartbeat is not answered with {other:?}"),
        }
    })
}

fn refuse(code: ErrorCode) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: Some(Str::from(code.message())),
        ..Default::default()
    }
}

fn refusal(error: GroupError) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: errors::group(error).code(),
        error_message: Some(Str::from(error.to_string())),
        ..Default::default()
    }
}
