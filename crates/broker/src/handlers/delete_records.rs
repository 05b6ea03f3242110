//! DeleteRecords, versions 0–2: moving the start of a log forward.

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::delete_records_request::DeleteRecordsRequest;
use fleuve_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::{errors, permission};
use crate::request::{Context, Outcome};
use crate::topics::Topic;

/// Stands for the high watermark.
const UP_TO_HIGH_WATERMARK: i64 = -1;
const UNKNOWN: i64 = -1;

pub(crate) fn handle(
    context: &Context,
    request: DeleteRecordsRequest,
) -> Outcome<DeleteRecordsResponse> {
    let mut response = DeleteRecordsResponse::default();
    for topic in request.topics {
        let permitted = permission::topic(context, AclOperation::Delete, &topic.name);
        let found = context.node.topics.by_name(&topic.name);
        let partitions = topic.partitions.iter().map(|wanted| {
            let index = wanted.partition_index;
            let outcome = match &found {
                _ if let Err(code) = permitted => Err(code),
                Some(topic) => delete(topic, index, wanted.offset),
                None => Err(ErrorCode::UnknownTopicOrPartition),
            };
            DeleteRecordsPartitionResult {
                partition_index: index,
                low_watermark: *outcome.as_ref().unwrap_or(&UNKNOWN),
                error_code: outcome.err().map_or(0, ErrorCode::code),
            }
        });
        let partitions = partitions.collect();
        response.topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    Outcome::Now(response)
}

/// Deletes below `offset` and returns where the log begins now.
fn delete(topic: &Topic, index: i32, offset: i64) -> Result<i64, ErrorCode> {
    if topic.internal {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if partition.is_offline() {
        return Err(ErrorCode::KafkaStorageError);
    }
    if !partition.may_delete_records() {
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = partition.high_watermark();
    let offset = if offset == UP_TO_HIGH_WATERMARK { high_watermark } else { offset };
    if offset < 0 || offset > high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    partition.delete_records_to(offset).map_err(|error| {
        tracing::error!(partition = %partition.name(), %error, "cannot delete records");
        errors::read(&error)
    })
}
