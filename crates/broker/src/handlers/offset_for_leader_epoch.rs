//! OffsetForLeaderEpoch, versions 2–4: where a leader's reign ended.
//!
//! Consumers ask this to find out whether the log was cut behind their back (KIP-320).

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use fleuve_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use super::{errors, permission};
use crate::partition::Partition;
use crate::request::{Context, Outcome};

const UNDEFINED: i32 = -1;

pub(crate) fn handle(
    context: &Context,
    request: OffsetForLeaderEpochRequest,
) -> Outcome<OffsetForLeaderEpochResponse> {
    let mut response = OffsetForLeaderEpochResponse::default();
    let is_broker = permission::cluster_quietly(context, AclOperation::ClusterAction);
    for topic in request.topics {
        let permitted = match is_broker {
            true => Ok(()),
            false => permission::topic(context, AclOperation::Describe, &topic.topic),
        };
        let found = context.node.topics.by_name(&topic.topic);
        let partitions = topic.partitions.iter().map(|wanted| {
            let partition = found.as_ref().and_then(|topic| topic.partition(wanted.partition));
            let end = match partition {
                _ if let Err(code) = permitted => Err(code),
                Some(partition) => look_up(partition, wanted),
                None => Err(ErrorCode::UnknownTopicOrPartition),
            };
            let (code, (leader_epoch, end_offset)) = match end {
                Ok(end) => (ErrorCode::None, end),
                Err(code) => (code, (UNDEFINED, i64::from(UNDEFINED))),
            };
            EpochEndOffset {
                error_code: code.code(),
                partition: wanted.partition,
                leader_epoch,
                end_offset,
            }
        });
        let partitions = partitions.collect();
        response.topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    Outcome::Now(response)
}

fn look_up(
    partition: &Partition,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    if partition.is_offline() {
        return Err(ErrorCode::KafkaStorageError);
    }
    match errors::epoch(wanted.current_leader_epoch, partition.leader_epoch()) {
        Some(code) => Err(code),
        None => Ok(partition.end_of_epoch(wanted.leader_epoch).unwrap_or((UNDEFINED, -1))),
    }
}
