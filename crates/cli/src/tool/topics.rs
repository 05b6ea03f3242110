//! `kafka-topics.sh`.

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{ConfigSource, NewTopic, Resource, TopicDescription};
use fleuve_protocol::ErrorCode;

use super::Connect;
use crate::commands::topic::{join, parse_assignments};
use crate::failure::Failure;
use crate::output::line;

/// Create, delete, describe or change topics.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["create", "delete", "describe", "list", "alter"]))]
pub(super) struct Topics {
    #[command(flatten)]
    connect: Connect,
    /// Create a topic.
    #[arg(long)]
    create: bool,
    /// Delete a topic.
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
    /// The topic; several separated by commas.
    #[arg(long)]
    topic: Option<String>,
    /// How many partitions.
    #[arg(long)]
    partitions: Option<i32>,
    /// How many replicas.
    #[arg(long)]
    replication_factor: Option<i16>,
    /// Brokers of each partition: 1:2,2:3.
    #[arg(long)]
    replica_assignment: Option<String>,
    /// A topic configuration.
    #[arg(long)]
    config: Vec<String>,
    /// Do not mind if it is not there.
    #[arg(long)]
    if_exists: bool,
    /// Do not mind if it is there.
    #[arg(long)]
    if_not_exists: bool,
    /// Leave the system's topics out.
    #[arg(long)]
    exclude_internal: bool,
    /// Only topics with configurations of their own.
    #[arg(long)]
    topics_with_overrides: bool,
    /// Only partitions with replicas out of sync.
    #[arg(long)]
    under_replicated_partitions: bool,
    /// Only partitions without a leader.
    #[arg(long)]
    unavailable_partitions: bool,
}

pub(super) async fn run(topics: Topics) -> Result<(), Failure> {
    let admin = topics.connect.context()?.admin().await?;
    if topics.create {
        create(&topics, &admin).await
    } else if topics.list {
        for topic in admin.list_topics().await? {
            if is_named(&topics, &topic.name) && !(topics.exclude_internal && topic.is_internal) {
                line(&*topic.name)?;
            }
        }
        Ok(())
    } else if topics.describe {
        describe(&topics, &admin).await
    } else if topics.delete {
        let name = name(&topics)?;
        for (_, result) in admin.delete_topics(&[name]).await? {
            accept(result, topics.if_exists.then_some(ErrorCode::UnknownTopicOrPartition))?;
        }
        Ok(())
    } else {
        let name = name(&topics)?;
        let count = topics.partitions.ok_or_else(|| {
            Failure::new("--alter needs --partitions; kafka-configs.sh changes configurations")
        })?;
        for (_, result) in admin.create_partitions(&[(name, count)], false).await? {
            accept(result, topics.if_exists.then_some(ErrorCode::UnknownTopicOrPartition))?;
        }
        Ok(())
    }
}

async fn create(topics: &Topics, admin: &Admin) -> Result<(), Failure> {
    let name = name(topics)?;
    let assignments = topics.replica_assignment.as_deref().map(parse_replicas).transpose()?;
    let topic = NewTopic {
        partitions: topics.partitions,
        replication_factor: topics.replication_factor,
        assignments: assignments.unwrap_or_default(),
        configs: parse_assignments(&topics.config)?,
        ..NewTopic::new(name)
    };
    for (name, result) in admin.create_topics(&[topic], false).await? {
        let accepted = topics.if_not_exists.then_some(ErrorCode::TopicAlreadyExists);
        if accept(result, accepted)?.is_some() {
            line(format!("Created topic {name}."))?;
        }
    }
    Ok(())
}

async fn describe(topics: &Topics, admin: &Admin) -> Result<(), Failure> {
    let listed = admin.list_topics().await?;
    let listed = listed.iter().filter(|topic| !(topics.exclude_internal && topic.is_internal));
    let names: Vec<_> =
        listed.map(|topic| &*topic.name).filter(|name| is_named(topics, name)).collect();
    if let Some(wanted) = &topics.topic
        && names.is_empty()
        && !topics.if_exists
    {
        return Err(Failure::new(format!("Topic '{wanted}' does not exist as expected")));
    }
    if names.is_empty() {
        return Ok(());
    }
    for (_, result) in admin.describe_topics(&names).await? {
        show(topics, admin, &result?).await?;
    }
    Ok(())
}

async fn show(topics: &Topics, admin: &Admin, topic: &TopicDescription) -> Result<(), Failure> {
    let entries = admin.describe_configs(&Resource::Topic(topic.name.clone()), false).await?;
    let configs: Vec<_> = entries
        .iter()
        .filter(|entry| entry.source == ConfigSource::Topic)
        .map(|entry| format!("{}={}", entry.name, entry.value.as_deref().unwrap_or_default()))
        .collect();
    let only_some = topics.under_replicated_partitions || topics.unavailable_partitions;
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
        let lagging = partition.isr.len() < partition.replicas.len();
        let leaderless = partition.leader.is_none();
        if (topics.under_replicated_partitions && !lagging)
            || (topics.unavailable_partitions && !leaderless)
        {
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

fn name(topics: &Topics) -> Result<&str, Failure> {
    topics.topic.as_deref().ok_or_else(|| Failure::new("missing required argument \"[topic]\""))
}

fn is_named(topics: &Topics, name: &str) -> bool {
    topics.topic.as_ref().is_none_or(|wanted| wanted.split(',').any(|part| part.trim() == name))
}

/// Passes a success on, swallows an accepted error, fails otherwise.
fn accept<T>(
    result: fleuve_client::Result<T>,
    accepted: Option<ErrorCode>,
) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if accepted.is_some() && error.code() == accepted => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse_replicas(text: &str) -> Result<Vec<Vec<i32>>, Failure> {
    text.split(',')
        .map(|partition| partition.split(':').map(|id| id.trim().parse().ok()).collect())
        .collect::<Option<_>>()
        .ok_or_else(|| {
            Failure::new(format!("--replica-assignment {text}: expected broker ids, as 1:2,2:3"))
        })
}
