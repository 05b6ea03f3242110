//! WriteTxnMarkers, versions 1–2: ends transactions in partitions, for other brokers and for
//! administrators who end one that hangs.

use std::collections::BTreeMap;

use fleuve_coordinator::transaction::Producer;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WriteTxnMarkersRequest,
};
use fleuve_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponse,
};
use fleuve_protocol::records::EndTransactionMarker;
use fleuve_protocol::{ErrorCode, Str};
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
        let mut results = Results::default();
        for marker in request.markers {
            write(&context, marker, &mut results).await;
        }
        results.into_response()
    })
}

fn refuse(request: WriteTxnMarkersRequest, code: ErrorCode) -> WriteTxnMarkersResponse {
    let mut results = Results::default();
    for marker in request.markers {
        for topic in marker.topics {
            for index in topic.partition_indexes {
                results.enter(marker.producer_id, &topic.name, index, code);
            }
        }
    }
    results.into_response()
}

/// What became of each marker, by producer, topic and partition: coordinators look a producer up
/// once, however many of the markers were its. Where two are for the same partition, the later
/// counts.
#[derive(Debug, Default)]
struct Results(BTreeMap<i64, BTreeMap<Str, BTreeMap<i32, ErrorCode>>>);

impl Results {
    fn enter(&mut self, producer_id: i64, topic: &Str, partition_index: i32, code: ErrorCode) {
        let topics = self.0.entry(producer_id).or_default();
        topics.entry(topic.clone()).or_default().insert(partition_index, code);
    }

    fn into_response(self) -> WriteTxnMarkersResponse {
        let partition = |(partition_index, code): (i32, ErrorCode)| {
            WritableTxnMarkerPartitionResult { partition_index, error_code: code.code() }
        };
        let topic = |(name, partitions): (Str, BTreeMap<i32, ErrorCode>)| {
            let partitions = partitions.into_iter().map(partition).collect();
            WritableTxnMarkerTopicResult { name, partitions }
        };
        let marker = |(producer_id, topics): (i64, BTreeMap<_, _>)| {
            let topics = topics.into_iter().map(topic).collect();
            WritableTxnMarkerResult { producer_id, topics }
        };
        WriteTxnMarkersResponse { markers: self.0.into_iter().map(marker).collect() }
    }
}

async fn write(context: &Context, request: WritableTxnMarker, results: &mut Results) {
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
    let producer_id = request.producer_id;
    let mut appended = Vec::new();
    for topic in request.topics {
        for index in topic.partition_indexes {
            let name = TopicPartition::new(topic.name.as_str(), index);
            match markers::append(node, &name, marker) {
                Ok((partition, next_offset)) => {
                    appended.push((topic.name.clone(), index, partition, next_offset));
                }
                Err(error) => results.enter(producer_id, &topic.name, index, code_of(&error)),
            }
        }
    }
    for (topic, index, partition, next_offset) in appended {
        let code = match markers::wait_for(node, &partition, next_offset).await {
            true => ErrorCode::None,
            false => ErrorCode::KafkaStorageError,
        };
        results.enter(producer_id, &topic, index, code);
    }
}

fn code_of(error: &MarkerError) -> ErrorCode {
    match error {
        MarkerError::Gone => ErrorCode::UnknownTopicOrPartition,
        // The coordinator of the group is not ready yet.
        MarkerError::Unavailable => ErrorCode::NotLeaderOrFollower,
        MarkerError::Refused(error) => errors::append(error),
    }
}
