//! Groups of all kinds in the words of consumer groups. Each kind has a request of its own that
//! describes it, and the cluster's list says which kind a group is of.

use fleuve_client::Admin;
use fleuve_client::admin::{
    GroupDescription, GroupMember, StreamsGroupDescription, StreamsGroupMember, StreamsTasks,
};
use fleuve_types::TopicPartition;
use serde_json::{Value, json};

use crate::args::Format;
use crate::failure::Failure;
use crate::output::print;

/// A group with what its kind alone has.
pub(crate) enum AnyGroup {
    /// Of consumers, or with a type of protocol that is not known here.
    Members(GroupDescription),
    /// Of share consumers.
    Share(GroupDescription),
    /// Of threads of a streams application.
    Streams(StreamsGroupDescription),
}

impl AnyGroup {
    /// Describes a group; one that does not exist is `Dead`.
    pub(crate) async fn describe(admin: &Admin, name: &str) -> fleuve_client::Result<Self> {
        let listed = admin.list_groups().await?.into_iter().find(|group| group.id == name);
        let kind = listed.map(|group| group.kind.to_ascii_lowercase()).unwrap_or_default();
        Ok(match kind.as_str() {
            "share" => Self::Share(admin.describe_share_group(name).await?),
            "streams" => Self::Streams(admin.describe_streams_group(name).await?),
            _ => Self::Members(admin.describe_group(name).await?),
        })
    }

    /// The group in the words of consumer groups: a task is the partitions that it reads.
    pub(crate) fn into_group(self) -> GroupDescription {
        match self {
            Self::Members(group) | Self::Share(group) => group,
            Self::Streams(group) => GroupDescription {
                members: group.members.iter().map(|member| reader(&group, member)).collect(),
                id: group.id,
                state: group.state,
                protocol_type: "streams".to_owned(),
                assignor: String::new(),
                coordinator: group.coordinator,
                epochs: Some((group.epoch, group.assignment_epoch)),
            },
        }
    }
}

fn reader(group: &StreamsGroupDescription, member: &StreamsGroupMember) -> GroupMember {
    GroupMember {
        id: member.id.clone(),
        instance_id: None,
        client_id: member.client_id.clone(),
        host: member.host.clone(),
        topics: Vec::new(),
        assignment: partitions(group, &member.assignment.active),
        epoch: Some(member.epoch),
        target: Some((member.epoch, partitions(group, &member.target.active))),
        upgraded: None,
        user_data: None,
    }
}

/// What tasks read: of each topic of their subtopology the partition with their number.
fn partitions(
    group: &StreamsGroupDescription,
    tasks: &[(String, Vec<i32>)],
) -> Vec<TopicPartition> {
    let mut partitions = Vec::new();
    for (id, numbers) in tasks {
        let Some(subtopology) = group.subtopologies.iter().find(|it| it.id == *id) else {
            continue;
        };
        for topic in subtopology.source_topics.iter().chain(&subtopology.repartition_topics) {
            partitions.extend(numbers.iter().map(|p| TopicPartition::new(topic.as_str(), *p)));
        }
    }
    partitions.sort_unstable();
    partitions
}

/// Shows the threads of a streams application with their tasks.
pub(crate) fn show_threads(group: &StreamsGroupDescription, format: Format) -> Result<(), Failure> {
    let value = group
        .members
        .iter()
        .map(|member| {
            json!({
                "member": member.id, "process": member.process_id, "host": member.host,
                "client_id": member.client_id, "epoch": member.epoch,
                "endpoint": member.endpoint.as_ref().map(|(host, port)| format!("{host}:{port}")),
                "tasks": tasks_value(&member.assignment), "target": tasks_value(&member.target),
            })
        })
        .collect();
    let or_dash = |tasks: &[(String, Vec<i32>)]| match names(tasks) {
        names if names.is_empty() => "-".to_owned(),
        names => names.join(" "),
    };
    let rows = group.members.iter().map(|member| {
        let StreamsTasks { active, standby, warmup } = &member.assignment;
        vec![
            member.id.clone(),
            member.host.clone(),
            member.client_id.clone(),
            or_dash(active),
            or_dash(standby),
            or_dash(warmup),
        ]
    });
    print(format, &value, &["member", "host", "client", "active", "standby", "warm-up"], rows)
}

fn tasks_value(tasks: &StreamsTasks) -> Value {
    json!({
        "active": names(&tasks.active), "standby": names(&tasks.standby),
        "warmup": names(&tasks.warmup),
    })
}

/// Tasks by the names that Kafka Streams gives them, `SUBTOPOLOGY_PARTITION`.
fn names(tasks: &[(String, Vec<i32>)]) -> Vec<String> {
    let of = |(id, numbers): &(String, Vec<i32>)| {
        numbers.iter().map(|number| format!("{id}_{number}")).collect::<Vec<_>>()
    };
    tasks.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use fleuve_client::admin::StreamsSubtopology;

    use super::*;

    #[test]
    fn a_task_is_what_it_reads() {
        let tasks = |tasks: &[(&str, &[i32])]| -> Vec<(String, Vec<i32>)> {
            tasks.iter().map(|(id, numbers)| ((*id).to_owned(), numbers.to_vec())).collect()
        };
        let active = tasks(&[("1", &[2, 0])]);
        let member = StreamsGroupMember {
            id: "m".to_owned(),
            process_id: "p".to_owned(),
            client_id: "c".to_owned(),
            host: "/h".to_owned(),
            endpoint: None,
            is_classic: false,
            epoch: 4,
            assignment: StreamsTasks { active, ..StreamsTasks::default() },
            target: StreamsTasks::default(),
        };
        let subtopology = |id: &str, source: &str, between: &str| StreamsSubtopology {
            id: id.to_owned(),
            source_topics: vec![source.to_owned()],
            repartition_topics: vec![between.to_owned()],
            changelog_topics: vec!["log".to_owned()],
        };
        let group = StreamsGroupDescription {
            id: "app".to_owned(),
            state: "Stable".to_owned(),
            epoch: 5,
            assignment_epoch: 5,
            topology_epoch: 0,
            coordinator: 1,
            subtopologies: vec![subtopology("0", "in", "a"), subtopology("1", "other", "b")],
            members: vec![member],
        };
        let group = AnyGroup::Streams(group).into_group();
        let read: Vec<String> =
            group.members[0].assignment.iter().map(ToString::to_string).collect();
        assert_eq!(read, ["b-0", "b-2", "other-0", "other-2"]);
        assert_eq!((group.state.as_str(), group.epochs), ("Stable", Some((5, 5))));
        assert_eq!(names(&tasks(&[("0", &[1]), ("1", &[0, 3])])), ["0_1", "1_0", "1_3"]);
    }
}
