//! ShareGroupDescribe, version 1: share groups in detail (KIP-932).

use std::collections::BTreeSet;

use fleuve_coordinator::share;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::share_group_describe_request::ShareGroupDescribeRequest;
use fleuve_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member, ShareGroupDescribeResponse, TopicPartitions,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, operations, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: ShareGroupDescribeRequest,
) -> Outcome<ShareGroupDescribeResponse> {
    let is_served = errors::has_share_protocol(context);
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
    Outcome::Now(ShareGroupDescribeResponse { groups: groups.collect(), ..Default::default() })
}

fn describe(context: &Context, group_id: Str) -> DescribedGroup {
    let shard = context.node.groups.shard_of(&group_id);
    let described =
        shard.and_then(|shard| shard.read(|machine| machine.describe_share_group(&group_id)));
    match described {
        Ok(group) => DescribedGroup {
            group_id,
            group_state: Str::from(group.state.name()),
            group_epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            assignor_name: Str::from(group.assignor),
            members: group.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(error) => DescribedGroup {
            error_code: errors::group(error).code(),
            error_message: Some(Str::from(format!("Group {group_id} not found: {error}."))),
            group_id,
            ..Default::default()
        },
    }
}

/// Hides a group of whose topics the client may not know.
fn hide(context: &Context, group: DescribedGroup) -> DescribedGroup {
    let mut names: BTreeSet<&Str> = BTreeSet::new();
    for member in &group.members {
        names.extend(member.assignment.topic_partitions.iter().map(|topic| &topic.topic_name));
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

fn member(member: share::ShareMemberDescription) -> Member {
    let topics = member.assignment.into_iter().map(|topic| TopicPartitions {
        topic_id: topic.topic_id,
        topic_name: topic.topic,
        partitions: topic.partitions,
    });
    Member {
        assignment: Assignment { topic_partitions: topics.collect() },
        member_id: member.member_id,
        rack_id: member.rack_id,
        member_epoch: member.member_epoch,
        client_id: member.client_id,
        client_host: member.client_host,
        subscribed_topic_names: member.topics,
    }
}
