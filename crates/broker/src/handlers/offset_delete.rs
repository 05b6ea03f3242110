//! OffsetDelete, version 0: single offsets of a group go.

use fleuve_coordinator::Response;
use fleuve_coordinator::offsets::DeleteRequest;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::offset_delete_request::OffsetDeleteRequest;
use fleuve_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: OffsetDeleteRequest,
) -> Outcome<OffsetDeleteResponse> {
    let mut response = OffsetDeleteResponse::default();
    if let Err(code) = permission::group(context, AclOperation::Delete, &request.group_id) {
        response.error_code = code.code();
        return Outcome::Now(response);
    }
    let mut wanted = Vec::new();
    for topic in request.topics {
        let permitted = permission::topic(context, AclOperation::Read, &topic.name);
        let found = context.node.topics.by_name(&topic.name).filter(|_| permitted.is_ok());
        let missing = permitted.err().unwrap_or(ErrorCode::UnknownTopicOrPartition);
        let mut unknown = Vec::new();
        let mut known = Vec::new();
        for partition in topic.partitions {
            let index = partition.partition_index;
            match &found {
                Some(found) if found.partition(index).is_some() => known.push(index),
                _ => unknown.push(outcome(index, missing.code())),
            }
        }
        if !unknown.is_empty() {
            response
                .topics
                .push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: unknown });
        }
        if !known.is_empty() {
            wanted.push((topic.name, known));
        }
    }
    let delete = DeleteRequest { group_id: request.group_id, topics: wanted };
    let answer = context.node.groups.request(&delete.group_id, |machine, _now, token| {
        machine.handle_offset_delete(token, &delete)
    });
    Outcome::later(async move {
        let topics = match answer.await {
            Ok(Response::OffsetDelete(Ok(topics))) => topics,
            Ok(Response::OffsetDelete(Err(error))) | Err(error) => {
                let error_code = errors::group(error).code();
                return OffsetDeleteResponse { error_code, ..Default::default() };
            }
            Ok(other) => unreachable!("a deletion is not answered with {other:?}"),
        };
        for topic in topics {
            let partitions = topic.partitions.iter();
            let partitions = partitions
                .map(|(index, result)| outcome(*index, errors::group_outcome(result)))
                .collect::<Vec<_>>();
            match response.topics.iter_mut().find(|known| known.name == topic.name) {
                Some(known) => known.partitions.extend(partitions),
                None => {
                    response.topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions })
                }
            }
        }
        response
    })
}

fn outcome(partition_index: i32, error_code: i16) -> OffsetDeleteResponsePartition {
    OffsetDeleteResponsePartition { partition_index, error_code }
}
