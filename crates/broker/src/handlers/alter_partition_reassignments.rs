//! AlterPartitionReassignments, versions 0–1: other brokers for partitions.
//!
//! On one node that is the way to give up replicas on brokers that are gone. A move to brokers
//! that would have to copy first begins, and waits for them.

use fleuve_metadata::controller::{Reassignment, ReassignmentError};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::alter_partition_reassignments_request::AlterPartitionReassignmentsRequest;
use fleuve_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// The first version in which a change of the replication factor can be ruled out.
const FACTOR_FROM: i16 = 1;

pub(crate) fn handle(
    context: &Context,
    request: AlterPartitionReassignmentsRequest,
) -> Outcome<AlterPartitionReassignmentsResponse> {
    let allow_factor_change =
        context.version < FACTOR_FROM || request.allow_replication_factor_change;
    if let Err(code) = permission::cluster(context, AclOperation::Alter) {
        return Outcome::Now(deny(request, code));
    }
    let wanted: Vec<Reassignment> = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| Reassignment {
                topic: topic.name.detach(),
                partition: partition.partition_index,
                replicas: partition.replicas.clone(),
            })
        })
        .collect();
    let context = context.clone();
    Outcome::barrier(async move {
        let outcome =
            context.node.change(move |c| c.alter_reassignments(&wanted, allow_factor_change)).await;
        let mut results = match outcome {
            Ok(results) => results.into_iter(),
            Err(error) => {
                return AlterPartitionReassignmentsResponse {
                    error_code: errors::metadata(&error).code(),
                    error_message: Some(Str::from(error.to_string())),
                    ..Default::default()
                };
            }
        };
        let responses = request.topics.into_iter().map(|topic| ReassignableTopicResponse {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .zip(results.by_ref())
                .map(|(partition, result)| {
                    let failure = result.err();
                    ReassignablePartitionResponse {
                        partition_index: partition.partition_index,
                        error_code: failure.as_ref().map_or(0, |error| code(error).code()),
                        error_message: failure.map(|error| Str::from(error.to_string())),
                    }
                })
                .collect(),
        });
        AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: allow_factor_change,
            responses: responses.collect(),
            ..Default::default()
        }
    })
}

fn deny(
    request: AlterPartitionReassignmentsRequest,
    code: ErrorCode,
) -> AlterPartitionReassignmentsResponse {
    let message = Some(Str::from(code.message()));
    let responses = request.topics.into_iter().map(|topic| {
        let partitions =
            topic.partitions.into_iter().map(|partition| ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code: code.code(),
                error_message: message.clone(),
            });
        ReassignableTopicResponse { name: topic.name, partitions: partitions.collect() }
    });
    AlterPartitionReassignmentsResponse {
        responses: responses.collect(),
        error_code: code.code(),
        error_message: message.clone(),
        ..Default::default()
    }
}

fn code(error: &ReassignmentError) -> ErrorCode {
    match error {
        ReassignmentError::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
        ReassignmentError::NotInProgress => ErrorCode::NoReassignmentInProgress,
        ReassignmentError::FactorChanged { .. } => ErrorCode::InvalidReplicationFactor,
        ReassignmentError::Placement(_) => ErrorCode::InvalidReplicaAssignment,
    }
}
