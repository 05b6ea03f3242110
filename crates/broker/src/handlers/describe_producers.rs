//! DescribeProducers, version 0: who writes to partitions, and since when in a transaction.

use std::sync::Arc;

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::describe_producers_request::DescribeProducersRequest;
use fleuve_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::permission;
use crate::metadata_log::is_valid_topic_name;
use crate::request::{Context, Outcome};
use crate::topics::Topic;

const NO_TRANSACTION: i64 = -1;

pub(crate) fn handle(
    context: &Context,
    request: DescribeProducersRequest,
) -> Outcome<DescribeProducersResponse> {
    let mut response = DescribeProducersResponse::default();
    for topic in request.topics {
        let found = find(context, &topic.name);
        let partitions = topic.partition_indexes.iter().map(|index| {
            let partition = match &found {
                Ok(topic) => topic.partition(*index).ok_or(ErrorCode::UnknownTopicOrPartition),
                Err(code) => Err(*code),
            };
            let partition = match partition {
                Ok(partition) if partition.is_offline() => {
                    return failure(*index, ErrorCode::KafkaStorageError);
                }
                Ok(partition) => partition,
                Err(code) => return failure(*index, code),
            };
            let mut producers = partition.producers();
            producers.sort_unstable_by_key(|producer| producer.producer_id);
            let active_producers = producers.iter().map(|producer| ProducerState {
                producer_id: producer.producer_id.0,
                producer_epoch: producer.producer_epoch.0.into(),
                last_sequence: producer.last_sequence,
                last_timestamp: producer.last_timestamp.0,
                coordinator_epoch: producer.coordinator_epoch,
                current_txn_start_offset: producer
                    .transaction_begin
                    .map_or(NO_TRANSACTION, |offset| offset.0),
            });
            PartitionResponse {
                partition_index: *index,
                active_producers: active_producers.collect(),
                ..Default::default()
            }
        });
        let partitions = partitions.collect();
        response.topics.push(TopicResponse { name: topic.name, partitions });
    }
    Outcome::Now(response)
}

fn find(context: &Context, name: &Str) -> Result<Arc<Topic>, ErrorCode> {
    // What a topic cannot be called is no secret, so that nobody is asked for permission.
    if !is_valid_topic_name(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    permission::topic(context, AclOperation::Read, name)?;
    context.node.topics.by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn failure(partition_index: i32, code: ErrorCode) -> PartitionResponse {
    PartitionResponse {
        partition_index,
        error_code: code.code(),
        error_message: Some(Str::from(code.message())),
        ..Default::default()
    }
}
