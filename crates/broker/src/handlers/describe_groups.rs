//! DescribeGroups, versions 0–6: classic groups in detail.

use fleuve_coordinator::GroupError;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::Str;
use fleuve_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use fleuve_protocol::messages::describe_groups_response::{
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use super::{errors, operations, permission};
use crate::request::{Context, Outcome};

/// From here on a group that does not exist is an error and not a dead group (KIP-1043).
const NOT_FOUND_FROM: i16 = 6;
const DEAD: Str = Str::from_static("Dead");

pub(crate) fn handle(
    context: &Context,
    request: DescribeGroupsRequest,
) -> Outcome<DescribeGroupsResponse> {
    let groups = request.groups.into_iter().map(|group_id| {
        if let Err(code) = permission::group(context, AclOperation::Describe, &group_id) {
            let error_code = code.code();
            return DescribedGroup { group_id, error_code, ..Default::default() };
        }
        let mut group = describe(context, group_id);
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = operations::on_group(context, &group.group_id);
        }
        group
    });
    Outcome::Now(DescribeGroupsResponse { groups: groups.collect(), ..Default::default() })
}

fn describe(context: &Context, group_id: Str) -> DescribedGroup {
    let shard = context.node.groups.shard_of(&group_id);
    let described = shard.and_then(|shard| shard.read(|machine| machine.describe_group(&group_id)));
    match described {
        Ok(group) => DescribedGroup {
            group_id,
            group_state: Str::from(group.state.name()),
            protocol_type: group.protocol_type,
            protocol_data: group.protocol_name.unwrap_or_default(),
            members: group
                .members
                .into_iter()
                .map(|member| DescribedGroupMember {
                    member_id: member.member_id,
                    group_instance_id: member.group_instance_id,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    member_metadata: member.metadata,
                    member_assignment: member.assignment,
                })
                .collect(),
            ..Default::default()
        },
        Err(GroupError::GroupIdNotFound) if context.version < NOT_FOUND_FROM => {
            DescribedGroup { group_id, group_state: DEAD, ..Default::default() }
        }
        Err(error) => DescribedGroup {
            error_code: errors::group(error).code(),
            error_message: (context.version >= NOT_FOUND_FROM)
                .then(|| Str::from(format!("Group {group_id}: {error}."))),
            group_state: if error == GroupError::GroupIdNotFound { DEAD } else { Str::EMPTY },
            group_id,
            ..Default::default()
        },
    }
}
