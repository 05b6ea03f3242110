//! SyncGroup, versions 0–5: the leader hands in the assignment, every member gets its share.

use bytes::Bytes;
use fleuve_coordinator::classic::SyncRequest;
use fleuve_coordinator::{GroupError, Response};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::sync_group_request::SyncGroupRequest;
use fleuve_protocol::messages::sync_group_response::SyncGroupResponse;
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// From here on the protocol has to be named (KIP-559).
const PROTOCOL_FROM: i16 = 5;

pub(crate) fn handle(context: &Context, request: SyncGroupRequest) -> Outcome<SyncGroupResponse> {
    let unnamed = request.protocol_type.is_none() || request.protocol_name.is_none();
    if context.version >= PROTOCOL_FROM && unnamed {
        return Outcome::Now(refuse(ErrorCode::InconsistentGroupProtocol));
    }
    if let Err(code) = permission::group(context, AclOperation::Read, &request.group_id) {
        return Outcome::Now(refuse(code));
    }
    // Assignments are kept far longer than the frame that they came in.
    let assignments = request.assignments.iter().map(|assignment| {
        (assignment.member_id.detach(), Bytes::copy_from_slice(&assignment.assignment))
    });
    let sync = SyncRequest {
        group_id: request.group_id.detach(),
        generation: request.generation_id,
        member_id: request.member_id.detach(),
        group_instance_id: request.group_instance_id.as_ref().map(Str::detach),
        protocol_type: request.protocol_type.as_ref().map(Str::detach),
        protocol_name: request.protocol_name.as_ref().map(Str::detach),
        assignments: assignments.collect(),
    };
    let answer = context
        .node
        .groups
        .request(&request.group_id, |machine, now, token| machine.handle_sync(now, token, &sync));
    Outcome::later(async move {
        match answer.await {
            Ok(Response::Sync(Ok(synced))) => SyncGroupResponse {
                protocol_type: synced.protocol_type,
                protocol_name: synced.protocol_name,
                assignment: synced.assignment,
                ..Default::default()
            },
            Ok(Response::Sync(Err(error))) | Err(error) => refuse(translate(error)),
            Ok(other) => unreachable!("a sync is not answered with {other:?}"),
        }
    })
}

fn translate(error: GroupError) -> ErrorCode {
    match error {
        // The next heartbeat finds the new coordinator loaded; until then a rejoin is the one
        // thing that every client does right.
        GroupError::LoadInProgress => ErrorCode::RebalanceInProgress,
        error => errors::group(error),
    }
}

fn refuse(code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: code.code(), ..Default::default() }
}
