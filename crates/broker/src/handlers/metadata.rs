//! Metadata, versions 0–13: brokers, and topics with their leaders.
//!
//! A topic that does not exist and may be created by asking for it is created before the answer
//! leaves. Kafka answers "unknown" at once and lets the client ask again; the clients here do not
//! have to.
//!
//! Topics that the client may not describe are left out of a list of all, and otherwise look the
//! same whether they exist or not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use fleuve_metadata::image::{AclOperation, AclResourceType, Image, Topic};
use fleuve_protocol::messages::metadata_request::MetadataRequest;
use fleuve_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::{errors, operations, permission};
use crate::metadata_log::is_valid_topic_name;
use crate::quotas::Mutations;
use crate::request::{Context, Outcome};
use crate::topics::is_internal;

/// Before this version an empty list, from it on no list, asks for all topics.
const NULL_MEANS_ALL_FROM: i16 = 1;
/// From here on topics can be asked for by id, and names can be null.
const TOPIC_IDS_FROM: i16 = 12;
const NO_LEADER: i32 = -1;
const DENIED: ErrorCode = ErrorCode::TopicAuthorizationFailed;

/// What is asked about.
enum Asked {
    All,
    Ids(BTreeSet<Uuid>),
    Names(BTreeSet<Str>),
}

pub(crate) fn handle(context: &Context, request: MetadataRequest) -> Outcome<MetadataResponse> {
    let Some(asked) = asked(context.version, &request) else {
        return Outcome::Now(refuse(request));
    };
    let image = context.node.image();
    let may_create =
        request.allow_auto_topic_creation && context.node.settings().topics.auto_create;
    let mut failures: HashMap<Str, ErrorCode> = HashMap::new();
    let mut missing: Vec<Str> = Vec::new();
    if let Asked::Names(names) = &asked {
        for name in names {
            if let Err(code) = permission::topic(context, AclOperation::Describe, name) {
                failures.insert(name.clone(), code);
            } else if may_create && image.topics().by_name(name).is_none() {
                missing.push(name.clone());
            }
        }
    }
    if !missing.is_empty() && !permission::cluster_quietly(context, AclOperation::Create) {
        missing.retain(|name| match permission::topic(context, AclOperation::Create, name) {
            Ok(()) => true,
            Err(code) => {
                failures.insert(name.clone(), code);
                false
            }
        });
    }
    missing.retain(|name| is_valid_topic_name(name));
    let topics = &context.node.settings().topics;
    let each = usize::try_from(topics.default_partitions).unwrap_or(1);
    if missing.len().saturating_mul(each) > topics.created_per_request_max {
        context.node.oversized_requests.add(1);
        failures.extend(missing.drain(..).map(|name| (name, ErrorCode::PolicyViolation)));
    }
    if missing.is_empty() {
        return Outcome::Now(respond(context, &image, &request, asked, &failures));
    }
    let context = context.clone();
    Outcome::barrier(async move {
        let mut failures = failures;
        let mut mutations = Mutations::begin_permissive(&context);
        for name in missing {
            if let Err(error) = context.node.auto_create_topic(&name).await {
                tracing::warn!(topic = %name, %error, "a topic cannot be created on demand");
                failures.insert(name, errors::auto_create(&error));
            } else if let Some(topic) = context.node.image().topics().by_name(&name) {
                mutations.admit(topic.partitions().len());
            }
        }
        let image = context.node.image();
        let mut response = respond(&context, &image, &request, asked, &failures);
        response.throttle_time_ms = mutations.wait_ms();
        response
    })
}

/// The answer to a request that asks for topics in a way that its version does not have.
fn refuse(request: MetadataRequest) -> MetadataResponse {
    let topics = request.topics.into_iter().flatten().map(|topic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    });
    MetadataResponse { topics: topics.collect(), ..Default::default() }
}

/// Reads what is asked about; `None` if the version has no such way to ask.
fn asked(version: i16, request: &MetadataRequest) -> Option<Asked> {
    let Some(topics) = &request.topics else { return Some(Asked::All) };
    if topics.is_empty() && version < NULL_MEANS_ALL_FROM {
        return Some(Asked::All);
    }
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    for topic in topics {
        if version < TOPIC_IDS_FROM && (topic.name.is_none() || !topic.topic_id.is_zero()) {
            return None;
        }
        if !topic.topic_id.is_zero() {
            ids.insert(topic.topic_id);
        } else if let Some(name) = &topic.name {
            names.insert(name.detach());
        }
    }
    // Ids win when somebody mixes the two.
    Some(if ids.is_empty() { Asked::Names(names) } else { Asked::Ids(ids) })
}

fn respond(
    context: &Context,
    image: &Image,
    request: &MetadataRequest,
    asked: Asked,
    failures: &HashMap<Str, ErrorCode>,
) -> MetadataResponse {
    let mut topics = Vec::new();
    let describe = |topic: &Arc<Topic>| describe(context, topic);
    match asked {
        Asked::All => {
            let visible = image.topics().iter().filter(|topic| {
                context.may_quietly(AclOperation::Describe, AclResourceType::Topic, &topic.name)
            });
            topics.extend(visible.map(describe));
        }
        Asked::Ids(ids) => {
            topics.extend(ids.into_iter().map(|id| match image.topics().by_id(id) {
                Some(topic) => {
                    match permission::topic(context, AclOperation::Describe, &topic.name) {
                        Ok(()) => describe(topic),
                        // That there is a topic of this id is no secret; its name is.
                        Err(code) => MetadataResponseTopic {
                            error_code: code.code(),
                            topic_id: id,
                            name: None,
                            ..Default::default()
                        },
                    }
                }
                None => MetadataResponseTopic {
                    error_code: ErrorCode::UnknownTopicId.code(),
                    topic_id: id,
                    name: None,
                    ..Default::default()
                },
            }))
        }
        Asked::Names(names) => {
            topics.extend(names.into_iter().map(|name| {
                let failure = failures.get(&name);
                match image.topics().by_name(&name) {
                    Some(topic) if failure.is_none() => describe(topic),
                    _ => {
                        let code = match failure {
                            Some(code) => *code,
                            None if is_valid_topic_name(&name) => {
                                ErrorCode::UnknownTopicOrPartition
                            }
                            None => ErrorCode::InvalidTopicException,
                        };
                        MetadataResponseTopic {
                            error_code: code.code(),
                            is_internal: code != DENIED && is_internal(&name),
                            name: Some(name),
                            ..Default::default()
                        }
                    }
                }
            }));
        }
    }
    if request.include_topic_authorized_operations {
        // Also for topics that are not there: who may not know of them has been refused.
        for topic in topics.iter_mut().filter(|topic| topic.error_code != DENIED.code()) {
            if let Some(name) = &topic.name {
                topic.topic_authorized_operations = operations::on_topic(context, name);
            }
        }
    }
    let mut response = MetadataResponse {
        brokers: brokers(context),
        cluster_id: Some(image.cluster_id().clone()),
        controller_id: context.node.id,
        topics,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::on_cluster(context);
    }
    response
}

fn brokers(context: &Context) -> Vec<MetadataResponseBroker> {
    let endpoint = context.node.endpoint(context.peer.listener);
    vec![MetadataResponseBroker {
        node_id: context.node.id,
        host: endpoint.host,
        port: endpoint.port,
        rack: context.node.rack.clone(),
    }]
}

fn describe(context: &Context, topic: &Arc<Topic>) -> MetadataResponseTopic {
    let held = context.node.topics.by_id(&topic.id);
    let partitions = topic.partitions().iter().map(|partition| {
        let held = held.as_ref().and_then(|held| held.partition(partition.index));
        // Its data directory has failed: nobody can serve it until that is mended.
        let is_offline = held.is_some_and(|partition| partition.is_offline());
        let leader = partition.leader.map(|leader| leader.0).filter(|_| !is_offline);
        let unavailable = ErrorCode::LeaderNotAvailable.code();
        MetadataResponsePartition {
            error_code: if leader.is_some() { 0 } else { unavailable },
            partition_index: partition.index,
            leader_id: leader.unwrap_or(NO_LEADER),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: partition.replicas.iter().map(|node| node.0).collect(),
            isr_nodes: partition.isr.iter().map(|node| node.0).collect(),
            offline_replicas: if is_offline { vec![context.node.id] } else { Vec::new() },
        }
    });
    MetadataResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        ..Default::default()
    }
}
