//! `kafka-topics.sh`.

use std::collections::BTreeSet;

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{
    ConfigSource, DescribedPartition, MorePartitions, NewTopic, Resource, TopicDescription,
};
use fleuve_protocol::ErrorCode;

use super::Connect;
use crate::commands::topic::{join, parse_assignments};
use crate::failure::{Failure, own_words};
use crate::output::{line, note};
use crate::patterns::TopicPattern;

/// Create, delete, describe or change topics.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["create", "delete", "describe", "list", "alter"]))]
pub(super) struct Topics {
    #[command(flatten)]
    connect: Connect,
    /// Create a topic.
    #[arg(long)]
    create: bool,
    /// Delete topics.
    #[arg(long)]
    delete: bool,
    /// Describe topics.
    #[arg(long)]
    describe: bool,
    /// List topics.
    #[arg(long)]
    list: bool,
    /// Change the number of partitions.
    #[arg(long)]
    alter: bool,
    /// The topic; except for --create also a regular expression for topics.
    #[arg(long)]
    topic: Option<String>,
    /// The id of the topic to describe.
    #[arg(long)]
    topic_id: Option<String>,
    /// How many partitions.
    #[arg(long, conflicts_with_all = ["list", "describe", "delete"])]
    partitions: Option<i32>,
    /// How many replicas.
    #[arg(long, conflicts_with_all = ["list", "describe", "delete", "alter"])]
    replication_factor: Option<i16>,
    /// Brokers of each partition: 1:2,2:3; with --alter those of the partitions that are there
    /// come first, and do not count.
    #[arg(long, conflicts_with_all = ["list", "describe", "delete"])]
    replica_assignment: Option<String>,
    /// A topic configuration.
    #[arg(long, conflicts_with_all = ["list", "describe", "delete", "alter"])]
    config: Vec<String>,
    /// Accepted, and without effect: kafka-configs.sh deletes configurations.
    #[arg(long)]
    delete_config: Vec<String>,
    /// Do not mind if it is not there.
    #[arg(long, conflicts_with_all = ["list", "create"])]
    if_exists: bool,
    /// Do not mind if it is there.
    #[arg(long, conflicts_with_all = ["list", "describe", "delete", "alter"])]
    if_not_exists: bool,
    /// Leave the system's topics out.
    #[arg(long, conflicts_with_all = ["create", "delete", "alter"])]
    exclude_internal: bool,
    /// Only topics with configurations of their own.
    #[arg(long, conflicts_with_all = ["list", "create", "delete", "alter", "under_replicated_partitions", "unavailable_partitions", "under_min_isr_partitions", "at_min_isr_partitions"])]
    topics_with_overrides: bool,
    /// Only partitions with replicas out of sync.
    #[arg(long, conflicts_with_all = ["list", "create", "delete", "alter"])]
    under_replicated_partitions: bool,
    /// Only partitions without a leader.
    #[arg(long, conflicts_with_all = ["list", "create", "delete", "alter"])]
    unavailable_partitions: bool,
    /// Only partitions with fewer replicas in sync than min.insync.replicas.
    #[arg(long, conflicts_with_all = ["list", "create", "delete", "alter"])]
    under_min_isr_partitions: bool,
    /// Only partitions with exactly min.insync.replicas in sync.
    #[arg(long, conflicts_with_all = ["list", "create", "delete", "alter"])]
    at_min_isr_partitions: bool,
    /// Accepted: answers are read page by page as large as the broker makes them.
    #[arg(long)]
    partition_size_limit_per_response: Option<i32>,
}

impl Topics {
    /// The id, which counts only where a topic is described: what is deleted or altered is what
    /// --topic names.
    fn id_to_describe(&self) -> Option<&str> {
        self.topic_id.as_deref().filter(|_| self.describe)
    }
}

pub(super) async fn run(topics: Topics) -> Result<(), Failure> {
    if !topics.delete_config.is_empty() {
        note(
            "delete-config option is no longer supported and deprecated since version 4.0. The \
             config will be fully removed in future releases.",
        );
    }
    let done = act(&topics).await;
    match done {
        Err(Failure::Message(message)) => {
            // Scripts look for this sentence on stdout, where Kafka's tool writes it.
            line(format!("Error while executing topic command : {message}"))?;
            Err(Failure::Said)
        }
        done => done,
    }
}

async fn act(topics: &Topics) -> Result<(), Failure> {
    let admin = topics.connect.context()?.admin().await?;
    if topics.create {
        return create(topics, &admin).await;
    }
    if topics.delete || topics.alter {
        name(topics)?;
    }
    let names = matching(topics, &admin).await?;
    if topics.list {
        return names.iter().try_for_each(line);
    }
    let id = topics.id_to_describe();
    if names.is_empty() && (topics.topic.is_some() || id.is_some()) && !topics.if_exists {
        let (what, wanted) = match (id, topics.topic.as_deref()) {
            (Some(id), _) => ("TopicId", id),
            (None, Some(name)) => ("Topic", name),
            (None, None) => return Ok(()),
        };
        return Err(Failure::new(format!("{what} '{wanted}' does not exist as expected")));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if topics.describe {
        if names.is_empty() {
            return Ok(());
        }
        for (_, result) in admin.describe_topics(&names).await? {
            show(topics, &admin, &result?).await?;
        }
        return Ok(());
    }
    if names.is_empty() {
        return Ok(());
    }
    if topics.delete {
        for (_, result) in admin.delete_topics(&names).await? {
            result?;
        }
        return Ok(());
    }
    alter(topics, &admin, &names).await
}

async fn alter(topics: &Topics, admin: &Admin, names: &[&str]) -> Result<(), Failure> {
    let count = topics.partitions.ok_or_else(|| {
        Failure::new("--alter needs --partitions; kafka-configs.sh changes configurations")
    })?;
    let assignments = topics.replica_assignment.as_deref().map(parse_replicas).transpose()?;
    let mut growing = Vec::new();
    for (name, result) in admin.describe_topics(names).await? {
        let existing = result?.partitions.len();
        let of_new = |all: &Vec<Vec<i32>>| all.iter().skip(existing).cloned().collect();
        let assignments = assignments.as_ref().map(of_new);
        growing.push(MorePartitions { name, count, assignments });
    }
    for (_, result) in admin.create_partitions_on(&growing, false).await? {
        result.map_err(|error| Failure::new(own_words(&error)))?;
    }
    Ok(())
}

/// The names of the topics that the options mean, sorted.
async fn matching(topics: &Topics, admin: &Admin) -> Result<Vec<String>, Failure> {
    let pattern = topics.topic.as_deref().map(TopicPattern::new).transpose()?;
    let fits = |topic: &fleuve_client::TopicInfo| match topics.id_to_describe() {
        Some(id) => topic.id.to_string() == id,
        None => {
            pattern.as_ref().is_none_or(|pattern| pattern.fits(&topic.name))
                && !(topics.exclude_internal && topic.is_internal)
        }
    };
    let listed = admin.list_topics().await?;
    let mut names: Vec<_> =
        listed.iter().filter(|topic| fits(topic)).map(|topic| topic.name.to_string()).collect();
    names.sort_unstable();
    Ok(names)
}

async fn create(topics: &Topics, admin: &Admin) -> Result<(), Failure> {
    let name = name(topics)?;
    if topics.replica_assignment.is_some()
        && (topics.partitions.is_some() || topics.replication_factor.is_some())
    {
        return Err(Failure::new(
            "--replica-assignment says how many partitions and replicas there are: leave \
             --partitions and --replication-factor out",
        ));
    }
    let assignments = topics.replica_assignment.as_deref().map(parse_replicas).transpose()?;
    if name.contains(['.', '_']) {
        line(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore \
             ('_') could collide. To avoid issues it is best to use either, but not both.",
        )?;
    }
    let topic = NewTopic {
        partitions: topics.partitions,
        replication_factor: topics.replication_factor,
        assignments: assignments.unwrap_or_default(),
        configs: parse_assignments(&topics.config)?,
        ..NewTopic::new(name)
    };
    for (name, result) in admin.create_topics(&[topic], false).await? {
        match result {
            Ok(_) => line(format!("Created topic {name}."))?,
            Err(error)
                if topics.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                return Err(Failure::new(format!("Topic '{name}' already exists.")));
            }
            Err(error) => return Err(Failure::new(own_words(&error))),
        }
    }
    Ok(())
}

async fn show(topics: &Topics, admin: &Admin, topic: &TopicDescription) -> Result<(), Failure> {
    let entries = admin.describe_configs(&Resource::Topic(topic.name.clone()), false).await?;
    let configs: Vec<_> = entries
        .iter()
        .filter(|entry| entry.source != ConfigSource::Default)
        .map(|entry| format!("{}={}", entry.name, entry.value.as_deref().unwrap_or_default()))
        .collect();
    let min_isr = entries.iter().find(|entry| entry.name == "min.insync.replicas");
    let min_isr = min_isr.and_then(|entry| entry.value.as_ref()?.parse().ok()).unwrap_or(1);
    let only_some = topics.under_replicated_partitions
        || topics.unavailable_partitions
        || topics.under_min_isr_partitions
        || topics.at_min_isr_partitions;
    if topics.topics_with_overrides && configs.is_empty() {
        return Ok(());
    }
    if !only_some {
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        line(format!(
            "Topic: {}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {replicas}\tConfigs: {}",
            topic.name,
            topic.id,
            topic.partitions.len(),
            configs.join(",")
        ))?;
    }
    if topics.topics_with_overrides {
        return Ok(());
    }
    for partition in &topic.partitions {
        if only_some && !is_wanted(topics, partition, min_isr) {
            continue;
        }
        line(format!(
            "\tTopic: {}\tPartition: {}\tLeader: {}\tReplicas: {}\tIsr: {}\tElr: {}\tLastKnownElr: {}",
            topic.name,
            partition.index,
            partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            join(&partition.replicas),
            join(&partition.isr),
            join(&partition.eligible_leader_replicas),
            join(&partition.last_known_eligible),
        ))?;
    }
    Ok(())
}

/// Reports whether a partition is in one of the states asked for.
fn is_wanted(topics: &Topics, partition: &DescribedPartition, min_isr: usize) -> bool {
    let in_sync = partition.isr.len();
    let leaderless = partition.leader.is_none();
    (topics.under_replicated_partitions && in_sync < partition.replicas.len())
        || (topics.unavailable_partitions && leaderless)
        || (topics.under_min_isr_partitions && (leaderless || in_sync < min_isr))
        || (topics.at_min_isr_partitions && in_sync == min_isr)
}

fn name(topics: &Topics) -> Result<&str, Failure> {
    topics.topic.as_deref().ok_or_else(|| Failure::new("missing required argument \"[topic]\""))
}

fn parse_replicas(text: &str) -> Result<Vec<Vec<i32>>, Failure> {
    let partitions = text
        .split(',')
        .map(|partition| partition.split(':').map(|id| id.trim().parse().ok()).collect())
        .collect::<Option<Vec<Vec<i32>>>>()
        .ok_or_else(|| {
            Failure::new(format!("--replica-assignment {text}: expected broker ids, as 1:2,2:3"))
        })?;
    let factor = partitions.first().map_or(0, Vec::len);
    for (index, replicas) in partitions.iter().enumerate() {
        let twice: BTreeSet<i32> = replicas
            .iter()
            .filter(|id| replicas.iter().filter(|other| other == id).count() > 1)
            .copied()
            .collect();
        if !twice.is_empty() {
            let twice: Vec<_> = twice.iter().map(ToString::to_string).collect();
            return Err(Failure::new(format!(
                "Partition replica lists may not contain duplicate entries: {}",
                twice.join(",")
            )));
        }
        if replicas.len() != factor {
            return Err(Failure::new(format!(
                "Partition {index} has different replication factor: {replicas:?}"
            )));
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_only_says_what_is_described() {
        let id = |action: &str| {
            let arguments = ["t", "--bootstrap-server", "a:1", "--topic", "a", "--topic-id", "b"];
            let topics = Topics::try_parse_from(arguments.iter().chain([&action])).expect("valid");
            topics.id_to_describe().map(str::to_owned)
        };
        assert_eq!(id("--describe").as_deref(), Some("b"));
        for action in ["--delete", "--alter", "--list", "--create"] {
            assert_eq!(id(action), None, "{action}");
        }
    }

    #[test]
    fn assignments_are_lists_of_brokers_of_one_length_and_without_doubles() {
        assert_eq!(parse_replicas("1:2, 2:3").expect("lists"), [[1, 2], [2, 3]]);
        for (text, why) in [
            ("1:1,2:3", "Partition replica lists may not contain duplicate entries: 1"),
            ("1:2,3", "Partition 1 has different replication factor: [3]"),
            ("", "--replica-assignment : expected broker ids, as 1:2,2:3"),
            ("1;2", "--replica-assignment 1;2: expected broker ids, as 1:2,2:3"),
        ] {
            assert_eq!(parse_replicas(text).expect_err(text).to_string(), why);
        }
    }
}
