//! StreamsGroupDescribe, version 0: streams groups in detail (KIP-1071).

use std::collections::BTreeSet;

use fleuve_coordinator::streams::{
    InternalTopic, Roles, StreamsMemberDescription, SubtopologyDescription, TaskList,
};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use fleuve_protocol::messages::streams_group_describe_response::{
    Assignment, DescribedGroup, Endpoint, KeyValue, Member, StreamsGroupDescribeResponse,
    Subtopology, TaskIds, TopicInfo, Topology,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, operations, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: StreamsGroupDescribeRequest,
) -> Outcome<StreamsGroupDescribeResponse> {
    let is_served = errors::has_streams_protocol(context);
    let groups = request.group_ids.into_iter().map(|group_id| {
        if !is_served {
            let error_code = ErrorCode::UnsupportedVersion.code();
            return DescribedGroup { group_id, error_code, ..Default::default() };
        }
        if let Err(code) = permission::group(context, AclOperation::Describe, &group_id) {
            let error_code = code.code();
            return DescribedGroup { group_id, error_code, ..Default::default() };
        }
        let mut group = hide(context, describe(context, group_id));
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = operations::on_group(context, &group.group_id);
        }
        group
    });
    Outcome::Now(StreamsGroupDescribeResponse { groups: groups.collect(), ..Default::default() })
}

fn describe(context: &Context, group_id: Str) -> DescribedGroup {
    let shard = context.node.groups.shard_of(&group_id);
    let described =
        shard.and_then(|shard| shard.read(|machine| machine.describe_streams_group(&group_id)));
    match described {
        Ok(group) => DescribedGroup {
            group_id,
            group_state: Str::from(group.state.name()),
            group_epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            topology: group.topology.map(|topology| Topology {
                epoch: topology.epoch,
                subtopologies: Some(topology.subtopologies.into_iter().map(subtopology).collect()),
            }),
            members: group.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(error) => DescribedGroup {
            error_code: errors::group(error).code(),
            error_message: Some(Str::from(format!("Group {group_id}: {error}."))),
            group_id,
            ..Default::default()
        },
    }
}

/// Hides a group of whose topics the client may not know.
fn hide(context: &Context, group: DescribedGroup) -> DescribedGroup {
    let subtopologies =
        group.topology.iter().flat_map(|topology| &topology.subtopologies).flatten();
    let names: BTreeSet<&Str> = subtopologies
        .flat_map(|subtopology| {
            let internal = subtopology
                .repartition_source_topics
                .iter()
                .chain(&subtopology.state_changelog_topics);
            let named =
                subtopology.source_topics.iter().chain(&subtopology.repartition_sink_topics);
            named.chain(internal.map(|topic| &topic.name))
        })
        .collect();
    let is_visible = |name: &&Str| permission::topic(context, AclOperation::Describe, name).is_ok();
    if names.iter().all(is_visible) {
        return group;
    }
    DescribedGroup {
        group_id: group.group_id,
        error_code: ErrorCode::TopicAuthorizationFailed.code(),
        error_message: Some(Str::from(
            "The described group uses topics that the client is not authorized to describe.",
        )),
        ..Default::default()
    }
}

fn subtopology(subtopology: SubtopologyDescription) -> Subtopology {
    let topics = |topics: Vec<InternalTopic>| {
        let topics = topics.into_iter().map(|topic| TopicInfo {
            name: topic.name,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor.unwrap_or(0),
            topic_configs: topic.configs.into_iter().map(key_value).collect(),
        });
        topics.collect()
    };
    Subtopology {
        subtopology_id: subtopology.id,
        source_topics: subtopology.source_topics,
        repartition_sink_topics: subtopology.repartition_sink_topics,
        state_changelog_topics: topics(subtopology.changelog_topics),
        repartition_source_topics: topics(subtopology.repartition_source_topics),
    }
}

fn member(member: StreamsMemberDescription) -> Member {
    Member {
        member_id: member.member_id,
        member_epoch: member.member_epoch,
        instance_id: member.instance_id,
        rack_id: member.rack_id,
        client_id: member.client_id,
        client_host: member.client_host,
        topology_epoch: member.topology_epoch,
        process_id: member.process_id,
        user_endpoint: member.user_endpoint.map(|(host, port)| Endpoint { host, port }),
        client_tags: member.client_tags.into_iter().map(key_value).collect(),
        assignment: assignment(member.assignment),
        target_assignment: assignment(member.target),
        ..Default::default()
    }
}

fn assignment(tasks: Roles<TaskList>) -> Assignment {
    let ids = |tasks: TaskList| {
        let tasks = tasks
            .into_iter()
            .map(|(subtopology_id, partitions)| TaskIds { subtopology_id, partitions });
        tasks.collect()
    };
    Assignment {
        active_tasks: ids(tasks.active),
        standby_tasks: ids(tasks.standby),
        warmup_tasks: ids(tasks.warmup),
    }
}

fn key_value((key, value): (Str, Str)) -> KeyValue {
    KeyValue { key, value }
}
