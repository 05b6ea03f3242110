//! WriteTxnMarkers, versions 1–2: ends transactions in partitions, for other brokers and for
//! administrators who end one that hangs.

use fleuve_coordinator::transaction::Producer;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WriteTxnMarkersRequest,
};
use fleuve_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponse,
};
use fleuve_protocol::records::EndTransactionMarker;
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};

use super::{errors, permission};
use crate::markers::{self, Marker, MarkerError};
use crate::request::{Context, Outcome};

const RAISES_EPOCH_FROM: i8 = 2;

pub(crate) fn handle(
    context: &Context,
    request: WriteTxnMarkersRequest,
) -> Outcome<WriteTxnMarkersResponse> {
    // Administrators may, and brokers.
    if !permission::cluster_quietly(context, AclOperation::Alter)
        && let Err(code) = permission::cluster(context, AclOperation::ClusterAction)
    {
        return Outcome::Now(refuse(request, code));
    }
    let context = context.clone();
    Outcome::later(async move {
        let mut response = WriteTxnMarkersResponse::default();
        for marker in request.markers {
            response.markers.push(write(&context, marker).await);
        }
        response
    })
}

fn refuse(request: WriteTxnMarkersRequest, code: ErrorCode) -> WriteTxnMarkersResponse {
    let markers = request.markers.into_iter().map(|marker| {
        let topics = marker.topics.into_iter().map(|topic| WritableTxnMarkerTopicResult {
            name: topic.name,
            partitions: {
                let indexes = topic.partition_indexes.into_iter();
                let partition = |partition_index| WritableTxnMarkerPartitionResult {
                    partition_index,
                    error_code: code.code(),
                };
                indexes.map(partition).collect()
            },
        });
        WritableTxnMarkerResult { producer_id: marker.producer_id, topics: topics.collect() }
    });
    WriteTxnMarkersResponse { markers: markers.collect() }
}

async fn write(context: &Context, request: WritableTxnMarker) -> WritableTxnMarkerResult {
    let node = &context.node;
    let marker = Marker {
        producer: Producer {
            id: ProducerId(request.producer_id),
            epoch: ProducerEpoch(request.producer_epoch),
        },
        end: EndTransactionMarker {
            committed: request.transaction_result,
            coordinator_epoch: request.coordinator_epoch,
        },
        raises_epoch: request.transaction_version >= RAISES_EPOCH_FROM,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut appended = Vec::new();
    for (topic_index, topic) in request.topics.into_iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for (index, partition_index) in topic.partition_indexes.into_iter().enumerate() {
            let name = TopicPartition::new(topic.name.as_str(), partition_index);
            let error_code = match markers::append(node, &name, marker) {
                Ok((partition, next_offset)) => {
                    appended.push((topic_index, index, partition, next_offset));
                    0
                }
                Err(error) => code_of(&error).code(),
            };
            partitions.push(WritableTxnMarkerPartitionResult { partition_index, error_code });
        }
        topics.push(WritableTxnMarkerTopicResult { name: topic.name, partitions });
    }
    for (topic_index, index, partition, next_offset) in appended {
        if !markers::wait_for(node, &partition, next_offset).await {
            let code = ErrorCode::KafkaStorageError;
            topics[topic_index].partitions[index].error_code = code.code();
        }
    }
    WritableTxnMarkerResult { producer_id: request.producer_id, topics }
}

fn code_of(error: &MarkerError) -> ErrorCode {
    match error {
        MarkerError::Gone => ErrorCode::UnknownTopicOrPartition,
        // The coordinator of the group is not ready yet.
        MarkerError::Unavailable => ErrorCode::NotLeaderOrFollower,
        MarkerError::Refused(error) => errors::append(error),
    }
}
