//! LeaveGroup, versions 0–5: members leave a classic group, or are removed by an administrator.

use fleuve_coordinator::Response;
use fleuve_coordinator::classic::{LeaveRequest, Leaver};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::Str;
use fleuve_protocol::messages::leave_group_request::LeaveGroupRequest;
use fleuve_protocol::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// From here on several members can leave at once.
const MANY_FROM: i16 = 3;

pub(crate) fn handle(context: &Context, request: LeaveGroupRequest) -> Outcome<LeaveGroupResponse> {
    if let Err(code) = permission::group(context, AclOperation::Read, &request.group_id) {
        let error_code = code.code();
        return Outcome::Now(LeaveGroupResponse { error_code, ..Default::default() });
    }
    let many = context.version >= MANY_FROM;
    let members = if many {
        let leaver =
            |member: &fleuve_protocol::messages::leave_group_request::MemberIdentity| Leaver {
                member_id: member.member_id.detach(),
                group_instance_id: member.group_instance_id.as_ref().map(Str::detach),
                reason: member.reason.as_ref().map(Str::detach),
            };
        request.members.iter().map(leaver).collect()
    } else {
        let member_id = request.member_id.detach();
        vec![Leaver { member_id, group_instance_id: None, reason: None }]
    };
    let leave = LeaveRequest { group_id: request.group_id.detach(), members };
    let answer = context
        .node
        .groups
        .request(&leave.group_id, |machine, now, token| machine.handle_leave(now, token, &leave));
    Outcome::later(async move {
        let outcome = match answer.await {
            Ok(Response::Leave(outcome)) => outcome,
            Ok(other) => unreachable!("a leave is not answered with {other:?}"),
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) => {
                LeaveGroupResponse { error_code: errors::group(error).code(), ..Default::default() }
            }
            Ok(leavers) if many => LeaveGroupResponse {
                members: leavers
                    .into_iter()
                    .map(|leaver| MemberResponse {
                        error_code: errors::group_outcome(&leaver.outcome),
                        member_id: leaver.member_id,
                        group_instance_id: leaver.group_instance_id,
                    })
                    .collect(),
                ..Default::default()
            },
            Ok(leavers) => LeaveGroupResponse {
                error_code: leavers.first().map_or(0, |only| errors::group_outcome(&only.outcome)),
                ..Default::default()
            },
        }
    })
}
