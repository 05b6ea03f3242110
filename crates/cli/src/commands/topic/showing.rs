//! What `fleuve topic` shows: lists, descriptions and offsets.

use std::collections::{BTreeMap, HashMap};

use clap::Args;
use fleuve_client::Admin;
use fleuve_client::admin::{DescribedPartition, Resource, TopicDescription};
use fleuve_client::config::IsolationLevel;
use fleuve_types::TopicPartition;
use serde_json::json;

use super::{log_ends, matching};
use crate::args::Format;
use crate::failure::Failure;
use crate::output::{line, print};
use crate::patterns::TopicPattern;
use crate::quantities::{format_time, parse_time};

/// Which partitions to show; without any of them, all.
#[derive(Debug, Default, Args)]
pub(crate) struct Only {
    /// Only partitions with replicas out of sync.
    #[arg(long)]
    under_replicated: bool,
    /// Only partitions without a leader.
    #[arg(long)]
    unavailable: bool,
    /// Only partitions with fewer replicas in sync than min.insync.replicas.
    #[arg(long)]
    under_min_isr: bool,
    /// Only partitions with exactly min.insync.replicas in sync.
    #[arg(long)]
    at_min_isr: bool,
}

impl Only {
    fn is_set(&self) -> bool {
        self.under_replicated || self.unavailable || self.under_min_isr || self.at_min_isr
    }

    fn wants(&self, partition: &DescribedPartition, min_isr: usize) -> bool {
        let (in_sync, leaderless) = (partition.isr.len(), partition.leader.is_none());
        !self.is_set()
            || (self.under_replicated && in_sync < partition.replicas.len())
            || (self.unavailable && leaderless)
            || (self.under_min_isr && (leaderless || in_sync < min_isr))
            || (self.at_min_isr && in_sync == min_isr)
    }
}

pub(super) async fn list(
    admin: &Admin,
    patterns: &[String],
    internal: bool,
    format: Format,
) -> Result<(), Failure> {
    let patterns: Vec<_> =
        patterns.iter().map(|text| TopicPattern::new(text)).collect::<Result<_, _>>()?;
    let topics = admin.list_topics().await?;
    let fits = |name: &str| patterns.is_empty() || patterns.iter().any(|one| one.fits(name));
    let topics: Vec<_> = topics
        .into_iter()
        .filter(|topic| (internal || !topic.is_internal) && fits(&topic.name))
        .collect();
    let replicas =
        |topic: &fleuve_client::TopicInfo| topic.partitions.first().map_or(0, |p| p.replicas.len());
    let value = topics
        .iter()
        .map(|topic| {
            json!({
                "name": *topic.name, "id": topic.id.to_string(), "internal": topic.is_internal,
                "partitions": topic.partitions.len(), "replicas": replicas(topic),
            })
        })
        .collect();
    let rows = topics.iter().map(|topic| {
        vec![
            topic.name.to_string(),
            topic.partitions.len().to_string(),
            replicas(topic).to_string(),
        ]
    });
    print(format, &value, &["name", "partitions", "replicas"], rows)
}

pub(super) async fn describe(
    admin: &Admin,
    names: &[String],
    only: &Only,
    format: Format,
) -> Result<(), Failure> {
    let names = matching(admin, names).await?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    if names.is_empty() {
        return print(format, &json!([]), &["partition"], []);
    }
    let mut values = Vec::new();
    for (_, result) in admin.describe_topics(&names).await? {
        let mut topic = result?;
        if only.is_set() {
            let min_isr = min_isr(admin, &topic.name).await?;
            topic.partitions.retain(|partition| only.wants(partition, min_isr));
            if topic.partitions.is_empty() {
                continue;
            }
        }
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|partition| TopicPartition::new(&*topic.name, partition.index))
            .collect();
        let led = partitions.iter().zip(&topic.partitions);
        let led: Vec<_> =
            led.filter(|(_, p)| p.leader.is_some()).map(|(name, _)| name.clone()).collect();
        let ends = log_ends(admin, &led).await?;
        let configs = changed_configs(admin, &topic.name).await?;
        if format == Format::Table {
            if !values.is_empty() {
                line("")?;
            }
            print_topic(&topic, &ends, &configs)?;
        }
        values.push(topic_value(&topic, &ends, &configs));
    }
    match format {
        Format::Table => Ok(()),
        Format::Json | Format::Yaml => crate::output::print_value(format, &values.into()),
    }
}

fn print_topic(
    topic: &TopicDescription,
    ends: &HashMap<TopicPartition, (i64, i64)>,
    configs: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let changed: Vec<_> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    line(format!("{}  id {}  {}", topic.name, topic.id, changed.join(" ")).trim_end())?;
    let rows = topic.partitions.iter().map(|partition| {
        let name = TopicPartition::new(&*topic.name, partition.index);
        let (start, end) = match ends.get(&name) {
            Some((start, end)) => (start.to_string(), end.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        vec![
            partition.index.to_string(),
            partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            join(&partition.replicas),
            join(&partition.isr),
            start,
            end,
        ]
    });
    let headers = ["partition", "leader", "replicas", "in sync", "first offset", "next offset"];
    crate::output::print_table(&headers, rows)
}

fn topic_value(
    topic: &TopicDescription,
    ends: &HashMap<TopicPartition, (i64, i64)>,
    configs: &BTreeMap<String, String>,
) -> serde_json::Value {
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| {
            let name = TopicPartition::new(&*topic.name, partition.index);
            let ends = ends.get(&name);
            json!({
                "index": partition.index,
                "leader": partition.leader,
                "leader_epoch": partition.leader_epoch,
                "replicas": partition.replicas,
                "isr": partition.isr,
                "eligible_leader_replicas": partition.eligible_leader_replicas,
                "first_offset": ends.map(|ends| ends.0),
                "next_offset": ends.map(|ends| ends.1),
            })
        })
        .collect();
    json!({
        "name": topic.name, "id": topic.id.to_string(), "internal": topic.is_internal,
        "configs": configs, "partitions": partitions,
    })
}

async fn min_isr(admin: &Admin, topic: &str) -> Result<usize, Failure> {
    let entries = admin.describe_configs(&Resource::Topic(topic.to_owned()), false).await?;
    let entry = entries.iter().find(|entry| entry.name == "min.insync.replicas");
    Ok(entry.and_then(|entry| entry.value.as_ref()?.parse().ok()).unwrap_or(1))
}

async fn changed_configs(admin: &Admin, topic: &str) -> Result<BTreeMap<String, String>, Failure> {
    let entries = admin.describe_configs(&Resource::Topic(topic.to_owned()), false).await?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.source == fleuve_client::admin::ConfigSource::Topic)
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect())
}

pub(super) async fn offsets(admin: &Admin, name: &str, format: Format) -> Result<(), Failure> {
    let topic = admin.client().topic(name, false).await?;
    let partitions: Vec<_> = (0..topic.partitions.len() as i32)
        .map(|partition| TopicPartition::new(name, partition))
        .collect();
    let ends = log_ends(admin, &partitions).await?;
    let value = partitions
        .iter()
        .map(|partition| {
            let (first, next) = ends[partition];
            json!({
                "partition": partition.partition, "first_offset": first, "next_offset": next,
                "records": next - first,
            })
        })
        .collect();
    let rows = partitions.iter().map(|partition| {
        let (first, next) = ends[partition];
        let numbers = [i64::from(partition.partition), first, next, next - first];
        numbers.iter().map(ToString::to_string).collect()
    });
    print(format, &value, &["partition", "first offset", "next offset", "span"], rows)
}

/// Shows the first record of each partition from a time on.
pub(super) async fn offsets_at(
    admin: &Admin,
    name: &str,
    at: &str,
    format: Format,
) -> Result<(), Failure> {
    let time = match at {
        "max-timestamp" => MAX_TIMESTAMP,
        at => parse_time(at).ok_or_else(|| {
            Failure::new(format!(
                "--at {at}: expected a time, as 2026-11-21T10:00:00Z or @MILLISECONDS, or \
                 max-timestamp"
            ))
        })?,
    };
    let topic = admin.client().topic(name, false).await?;
    let partitions = 0..topic.partitions.len() as i32;
    let asked = partitions.map(|index| (TopicPartition::new(name, index), time)).collect();
    let answers = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await?;
    let mut found = Vec::new();
    for (partition, result) in answers {
        let answer = result?;
        // Where no record is of that time or younger, there is no offset.
        let offset = (answer.offset >= 0).then_some(answer.offset);
        found.push((partition.partition, offset, offset.map(|_| answer.timestamp)));
    }
    found.sort_unstable_by_key(|(partition, ..)| *partition);
    let value = found.iter().map(|(partition, offset, timestamp)| {
        json!({ "partition": partition, "offset": offset, "timestamp_ms": timestamp })
    });
    let rows = found.iter().map(|(partition, offset, timestamp)| {
        let none = || "-".to_owned();
        vec![
            partition.to_string(),
            offset.map_or_else(none, |offset| offset.to_string()),
            timestamp.map_or_else(none, format_time),
        ]
    });
    print(format, &value.collect(), &["partition", "offset", "time"], rows)
}

/// Asks for the record with the highest time.
const MAX_TIMESTAMP: i64 = -3;

pub(crate) fn join(ids: &[i32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
