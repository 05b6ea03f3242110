//! AlterReplicaLogDirs, versions 1–2: moving partitions to other data directories of this broker.

use std::path::Path;

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::alter_replica_log_dirs_request::AlterReplicaLogDirsRequest;
use fleuve_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::TopicPartition;

use super::permission;
use crate::moving::MoveRefusal;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: AlterReplicaLogDirsRequest,
) -> Outcome<AlterReplicaLogDirsResponse> {
    let permitted = permission::cluster(context, AclOperation::Alter);
    let node = context.node.clone();
    // Directories and files are made here, which may take a while.
    let work = tokio::task::spawn_blocking(move || {
        let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
        for directory in request.dirs {
            for topic in directory.topics {
                let place = Path::new(directory.path.as_str());
                let move_one = |partition_index: i32| {
                    let name = TopicPartition::new(topic.name.as_str(), partition_index);
                    let outcome =
                        permitted.and_then(|()| node.move_partition(name, place).map_err(code));
                    AlterReplicaLogDirPartitionResult {
                        partition_index,
                        error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
                    }
                };
                let partitions = topic.partitions.iter().copied().map(move_one).collect();
                add(&mut results, topic.name.detach(), partitions);
            }
        }
        AlterReplicaLogDirsResponse { results, ..Default::default() }
    });
    Outcome::later(async move { work.await.unwrap_or_default() })
}

/// A topic may stand below several directories; the answer names it once.
fn add(
    results: &mut Vec<AlterReplicaLogDirTopicResult>,
    topic_name: Str,
    partitions: Vec<AlterReplicaLogDirPartitionResult>,
) {
    match results.iter_mut().find(|known| known.topic_name == topic_name) {
        Some(known) => known.partitions.extend(partitions),
        None => results.push(AlterReplicaLogDirTopicResult { topic_name, partitions }),
    }
}

fn code(refusal: MoveRefusal) -> ErrorCode {
    match refusal {
        MoveRefusal::UnknownDirectory => ErrorCode::LogDirNotFound,
        MoveRefusal::Offline => ErrorCode::KafkaStorageError,
        MoveRefusal::Cordoned => ErrorCode::InvalidReplicaAssignment,
        MoveRefusal::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        MoveRefusal::NoReplica => ErrorCode::ReplicaNotAvailable,
        MoveRefusal::NameTooLong => ErrorCode::InvalidTopicException,
    }
}
