//! CreateTopics, versions 2–7.

use fleuve_metadata::config::describe_topic;
use fleuve_metadata::controller::{CreatedTopic, NewTopic, ReplicaAssignment};
use fleuve_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use fleuve_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::NodeId;

use super::errors;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: CreateTopicsRequest,
) -> Outcome<CreateTopicsResponse> {
    let CreateTopicsRequest { topics, validate_only, .. } = request;
    let wanted: Vec<NewTopic> = topics.into_iter().map(new_topic).collect();
    let context = context.clone();
    Outcome::barrier(async move {
        let names: Vec<Str> = wanted.iter().map(|topic| topic.name.clone()).collect();
        let outcome = context.node.create_topics(wanted, validate_only).await;
        let mut response = CreateTopicsResponse::default();
        match outcome {
            Ok(results) => {
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
        response
    })
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
    let image = context.node.image();
    let settings = context.node.settings();
    let node_configs = image.broker_configs(NodeId(context.node.id));
    let cluster_configs = image.cluster_configs();
    let layers = settings.layers(&node_configs, &cluster_configs);
    let configs = describe_topic(&created.configs, &layers).into_iter().map(|description| {
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
        topic_id: if validate_only { fleuve_types::Uuid::ZERO } else { created.id },
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
