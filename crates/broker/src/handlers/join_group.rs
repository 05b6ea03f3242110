//! JoinGroup, versions 0–9: a member enters a classic group or the group's next generation.
//!
//! The answer comes when the whole group has joined, which may take the rebalance timeout.

use fleuve_coordinator::Response;
use fleuve_coordinator::classic::{JoinRequest, Protocol};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::join_group_request::JoinGroupRequest;
use fleuve_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// From here on a member without id is told one and asked to come again (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// From here on the protocol's name may be null.
const PROTOCOL_TYPE_FROM: i16 = 7;
/// From here on a returning leader can be told not to assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

pub(crate) fn handle(context: &Context, request: JoinGroupRequest) -> Outcome<JoinGroupResponse> {
    let version = context.version;
    if let Err(code) = permission::group(context, AclOperation::Read, &request.group_id) {
        // The member's id is not told back.
        return Outcome::Now(refuse(code, Str::EMPTY, version));
    }
    // Members are kept far longer than the frame that they came in.
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.detach(),
        metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
    });
    let join = JoinRequest {
        group_id: request.group_id.detach(),
        member_id: request.member_id.detach(),
        group_instance_id: request.group_instance_id.as_ref().map(Str::detach),
        client_id: context.client_id.clone(),
        client_host: Str::from(format!("/{}", context.peer.address.ip())),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        protocol_type: request.protocol_type.detach(),
        protocols: protocols.collect(),
        reason: request.reason.as_ref().map(Str::detach),
        requires_member_id: version >= MEMBER_ID_REQUIRED_FROM
            && request.group_instance_id.is_none(),
        can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM,
    };
    let member_id = join.member_id.clone();
    let answer = context
        .node
        .groups
        .request(&request.group_id, |machine, now, token| machine.handle_join(now, token, &join));
    Outcome::later(async move {
        match answer.await {
            Ok(Response::Join(Ok(joined))) => JoinGroupResponse {
                generation_id: joined.generation,
                protocol_type: joined.protocol_type,
                protocol_name: named(joined.protocol_name, version),
                leader: joined.leader,
                skip_assignment: joined.skip_assignment,
                member_id: joined.member_id,
                members: joined
                    .members
                    .into_iter()
                    .map(|member| JoinGroupResponseMember {
                        member_id: member.member_id,
                        group_instance_id: member.group_instance_id,
                        metadata: member.metadata,
                    })
                    .collect(),
                ..Default::default()
            },
            Ok(Response::Join(Err(refusal))) => {
                refuse(errors::group(refusal.error), refusal.member_id, version)
            }
            Ok(other) => unreachable!("a join is not answered with {other:?}"),
            Err(error) => refuse(errors::group(error), member_id, version),
        }
    })
}

fn refuse(code: ErrorCode, member_id: Str, version: i16) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: code.code(),
        generation_id: -1,
        protocol_name: named(None, version),
        member_id,
        ..Default::default()
    }
}

/// Older versions know no null here.
fn named(protocol_name: Option<Str>, version: i16) -> Option<Str> {
    if version >= PROTOCOL_TYPE_FROM {
        protocol_name
    } else {
        Some(protocol_name.unwrap_or_default())
    }
}
