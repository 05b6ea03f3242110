//! How an application takes part in its group: by the streams group protocol (KIP-1071), where the broker shares out
//! tasks, or by the classic one, where our own assignor does.

use std::collections::BTreeSet;

use fleuve_client::consumer::{StreamsMember, StreamsSubtopology, StreamsTask, StreamsTopic};
use fleuve_client::{Admin, ErrorCode};

use super::layout::Layout;
use super::topics::copartitioned;
use super::{Settings, StreamsError};
use crate::topology::{InternalTopic, Plan};

/// `group.protocol`: who shares out the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamsGroupProtocol {
    /// `classic`: the members, by our assignor.
    #[default]
    Classic,
    /// The broker where it can, unless the application's group is one of the classic protocol already: a group keeps
    /// its protocol, and with it its committed offsets, also for instances that only know the classic one.
    Auto,
    /// `streams`: the broker (KIP-1071).
    Streams,
}

/// The group's state when nobody has heard of it.
const UNKNOWN_GROUP: &str = "Dead";
/// The feature of brokers that share out tasks, and the level from which they do.
const FEATURE: &str = "streams.version";
const FEATURE_LEVEL: i16 = 1;

/// Whether the broker is to share out the tasks.
pub(super) async fn is_brokers_work(
    plan: &Plan,
    admin: &Admin,
    settings: &Settings,
) -> Result<bool, StreamsError> {
    match settings.group_protocol {
        StreamsGroupProtocol::Classic => return Ok(false),
        // Brokers of Kafka 4.3 refuse topologies that have some.
        StreamsGroupProtocol::Auto if plan.has_patterns() => return Ok(false),
        StreamsGroupProtocol::Streams if plan.has_patterns() => {
            return Err(StreamsError::PatternOfBroker);
        }
        StreamsGroupProtocol::Streams => return Ok(true),
        // Brokers do not know static members of these groups yet.
        StreamsGroupProtocol::Auto if settings.group_instance_id.is_some() => return Ok(false),
        StreamsGroupProtocol::Auto => {}
    }
    let (features, _) = admin.describe_features().await?;
    let is_offered = features
        .iter()
        .any(|feature| feature.name == FEATURE && feature.finalized >= FEATURE_LEVEL);
    if !is_offered {
        return Ok(false);
    }
    match admin.describe_group(plan.application_id()).await {
        Ok(group) => Ok(group.state == UNKNOWN_GROUP),
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// What a thread tells the broker.
pub(super) fn member(layout: &Layout, settings: &Settings, process_id: &str) -> StreamsMember {
    let plan = &layout.plan;
    let parts = plan.subtopologies().iter().filter(|part| !part.global);
    let repartitions: BTreeSet<&str> = plan
        .subtopologies()
        .iter()
        .flat_map(|part| &part.repartition_topics)
        .map(|topic| topic.name.as_str())
        .collect();
    let topic = |topic: &InternalTopic, partitions: i32| StreamsTopic {
        name: topic.name.clone(),
        partitions,
        replication_factor: settings.replication_factor,
        configs: topic.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
    };
    let subtopologies = parts.map(|part| StreamsSubtopology {
        id: part.id.to_string(),
        source_topics: part
            .source_topics
            .iter()
            .filter(|name| !part.repartition_topics.iter().any(|own| own.name == **name))
            .cloned()
            .collect(),
        repartition_topics: part
            .repartition_topics
            .iter()
            .map(|own| topic(own, own.partitions.unwrap_or(0)))
            .collect(),
        repartition_sinks: part
            .sink_topics
            .iter()
            .filter(|name| repartitions.contains(name.as_str()))
            .cloned()
            .collect(),
        // As many as there are tasks, which the broker knows.
        changelog_topics: part.changelog_topics.iter().map(|own| topic(own, 0)).collect(),
        copartitions: copartitioned(plan)
            .into_iter()
            .filter(|group| group.is_subset(&part.source_topics))
            .collect(),
    });
    let tasks = layout.tasks.iter().map(|(id, partitions)| {
        let task = StreamsTask { subtopology: id.subtopology.to_string(), partition: id.partition };
        (task, partitions.clone())
    });
    StreamsMember {
        process_id: process_id.to_owned(),
        subtopologies: subtopologies.collect(),
        endpoint: settings.application_server.as_deref().and_then(|server| {
            let (host, port) = server.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        }),
        client_tags: settings
            .client_tags
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        tasks: tasks.collect(),
    }
}
