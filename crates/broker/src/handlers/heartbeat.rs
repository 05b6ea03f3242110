//! Heartbeat, versions 0–4: a member of a classic group is alive.

use fleuve_coordinator::Response;
use fleuve_coordinator::classic::HeartbeatRequest as Beat;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::heartbeat_request::HeartbeatRequest;
use fleuve_protocol::messages::heartbeat_response::HeartbeatResponse;

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(context: &Context, request: HeartbeatRequest) -> Outcome<HeartbeatResponse> {
    if let Err(code) = permission::group(context, AclOperation::Read, &request.group_id) {
        let error_code = code.code();
        return Outcome::Now(HeartbeatResponse { error_code, ..Default::default() });
    }
    let beat = Beat {
        group_id: request.group_id,
        generation: request.generation_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
    };
    let answer = context
        .node
        .groups
        .request(&beat.group_id, |machine, now, token| machine.handle_heartbeat(now, token, &beat));
    Outcome::later(async move {
        let outcome = match answer.await {
            Ok(Response::Heartbeat(outcome)) => outcome,
            Ok(other) => unreachable!("a heartbeat is not answered with {other:?}"),
            Err(error) => Err(error),
        };
        HeartbeatResponse { error_code: errors::group_outcome(&outcome), ..Default::default() }
    })
}
