//! The tools that need a page at most: configurations, offsets, deleting records, versions, the
//! cluster's id, dumping logs.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand};
use fleuve_client::admin::{Alteration, ConfigSource, Resource};
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{EARLIEST, LATEST, MAX_TIMESTAMP};
use fleuve_protocol::ApiKey;
use fleuve_types::TopicPartition;
use serde_json::Value;

use super::Connect;
use crate::commands::group::expand;
use crate::commands::log::{Dump, run_dump};
use crate::failure::Failure;
use crate::output::line;

/// Describe or change configurations.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["describe", "alter"]))]
pub(super) struct Configs {
    #[command(flatten)]
    connect: Connect,
    /// Show configurations.
    #[arg(long)]
    describe: bool,
    /// Change configurations.
    #[arg(long)]
    alter: bool,
    /// topics, brokers, groups or client-metrics.
    #[arg(long)]
    entity_type: Option<String>,
    /// The name.
    #[arg(long)]
    entity_name: Option<String>,
    /// The defaults of all brokers.
    #[arg(long)]
    entity_default: bool,
    /// A topic.
    #[arg(long)]
    topic: Option<String>,
    /// A broker.
    #[arg(long)]
    broker: Option<String>,
    /// The defaults of all brokers.
    #[arg(long)]
    broker_defaults: bool,
    /// A group.
    #[arg(long)]
    group: Option<String>,
    /// Also what has its default.
    #[arg(long)]
    all: bool,
    /// What to set: k1=v1,k2=[a,b].
    #[arg(long)]
    add_config: Option<String>,
    /// What to set, in a file.
    #[arg(long)]
    add_config_file: Option<PathBuf>,
    /// What to unset: k1,k2.
    #[arg(long)]
    delete_config: Option<String>,
}

pub(super) async fn configs(options: Configs) -> Result<(), Failure> {
    let resource = resource(&options)?;
    let admin = options.connect.context()?.admin().await?;
    let (kind, name) = (resource.kind(), resource.name());
    if options.alter {
        let mut alterations = Vec::new();
        for (key, value) in split_configs(options.add_config.as_deref().unwrap_or_default())? {
            alterations.push(Alteration::Set(key, value));
        }
        if let Some(path) = &options.add_config_file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", path.display()))
            })?;
            for entry in
                text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'))
            {
                let (key, value) = entry.split_once('=').ok_or_else(|| {
                    Failure::new(format!("{}: {entry}: expected KEY=VALUE", path.display()))
                })?;
                alterations.push(Alteration::Set(key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        let deleted = options.delete_config.as_deref().unwrap_or_default().split(',');
        let deleted = deleted.map(str::trim).filter(|key| !key.is_empty());
        alterations.extend(deleted.map(|key| Alteration::Delete(key.to_owned())));
        if alterations.is_empty() {
            return Err(Failure::new("nothing to change: pass --add-config or --delete-config"));
        }
        admin.alter_configs(&resource, &alterations, false).await?;
        return line(format!("Completed updating config for {kind} {name}."));
    }
    let what = if options.all { "All" } else { "Dynamic" };
    line(format!("{what} configs for {kind} {name} are:"))?;
    let mut entries = admin.describe_configs(&resource, false).await?;
    entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    for entry in entries {
        let is_static = matches!(entry.source, ConfigSource::Default | ConfigSource::StaticBroker);
        if is_static && !options.all {
            continue;
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
        let synonyms: Vec<_> = entry
            .synonyms
            .iter()
            .map(|(name, value, source)| format!("{}:{name}={}", source.name(), text(value)))
            .collect();
        line(format!(
            "  {}={} sensitive={} synonyms={{{}}}",
            entry.name,
            text(&entry.value),
            entry.is_sensitive,
            synonyms.join(", ")
        ))?;
    }
    Ok(())
}

fn resource(options: &Configs) -> Result<Resource, Failure> {
    if let Some(name) = &options.topic {
        return Ok(Resource::Topic(name.clone()));
    }
    if let Some(id) = &options.broker {
        return Ok(Resource::Broker(id.clone()));
    }
    if let Some(name) = &options.group {
        return Ok(Resource::Group(name.clone()));
    }
    if options.broker_defaults {
        return Ok(Resource::Broker(String::new()));
    }
    let name = options.entity_name.clone();
    let named = || name.clone().ok_or_else(|| Failure::new("which one? pass --entity-name NAME"));
    match options.entity_type.as_deref() {
        Some("topics") => Ok(Resource::Topic(named()?)),
        Some("brokers") if options.entity_default => Ok(Resource::Broker(String::new())),
        Some("brokers") => Ok(Resource::Broker(named()?)),
        Some("broker-loggers") => Ok(Resource::BrokerLogger(named()?)),
        Some("groups") => Ok(Resource::Group(named()?)),
        Some("client-metrics") => Ok(Resource::ClientMetrics(named()?)),
        Some(kind) => Err(Failure::new(format!(
            "--entity-type {kind} is not served yet: use topics, brokers, groups or client-metrics"
        ))),
        None => Err(Failure::new("whose? pass --entity-type TYPE --entity-name NAME")),
    }
}

/// Splits `a=1,b=[2,3]`: brackets keep commas together.
fn split_configs(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut entries = Vec::new();
    let mut depth = 0;
    let mut begin = 0;
    for (index, character) in text.char_indices().chain([(text.len(), ',')]) {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 || index == text.len() => {
                let entry = text[begin..index].trim();
                begin = (index + 1).min(text.len());
                if entry.is_empty() {
                    continue;
                }
                let (key, value) = entry.split_once('=').ok_or_else(|| {
                    Failure::new(format!("--add-config {entry}: expected KEY=VALUE"))
                })?;
                let value = value.trim();
                let inner = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
                entries.push((key.trim().to_owned(), inner.unwrap_or(value).to_owned()));
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// Show the offsets of partitions.
#[derive(Debug, Parser)]
pub(super) struct GetOffsets {
    #[command(flatten)]
    connect: Connect,
    /// The topic; all if not given.
    #[arg(long)]
    topic: Option<String>,
    /// Partitions, separated by commas.
    #[arg(long)]
    partitions: Option<String>,
    /// Topics with partitions, as t1:0,t2:1.
    #[arg(long)]
    topic_partitions: Option<String>,
    /// earliest or -2, latest or -1, max-timestamp or -3, or a timestamp in ms.
    #[arg(long, default_value = "latest", allow_hyphen_values = true)]
    time: String,
    /// Leave the system's topics out.
    #[arg(long)]
    exclude_internal_topics: bool,
}

pub(super) async fn get_offsets(options: GetOffsets) -> Result<(), Failure> {
    let time = match options.time.as_str() {
        "latest" => LATEST,
        "earliest" => EARLIEST,
        "max-timestamp" => MAX_TIMESTAMP,
        text => text.parse().map_err(|_| {
            Failure::new(format!("--time {text}: expected earliest, latest, max-timestamp or ms"))
        })?,
    };
    let admin = options.connect.context()?.admin().await?;
    let names: Vec<String> = match (&options.topic_partitions, &options.topic) {
        (Some(several), _) => several.split(',').map(|name| name.trim().to_owned()).collect(),
        (None, Some(topic)) => {
            let suffix = options.partitions.as_ref().map(|p| format!(":{p}")).unwrap_or_default();
            vec![format!("{topic}{suffix}")]
        }
        (None, None) => {
            let topics = admin.list_topics().await?;
            let shown =
                topics.iter().filter(|t| !(options.exclude_internal_topics && t.is_internal));
            shown.map(|topic| topic.name.to_string()).collect()
        }
    };
    let partitions = expand(&admin, &names).await?;
    let asked: HashMap<_, _> =
        partitions.iter().map(|partition| (partition.clone(), time)).collect();
    let mut found = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await?;
    for partition in partitions {
        if let Some(result) = found.remove(&partition) {
            let offset = result?.offset;
            let offset = if offset < 0 { String::new() } else { offset.to_string() };
            line(format!("{}:{}:{offset}", partition.topic, partition.partition))?;
        }
    }
    Ok(())
}

/// Delete the oldest records of partitions.
#[derive(Debug, Parser)]
pub(super) struct DeleteRecords {
    #[command(flatten)]
    connect: Connect,
    /// {"partitions": [{"topic": "t", "partition": 0, "offset": 1}], "version": 1}
    #[arg(long)]
    offset_json_file: PathBuf,
}

pub(super) async fn delete_records(options: DeleteRecords) -> Result<(), Failure> {
    let path = options.offset_json_file.display();
    let bad = |reason: String| Failure::new(format!("{path}: {reason}"));
    let text = std::fs::read(&options.offset_json_file).map_err(|error| bad(error.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let mut before = HashMap::new();
    for entry in value["partitions"].as_array().into_iter().flatten() {
        let topic = entry["topic"].as_str();
        let partition = entry["partition"].as_i64().and_then(|index| i32::try_from(index).ok());
        let (Some(topic), Some(partition), Some(offset)) =
            (topic, partition, entry["offset"].as_i64())
        else {
            return Err(bad(format!("{entry} lacks topic, partition or offset")));
        };
        before.insert(TopicPartition::new(topic, partition), offset);
    }
    if before.is_empty() {
        return Err(bad("it names no partitions".to_owned()));
    }
    let admin = options.connect.context()?.admin().await?;
    line("Executing records delete operation")?;
    let mut results: Vec<_> = admin.delete_records(&before).await?.into_iter().collect();
    results.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    line("Records delete operation completed:")?;
    for (partition, result) in results {
        match result {
            Ok(start) => line(format!("partition: {partition}\tlow_watermark: {start}"))?,
            Err(error) => line(format!("partition: {partition}\terror: {error}"))?,
        }
    }
    Ok(())
}

/// Show which requests brokers take.
#[derive(Debug, Parser)]
pub(super) struct ApiVersions {
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn api_versions(options: ApiVersions) -> Result<(), Failure> {
    let admin = options.connect.context()?.admin().await?;
    for broker in admin.broker_versions().await? {
        let apis: Vec<_> = broker
            .apis
            .iter()
            .map(|&(key, min, max)| match ApiKey::try_from(key) {
                Ok(known) => format!("\t{}({key}): {min} to {max} [usable: {max}]", known.name()),
                Err(_) => format!("\tUNKNOWN({key}): {min} to {max} [unusable: node api unknown]"),
            })
            .collect();
        line(format!(
            "{} (id: {} rack: null isFenced: false) -> (\n{}\n)",
            broker.address,
            broker.id,
            apis.join(",\n")
        ))?;
    }
    Ok(())
}

/// Show the cluster.
#[derive(Debug, Parser)]
pub(super) struct Cluster {
    #[command(subcommand)]
    action: ClusterAction,
}

#[derive(Debug, Subcommand)]
enum ClusterAction {
    /// Print the cluster's id.
    ClusterId {
        #[command(flatten)]
        connect: Connect,
    },
    /// List the brokers.
    ListEndpoints {
        #[command(flatten)]
        connect: Connect,
    },
}

pub(super) async fn cluster(options: Cluster) -> Result<(), Failure> {
    match options.action {
        ClusterAction::ClusterId { connect } => {
            let cluster = connect.context()?.admin().await?.describe_cluster().await?;
            line(format!("Cluster ID: {}", cluster.id))
        }
        ClusterAction::ListEndpoints { connect } => {
            let cluster = connect.context()?.admin().await?.describe_cluster().await?;
            line(format!("{:<10} {:<30} {:<10} {:<10} STATE", "ID", "HOST", "PORT", "RACK"))?;
            for broker in cluster.brokers {
                line(format!(
                    "{:<10} {:<30} {:<10} {:<10} {}",
                    broker.id,
                    broker.host,
                    broker.port,
                    broker.rack.as_deref().unwrap_or("null"),
                    if broker.is_fenced { "fenced" } else { "unfenced" },
                ))?;
            }
            Ok(())
        }
    }
}

/// Show what stands in log files.
#[derive(Debug, Parser)]
pub(super) struct DumpLog {
    /// The files, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    files: Vec<PathBuf>,
    /// Show keys and values.
    #[arg(long)]
    print_data_log: bool,
    /// Show records.
    #[arg(long)]
    deep_iteration: bool,
    /// Accepted: structure is always checked.
    #[arg(long)]
    index_sanity_check: bool,
    /// Accepted: structure is always checked.
    #[arg(long)]
    verify_index_only: bool,
}

pub(super) fn dump_log(options: DumpLog) -> Result<(), Failure> {
    let dump = Dump {
        paths: options.files,
        records: options.deep_iteration,
        data: options.print_data_log,
    };
    run_dump(&dump, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_keep_commas_together() {
        let entries = split_configs("a=1,cleanup.policy=[compact,delete], b = 2").expect("valid");
        let expected = [("a", "1"), ("cleanup.policy", "compact,delete"), ("b", "2")];
        assert_eq!(entries, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(split_configs("").expect("nothing").is_empty());
        assert!(split_configs("novalue").is_err());
    }
}
