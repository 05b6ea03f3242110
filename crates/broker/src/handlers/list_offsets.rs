//! ListOffsets, versions 1–11: offsets by time, and the special times below zero.
//!
//! ```text
//! -1  latest             end of what the isolation level may read
//! -2  earliest           log start
//! -3  max timestamp      from version 7: the record with the highest time
//! -4  earliest local     from version 8: log start, as nothing is tiered
//! -5  latest tiered      from version 9: none
//! -6  earliest pending   from version 11: none
//! ```

use std::collections::HashSet;

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use fleuve_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::{errors, permission};
use crate::partition::{Partition, TimedOffset};
use crate::request::{Context, Outcome};

/// From here on responses tell the leader epoch.
const EPOCHS_FROM: i16 = 4;
const NO_EPOCH: i32 = -1;
const READ_COMMITTED: i8 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub(crate) fn handle(
    context: &Context,
    request: ListOffsetsRequest,
) -> Outcome<ListOffsetsResponse> {
    let mut seen = HashSet::new();
    let mut repeated = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            if !seen.insert(key.clone()) {
                repeated.insert(key);
            }
        }
    }
    let read_committed = request.isolation_level == READ_COMMITTED;
    let tells_epoch = context.version >= EPOCHS_FROM;
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let permitted = permission::topic(context, AclOperation::Describe, &topic.name);
        let found = context.node.topics.by_name(&topic.name);
        let partitions = topic.partitions.iter().map(|wanted| {
            let index = wanted.partition_index;
            if let Err(code) = permitted {
                return failure(index, code);
            }
            if repeated.contains(&(topic.name.clone(), index)) {
                return failure(index, ErrorCode::InvalidRequest);
            }
            if wanted.timestamp < 0
                && first_version_of(wanted.timestamp).is_none_or(|first| context.version < first)
            {
                return failure(index, ErrorCode::UnsupportedVersion);
            }
            let partition = found.as_ref().and_then(|topic| topic.partition(index));
            let Some(partition) = partition else {
                return failure(index, ErrorCode::UnknownTopicOrPartition);
            };
            match look_up(partition, wanted, read_committed) {
                Ok(found) => ListOffsetsPartitionResponse {
                    partition_index: index,
                    timestamp: found.timestamp,
                    offset: found.offset,
                    leader_epoch: if tells_epoch { found.leader_epoch } else { NO_EPOCH },
                    ..Default::default()
                },
                Err(code) => failure(index, code),
            }
        });
        let partitions = partitions.collect();
        response.topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    Outcome::Now(response)
}

fn look_up(
    partition: &Partition,
    wanted: &ListOffsetsPartition,
    read_committed: bool,
) -> Result<TimedOffset, ErrorCode> {
    if let Some(code) = errors::epoch(wanted.current_leader_epoch, partition.leader_epoch()) {
        return Err(code);
    }
    if partition.is_offline() {
        return Err(ErrorCode::KafkaStorageError);
    }
    let end = match read_committed {
        true => partition.last_stable_offset(),
        false => partition.high_watermark(),
    };
    let found = match wanted.timestamp {
        LATEST => {
            Some(TimedOffset { timestamp: -1, offset: end, leader_epoch: partition.leader_epoch() })
        }
        EARLIEST | EARLIEST_LOCAL => {
            let offset = partition.log_start_offset();
            Some(TimedOffset { timestamp: -1, offset, leader_epoch: partition.epoch_at(offset) })
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => None,
        MAX_TIMESTAMP => {
            partition.offset_of_max_timestamp().map_err(|e| read_failure(partition, &e))?
        }
        timestamp => {
            partition.offset_for_timestamp(timestamp).map_err(|e| read_failure(partition, &e))?
        }
    };
    // A record that the client may not read is as good as not there.
    let readable = found.filter(|found| found.timestamp < 0 || found.offset < end);
    Ok(readable.unwrap_or(TimedOffset { timestamp: -1, offset: -1, leader_epoch: -1 }))
}

fn first_version_of(timestamp: i64) -> Option<i16> {
    match timestamp {
        LATEST | EARLIEST => Some(1),
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        EARLIEST_PENDING_UPLOAD => Some(11),
        _ => None,
    }
}

fn read_failure(partition: &Partition, error: &fleuve_storage::LogError) -> ErrorCode {
    tracing::error!(partition = %partition.name(), %error, "cannot look up a timestamp");
    errors::read(error)
}

fn failure(partition_index: i32, code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: code.code(),
        timestamp: -1,
        offset: -1,
        leader_epoch: NO_EPOCH,
    }
}
