//! ConsumerGroupDescribe, versions 0–1: consumer groups in detail (KIP-848).

use std::collections::BTreeSet;

use fleuve_coordinator::consumer;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use fleuve_protocol::messages::consumer_group_describe_response::{
    Assignment, ConsumerGroupDescribeResponse, DescribedGroup, Member, TopicPartitions,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, operations, permission};
use crate::request::{Context, Outcome};

/// How responses tell the protocol that a member uses.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(crate) fn handle(
    context: &Context,
    request: ConsumerGroupDescribeRequest,
) -> Outcome<ConsumerGroupDescribeResponse> {
    let is_served = errors::has_consumer_protocol(context);
    let groups = request.group_ids.into_iter().map(|group_id| {
        if !is_served {
            let error_code = ErrorCode::UnsupportedVersion.code();
            return DescribedGroup { group_id, error_code, ..Default::default() };
        }
        if let Err(code) = permission::group(context, AclOperation::Describe, &group_id) {
            let error_code = code.code();
            return DescribedGroup { group_id, error_code, ..Default::default() };
        }
        let mut group = hide(context, describe(context, group_id));
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = operations::on_group(context, &group.group_id);
        }
        group
    });
    Outcome::Now(ConsumerGroupDescribeResponse { groups: groups.collect(), ..Default::default() })
}

fn describe(context: &Context, group_id: Str) -> DescribedGroup {
    let shard = context.node.groups.shard_of(&group_id);
    let described =
        shard.and_then(|shard| shard.read(|machine| machine.describe_consumer_group(&group_id)));
    match described {
        Ok(group) => DescribedGroup {
            group_id,
            group_state: Str::from(group.state.name()),
            group_epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            assignor_name: group.assignor,
            members: group.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(error) => DescribedGroup {
            error_code: errors::group(error).code(),
            error_message: Some(Str::from(format!("Group {group_id}: {error}."))),
            group_id,
            ..Default::default()
        },
    }
}

/// Hides a group of whose topics the client may not know.
fn hide(context: &Context, group: DescribedGroup) -> DescribedGroup {
    let mut names: BTreeSet<&Str> = BTreeSet::new();
    for member in &group.members {
        for assignment in [&member.assignment, &member.target_assignment] {
            names.extend(assignment.topic_partitions.iter().map(|topic| &topic.topic_name));
        }
    }
    let is_visible = |name: &&Str| permission::topic(context, AclOperation::Describe, name).is_ok();
    if names.iter().all(is_visible) {
        return group;
    }
    DescribedGroup {
        group_id: group.group_id,
        error_code: ErrorCode::TopicAuthorizationFailed.code(),
        error_message: Some(Str::from(
            "The group has described topic(s) that the client is not authorized to describe.",
        )),
        ..Default::default()
    }
}

fn member(member: consumer::ConsumerMemberDescription) -> Member {
    Member {
        member_id: member.member_id,
        instance_id: member.instance_id,
        rack_id: member.rack_id,
        member_epoch: member.member_epoch,
        client_id: member.client_id,
        client_host: member.client_host,
        subscribed_topic_names: member.topics,
        subscribed_topic_regex: member.regex,
        assignment: assignment(member.assignment),
        target_assignment: assignment(member.target),
        member_type: if member.is_classic { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
    }
}

fn assignment(topics: Vec<consumer::TopicPartitions>) -> Assignment {
    let topics = topics.into_iter().map(|topic| TopicPartitions {
        topic_id: topic.topic_id,
        topic_name: topic.topic,
        partitions: topic.partitions,
    });
    Assignment { topic_partitions: topics.collect() }
}
