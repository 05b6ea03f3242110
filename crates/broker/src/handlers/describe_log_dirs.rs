//! DescribeLogDirs, versions 1–5: what each data directory holds.
//!
//! The size of the volume is not told (-1), only what is free on it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use fleuve_protocol::Str;
use fleuve_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use fleuve_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use crate::request::{Context, Outcome};
use crate::topics::Topic;

const UNKNOWN: i64 = -1;

pub(crate) fn handle(
    context: &Context,
    request: DescribeLogDirsRequest,
) -> Outcome<DescribeLogDirsResponse> {
    let topics = &context.node.topics;
    let mut by_directory: BTreeMap<PathBuf, Vec<DescribeLogDirsTopic>> = BTreeMap::new();
    let mut free = BTreeMap::new();
    for (directory, bytes) in context.node.logs.free_space() {
        by_directory.insert(directory.clone(), Vec::new());
        free.insert(directory, bytes);
    }
    match request.topics {
        None => topics.all().iter().for_each(|topic| add(topic, None, &mut by_directory)),
        Some(wanted) => {
            for wanted in wanted {
                if let Some(topic) = topics.by_name(&wanted.topic) {
                    let indexes = wanted.partitions.into_iter().collect();
                    add(&topic, Some(indexes), &mut by_directory);
                }
            }
        }
    }
    let results = by_directory.into_iter().map(|(directory, topics)| DescribeLogDirsResult {
        log_dir: Str::from(directory.display().to_string()),
        topics,
        total_bytes: UNKNOWN,
        usable_bytes: free.get(&directory).copied().flatten().unwrap_or(UNKNOWN),
        ..Default::default()
    });
    Outcome::Now(DescribeLogDirsResponse { results: results.collect(), ..Default::default() })
}

fn add(
    topic: &Topic,
    wanted: Option<HashSet<i32>>,
    by_directory: &mut BTreeMap<PathBuf, Vec<DescribeLogDirsTopic>>,
) {
    for partition in &topic.partitions {
        let partition_index = partition.name().partition;
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&partition_index)) {
            continue;
        }
        // A topic that is being deleted has no directory any more.
        let Some(directory) = partition.data_directory() else { continue };
        let topics = by_directory.entry(directory).or_default();
        if topics.last().is_none_or(|last| last.name != topic.name) {
            topics.push(DescribeLogDirsTopic { name: topic.name.clone(), partitions: Vec::new() });
        }
        if let Some(last) = topics.last_mut() {
            last.partitions.push(DescribeLogDirsPartition {
                partition_index,
                partition_size: partition.size().map_or(UNKNOWN, |bytes| bytes as i64),
                ..Default::default()
            });
        }
    }
}
