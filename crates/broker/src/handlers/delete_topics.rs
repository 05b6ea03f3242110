//! DeleteTopics, versions 1–6.
//!
//! The answer leaves when the deletion is durable; the files follow after `file.delete.delay.ms`.

use fleuve_metadata::controller::TopicSelector;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use fleuve_protocol::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::errors;
use crate::access::CLUSTER_NAME;
use crate::quotas::Mutations;
use crate::request::{Context, Outcome};

/// From here on topics can be named by id.
const TOPIC_IDS_FROM: i16 = 6;
/// From here on a refusal has a code of its own.
const DISABLED_FROM: i16 = 3;
/// From here on clients understand that a topic is refused for a quota.
const STRICT_QUOTAS_FROM: i16 = 5;

pub(crate) fn handle(
    context: &Context,
    request: DeleteTopicsRequest,
) -> Outcome<DeleteTopicsResponse> {
    let mut response = DeleteTopicsResponse::default();
    let mut selectors = Vec::new();
    if context.version >= TOPIC_IDS_FROM {
        for topic in request.topics {
            match (topic.name, topic.topic_id) {
                (Some(name), Uuid::ZERO) => selectors.push(TopicSelector::Name(name.detach())),
                (None, id) if !id.is_zero() => selectors.push(TopicSelector::Id(id)),
                (name, id) => {
                    let message = "a topic is named either by its name or by its id";
                    let code = ErrorCode::InvalidRequest;
                    response.responses.push(failure(name, id, code, message.to_owned()));
                }
            }
        }
    } else {
        let names = request.topic_names.iter().map(|name| TopicSelector::Name(name.detach()));
        selectors.extend(names);
    }
    let may_all = context.may_quietly(AclOperation::Delete, AclResourceType::Cluster, CLUSTER_NAME);
    if !may_all {
        selectors.retain(|selector| match denial(context, selector) {
            Some(denied) => {
                response.responses.push(denied);
                false
            }
            None => true,
        });
    }
    let context = context.clone();
    Outcome::barrier(async move {
        let image = context.node.image();
        let mut mutations = Mutations::begin(&context, STRICT_QUOTAS_FROM);
        if mutations.are_limited() {
            let partitions: Vec<Option<usize>> = selectors
                .iter()
                .map(|selector| match selector {
                    TopicSelector::Name(name) => image.topics().by_name(name),
                    TopicSelector::Id(id) => image.topics().by_id(*id),
                })
                .map(|topic| Some(topic?.partitions().len()))
                .collect();
            let (admitted, refused) = mutations.divide(selectors, partitions);
            selectors = admitted;
            response.responses.extend(refused.into_iter().map(|selector| {
                let code = ErrorCode::ThrottlingQuotaExceeded;
                let (name, id) = match selector {
                    TopicSelector::Name(name) => (Some(name), Uuid::ZERO),
                    TopicSelector::Id(id) => (None, id),
                };
                failure(name, id, code, code.message().to_owned())
            }));
        }
        response.throttle_time_ms = mutations.wait_ms();
        let wanted = selectors.clone();
        let outcome = context.node.delete_topics(wanted).await;
        let results = match outcome {
            Ok(results) => results
                .into_iter()
                .map(|result| {
                    result.map_err(|error| {
                        let code = match errors::delete_topic(&error) {
                            // Older clients know no code for it.
                            ErrorCode::TopicDeletionDisabled if context.version < DISABLED_FROM => {
                                ErrorCode::InvalidRequest
                            }
                            code => code,
                        };
                        (code, error.to_string())
                    })
                })
                .collect(),
            Err(error) => {
                let failure = (errors::metadata(&error), error.to_string());
                vec![Err(failure); selectors.len()]
            }
        };
        for (selector, result) in selectors.into_iter().zip(results) {
            response.responses.push(match (result, selector) {
                (Ok(deleted), _) => DeletableTopicResult {
                    name: Some(deleted.name),
                    topic_id: deleted.id,
                    ..Default::default()
                },
                (Err((code, message)), TopicSelector::Name(name)) => {
                    failure(Some(name), Uuid::ZERO, code, message)
                }
                (Err((code, message)), TopicSelector::Id(id)) => {
                    let name = image.topics().by_id(id).map(|topic| topic.name.clone());
                    failure(name, id, code, message)
                }
            });
        }
        response
    })
}

/// Refuses a topic that the client may not delete. Its existence is told only to those who may
/// describe it, and its name, where it was named by its id, too.
fn denial(context: &Context, selector: &TopicSelector) -> Option<DeletableTopicResult> {
    let image = context.node.image();
    let may = |operation, name: &str| context.may(operation, AclResourceType::Topic, name);
    let denied = |name, id| {
        let code = ErrorCode::TopicAuthorizationFailed;
        Some(failure(name, id, code, code.message().to_owned()))
    };
    match selector {
        TopicSelector::Name(name) => {
            let hidden = !may(AclOperation::Describe, name);
            let exists = image.topics().by_name(name).is_some();
            if hidden || (exists && !may(AclOperation::Delete, name)) {
                return denied(Some(name.clone()), Uuid::ZERO);
            }
        }
        TopicSelector::Id(id) => {
            let name = &image.topics().by_id(*id)?.name;
            if !may(AclOperation::Delete, name) {
                let shown = may(AclOperation::Describe, name).then(|| name.clone());
                return denied(shown, *id);
            }
        }
    }
    None
}

fn failure(name: Option<Str>, id: Uuid, code: ErrorCode, message: String) -> DeletableTopicResult {
    DeletableTopicResult {
        name,
        topic_id: id,
        error_code: code.code(),
        error_message: Some(Str::from(message)),
    }
}
