//! From a topology and the topics there are to tasks: how many partitions the internal topics must
//! have, which of them are missing, and what keeps the application from running.
//!
//! 1. Source topics must exist.
//! 2. A repartition topic has the partitions it asks for, else as many as the widest source of the
//!    subtopologies that write to it, which may be repartition topics themselves.
//! 3. Topics that are joined must have equally many: repartition topics follow the others.
//! 4. A changelog topic has one partition for each task of its subtopology.
//! 5. Internal topics that exist must have what was found; those that do not are to be created.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_protocol::messages::streams_group_topology_value::{Subtopology, TopicInfo};

use super::topology::{Topology, sources};
use crate::error::GroupError;
use crate::topics::TopicView;

/// Most tasks of one application. Each costs memory in every assignment, and a few bytes of a
/// request could ask for very many.
const TASKS_MAX: i64 = 100_000;

/// Most topics that a message names.
const TOPICS_NAMED_MAX: usize = 3;

/// What a member should know about its group beside its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsStatus {
    /// What it is about.
    pub kind: StreamsStatusKind,
    /// For those who read logs.
    pub detail: String,
}

/// What a status is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamsStatusKind {
    /// The member's topology is older than the group's.
    StaleTopology,
    /// Topics that the application reads do not exist.
    MissingSourceTopics,
    /// Topics that must have equally many partitions do not.
    IncorrectlyPartitionedTopics,
    /// Topics that the broker creates for the application do not exist yet.
    MissingInternalTopics,
    /// A member asked all others to stop.
    ShutdownApplication,
    /// The tasks will be given out a little later.
    AssignmentDelayed,
}

/// An internal topic as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    /// Its name.
    pub name: Str,
    /// Its number of partitions.
    pub partitions: i32,
    /// Its replication factor; none for the broker's default.
    pub replication_factor: Option<i16>,
    /// Its configs.
    pub configs: Vec<(Str, Str)>,
}

/// A topology that was held against the topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Configured {
    /// None while the topology does not fit the topics.
    pub(crate) subtopologies: Option<BTreeMap<Str, ConfiguredSubtopology>>,
    /// Internal topics to be created.
    pub(crate) missing: Vec<InternalTopic>,
    /// What keeps the application from running.
    pub(crate) problem: Option<StreamsStatus>,
}

/// A subtopology whose topics are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfiguredSubtopology {
    pub(crate) tasks: i32,
    pub(crate) source_topics: BTreeSet<Str>,
    pub(crate) repartition_sink_topics: BTreeSet<Str>,
    pub(crate) repartition_source_topics: Vec<InternalTopic>,
    pub(crate) changelog_topics: Vec<InternalTopic>,
}

impl Configured {
    /// Whether there can be tasks.
    pub(crate) fn is_ready(&self) -> bool {
        self.problem.is_none()
    }

    /// The subtopologies, if the topology fits the topics.
    pub(crate) fn subtopology(&self, id: &str) -> Option<&ConfiguredSubtopology> {
        self.subtopologies.as_ref()?.get(id)
    }
}

/// Holds a topology against the topics.
pub(crate) fn configure(
    topology: &Topology,
    topics: &dyn TopicView,
) -> Result<Configured, GroupError> {
    let mut counts = Counts { topics, decided: BTreeMap::new() };
    let found = configure_topics(topology, topics, &mut counts);
    match found {
        Ok(configured) => Ok(configured),
        Err(Obstacle::Invalid(text)) => Err(GroupError::StreamsInvalidTopology(text)),
        Err(Obstacle::Topics(status)) => {
            Ok(Configured { problem: Some(status), ..Configured::default() })
        }
    }
}

/// Why a topology cannot be configured.
enum Obstacle {
    /// No topics could help it.
    Invalid(&'static str),
    /// It needs other topics.
    Topics(StreamsStatus),
}

fn configure_topics(
    topology: &Topology,
    topics: &dyn TopicView,
    counts: &mut Counts<'_>,
) -> Result<Configured, Obstacle> {
    check_sources(topology, topics)?;
    let mut repartition = repartition_counts(topology, counts)?;
    counts.decided.append(&mut repartition);
    enforce_copartitioning(topology, counts)?;
    let mut total: i64 = 0;
    for subtopology in topology.subtopologies.values() {
        let tasks = counts.of_sources(subtopology)?;
        total += i64::from(tasks);
        for changelog in &subtopology.state_changelog_topics {
            counts.decided.insert(changelog.name.clone(), tasks);
        }
    }
    if total > TASKS_MAX {
        return Err(Obstacle::Invalid("The topology has more tasks than are supported."));
    }
    let mut configured = BTreeMap::new();
    for (id, subtopology) in &topology.subtopologies {
        let internal = |all: &[TopicInfo]| -> Result<Vec<InternalTopic>, Obstacle> {
            all.iter().map(|topic| internal_topic(topic, counts)).collect()
        };
        let found = ConfiguredSubtopology {
            tasks: counts.of_sources(subtopology)?,
            source_topics: subtopology.source_topics.iter().cloned().collect(),
            repartition_sink_topics: subtopology.repartition_sink_topics.iter().cloned().collect(),
            repartition_source_topics: internal(&subtopology.repartition_source_topics)?,
            changelog_topics: internal(&subtopology.state_changelog_topics)?,
        };
        configured.insert(id.clone(), found);
    }
    let missing = missing_topics(&configured, topics)?;
    let problem = (!missing.is_empty()).then(|| StreamsStatus {
        kind: StreamsStatusKind::MissingInternalTopics,
        detail: format!(
            "Internal topics are missing: {}",
            summary(missing.iter().map(|topic| &topic.name))
        ),
    });
    Ok(Configured { subtopologies: Some(configured), missing, problem })
}

fn check_sources(topology: &Topology, topics: &dyn TopicView) -> Result<(), Obstacle> {
    let wanted = topology.subtopologies.values().flat_map(|known| &known.source_topics);
    let missing: BTreeSet<&Str> = wanted.filter(|topic| topics.by_name(topic).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Obstacle::Topics(StreamsStatus {
        kind: StreamsStatusKind::MissingSourceTopics,
        detail: format!("Source topics {} are missing.", summary(missing.into_iter())),
    }))
}

/// Numbers of partitions, of topics that exist and of those that were decided on.
struct Counts<'a> {
    topics: &'a dyn TopicView,
    decided: BTreeMap<Str, i32>,
}

impl Counts<'_> {
    fn of(&self, topic: &Str) -> Option<i32> {
        let existing = self.topics.by_name(topic).map(|topic| topic.partitions);
        existing.or_else(|| self.decided.get(topic).copied())
    }

    fn of_sources(&self, subtopology: &Subtopology) -> Result<i32, Obstacle> {
        let counts: Option<Vec<i32>> = sources(subtopology).map(|topic| self.of(topic)).collect();
        counts
            .and_then(|counts| counts.into_iter().max())
            .ok_or(Obstacle::Invalid("No source topics found for a subtopology."))
    }
}

/// Finds how many partitions repartition topics are to have.
fn repartition_counts(
    topology: &Topology,
    counts: &Counts<'_>,
) -> Result<BTreeMap<Str, i32>, Obstacle> {
    let subtopologies = || topology.subtopologies.values();
    let mut found: BTreeMap<Str, i32> = subtopologies()
        .flat_map(|subtopology| &subtopology.repartition_source_topics)
        .filter(|topic| topic.partitions != 0)
        .map(|topic| (topic.name.clone(), topic.partitions))
        .collect();
    loop {
        let mut is_complete = true;
        let mut has_moved = false;
        for subtopology in subtopologies() {
            let unknown: Vec<&Str> = subtopology
                .repartition_sink_topics
                .iter()
                .filter(|sink| !found.contains_key(*sink))
                .collect();
            if unknown.is_empty() {
                continue;
            }
            let internal = subtopology.repartition_source_topics.iter();
            let internal = internal.filter_map(|topic| found.get(&topic.name).copied());
            let external = subtopology.source_topics.iter().filter_map(|topic| counts.of(topic));
            match internal.chain(external).max() {
                Some(widest) => {
                    found.extend(unknown.into_iter().map(|sink| (sink.clone(), widest)));
                    has_moved = true;
                }
                None => is_complete = false,
            }
        }
        if is_complete {
            break;
        }
        if !has_moved {
            return Err(Obstacle::Invalid(
                "Failed to compute number of partitions for all repartition topics. There may be \
                 loops in the topology that cannot be resolved.",
            ));
        }
    }
    let mut wanted = subtopologies().flat_map(|subtopology| &subtopology.repartition_source_topics);
    if wanted.any(|topic| !found.contains_key(&topic.name)) {
        return Err(Obstacle::Invalid(
            "Failed to compute number of partitions for all repartition topics, because a \
             repartition source topic is never used as a sink topic.",
        ));
    }
    Ok(found)
}

fn enforce_copartitioning(topology: &Topology, counts: &mut Counts<'_>) -> Result<(), Obstacle> {
    let repartition: BTreeMap<&Str, bool> = topology
        .subtopologies
        .values()
        .flat_map(|subtopology| &subtopology.repartition_source_topics)
        .map(|topic| (&topic.name, topic.partitions != 0))
        .collect();
    for subtopology in topology.subtopologies.values() {
        for group in &subtopology.copartition_groups {
            let at = |index: &i16| usize::try_from(*index).ok();
            let external = group.source_topics.iter().filter_map(at);
            let external = external.filter_map(|index| subtopology.source_topics.get(index));
            let internal = group.repartition_source_topics.iter().filter_map(at);
            let internal = internal
                .filter_map(|index| subtopology.repartition_source_topics.get(index))
                .map(|topic| &topic.name);
            let topics: BTreeSet<&Str> = external.chain(internal).collect();
            let with_count = |topic: &&Str| Some(((*topic).clone(), counts.of(topic)?));
            let (inner, outer): (Vec<&Str>, Vec<&Str>) =
                topics.into_iter().partition(|topic| repartition.contains_key(topic));
            let inner: BTreeMap<Str, i32> = inner.iter().filter_map(with_count).collect();
            let outer: BTreeMap<Str, i32> = outer.iter().filter_map(with_count).collect();
            let is_fixed = |topic: &Str| repartition.get(topic) == Some(&true);
            let Some(partitions) = common_count(&inner, &outer, is_fixed)? else { continue };
            for (topic, count) in inner {
                if is_fixed(&topic) && count != partitions {
                    return Err(mismatch(format!(
                        "Number of partitions [{count}] of repartition topic [{topic}] doesn't \
                         match number of partitions [{partitions}] of the source topic."
                    )));
                }
                counts.decided.insert(topic, partitions);
            }
        }
    }
    Ok(())
}

/// How many partitions topics that are joined have in common; none if there are no topics.
fn common_count(
    inner: &BTreeMap<Str, i32>,
    outer: &BTreeMap<Str, i32>,
    is_fixed: impl Fn(&Str) -> bool,
) -> Result<Option<i32>, Obstacle> {
    let same = |of: &BTreeMap<Str, i32>, all: &BTreeMap<Str, i32>| {
        let mut counts = of.values();
        let first = counts.next().copied();
        if counts.all(|count| Some(*count) == first) {
            return Ok(first);
        }
        let all: Vec<String> =
            all.iter().map(|(topic, count)| format!("{topic}={count}")).collect();
        Err(mismatch(format!(
            "Following topics do not have the same number of partitions: [{{{}}}]",
            all.join(", ")
        )))
    };
    if !outer.is_empty() {
        return same(outer, outer);
    }
    let fixed: BTreeMap<Str, i32> = inner
        .iter()
        .filter(|(topic, _)| is_fixed(topic))
        .map(|(topic, count)| (topic.clone(), *count))
        .collect();
    match fixed.is_empty() {
        true => Ok(inner.values().max().copied()),
        false => same(&fixed, inner),
    }
}

fn internal_topic(topic: &TopicInfo, counts: &Counts<'_>) -> Result<InternalTopic, Obstacle> {
    let partitions = match topic.partitions {
        0 => counts.decided.get(&topic.name).copied(),
        fixed => Some(fixed),
    };
    Ok(InternalTopic {
        name: topic.name.clone(),
        partitions: partitions
            .filter(|partitions| *partitions > 0)
            .ok_or(Obstacle::Invalid("An internal topic must have at least one partition."))?,
        replication_factor: Some(topic.replication_factor).filter(|factor| *factor != 0),
        configs: topic
            .topic_configs
            .iter()
            .map(|config| (config.key.clone(), config.value.clone()))
            .collect(),
    })
}

fn missing_topics(
    subtopologies: &BTreeMap<Str, ConfiguredSubtopology>,
    topics: &dyn TopicView,
) -> Result<Vec<InternalTopic>, Obstacle> {
    let mut missing = BTreeMap::new();
    let internal = subtopologies.values().flat_map(|subtopology| {
        subtopology.repartition_source_topics.iter().chain(&subtopology.changelog_topics)
    });
    for topic in internal {
        match topics.by_name(&topic.name) {
            None => {
                missing.insert(&topic.name, topic);
            }
            Some(existing) if existing.partitions != topic.partitions => {
                return Err(mismatch(format!(
                    "Existing topic {} has different number of partitions: expected {}, found {}",
                    topic.name, topic.partitions, existing.partitions
                )));
            }
            Some(_) => {}
        }
    }
    Ok(missing.into_values().cloned().collect())
}

fn mismatch(detail: String) -> Obstacle {
    Obstacle::Topics(StreamsStatus {
        kind: StreamsStatusKind::IncorrectlyPartitionedTopics,
        detail,
    })
}

fn summary<'a>(topics: impl ExactSizeIterator<Item = &'a Str>) -> String {
    let more = topics.len().saturating_sub(TOPICS_NAMED_MAX);
    let named: Vec<&str> = topics.take(TOPICS_NAMED_MAX).map(Str::as_str).collect();
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} additional topics", named.join(", ")),
    }
}
