//! ElectLeaders, versions 0–2: other leaders for partitions.

use std::collections::BTreeMap;

use fleuve_metadata::controller::{ElectionError, ElectionType};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use fleuve_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// The first version that says whom to elect.
const TYPE_FROM: i16 = 1;
/// The first version whose answer has an error of its own, besides those of partitions.
const ERROR_FROM: i16 = 1;

pub(crate) fn handle(
    context: &Context,
    request: ElectLeadersRequest,
) -> Outcome<ElectLeadersResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::Alter) {
        return Outcome::Now(deny(context, request, code));
    }
    let version = context.version;
    let refuse = move |code: ErrorCode| refusal(version, code);
    let election = match request.election_type {
        _ if context.version < TYPE_FROM => ElectionType::Preferred,
        0 => ElectionType::Preferred,
        1 => ElectionType::Unclean,
        _ => return Outcome::Now(refuse(ErrorCode::InvalidRequest)),
    };
    // All partitions: those that have the right leader are left out of the answer.
    let asks_for_all = request.topic_partitions.is_none();
    let wanted: Vec<(Str, i32)> = match request.topic_partitions {
        Some(topics) => topics
            .into_iter()
            .flat_map(|topic| {
                let name = topic.topic.detach();
                topic.partitions.into_iter().map(move |index| (name.clone(), index))
            })
            .collect(),
        None => {
            let image = context.node.image();
            let partitions = image.topics().iter().flat_map(|topic| {
                let indexes = topic.partitions().iter().map(|partition| partition.index);
                indexes.map(|index| (topic.name.clone(), index))
            });
            partitions.collect()
        }
    };
    let context = context.clone();
    Outcome::barrier(async move {
        let asked = wanted.clone();
        let outcome = context.node.change(move |c| c.elect_leaders(election, &asked)).await;
        let results = match outcome {
            Ok(results) => results,
            Err(error) => return refuse(errors::metadata(&error)),
        };
        let mut topics: BTreeMap<Str, Vec<PartitionResult>> = BTreeMap::new();
        for ((topic, partition_id), result) in wanted.into_iter().zip(results) {
            let rows = topics.entry(topic).or_default();
            if asks_for_all && result == Err(ElectionError::NotNeeded) {
                continue;
            }
            let failure = result.err();
            rows.push(PartitionResult {
                partition_id,
                error_code: failure.as_ref().map_or(0, |error| code(error).code()),
                error_message: failure.map(|error| Str::from(error.to_string())),
            });
        }
        let results = topics
            .into_iter()
            .map(|(topic, partition_result)| ReplicaElectionResult { topic, partition_result });
        ElectLeadersResponse { replica_election_results: results.collect(), ..Default::default() }
    })
}

fn refusal(version: i16, code: ErrorCode) -> ElectLeadersResponse {
    let error_code = if version < ERROR_FROM { 0 } else { code.code() };
    ElectLeadersResponse { error_code, ..Default::default() }
}

fn deny(context: &Context, request: ElectLeadersRequest, code: ErrorCode) -> ElectLeadersResponse {
    let topics = request.topic_partitions.into_iter().flatten().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition_id| PartitionResult {
            partition_id,
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
        });
        ReplicaElectionResult { topic: topic.topic, partition_result: partitions.collect() }
    });
    ElectLeadersResponse {
        replica_election_results: topics.collect(),
        ..refusal(context.version, code)
    }
}

fn code(error: &ElectionError) -> ErrorCode {
    match error {
        ElectionError::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
        ElectionError::NotNeeded => ErrorCode::ElectionNotNeeded,
        ElectionError::PreferredNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        ElectionError::NobodyAvailable => ErrorCode::EligibleLeadersNotAvailable,
    }
}
