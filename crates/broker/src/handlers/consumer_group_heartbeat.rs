//! ConsumerGroupHeartbeat, versions 0–1: a member of a consumer group lives (KIP-848).

use fleuve_coordinator::consumer::ConsumerHeartbeatRequest;
use fleuve_coordinator::{GroupError, Response};
use fleuve_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use fleuve_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use fleuve_protocol::{ErrorCode, Str};

use super::errors;
use crate::request::{Context, Outcome};

/// The feature that this API is a part of.
pub(super) const FEATURE: &str = "group.version";

/// From here on members make their ids themselves (KIP-1082).
const OWN_MEMBER_ID_FROM: i16 = 1;

pub(crate) fn handle(
    context: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> Outcome<ConsumerGroupHeartbeatResponse> {
    if !errors::has_feature(context, FEATURE) {
        return Outcome::Now(ConsumerGroupHeartbeatResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        });
    }
    let owned = request
        .topic_partitions
        .map(|topics| topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect());
    let heartbeat = ConsumerHeartbeatRequest {
        group_id: request.group_id,
        member_id: request.member_id,
        member_epoch: request.member_epoch,
        instance_id: request.instance_id,
        rack_id: request.rack_id,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topic_names: request.subscribed_topic_names,
        subscribed_topic_regex: request.subscribed_topic_regex,
        server_assignor: request.server_assignor,
        owned,
        client_id: context.client_id.clone(),
        client_host: Str::from(format!("/{}", context.peer.address.ip())),
        may_lack_member_id: context.version < OWN_MEMBER_ID_FROM,
    };
    let answer = context.node.groups.request(&heartbeat.group_id, |machine, now, token| {
        machine.handle_consumer_heartbeat(now, token, &heartbeat)
    });
    Outcome::later(async move {
        match answer.await {
            Ok(Response::ConsumerHeartbeat(Ok(reply))) => ConsumerGroupHeartbeatResponse {
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
            Ok(Response::ConsumerHeartbeat(Err(error))) | Err(error) => refusal(error),
            Ok(other) => unreachable!("a heartbeat is not answered with {other:?}"),
        }
    })
}

fn refusal(error: GroupError) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: errors::group(error).code(),
        error_message: Some(Str::from(error.to_string())),
        ..Default::default()
    }
}
