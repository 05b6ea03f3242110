//! StreamsGroupHeartbeat, version 0: a thread of a streams application lives (KIP-1071).

use std::collections::BTreeSet;
use std::sync::Arc;

use fleuve_coordinator::streams::{
    EndpointPartitions, InternalTopic, Roles, StreamsHeartbeatReply, StreamsHeartbeatRequest,
    StreamsStatusKind, TaskList,
};
use fleuve_coordinator::{GroupError, Response};
use fleuve_metadata::controller::NewTopic;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::streams_group_heartbeat_request::{
    self as wire, StreamsGroupHeartbeatRequest,
};
use fleuve_protocol::messages::streams_group_heartbeat_response::{
    Endpoint, EndpointToPartitions, Status, StreamsGroupHeartbeatResponse, TaskIds, TopicPartition,
};
use fleuve_protocol::messages::streams_group_topology_value as stored;
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::metadata_log::is_valid_topic_name;
use crate::node::Node;
use crate::request::{Context, Outcome};
use crate::topics::is_internal;

/// Most reasons that a status tells why topics could not be created.
const FAILURES_TOLD_MAX: usize = 3;

pub(crate) fn handle(
    context: &Context,
    request: StreamsGroupHeartbeatRequest,
) -> Outcome<StreamsGroupHeartbeatResponse> {
    if !errors::has_streams_protocol(context) {
        return Outcome::Now(refusal(ErrorCode::UnsupportedVersion, None));
    }
    if let Err(code) = permission::group(context, AclOperation::Read, &request.group_id) {
        return Outcome::Now(refusal(code, Some(code.message().to_owned())));
    }
    if let Some(message) = request.topology.as_ref().and_then(forbidden_topics) {
        return Outcome::Now(refusal(ErrorCode::StreamsInvalidTopology, Some(message)));
    }
    if let Some(topology) = &request.topology
        && let Err(code) =
            permission::all_topics(context, AclOperation::Describe, topics_of(topology))
    {
        return Outcome::Now(refusal(code, Some(code.message().to_owned())));
    }
    let heartbeat = from_wire(context, request);
    let answer = context.node.groups.request(&heartbeat.group_id, |machine, now, token| {
        machine.handle_streams_heartbeat(now, token, &heartbeat)
    });
    let context = context.clone();
    Outcome::later(async move {
        match answer.await {
            Ok(Response::StreamsHeartbeat(Ok(reply))) => answer_with(&context, *reply),
            Ok(Response::StreamsHeartbeat(Err(error))) | Err(error) => refused(error),
            Ok(other) => unreachable!("a heartbeat is not answered with {other:?}"),
        }
    })
}

/// Says what is wrong with the names of a topology's topics.
fn forbidden_topics(topology: &wire::Topology) -> Option<String> {
    let names = topics_of(topology);
    let list = |wrong: Vec<&str>| (!wrong.is_empty()).then(|| wrong.join(","));
    let matching = |test: fn(&str) -> bool| {
        list(names.iter().map(|name| name.as_str()).filter(|name| test(name)).collect())
    };
    if let Some(names) = matching(is_internal) {
        return Some(format!(
            "Use of Kafka internal topics {names} in a Kafka Streams topology is prohibited."
        ));
    }
    matching(|name| !is_valid_topic_name(name))
        .map(|names| format!("Topic names {names} are not valid topic names."))
}

/// The names of all topics that a topology reads or writes.
fn topics_of(topology: &wire::Topology) -> BTreeSet<&Str> {
    topology
        .subtopologies
        .iter()
        .flat_map(|subtopology| {
            let internal = subtopology
                .repartition_source_topics
                .iter()
                .chain(&subtopology.state_changelog_topics)
                .map(|topic| &topic.name);
            subtopology
                .source_topics
                .iter()
                .chain(&subtopology.repartition_sink_topics)
                .chain(internal)
        })
        .collect()
}

fn from_wire(context: &Context, request: StreamsGroupHeartbeatRequest) -> StreamsHeartbeatRequest {
    let tasks = |tasks: Option<Vec<wire::TaskIds>>| -> Option<TaskList> {
        tasks.map(|tasks| {
            tasks.into_iter().map(|task| (task.subtopology_id, task.partitions)).collect()
        })
    };
    let tags = request.client_tags;
    StreamsHeartbeatRequest {
        group_id: request.group_id,
        member_id: request.member_id,
        member_epoch: request.member_epoch,
        instance_id: request.instance_id,
        rack_id: request.rack_id,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topology: request.topology.map(topology),
        owned: Roles {
            active: tasks(request.active_tasks),
            standby: tasks(request.standby_tasks),
            warmup: tasks(request.warmup_tasks),
        },
        process_id: request.process_id,
        user_endpoint: request.user_endpoint.map(|endpoint| (endpoint.host, endpoint.port)),
        client_tags: tags.map(|tags| tags.into_iter().map(|tag| (tag.key, tag.value)).collect()),
        tells_task_offsets: request.task_offsets.is_some() || request.task_end_offsets.is_some(),
        shutdown_application: request.shutdown_application,
        endpoint_information_epoch: request.endpoint_information_epoch,
        client_id: context.client_id.clone(),
        client_host: Str::from(format!("/{}", context.peer.address.ip())),
    }
}

fn topology(topology: wire::Topology) -> stored::StreamsGroupTopologyValue {
    let topics = |topics: Vec<wire::TopicInfo>| -> Vec<stored::TopicInfo> {
        let topics = topics.into_iter().map(|topic| stored::TopicInfo {
            name: topic.name,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            topic_configs: topic
                .topic_configs
                .into_iter()
                .map(|config| stored::TopicConfig { key: config.key, value: config.value })
                .collect(),
        });
        topics.collect()
    };
    let subtopologies = topology.subtopologies.into_iter().map(|subtopology| stored::Subtopology {
        subtopology_id: subtopology.subtopology_id,
        source_topics: subtopology.source_topics,
        source_topic_regex: subtopology.source_topic_regex,
        state_changelog_topics: topics(subtopology.state_changelog_topics),
        repartition_sink_topics: subtopology.repartition_sink_topics,
        repartition_source_topics: topics(subtopology.repartition_source_topics),
        copartition_groups: subtopology
            .copartition_groups
            .into_iter()
            .map(|group| stored::CopartitionGroup {
                source_topics: group.source_topics,
                source_topic_regex: group.source_topic_regex,
                repartition_source_topics: group.repartition_source_topics,
            })
            .collect(),
    });
    stored::StreamsGroupTopologyValue {
        epoch: topology.epoch,
        subtopologies: subtopologies.collect(),
    }
}

fn answer_with(context: &Context, reply: StreamsHeartbeatReply) -> StreamsGroupHeartbeatResponse {
    let failures = match may_not_create(context, &reply) {
        Some(denied) => denied,
        None => create_missing(&context.node, &reply),
    };
    let tasks = |tasks: TaskList| {
        let tasks = tasks
            .into_iter()
            .map(|(subtopology_id, partitions)| TaskIds { subtopology_id, partitions });
        Some(tasks.collect())
    };
    let statuses = reply.statuses.into_iter().map(|status| {
        let mut detail = status.detail;
        if status.kind == StreamsStatusKind::MissingInternalTopics {
            detail.push_str(&failures);
        }
        Status { status_code: code(status.kind), status_detail: Str::from(detail) }
    });
    let mut response = StreamsGroupHeartbeatResponse {
        member_id: reply.member_id,
        member_epoch: reply.member_epoch,
        heartbeat_interval_ms: reply.heartbeat_interval_ms,
        status: Some(statuses.collect()),
        endpoint_information_epoch: reply.endpoint_information_epoch,
        partitions_by_user_endpoint: reply
            .endpoints
            .map(|endpoints| endpoints.into_iter().map(endpoint).collect()),
        ..Default::default()
    };
    if let Some(Roles { active, standby, warmup }) = reply.tasks {
        response.active_tasks = tasks(active);
        response.standby_tasks = tasks(standby);
        response.warmup_tasks = tasks(warmup);
    }
    response
}

fn endpoint(endpoint: EndpointPartitions) -> EndpointToPartitions {
    let partitions = |partitions: Vec<(Str, Vec<i32>)>| {
        let topics = partitions.into_iter();
        topics.map(|(topic, partitions)| TopicPartition { topic, partitions }).collect()
    };
    EndpointToPartitions {
        user_endpoint: Endpoint { host: endpoint.host, port: endpoint.port },
        active_partitions: partitions(endpoint.active),
        standby_partitions: partitions(endpoint.standby),
    }
}

/// Says which of the internal topics that are missing the client may not create.
fn may_not_create(context: &Context, reply: &StreamsHeartbeatReply) -> Option<String> {
    if reply.missing_topics.is_empty() || permission::cluster_quietly(context, AclOperation::Create)
    {
        return None;
    }
    let names = reply.missing_topics.iter().map(|topic| topic.name.as_str());
    let denied: Vec<&str> = names
        .filter(|name| permission::topic(context, AclOperation::Create, name).is_err())
        .collect();
    (!denied.is_empty())
        .then(|| format!("; Unauthorized to CREATE on topics {}.", denied.join(", ")))
}

/// Has internal topics created, without waiting for it, and says which could not be lately.
fn create_missing(node: &Arc<Node>, reply: &StreamsHeartbeatReply) -> String {
    let now_ms = node.clock.wall_ms();
    let retry_ms = i64::from(reply.heartbeat_interval_ms) * 2;
    let mut failures = Vec::new();
    let mut wanted = Vec::new();
    for topic in &reply.missing_topics {
        match node.streams_topics.failure(&topic.name, now_ms) {
            Some(why) => failures.push(format!("{} ({why})", topic.name)),
            None if node.streams_topics.begin(&topic.name, now_ms) => wanted.push(new_topic(topic)),
            None => {}
        }
    }
    if !wanted.is_empty() {
        let node = Arc::clone(node);
        tokio::spawn(async move { create(&node, wanted, retry_ms).await });
    }
    if failures.is_empty() {
        return String::new();
    }
    let more = failures.len().saturating_sub(FAILURES_TOLD_MAX);
    failures.truncate(FAILURES_TOLD_MAX);
    let told = failures.join(", ");
    match more {
        0 => format!("; Creation failed: {told}."),
        more => format!("; Creation failed: {told} and {more} more."),
    }
}

async fn create(node: &Arc<Node>, wanted: Vec<NewTopic>, retry_ms: i64) {
    use fleuve_metadata::controller::CreateTopicError;
    let names: Vec<Str> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let failures: Vec<Option<String>> = match node.create_topics(wanted, false).await {
        Ok(results) => results
            .into_iter()
            .map(|result| match result {
                Ok(_) | Err(CreateTopicError::Exists(_)) => None,
                Err(error) => Some(error.to_string()),
            })
            .collect(),
        Err(error) => vec![Some(error.to_string()); names.len()],
    };
    let until_ms = node.clock.wall_ms().saturating_add(retry_ms);
    for (name, failure) in names.iter().zip(failures) {
        if let Some(why) = &failure {
            tracing::warn!(topic = %name, %why, "an internal topic of a streams group is not created");
        }
        node.streams_topics.end(name, failure.map(|why| (why, until_ms)));
    }
}

fn new_topic(topic: &InternalTopic) -> NewTopic {
    let configs = topic.configs.iter();
    NewTopic {
        name: topic.name.clone(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor.unwrap_or(-1),
        assignments: Vec::new(),
        configs: configs.map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
    }
}

fn code(kind: StreamsStatusKind) -> i8 {
    match kind {
        StreamsStatusKind::StaleTopology => 0,
        StreamsStatusKind::MissingSourceTopics => 1,
        StreamsStatusKind::IncorrectlyPartitionedTopics => 2,
        StreamsStatusKind::MissingInternalTopics => 3,
        StreamsStatusKind::ShutdownApplication => 4,
        StreamsStatusKind::AssignmentDelayed => 5,
    }
}

fn refused(error: GroupError) -> StreamsGroupHeartbeatResponse {
    refusal(errors::group(error), Some(error.to_string()))
}

fn refusal(code: ErrorCode, message: Option<String>) -> StreamsGroupHeartbeatResponse {
    StreamsGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: message.map(Str::from),
        ..Default::default()
    }
}
