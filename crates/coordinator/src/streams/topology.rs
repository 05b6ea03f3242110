//! The topology of a streams application, as its members describe it.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_protocol::messages::streams_group_topology_value::{
    CopartitionGroup, StreamsGroupTopologyValue, Subtopology, TopicConfig, TopicInfo,
};

use crate::error::GroupError;

/// Most subtopologies of one application; the work on a topology may grow with their square.
const SUBTOPOLOGIES_MAX: usize = 2_000;

/// What an application is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Topology {
    pub(crate) epoch: i32,
    pub(crate) subtopologies: BTreeMap<Str, Subtopology>,
}

impl Topology {
    /// Takes over a topology from a record or a request.
    pub(crate) fn new(value: &StreamsGroupTopologyValue) -> Self {
        let own =
            |subtopology: &Subtopology| (subtopology.subtopology_id.detach(), own(subtopology));
        Self { epoch: value.epoch, subtopologies: value.subtopologies.iter().map(own).collect() }
    }

    /// The topology as a record, subtopologies in the order of their ids.
    pub(crate) fn to_record(&self) -> StreamsGroupTopologyValue {
        let subtopologies = self.subtopologies.values().cloned().collect();
        StreamsGroupTopologyValue { epoch: self.epoch, subtopologies }
    }

    /// The topics that must exist for the application to run: all but the sinks.
    pub(crate) fn required_topics(&self) -> BTreeSet<&Str> {
        self.subtopologies
            .values()
            .flat_map(|subtopology| {
                let repartition = subtopology.repartition_source_topics.iter();
                let changelog = subtopology.state_changelog_topics.iter();
                subtopology
                    .source_topics
                    .iter()
                    .chain(repartition.chain(changelog).map(|topic| &topic.name))
            })
            .collect()
    }

    /// The subtopology that reads a topic.
    pub(crate) fn reader_of(&self, topic: &str) -> Option<&Subtopology> {
        self.subtopologies
            .values()
            .find(|subtopology| sources(subtopology).any(|source| **source == *topic))
    }
}

/// The topics that a subtopology reads, repartition topics among them.
pub(crate) fn sources(subtopology: &Subtopology) -> impl Iterator<Item = &Str> {
    let repartition = subtopology.repartition_source_topics.iter();
    subtopology.source_topics.iter().chain(repartition.map(|topic| &topic.name))
}

/// Refuses a topology that cannot be meant, before it is stored.
pub(crate) fn check(value: &StreamsGroupTopologyValue) -> Result<(), GroupError> {
    let require = |holds: bool, text: &'static str| {
        if holds { Ok(()) } else { Err(GroupError::StreamsInvalidTopology(text)) }
    };
    require(value.epoch >= 0, "The epoch of a topology must not be negative.")?;
    require(
        value.subtopologies.len() <= SUBTOPOLOGIES_MAX,
        "The topology has more subtopologies than are supported.",
    )?;
    let mut ids = BTreeSet::new();
    for subtopology in &value.subtopologies {
        require(
            ids.insert(&subtopology.subtopology_id),
            "A topology must not name a subtopology twice.",
        )?;
        require(
            subtopology.state_changelog_topics.iter().all(|topic| topic.partitions == 0),
            "Changelog topics must have an undefined partition count.",
        )?;
        require(
            subtopology.repartition_source_topics.iter().all(|topic| topic.partitions >= 0),
            "Repartition topics must not have a negative partition count.",
        )?;
        require(
            sources(subtopology).next().is_some(),
            "No source topics found for a subtopology.",
        )?;
        for group in &subtopology.copartition_groups {
            let within = |indexes: &[i16], length: usize| {
                indexes.iter().all(|index| usize::try_from(*index).is_ok_and(|at| at < length))
            };
            require(
                within(&group.source_topics, subtopology.source_topics.len())
                    && within(
                        &group.repartition_source_topics,
                        subtopology.repartition_source_topics.len(),
                    ),
                "A copartition group points to a topic that its subtopology does not have.",
            )?;
        }
    }
    Ok(())
}

/// Copies a subtopology out of the segment or frame it came in, which would stay in memory
/// otherwise.
fn own(subtopology: &Subtopology) -> Subtopology {
    let own_all = |all: &[Str]| all.iter().map(Str::detach).collect();
    let own_topic = |topic: &TopicInfo| TopicInfo {
        name: topic.name.detach(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        topic_configs: topic
            .topic_configs
            .iter()
            .map(|TopicConfig { key, value }| TopicConfig {
                key: key.detach(),
                value: value.detach(),
            })
            .collect(),
    };
    let own_topics = |all: &[TopicInfo]| all.iter().map(own_topic).collect();
    Subtopology {
        subtopology_id: subtopology.subtopology_id.detach(),
        source_topics: own_all(&subtopology.source_topics),
        source_topic_regex: own_all(&subtopology.source_topic_regex),
        state_changelog_topics: own_topics(&subtopology.state_changelog_topics),
        repartition_sink_topics: own_all(&subtopology.repartition_sink_topics),
        repartition_source_topics: own_topics(&subtopology.repartition_source_topics),
        copartition_groups: subtopology
            .copartition_groups
            .iter()
            .map(|group| CopartitionGroup {
                source_topics: group.source_topics.clone(),
                source_topic_regex: group.source_topic_regex.clone(),
                repartition_source_topics: group.repartition_source_topics.clone(),
            })
            .collect(),
    }
}
