//! The tools about leaders and replicas: `kafka-leader-election` and `kafka-reassign-partitions`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::ElectionType;
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use serde_json::{Value, json};

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
    /// A partition of it.
    #[arg(long)]
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

/// Move partitions between brokers.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true)
    .args(["generate", "execute", "verify", "cancel", "list"]))]
pub(super) struct Reassign {
    #[command(flatten)]
    connect: Connect,
    /// Propose a plan; nothing is moved.
    #[arg(long, requires_all = ["topics_to_move_json_file", "broker_list"])]
    generate: bool,
    /// Carry a plan out.
    #[arg(long, requires = "reassignment_json_file")]
    execute: bool,
    /// Tell how far a plan is.
    #[arg(long, requires = "reassignment_json_file")]
    verify: bool,
    /// Take a plan back.
    #[arg(long, requires = "reassignment_json_file")]
    cancel: bool,
    /// List what is being moved.
    #[arg(long)]
    list: bool,
    /// {"topics": [{"topic": "t"}], "version": 1}
    #[arg(long)]
    topics_to_move_json_file: Option<PathBuf>,
    /// {"partitions": [{"topic": "t", "partition": 0, "replicas": [1]}], "version": 1}
    #[arg(long)]
    reassignment_json_file: Option<PathBuf>,
    /// Brokers to move to, separated by commas.
    #[arg(long, value_delimiter = ',')]
    broker_list: Vec<i32>,
    /// Accepted: racks do not count.
    #[arg(long)]
    disable_rack_aware: bool,
    /// Refuse to change how many replicas there are.
    #[arg(long)]
    disallow_replication_factor_change: bool,
    /// Accepted: a plan is carried out beside others.
    #[arg(long)]
    additional: bool,
    /// Accepted: nothing is throttled.
    #[arg(long)]
    preserve_throttles: bool,
}

pub(super) async fn reassign(options: Reassign) -> Result<(), Failure> {
    let admin = options.connect.context()?.admin().await?;
    if options.list {
        let ongoing = admin.list_reassignments(None).await?;
        if ongoing.is_empty() {
            return line("No partition reassignments found.");
        }
        line("Current partition reassignments:")?;
        for moving in ongoing {
            line(format!(
                "{}: replicas: {}. adding: {}. removing: {}.",
                moving.partition,
                numbers(&moving.replicas),
                numbers(&moving.adding),
                numbers(&moving.removing)
            ))?;
        }
        return Ok(());
    }
    if options.generate {
        let path = options.topics_to_move_json_file.unwrap_or_default();
        return generate(&admin, &path, &options.broker_list).await;
    }
    let plan = read_plan(&options.reassignment_json_file.unwrap_or_default())?;
    let partitions: Vec<TopicPartition> =
        plan.iter().map(|(partition, _)| partition.clone()).collect();
    if options.verify {
        let ongoing = admin.list_reassignments(Some(&partitions)).await?;
        let replicas = current(&admin, &partitions).await?;
        line("Status of partition reassignment:")?;
        for (partition, target) in plan {
            let state = if ongoing.iter().any(|moving| moving.partition == partition) {
                "is still in progress."
            } else if replicas.get(&partition) == target.as_ref() {
                "is completed."
            } else {
                "is done, but the replicas are others than the plan's."
            };
            line(format!("Reassignment of partition {partition} {state}"))?;
        }
        return Ok(());
    }
    if options.cancel {
        let ongoing = admin.list_reassignments(Some(&partitions)).await?;
        if ongoing.is_empty() {
            return line("None of the specified partition reassignments are active.");
        }
        let targets: Vec<_> = ongoing.into_iter().map(|moving| (moving.partition, None)).collect();
        return report(admin.alter_reassignments(&targets, true).await?, "cancelled");
    }
    let before = current(&admin, &partitions).await?;
    let before: Vec<_> = partitions
        .iter()
        .map(|partition| (partition.clone(), before.get(partition).cloned().unwrap_or_default()))
        .collect();
    line("Current partition replica assignment\n")?;
    line(plan_json(&before).to_string())?;
    line("\nSave this to use as the --reassignment-json-file option during rollback")?;
    let results =
        admin.alter_reassignments(&plan, !options.disallow_replication_factor_change).await?;
    report(results, "started")
}

async fn generate(admin: &Admin, path: &Path, brokers: &[i32]) -> Result<(), Failure> {
    let value = read_json(path)?;
    let topics: Vec<String> = value["topics"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|topic| Some(topic["topic"].as_str()?.to_owned()))
        .collect();
    let mut now = Vec::new();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for (topic, described) in admin.describe_topics(&names).await? {
        for partition in described?.partitions {
            let name = TopicPartition::new(topic.as_str(), partition.index);
            now.push((name, partition.replicas));
        }
    }
    let mut proposed = Vec::new();
    for (index, (partition, replicas)) in now.iter().enumerate() {
        if replicas.len() > brokers.len() {
            return Err(Failure::new(format!(
                "{partition} has {} replicas, but --broker-list names {} brokers",
                replicas.len(),
                brokers.len()
            )));
        }
        let spread = (0..replicas.len()).map(|step| brokers[(index + step) % brokers.len()]);
        proposed.push((partition.clone(), spread.collect()));
    }
    line("Current partition replica assignment")?;
    line(plan_json(&now).to_string())?;
    line("\nProposed partition reassignment configuration")?;
    line(plan_json(&proposed).to_string())
}

fn report(results: fleuve_client::admin::PartitionResults, done: &str) -> Result<(), Failure> {
    let (mut names, mut failed) = (Vec::new(), 0);
    for (partition, result) in results {
        match result {
            Ok(()) => names.push(partition.to_string()),
            Err(error) => {
                failed += 1;
                line(format!("{partition}: {error}"))?;
            }
        }
    }
    if failed > 0 {
        return Err(Failure::new(format!("{failed} partition(s) cannot be reassigned so")));
    }
    names.sort_unstable();
    line(format!("Successfully {done} partition reassignments for {}", names.join(",")))
}

async fn current(
    admin: &Admin,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, Vec<i32>>, Failure> {
    let mut topics: Vec<String> =
        partitions.iter().map(|partition| partition.topic.to_string()).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut replicas = BTreeMap::new();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for (topic, described) in admin.describe_topics(&names).await? {
        for partition in described?.partitions {
            let name = TopicPartition::new(topic.as_str(), partition.index);
            replicas.insert(name, partition.replicas);
        }
    }
    Ok(replicas)
}

fn plan_json(plan: &[(TopicPartition, Vec<i32>)]) -> Value {
    let partitions: Vec<_> = plan
        .iter()
        .map(|(partition, replicas)| {
            json!({
                "topic": &*partition.topic, "partition": partition.partition, "replicas": replicas,
                "log_dirs": vec!["any"; replicas.len()],
            })
        })
        .collect();
    json!({ "version": 1, "partitions": partitions })
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    let bad = |reason: String| Failure::new(format!("{}: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}

/// Partitions, with the replicas they are to have where any are given.
type Plan = Vec<(TopicPartition, Option<Vec<i32>>)>;

/// Reads partitions, with their replicas where they have any.
fn read_plan(path: &Path) -> Result<Plan, Failure> {
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

fn numbers(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
