//! DescribeProducers, version 0: who writes to partitions, and since when in a transaction.

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::describe_producers_request::DescribeProducersRequest;
use fleuve_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::permission;
use crate::request::{Context, Outcome};

const NO_TRANSACTION: i64 = -1;

pub(crate) fn handle(
    context: &Context,
    request: DescribeProducersRequest,
) -> Outcome<DescribeProducersResponse> {
    let mut response = DescribeProducersResponse::default();
    for topic in request.topics {
        let permitted = permission::topic(context, AclOperation::Read, &topic.name);
        let found = context.node.topics.by_name(&topic.name).filter(|_| permitted.is_ok());
        let missing = permitted.err().unwrap_or(ErrorCode::UnknownTopicOrPartition);
        let partitions = topic.partition_indexes.iter().map(|index| {
            let partition = found.as_ref().and_then(|topic| topic.partition(*index));
            let Some(partition) = partition else {
                return PartitionResponse {
                    partition_index: *index,
                    error_code: missing.code(),
                    error_message: Some(Str::from(missing.message())),
                    ..Default::default()
                };
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
