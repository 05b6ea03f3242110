//! ConsumerGroupHeartbeat, versions 0–1: a member of a consumer group lives (KIP-848).

use fleuve_coordinator::consumer::{ConsumerHeartbeatRequest, VisibleTopics};
use fleuve_coordinator::{GroupError, Response};
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use fleuve_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// From here on members make their ids themselves (KIP-1082).
const OWN_MEMBER_ID_FROM: i16 = 1;

pub(crate) fn handle(
    context: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> Outcome<ConsumerGroupHeartbeatResponse> {
    if !errors::has_consumer_protocol(context) {
        return Outcome::Now(ConsumerGroupHeartbeatResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        });
    }
    let names = request.subscribed_topic_names.as_deref().unwrap_or_default();
    let permitted = permission::group(context, AclOperation::Read, &request.group_id)
        .and_then(|()| permission::all_topics(context, AclOperation::Describe, names));
    if let Err(code) = permitted {
        return Outcome::Now(ConsumerGroupHeartbeatResponse {
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
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
        visible_topics: visible_topics(context),
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

/// Regular expressions match what the member may describe.
fn visible_topics(context: &Context) -> VisibleTopics {
    if !context.node.has_authorizer() {
        return VisibleTopics::default();
    }
    let context = context.clone();
    VisibleTopics::only(move |name| {
        context.may_quietly(AclOperation::Describe, AclResourceType::Topic, name)
    })
}

fn refusal(error: GroupError) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: errors::group(error).code(),
        error_message: Some(Str::from(error.to_string())),
        ..Default::default()
    }
}
