//! Which process answers queries about which partitions.

use std::collections::BTreeSet;

use fleuve_protocol::Str;

use super::api::EndpointPartitions;
use super::configure::{Configured, ConfiguredSubtopology};
use super::member::Member;
use super::tasks::TaskList;
use crate::topics::TopicView;

/// Lists what the members that have an endpoint can be asked about.
pub(super) fn endpoints<'a>(
    members: impl Iterator<Item = &'a Member>,
    configured: &Configured,
    topics: &dyn TopicView,
) -> Vec<EndpointPartitions> {
    let of = |member: &Member| {
        let (host, port) = member.endpoint.clone()?;
        let tasks = member.assigned.to_lists();
        Some(EndpointPartitions {
            host,
            port,
            active: partitions(&tasks.active, configured, topics),
            standby: partitions(&tasks.standby, configured, topics),
        })
    };
    members.filter_map(of).collect()
}

/// The partitions that tasks read; a topic may have fewer than its subtopology has tasks.
fn partitions(
    tasks: &TaskList,
    configured: &Configured,
    topics: &dyn TopicView,
) -> Vec<(Str, Vec<i32>)> {
    let mut found = Vec::new();
    for (subtopology, wanted) in tasks {
        let Some(subtopology) = configured.subtopology(subtopology) else { continue };
        for topic in sources(subtopology) {
            let Some(count) = topics.by_name(topic).map(|topic| topic.partitions) else { continue };
            let read: Vec<i32> =
                wanted.iter().copied().filter(|partition| *partition < count).collect();
            if !read.is_empty() {
                found.push((topic.clone(), read));
            }
        }
    }
    found
}

fn sources(subtopology: &ConfiguredSubtopology) -> BTreeSet<&Str> {
    let repartition = subtopology.repartition_source_topics.iter().map(|topic| &topic.name);
    subtopology.source_topics.iter().chain(repartition).collect()
}
