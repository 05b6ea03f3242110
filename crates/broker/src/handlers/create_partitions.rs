//! CreatePartitions, versions 0–3: more partitions for topics that exist.

use fleuve_metadata::controller::{CreatePartitionsError, MorePartitions};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use fleuve_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::quotas::Mutations;
use crate::request::{Context, Outcome};

/// From here on clients understand that a topic is refused for a quota.
const STRICT_QUOTAS_FROM: i16 = 3;

pub(crate) fn handle(
    context: &Context,
    request: CreatePartitionsRequest,
) -> Outcome<CreatePartitionsResponse> {
    let CreatePartitionsRequest { topics, validate_only, .. } = request;
    let mut denied_topics = Vec::new();
    let mut permitted = |topic: &CreatePartitionsTopic| {
        let denied = permission::topic(context, AclOperation::Alter, &topic.name).err();
        denied_topics.extend(denied.map(|code| CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
        }));
        denied.is_none()
    };
    let wanted: Vec<MorePartitions> = topics
        .into_iter()
        .filter(|topic| permitted(topic))
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
        let mut mutations = Mutations::begin(&context, STRICT_QUOTAS_FROM);
        let (wanted, refused) = pay(&context, &mut mutations, wanted).await;
        let refused = refused.into_iter().map(|topic| {
            let code = ErrorCode::ThrottlingQuotaExceeded;
            let (error_code, error_message) = (code.code(), Some(Str::from(code.message())));
            CreatePartitionsTopicResult { name: topic.topic, error_code, error_message }
        });
        let names: Vec<Str> = wanted.iter().map(|topic| topic.topic.clone()).collect();
        let outcomes: Vec<Result<(), (ErrorCode, String)>> =
            match context.node.create_partitions(wanted, validate_only).await {
                Ok(results) => {
                    let is_excess = |result: &Result<(), CreatePartitionsError>| {
                        matches!(result, Err(CreatePartitionsError::TooManyPartitions(_)))
                    };
                    if results.iter().any(is_excess) {
                        context.node.oversized_requests.add(1);
                    }
                    let told = results.into_iter().map(|result| {
                        result.map_err(|e| (errors::create_partitions(&e), e.to_string()))
                    });
                    told.collect()
                }
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
        CreatePartitionsResponse {
            throttle_time_ms: mutations.wait_ms(),
            results: results.chain(refused).chain(denied_topics).collect(),
        }
    })
}

/// Lets those topics through that the client's quota has room for, and returns the others.
async fn pay(
    context: &Context,
    mutations: &mut Mutations,
    wanted: Vec<MorePartitions>,
) -> (Vec<MorePartitions>, Vec<MorePartitions>) {
    if !mutations.are_limited() {
        return (wanted, Vec::new());
    }
    // Only what can be done is charged, so that is found out first.
    let Ok(outcome) = context.node.create_partitions(wanted.clone(), true).await else {
        return (wanted, Vec::new());
    };
    let image = context.node.image();
    let added = |topic: &MorePartitions| {
        let now = image.topics().by_name(&topic.topic)?.partitions().len();
        usize::try_from(topic.count).ok()?.checked_sub(now)
    };
    let partitions: Vec<Option<usize>> = wanted
        .iter()
        .zip(outcome)
        .map(|(topic, result)| result.ok().and_then(|_| added(topic)))
        .collect();
    mutations.divide(wanted, partitions)
}
