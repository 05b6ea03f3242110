//! The tool about leaders, `kafka-leader-election`, and the files of partitions that it takes.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Parser};
use fleuve_client::admin::ElectionType;
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use serde_json::Value;

use super::Connect;
use crate::failure::Failure;
use crate::output::line;

/// Elect leaders.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("which").required(true)
    .args(["topic", "all_topic_partitions", "path_to_json_file"]))]
pub(super) struct Elect {
    #[command(flatten)]
    connect: Connect,
    /// preferred or unclean.
    #[arg(long, ignore_case = true, value_parser = ["preferred", "unclean"])]
    election_type: String,
    /// A topic.
    #[arg(long, requires = "partition")]
    topic: Option<String>,
    /// A partition of it. Beside the other options it would look as if only this one were meant.
    #[arg(long, conflicts_with_all = ["all_topic_partitions", "path_to_json_file"])]
    partition: Option<i32>,
    /// Every partition there is.
    #[arg(long)]
    all_topic_partitions: bool,
    /// {"partitions": [{"topic": "t", "partition": 0}]}
    #[arg(long)]
    path_to_json_file: Option<PathBuf>,
}

pub(super) async fn elect(options: Elect) -> Result<(), Failure> {
    let partitions = match (&options.path_to_json_file, &options.topic, options.partition) {
        (Some(path), ..) => {
            let plan = read_plan(path)?;
            Some(plan.into_iter().map(|(partition, _)| partition).collect::<Vec<_>>())
        }
        (_, Some(topic), Some(partition)) => {
            Some(vec![TopicPartition::new(topic.as_str(), partition)])
        }
        _ => None,
    };
    let election = match options.election_type.eq_ignore_ascii_case("unclean") {
        true => ElectionType::Unclean,
        false => ElectionType::Preferred,
    };
    let admin = options.connect.context()?.admin().await?;
    let (mut elected, mut not_needed, mut failed) = (Vec::new(), Vec::new(), 0);
    for (partition, result) in admin.elect_leaders(election, partitions.as_deref()).await? {
        match result {
            Ok(()) => elected.push(partition.to_string()),
            Err(error) if error.code() == Some(ErrorCode::ElectionNotNeeded) => {
                not_needed.push(partition.to_string());
            }
            Err(error) => {
                failed += 1;
                let kind = options.election_type.to_uppercase();
                line(format!(
                    "Error completing leader election ({kind}) for partition: {partition}: {error}"
                ))?;
            }
        }
    }
    if !elected.is_empty() {
        let (kind, names) = (options.election_type.to_uppercase(), elected.join(", "));
        line(format!("Successfully completed leader election ({kind}) for partitions {names}"))?;
    }
    if !not_needed.is_empty() {
        let names = not_needed.join(", ");
        line(format!("Valid replica already elected for partitions {names}"))?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{failed} replica(s) could not be elected"))),
    }
}

pub(super) fn read_json(path: &Path) -> Result<Value, Failure> {
    let bad = |reason: String| Failure::new(format!("{}: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}

/// Partitions, with the replicas they are to have where any are given.
pub(super) type Plan = Vec<(TopicPartition, Option<Vec<i32>>)>;

/// Reads partitions, with their replicas where they have any.
pub(super) fn read_plan(path: &Path) -> Result<Plan, Failure> {
    let bad = |reason: String| Failure::new(format!("{}: {reason}", path.display()));
    let value = read_json(path)?;
    let mut plan = Vec::new();
    for entry in value["partitions"].as_array().into_iter().flatten() {
        let number = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
        let (Some(topic), Some(partition)) = (entry["topic"].as_str(), number(&entry["partition"]))
        else {
            return Err(bad(format!("{entry} lacks topic or partition")));
        };
        let replicas = entry["replicas"].as_array();
        let replicas = replicas
            .map(|replicas| replicas.iter().map(number).collect::<Option<Vec<i32>>>())
            .map(|replicas| replicas.ok_or_else(|| bad(format!("{entry}: replicas are numbers"))))
            .transpose()?;
        plan.push((TopicPartition::new(topic, partition), replicas));
    }
    if plan.is_empty() {
        return Err(bad("it names no partitions".to_owned()));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_and_a_partition_come_together() {
        let parses = |which: &str| {
            let arguments = "t --bootstrap-server a:1 --election-type unclean";
            Elect::try_parse_from(arguments.split(' ').chain(which.split(' '))).is_ok()
        };
        assert!(parses("--topic t --partition 0") && parses("--all-topic-partitions"));
        for which in ["--topic t", "--partition 0", "--all-topic-partitions --partition 0"] {
            assert!(!parses(which), "{which}");
        }
    }
}
