//! CreatePartitions, versions 0–3: more partitions for topics that exist.

use fleuve_metadata::controller::MorePartitions;
use fleuve_protocol::messages::create_partitions_request::CreatePartitionsRequest;
use fleuve_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use fleuve_protocol::{ErrorCode, Str};

use super::errors;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: CreatePartitionsRequest,
) -> Outcome<CreatePartitionsResponse> {
    let CreatePartitionsRequest { topics, validate_only, .. } = request;
    let wanted: Vec<MorePartitions> = topics
        .into_iter()
        .map(|topic| MorePartitions {
            topic: topic.name.detach(),
            count: topic.count,
            assignments: topic.assignments.map(|assignments| {
                assignments.into_iter().map(|assignment| assignment.broker_ids).collect()
            }),
        })
        .collect();
    let context = context.clone();
    Outcome::barrier(async move {
        let names: Vec<Str> = wanted.iter().map(|topic| topic.topic.clone()).collect();
        let outcomes: Vec<Result<(), (ErrorCode, String)>> =
            match context.node.create_partitions(wanted, validate_only).await {
                Ok(results) => results
                    .into_iter()
                    .map(|result| {
                        result.map_err(|e| (errors::create_partitions(&e), e.to_string()))
                    })
                    .collect(),
                Err(error) => {
                    vec![Err((errors::metadata(&error), error.to_string())); names.len()]
                }
            };
        let results = names.into_iter().zip(outcomes).map(|(name, outcome)| {
            let (error_code, error_message) = match outcome {
                Ok(()) => (0, None),
                Err((code, message)) => (code.code(), Some(Str::from(message))),
            };
            CreatePartitionsTopicResult { name, error_code, error_message }
        });
        CreatePartitionsResponse { results: results.collect(), ..Default::default() }
    })
}
