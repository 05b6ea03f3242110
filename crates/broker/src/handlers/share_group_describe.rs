//! ShareGroupDescribe, version 1: share groups in detail (KIP-932).

use fleuve_coordinator::share;
use fleuve_protocol::Str;
use fleuve_protocol::messages::share_group_describe_request::ShareGroupDescribeRequest;
use fleuve_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member, ShareGroupDescribeResponse, TopicPartitions,
};

use super::{errors, operations};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: ShareGroupDescribeRequest,
) -> Outcome<ShareGroupDescribeResponse> {
    let groups = request.group_ids.into_iter().map(|group_id| {
        let mut group = describe(context, group_id);
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = operations::GROUP;
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
