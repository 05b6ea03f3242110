//! A streams group as administrators see it.

use fleuve_protocol::Str;
use fleuve_protocol::messages::streams_group_topology_value::{Subtopology, TopicInfo};

use super::api::{
    StreamsDescription, StreamsMemberDescription, SubtopologyDescription, TopologyDescription,
};
use super::configure::{Configured, ConfiguredSubtopology, InternalTopic};
use super::group::StreamsGroup;
use super::member::Member;
use super::topology::Topology;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;

impl GroupCoordinator {
    /// Describes a streams group.
    pub fn describe_streams_group(&self, group_id: &str) -> Result<StreamsDescription, GroupError> {
        self.check_serving_group(group_id)?;
        let (Some((id, Group::Streams(companion))), Some(group)) =
            (self.groups.get_key_value(group_id), self.ledger().streams_group(group_id))
        else {
            return Err(GroupError::GroupIdNotFound);
        };
        let members = group.members().iter();
        let topology = group.topology.as_ref();
        Ok(StreamsDescription {
            group_id: id.clone(),
            state: group.state(),
            epoch: group.epoch,
            assignment_epoch: group.target_epoch,
            topology: topology
                .map(|topology| describe_topology(topology, companion.configured.as_deref())),
            members: members.map(|(id, member)| describe_member(group, id, member)).collect(),
            rebalances: companion.common.history.to_vec(),
        })
    }
}

/// Describes a topology, with numbers of partitions as they were decided if it fits the topics.
fn describe_topology(topology: &Topology, configured: Option<&Configured>) -> TopologyDescription {
    let decided = configured.filter(|configured| configured.is_ready());
    let subtopologies = topology.subtopologies.iter().map(|(id, subtopology)| {
        match decided.and_then(|configured| configured.subtopology(id)) {
            Some(decided) => describe_decided(id, decided),
            None => describe_wanted(id, subtopology),
        }
    });
    TopologyDescription { epoch: topology.epoch, subtopologies: subtopologies.collect() }
}

fn describe_decided(id: &Str, subtopology: &ConfiguredSubtopology) -> SubtopologyDescription {
    SubtopologyDescription {
        id: id.clone(),
        source_topics: subtopology.source_topics.iter().cloned().collect(),
        repartition_sink_topics: subtopology.repartition_sink_topics.iter().cloned().collect(),
        repartition_source_topics: by_name(subtopology.repartition_source_topics.clone()),
        changelog_topics: by_name(subtopology.changelog_topics.clone()),
    }
}

fn describe_wanted(id: &Str, subtopology: &Subtopology) -> SubtopologyDescription {
    let sorted = |names: &[Str]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let wanted = |topic: &TopicInfo| InternalTopic {
        name: topic.name.clone(),
        partitions: topic.partitions,
        replication_factor: Some(topic.replication_factor).filter(|factor| *factor != 0),
        configs: topic
            .topic_configs
            .iter()
            .map(|config| (config.key.clone(), config.value.clone()))
            .collect(),
    };
    let all = |topics: &[TopicInfo]| by_name(topics.iter().map(wanted).collect());
    SubtopologyDescription {
        id: id.clone(),
        source_topics: sorted(&subtopology.source_topics),
        repartition_sink_topics: sorted(&subtopology.repartition_sink_topics),
        repartition_source_topics: all(&subtopology.repartition_source_topics),
        changelog_topics: all(&subtopology.state_changelog_topics),
    }
}

fn by_name(mut topics: Vec<InternalTopic>) -> Vec<InternalTopic> {
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

fn describe_member(group: &StreamsGroup, id: &Str, member: &Member) -> StreamsMemberDescription {
    let tags = member.client_tags.iter();
    StreamsMemberDescription {
        member_id: id.clone(),
        instance_id: member.instance_id.clone(),
        rack_id: member.rack_id.clone(),
        member_epoch: member.epoch,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topology_epoch: member.topology_epoch,
        process_id: member.process_id.clone(),
        user_endpoint: member.endpoint.clone(),
        client_tags: tags.map(|(key, value)| (key.clone(), value.clone())).collect(),
        assignment: member.assigned.to_lists(),
        target: group.targets.get(id).map(|target| target.to_lists()).unwrap_or_default(),
    }
}
