//! Streams groups (KIP-1071): what an application is made of, and which of its threads has which
//! tasks.

use std::collections::BTreeSet;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use fleuve_protocol::messages::streams_group_describe_response::{
    Assignment, Member, Subtopology, TaskIds, TopicInfo,
};

use super::Admin;
use super::groups::retriable;
use crate::error::{Error, Result, check_said};

/// A streams group with its topology and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsGroupDescription {
    /// The group's id, which is `application.id`.
    pub id: String,
    /// `Stable`, `NotReady`, `Empty` and so on.
    pub state: String,
    /// Grows with every change.
    pub epoch: i32,
    /// The epoch that the target assignment was made for.
    pub assignment_epoch: i32,
    /// The epoch of the topology.
    pub topology_epoch: i32,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// What the application is made of, by id.
    pub subtopologies: Vec<StreamsSubtopology>,
    /// The threads of its instances, by id.
    pub members: Vec<StreamsGroupMember>,
}

/// A part of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsSubtopology {
    /// Its id.
    pub id: String,
    /// Topics that it reads, except for repartition topics.
    pub source_topics: Vec<String>,
    /// Repartition topics that it reads.
    pub repartition_topics: Vec<String>,
    /// Changelogs of its state.
    pub changelog_topics: Vec<String>,
}

/// A thread of an instance of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsGroupMember {
    /// The member's id.
    pub id: String,
    /// The instance that it belongs to.
    pub process_id: String,
    /// `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Host and port where its instance answers (`application.server`), if it says so.
    pub endpoint: Option<(String, u16)>,
    /// How far it has come.
    pub epoch: i32,
    /// Whether it is there by the classic protocol, while the group changes over.
    pub is_classic: bool,
    /// What it has.
    pub assignment: StreamsTasks,
    /// What it is to have.
    pub target: StreamsTasks,
}

/// Tasks by subtopology, in three roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsTasks {
    /// Those that process records.
    pub active: Vec<(String, Vec<i32>)>,
    /// Those that keep copies of state.
    pub standby: Vec<(String, Vec<i32>)>,
    /// Those that build up state.
    pub warmup: Vec<(String, Vec<i32>)>,
}

impl StreamsGroupDescription {
    /// Topics that the broker keeps for the application, each once. A source topic is none of them,
    /// though it may serve as the changelog of the table that is read from it.
    pub fn internal_topics(&self) -> Vec<String> {
        let sources: BTreeSet<&String> =
            self.subtopologies.iter().flat_map(|subtopology| &subtopology.source_topics).collect();
        let of = |subtopology: &StreamsSubtopology| {
            let topics = subtopology.repartition_topics.iter().chain(&subtopology.changelog_topics);
            topics.cloned().collect::<Vec<_>>()
        };
        let topics: BTreeSet<String> = self.subtopologies.iter().flat_map(of).collect();
        topics.into_iter().filter(|topic| !sources.contains(topic)).collect()
    }

    /// Topics that the application reads, repartition topics among them.
    pub fn input_topics(&self) -> Vec<String> {
        let of = |subtopology: &StreamsSubtopology| {
            let topics = subtopology.source_topics.iter().chain(&subtopology.repartition_topics);
            topics.cloned().collect::<Vec<_>>()
        };
        self.subtopologies.iter().flat_map(of).collect()
    }
}

impl Admin {
    /// Describes a streams group.
    pub async fn describe_streams_group(&self, group: &str) -> Result<StreamsGroupDescription> {
        let build = |_| StreamsGroupDescribeRequest {
            group_ids: vec![group.to_owned().into()],
            ..StreamsGroupDescribeRequest::default()
        };
        let response = self
            .client
            .call_coordinator::<StreamsGroupDescribeRequest>(group, i16::MAX, build, |response| {
                response.groups.first().map_or(0, |group| retriable(group.error_code))
            })
            .await?;
        let missing = || Error::broker(format!("group {group}"), ErrorCode::GroupIdNotFound);
        let described = response.groups.into_iter().next().ok_or_else(missing)?;
        let words = described.error_message.as_deref();
        check_said(described.error_code, words, || format!("group {group}"))?;
        let topology = described.topology.unwrap_or_default();
        let subtopologies = topology.subtopologies.unwrap_or_default();
        let mut members: Vec<_> = described.members.into_iter().map(member).collect();
        members.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        Ok(StreamsGroupDescription {
            id: described.group_id.to_string(),
            state: described.group_state.to_string(),
            epoch: described.group_epoch,
            assignment_epoch: described.assignment_epoch,
            topology_epoch: topology.epoch,
            coordinator: self.client.coordinator(group).await?,
            subtopologies: subtopologies.into_iter().map(subtopology).collect(),
            members,
        })
    }
}

fn subtopology(subtopology: Subtopology) -> StreamsSubtopology {
    let names = |topics: &[TopicInfo]| topics.iter().map(|topic| topic.name.to_string()).collect();
    StreamsSubtopology {
        id: subtopology.subtopology_id.to_string(),
        source_topics: subtopology.source_topics.iter().map(ToString::to_string).collect(),
        repartition_topics: names(&subtopology.repartition_source_topics),
        changelog_topics: names(&subtopology.state_changelog_topics),
    }
}

fn member(member: Member) -> StreamsGroupMember {
    StreamsGroupMember {
        id: member.member_id.to_string(),
        process_id: member.process_id.to_string(),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        endpoint: member.user_endpoint.map(|at| (at.host.to_string(), at.port)),
        epoch: member.member_epoch,
        is_classic: member.is_classic,
        assignment: tasks(member.assignment),
        target: tasks(member.target_assignment),
    }
}

fn tasks(assignment: Assignment) -> StreamsTasks {
    let list = |tasks: Vec<TaskIds>| {
        let tasks = tasks.into_iter();
        tasks.map(|task| (task.subtopology_id.to_string(), task.partitions)).collect()
    };
    StreamsTasks {
        active: list(assignment.active_tasks),
        standby: list(assignment.standby_tasks),
        warmup: list(assignment.warmup_tasks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_read_is_not_internal() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let subtopology = |id: &str, sources: &[&str], between: &[&str], changelogs: &[&str]| {
            StreamsSubtopology {
                id: id.to_owned(),
                source_topics: names(sources),
                repartition_topics: names(between),
                changelog_topics: names(changelogs),
            }
        };
        let group = StreamsGroupDescription {
            id: "app".to_owned(),
            state: "Empty".to_owned(),
            epoch: 1,
            assignment_epoch: 1,
            topology_epoch: 0,
            coordinator: 0,
            subtopologies: vec![
                subtopology("0", &["lines"], &[], &["table"]),
                subtopology("1", &["table"], &["app-a-repartition"], &["app-a-changelog"]),
            ],
            members: Vec::new(),
        };
        assert_eq!(group.internal_topics(), ["app-a-changelog", "app-a-repartition"]);
    }
}
