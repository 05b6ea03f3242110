//! Internal topics: how many partitions they need, and their creation.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleuve_client::admin::NewTopic;
use fleuve_client::{Admin, Cluster, ErrorCode};
use tokio::time::Instant;

use super::{Settings, StreamsError};
use crate::topology::{InternalTopic, Kind, Plan, SinkTopic};

/// The number of partitions of every topic that tasks read, and of those they write where it matters.
pub(super) type Counts = BTreeMap<String, usize>;

/// Finds or decides the partition counts of all source topics, and creates what is missing. Topics of `cluster` need not
/// be asked for. What is behind patterns that match nothing yet is left for later.
pub(super) async fn prepare(
    plan: &Plan,
    admin: &Admin,
    settings: &Settings,
    cluster: Option<&Cluster>,
) -> Result<Counts, StreamsError> {
    let known = |topic: &str| {
        let partitions = cluster?.topic(topic)?.partitions.len();
        (partitions > 0).then_some(partitions)
    };
    let internal: BTreeMap<&str, &InternalTopic> = plan
        .subtopologies()
        .iter()
        .flat_map(|part| &part.repartition_topics)
        .map(|topic| (topic.name.as_str(), topic))
        .collect();
    let mut counts = Counts::new();
    for part in plan.subtopologies() {
        for topic in &part.source_topics {
            if !internal.contains_key(topic.as_str()) && !counts.contains_key(topic) {
                let count = match known(topic) {
                    Some(count) => count,
                    None => count_of(admin, topic).await?,
                };
                counts.insert(topic.clone(), count);
            }
        }
    }
    for topic in plan.policies.dead_letter_topics() {
        if let Err(StreamsError::MissingTopic(topic)) = count_of(admin, topic).await {
            return Err(StreamsError::MissingDeadLetterTopic(topic));
        }
    }
    decide(plan, &internal, &mut counts);
    check_copartitions(plan, &counts)?;
    for (topic, partitions) in needed(plan, &internal, &counts) {
        match known(&topic.name) {
            Some(found) => check_count(topic, found, partitions)?,
            None => create(admin, topic, partitions, settings).await?,
        }
    }
    for node in plan.nodes.iter().filter(|node| node.counts_partitions) {
        if let Kind::Sink(SinkTopic::Fixed(topic)) = &node.kind {
            let topic = plan.decorated(topic);
            if internal.contains_key(topic.as_str()) {
                continue;
            }
            if let Entry::Vacant(unknown) = counts.entry(topic.clone()) {
                unknown.insert(count_of(admin, &topic).await?);
            }
        }
    }
    Ok(counts)
}

/// The internal topics with the partitions that they need, as far as that is known.
fn needed<'a>(
    plan: &'a Plan,
    internal: &BTreeMap<&str, &'a InternalTopic>,
    counts: &Counts,
) -> Vec<(&'a InternalTopic, usize)> {
    let repartitions = internal.values().copied();
    let repartitions =
        repartitions.filter_map(|topic| Some((topic, counts.get(&topic.name).copied()?)));
    let changelogs = plan.subtopologies().iter().flat_map(|part| {
        let tasks = tasks_of(part, counts);
        part.changelog_topics.iter().map(move |topic| (topic, tasks)).filter(move |_| tasks > 0)
    });
    repartitions.chain(changelogs).collect()
}

/// A subtopology has as many tasks as its largest source topic has partitions.
pub(super) fn tasks_of(part: &crate::topology::Subtopology, counts: &Counts) -> usize {
    part.source_topics.iter().filter_map(|topic| counts.get(topic)).copied().max().unwrap_or(0)
}

async fn count_of(admin: &Admin, topic: &str) -> Result<usize, StreamsError> {
    let begun = Instant::now();
    loop {
        match admin.client().topic(topic, false).await {
            Ok(info) => return Ok(info.partitions.len()),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                // One of several brokers may not have heard yet of a topic that was made a moment ago.
                if begun.elapsed() >= NEWS_PATIENCE {
                    return Err(StreamsError::MissingTopic(topic.to_owned()));
                }
                tokio::time::sleep(NEWS_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long brokers may take to hear of a new topic, and the pause between two looks.
const NEWS_PATIENCE: Duration = Duration::from_secs(2);
const NEWS_PAUSE: Duration = Duration::from_millis(100);

/// A repartition topic has the partitions that the program set; else those of the external topic it is joined with;
/// else as many as the largest topic of those that write to it.
fn decide(plan: &Plan, internal: &BTreeMap<&str, &InternalTopic>, counts: &mut Counts) {
    for (name, topic) in internal {
        if let Some(partitions) = topic.partitions {
            counts.insert((*name).to_owned(), partitions.max(1) as usize);
        }
    }
    // Each round decides at least one topic, or none is left that can be decided.
    for _ in 0..=internal.len() {
        for group in copartitioned(plan) {
            let external = group
                .iter()
                .filter(|topic| !internal.contains_key(topic.as_str()))
                .filter_map(|topic| counts.get(topic))
                .copied()
                .max();
            if let Some(external) = external {
                for topic in &group {
                    counts.entry(topic.clone()).or_insert(external);
                }
            }
        }
        for part in plan.subtopologies() {
            let tasks = tasks_of(part, counts);
            if tasks == 0 {
                continue;
            }
            for topic in &part.sink_topics {
                let set =
                    internal.get(topic.as_str()).is_some_and(|topic| topic.partitions.is_some());
                if internal.contains_key(topic.as_str()) && !set && !is_bound(plan, internal, topic)
                {
                    let count = counts.entry(topic.clone()).or_insert(tasks);
                    *count = (*count).max(tasks);
                }
            }
        }
        // Repartition topics joined with each other take the largest count among them.
        for group in copartitioned(plan) {
            let largest = group.iter().filter_map(|topic| counts.get(topic)).max().copied();
            let all_internal = group.iter().all(|topic| internal.contains_key(topic.as_str()));
            if let (Some(largest), true) = (largest, all_internal) {
                for topic in group {
                    counts.insert(topic, largest);
                }
            }
        }
    }
}

/// Whether a repartition topic is joined with an external one, whose count it has to take.
fn is_bound(plan: &Plan, internal: &BTreeMap<&str, &InternalTopic>, topic: &str) -> bool {
    copartitioned(plan).into_iter().any(|group| {
        group.contains(topic) && group.iter().any(|other| !internal.contains_key(other.as_str()))
    })
}

/// Groups of topics that must have the same number of partitions.
pub(super) fn copartitioned(plan: &Plan) -> Vec<BTreeSet<String>> {
    plan.copartitions
        .iter()
        .map(|group| {
            group
                .sources
                .iter()
                .filter_map(|id| match &plan.nodes[*id].kind {
                    Kind::Source { topics, .. } => Some(topics),
                    Kind::Processor | Kind::Sink(_) => None,
                })
                .flatten()
                .map(|topic| plan.decorated(topic))
                .collect()
        })
        .collect()
}

fn check_copartitions(plan: &Plan, counts: &Counts) -> Result<(), StreamsError> {
    for group in copartitioned(plan) {
        let found: BTreeSet<usize> =
            group.iter().filter_map(|topic| counts.get(topic)).copied().collect();
        if found.len() > 1 {
            return Err(StreamsError::Copartition {
                what: group.iter().cloned().collect::<Vec<_>>().join(", "),
                counts: group
                    .iter()
                    .filter_map(|topic| counts.get(topic))
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
    }
    Ok(())
}

/// Creates a topic, unless it is there already, perhaps because another instance was faster.
async fn create(
    admin: &Admin,
    topic: &InternalTopic,
    partitions: usize,
    settings: &Settings,
) -> Result<(), StreamsError> {
    let mut new = NewTopic::new(&topic.name)
        .partitions(partitions as i32)
        .replication_factor(settings.replication_factor);
    for (key, value) in &topic.config {
        new = new.config(key, value);
    }
    for (_, result) in admin.create_topics(&[new], false).await? {
        match result {
            Ok(_) => tracing::info!(topic = topic.name, partitions, "internal topic created"),
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // It exists by now, but a broker may hear of it a moment later than its controller: hence the patience of `true`.
    let found = admin.client().topic(&topic.name, true).await?.partitions.len();
    check_count(topic, found, partitions)
}

fn check_count(topic: &InternalTopic, found: usize, needed: usize) -> Result<(), StreamsError> {
    if found != needed {
        return Err(StreamsError::InternalTopic { topic: topic.name.clone(), found, needed });
    }
    Ok(())
}
