//! CreateTopics, versions 2–7.

use std::collections::HashMap;

use fleuve_metadata::config::describe_new_topic;
use fleuve_metadata::controller::{
    CreateTopicError, CreatedTopic, METADATA_TOPIC, NewTopic, ReplicaAssignment,
};
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use fleuve_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::NodeId;

use super::{errors, permission};
use crate::quotas::Mutations;
use crate::request::{Context, Outcome};

/// From here on clients understand that a topic is refused for a quota.
const STRICT_QUOTAS_FROM: i16 = 6;

pub(crate) fn handle(
    context: &Context,
    request: CreateTopicsRequest,
) -> Outcome<CreateTopicsResponse> {
    let CreateTopicsRequest { topics, validate_only, .. } = request;
    let mut denied = Vec::new();
    let mut wanted: Vec<NewTopic> = topics.into_iter().map(new_topic).collect();
    if !permission::cluster_quietly(context, AclOperation::Create) {
        let times = counts(&wanted);
        wanted.retain(|topic| {
            // That a topic is named twice, or as none can be, is told before anything else.
            let permitted = match times.get(&topic.name) {
                Some(1) if topic.name.as_str() != METADATA_TOPIC => {
                    permission::topic(context, AclOperation::Create, &topic.name)
                }
                _ => Ok(()),
            };
            if let Err(code) = permitted {
                denied.push(failure(topic.name.clone(), code, DENIED.to_owned()));
            }
            permitted.is_ok()
        });
    }
    let context = context.clone();
    Outcome::barrier(async move {
        let mut mutations = Mutations::begin(&context, STRICT_QUOTAS_FROM);
        let (wanted, refused) = pay(&context, &mut mutations, wanted).await;
        let names: Vec<Str> = wanted.iter().map(|topic| topic.name.clone()).collect();
        let outcome = context.node.create_topics(wanted, validate_only).await;
        let throttle_time_ms = mutations.wait_ms();
        let mut response = CreateTopicsResponse { throttle_time_ms, ..Default::default() };
        response.topics.extend(refused.into_iter().map(|topic| {
            let code = ErrorCode::ThrottlingQuotaExceeded;
            failure(topic.name, code, code.message().to_owned())
        }));
        match outcome {
            Ok(results) => {
                let is_excess = |result: &Result<_, CreateTopicError>| {
                    matches!(result, Err(CreateTopicError::TooManyPartitions(_)))
                };
                if results.iter().any(is_excess) {
                    context.node.oversized_requests.add(1);
                }
                for (name, result) in names.into_iter().zip(results) {
                    response.topics.push(match result {
                        Ok(created) => describe(&context, created, validate_only),
                        Err(error) => {
                            let message = error.to_string();
                            failure(name, errors::create_topic(&error), message)
                        }
                    });
                }
            }
            Err(error) => {
                let code = errors::metadata(&error);
                let failed = names.into_iter().map(|name| failure(name, code, error.to_string()));
                response.topics.extend(failed);
            }
        }
        response.topics.extend(denied);
        response
    })
}

/// Lets those topics through that the client's quota has room for, and returns the others.
async fn pay(
    context: &Context,
    mutations: &mut Mutations,
    wanted: Vec<NewTopic>,
) -> (Vec<NewTopic>, Vec<NewTopic>) {
    if !mutations.are_limited() {
        return (wanted, Vec::new());
    }
    // Only what can be created is charged, so that is found out first.
    let Ok(outcome) = context.node.create_topics(wanted.clone(), true).await else {
        return (wanted, Vec::new());
    };
    let partitions =
        outcome.into_iter().map(|result| usize::try_from(result.ok()?.partitions).ok());
    mutations.divide(wanted, partitions)
}

/// What those hear who may not create a topic.
const DENIED: &str = "Authorization failed.";

fn counts(topics: &[NewTopic]) -> HashMap<Str, usize> {
    let mut counts = HashMap::new();
    for topic in topics {
        *counts.entry(topic.name.clone()).or_default() += 1;
    }
    counts
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.detach(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .into_iter()
            .map(|assignment| ReplicaAssignment {
                partition: assignment.partition_index,
                brokers: assignment.broker_ids,
            })
            .collect(),
        configs: topic.configs.into_iter().map(|config| (config.name, config.value)).collect(),
    }
}

fn describe(context: &Context, created: CreatedTopic, validate_only: bool) -> CreatableTopicResult {
    let topic_id = if validate_only { fleuve_types::Uuid::ZERO } else { created.id };
    let shows_configs =
        context.may_quietly(AclOperation::DescribeConfigs, AclResourceType::Topic, &created.name);
    if !shows_configs {
        return CreatableTopicResult {
            name: created.name,
            topic_id,
            topic_config_error_code: ErrorCode::TopicAuthorizationFailed.code(),
            ..Default::default()
        };
    }
    let image = context.node.image();
    let settings = context.node.settings();
    let node_configs = image.broker_configs(NodeId(context.node.id));
    let cluster_configs = image.cluster_configs();
    let layers = settings.layers(&node_configs, &cluster_configs);
    let configs = describe_new_topic(&created.configs, &layers).into_iter().map(|description| {
        CreatableTopicConfigs {
            name: Str::from(description.name),
            value: description.value.map(Str::from),
            read_only: description.is_read_only,
            config_source: description.source.wire_id(),
            is_sensitive: description.is_sensitive,
        }
    });
    CreatableTopicResult {
        name: created.name,
        topic_id,
        num_partitions: created.partitions,
        replication_factor: created.replication_factor,
        configs: Some(configs.collect()),
        ..Default::default()
    }
}

fn failure(name: Str, code: ErrorCode, message: String) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: code.code(),
        error_message: Some(Str::from(message)),
        ..Default::default()
    }
}
