//! Kafka's codes for what the rooms below report.

use fleuve_coordinator::GroupError;
use fleuve_coordinator::transaction::TransactionError;
use fleuve_metadata::config::Role;
use fleuve_metadata::controller::{
    AlterConfigsError, CreatePartitionsError, CreateTopicError, DeleteTopicError, PlacementError,
};
use fleuve_protocol::ErrorCode;
use fleuve_protocol::records::BatchError;
use fleuve_storage::{AppendError, LogError};

use crate::metadata_log::{AutoCreateError, MetadataError};
use crate::request::Context;

/// The code for a batch that was not appended.
pub(crate) fn append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Batch(BatchError::OldFormat { .. }) => ErrorCode::InvalidRecord,
        AppendError::Batch(_) => ErrorCode::CorruptMessage,
        AppendError::Empty | AppendError::InvalidBatch { .. } => ErrorCode::InvalidRecord,
        AppendError::BatchTooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::AppendTooLarge { .. } => ErrorCode::RecordListTooLarge,
        AppendError::InvalidRecords(faults) if faults.concerns_time => ErrorCode::InvalidTimestamp,
        AppendError::InvalidRecords(_) => ErrorCode::InvalidRecord,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::TransactionCoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        AppendError::InvalidTransactionState { .. } | AppendError::NotInTransaction { .. } => {
            ErrorCode::InvalidTxnState
        }
        AppendError::OffsetsOutOfOrder { .. } => ErrorCode::UnknownServerError,
        AppendError::Log(error) => read(error),
    }
}

/// The code for a log that could not be read or changed.
pub(crate) fn read(error: &LogError) -> ErrorCode {
    match error {
        LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        LogError::Damaged { .. } => ErrorCode::CorruptMessage,
        LogError::NameTooLong { .. } => ErrorCode::InvalidTopicException,
        LogError::Reserved { .. }
        | LogError::Disk(_)
        | LogError::Failed { .. }
        | LogError::NoDirectory { .. }
        | LogError::NoSpace { .. }
        | LogError::Malformed { .. } => ErrorCode::KafkaStorageError,
    }
}

/// Says whether a client's idea of the leader epoch keeps it from being served (KIP-320).
pub(crate) fn epoch(known_to_client: i32, current: i32) -> Option<ErrorCode> {
    match known_to_client {
        ..0 => None,
        known if known < current => Some(ErrorCode::FencedLeaderEpoch),
        known if known > current => Some(ErrorCode::UnknownLeaderEpoch),
        _ => None,
    }
}

/// The code for what the group coordinator reports; it knows the codes by their names.
pub(crate) fn group(error: GroupError) -> ErrorCode {
    let name = error.kafka_name();
    let found = ErrorCode::ALL.iter().find(|code| code.name() == name);
    found.copied().unwrap_or(ErrorCode::UnknownServerError)
}

/// Whether a feature is switched on, as those are that gate the protocols of groups.
fn has_feature(context: &Context, feature: &str) -> bool {
    context.node.image().features().get(feature).is_some_and(|level| *level > 0)
}

/// Reports whether groups may have the protocol of KIP-848: the cluster's feature is on, and the
/// operator has not switched the protocol off.
pub(crate) fn has_consumer_protocol(context: &Context) -> bool {
    context.node.settings().groups.has_consumer_protocol && has_feature(context, "group.version")
}

/// The same for the protocol of KIP-1071.
pub(crate) fn has_streams_protocol(context: &Context) -> bool {
    context.node.settings().groups.has_streams_protocol && has_feature(context, "streams.version")
}

/// The same for share groups (KIP-932), which only the feature gates.
pub(crate) fn has_share_protocol(context: &Context) -> bool {
    has_feature(context, "share.version")
}

/// The code for an outcome of the group coordinator, zero for success.
pub(crate) fn group_outcome<T>(outcome: &Result<T, GroupError>) -> i16 {
    match outcome {
        Ok(_) => ErrorCode::None.code(),
        Err(error) => group(*error).code(),
    }
}

/// The code for what the transaction coordinator reports; it knows the codes by their names.
pub(crate) fn transaction(error: TransactionError) -> ErrorCode {
    let name = error.kafka_name();
    let found = ErrorCode::ALL.iter().find(|code| code.name() == name);
    found.copied().unwrap_or(ErrorCode::UnknownServerError)
}

/// The code for a change of metadata that could not be stored.
pub(crate) fn metadata(error: &MetadataError) -> ErrorCode {
    match error {
        MetadataError::Append(_) | MetadataError::Failed => ErrorCode::KafkaStorageError,
        MetadataError::Encode(_) => ErrorCode::InvalidRequest,
        MetadataError::Apply(_) | MetadataError::Stopped => ErrorCode::UnknownServerError,
    }
}

/// The code for a topic that was not created.
pub(crate) fn create_topic(error: &CreateTopicError) -> ErrorCode {
    match error {
        CreateTopicError::Duplicate
        | CreateTopicError::Reserved
        | CreateTopicError::CountBesideAssignment(_) => ErrorCode::InvalidRequest,
        CreateTopicError::InvalidName(_) => ErrorCode::InvalidTopicException,
        CreateTopicError::Exists(_) => ErrorCode::TopicAlreadyExists,
        CreateTopicError::InvalidPartitions => ErrorCode::InvalidPartitions,
        CreateTopicError::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
        CreateTopicError::Placement(error) => placement(error),
        CreateTopicError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        CreateTopicError::TooManyPartitions(_) => ErrorCode::PolicyViolation,
    }
}

/// The code for a topic that was not created when somebody asked about it.
pub(crate) fn auto_create(error: &AutoCreateError) -> ErrorCode {
    match error {
        AutoCreateError::Metadata(error) => metadata(error),
        // Metadata responses have no way to explain, so they say that there is no such topic
        // unless the name itself is wrong.
        AutoCreateError::Refused(CreateTopicError::InvalidName(_)) => {
            ErrorCode::InvalidTopicException
        }
        AutoCreateError::Refused(CreateTopicError::Placement(_)) => {
            ErrorCode::InvalidReplicationFactor
        }
        AutoCreateError::Refused(_) => ErrorCode::UnknownTopicOrPartition,
    }
}

/// The code for a topic that was not deleted.
pub(crate) fn delete_topic(error: &DeleteTopicError) -> ErrorCode {
    match error {
        DeleteTopicError::Duplicate => ErrorCode::InvalidRequest,
        DeleteTopicError::UnknownName => ErrorCode::UnknownTopicOrPartition,
        DeleteTopicError::UnknownId => ErrorCode::UnknownTopicId,
        DeleteTopicError::Disabled => ErrorCode::TopicDeletionDisabled,
    }
}

/// The code for partitions that were not created.
pub(crate) fn create_partitions(error: &CreatePartitionsError) -> ErrorCode {
    match error {
        CreatePartitionsError::Duplicate => ErrorCode::InvalidRequest,
        CreatePartitionsError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        CreatePartitionsError::InvalidCount(_) => ErrorCode::InvalidPartitions,
        CreatePartitionsError::Placement(error) => placement(error),
        CreatePartitionsError::TooManyPartitions(_) => ErrorCode::PolicyViolation,
    }
}

/// What went wrong with each resource whose configs were to change, by its position in the
/// request.
pub(crate) fn alter_configs(
    context: &Context,
    outcome: Result<Vec<Result<(), AlterConfigsError>>, MetadataError>,
    positions: Vec<usize>,
) -> Vec<(usize, (ErrorCode, String))> {
    match outcome {
        Ok(results) => positions
            .into_iter()
            .zip(results)
            .filter_map(|(position, result)| {
                let error = result.err()?;
                Some((position, (alter_config(context.peer.asks, &error), error.to_string())))
            })
            .collect(),
        Err(error) => {
            let failure = (metadata(&error), error.to_string());
            positions.into_iter().map(|position| (position, failure.clone())).collect()
        }
    }
}

fn alter_config(asks: Role, error: &AlterConfigsError) -> ErrorCode {
    match error {
        // Kafka's brokers look at this before they forward the request, with a code of their own.
        AlterConfigsError::MissingValue(_) if asks == Role::Broker => ErrorCode::InvalidRequest,
        AlterConfigsError::InvalidTopic(_) => ErrorCode::InvalidTopicException,
        AlterConfigsError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        AlterConfigsError::MissingValue(_)
        | AlterConfigsError::TooLarge
        | AlterConfigsError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        AlterConfigsError::DuplicateResource
        | AlterConfigsError::DuplicateKey(_)
        | AlterConfigsError::UnknownBroker(_)
        | AlterConfigsError::EmptyName(_)
        | AlterConfigsError::NotAllowed(_) => ErrorCode::InvalidRequest,
    }
}

fn placement(error: &PlacementError) -> ErrorCode {
    match error {
        PlacementError::TooFewBrokers { .. } => ErrorCode::InvalidReplicationFactor,
        PlacementError::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
    }
}
