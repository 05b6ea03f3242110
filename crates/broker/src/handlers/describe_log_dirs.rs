//! DescribeLogDirs, versions 1–5: what each data directory holds, and how much room it has.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use fleuve_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use fleuve_protocol::{ErrorCode, Str};

use super::permission;
use crate::request::{Context, Outcome};
use crate::topics::Topic;

const UNKNOWN: i64 = -1;

type ByDirectory = BTreeMap<PathBuf, Vec<DescribeLogDirsTopic>>;

pub(crate) fn handle(
    context: &Context,
    request: DescribeLogDirsRequest,
) -> Outcome<DescribeLogDirsResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::Describe) {
        let error_code = code.code();
        return Outcome::Now(DescribeLogDirsResponse { error_code, ..Default::default() });
    }
    let node = &context.node;
    let mut by_directory = ByDirectory::new();
    match request.topics {
        None => node.topics.all().iter().for_each(|topic| add(topic, None, &mut by_directory)),
        Some(wanted) => {
            for wanted in wanted {
                if let Some(topic) = node.topics.by_name(&wanted.topic) {
                    let indexes = wanted.partitions.into_iter().collect();
                    add(&topic, Some(indexes), &mut by_directory);
                }
            }
        }
    }
    let results = node.logs.manager().directories().map(|directory| {
        let log_dir = Str::from(directory.path.display().to_string());
        if directory.failure.is_some() {
            let error_code = ErrorCode::KafkaStorageError.code();
            return DescribeLogDirsResult { error_code, log_dir, ..Default::default() };
        }
        let space = node.logs.space(&directory.path);
        DescribeLogDirsResult {
            log_dir,
            topics: by_directory.remove(&directory.path).unwrap_or_default(),
            total_bytes: space.total.unwrap_or(UNKNOWN),
            usable_bytes: space.free.unwrap_or(UNKNOWN),
            is_cordoned: node.logs.manager().is_cordoned(&directory.path),
            ..Default::default()
        }
    });
    let results = results.collect();
    Outcome::Now(DescribeLogDirsResponse { results, ..Default::default() })
}

fn add(topic: &Topic, wanted: Option<HashSet<i32>>, by_directory: &mut ByDirectory) {
    for partition in &topic.partitions {
        let partition_index = partition.name().partition;
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&partition_index)) {
            continue;
        }
        let described = DescribeLogDirsPartition { partition_index, ..Default::default() };
        // A topic that is being deleted has no directory any more.
        let Some(directory) = partition.data_directory() else { continue };
        let partition_size = partition.size().map_or(UNKNOWN, |bytes| bytes as i64);
        put(topic, by_directory, directory, described.clone(), partition_size);
        if let Some(copy) = partition.copy_state() {
            let future =
                DescribeLogDirsPartition { is_future_key: true, offset_lag: copy.lag, ..described };
            let size = copy.size.map_or(UNKNOWN, |bytes| bytes as i64);
            put(topic, by_directory, copy.directory, future, size);
        }
    }
}

fn put(
    topic: &Topic,
    by_directory: &mut ByDirectory,
    directory: PathBuf,
    partition: DescribeLogDirsPartition,
    partition_size: i64,
) {
    let topics = by_directory.entry(directory).or_default();
    if topics.last().is_none_or(|last| last.name != topic.name) {
        topics.push(DescribeLogDirsTopic { name: topic.name.clone(), partitions: Vec::new() });
    }
    if let Some(last) = topics.last_mut() {
        last.partitions.push(DescribeLogDirsPartition { partition_size, ..partition });
    }
}
