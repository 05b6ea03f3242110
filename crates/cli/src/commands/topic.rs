//! `fleuve topic`: topics and their partitions.

mod showing;

use std::collections::{BTreeMap, HashMap};

use clap::Subcommand;
use fleuve_client::Admin;
use fleuve_client::admin::{Alteration, NewTopic, Resource};
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{EARLIEST, LATEST};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use serde_json::{Value, json};

pub(crate) use self::showing::join;
use self::showing::{Only, describe, list, offsets, offsets_at};
use crate::args::{Common, Format};
use crate::commands::replicas;
use crate::context::Context;
use crate::failure::{Failure, explain};
use crate::outcome::Outcomes;
use crate::patterns::{TopicPattern, pick};
use crate::reset::expand;

/// Create, list, describe, change and delete topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create topics.
    #[command(after_help = "Examples:\n  \
        fleuve topic create greetings\n  \
        fleuve topic create events -p 12 -c retention.ms=86400000 -c compression.type=zstd")]
    Create {
        /// The names.
        #[arg(required = true)]
        names: Vec<String>,
        /// How many partitions [default: num.partitions of the broker].
        #[arg(long, short)]
        partitions: Option<i32>,
        /// How many replicas [default: default.replication.factor of the broker].
        #[arg(long, short)]
        replication_factor: Option<i16>,
        /// A topic configuration; may be repeated.
        #[arg(long, short, value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// Do not mind if it exists.
        #[arg(long)]
        if_not_exists: bool,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
    /// List topics.
    #[command(after_help = "Example:\n  fleuve topic list -o json | jq -r '.[].name'")]
    List {
        /// Only topics whose whole name fits one of these regular expressions.
        patterns: Vec<String>,
        /// Also the system's own topics.
        #[arg(long)]
        internal: bool,
    },
    /// Describe topics: partitions, leaders, replicas, offsets and changed configurations.
    #[command(after_help = "Examples:\n  \
        fleuve topic describe greetings\n  \
        fleuve topic describe 'events-.*' --under-replicated")]
    Describe {
        /// Names or regular expressions for names; all topics if there is none.
        names: Vec<String>,
        #[command(flatten)]
        only: Only,
    },
    /// Change a topic: more partitions, other configurations.
    #[command(after_help = "Examples:\n  \
        fleuve topic alter events --partitions 24\n  \
        fleuve topic alter events -c retention.ms=3600000 --delete-config compression.type")]
    Alter {
        /// The name.
        name: String,
        /// How many partitions there shall be.
        #[arg(long, short)]
        partitions: Option<i32>,
        /// A topic configuration to set; may be repeated.
        #[arg(long, short, value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// A topic configuration to go back to its default; may be repeated.
        #[arg(long, value_name = "KEY")]
        delete_config: Vec<String>,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete topics with all their records.
    #[command(after_help = "Examples:\n  \
        fleuve topic delete greetings events\n  \
        fleuve topic delete --regex 'test-.*' --dry-run")]
    Delete {
        /// The names.
        #[arg(required = true)]
        names: Vec<String>,
        /// The names are regular expressions.
        #[arg(long)]
        regex: bool,
        /// Do not mind if it is not there.
        #[arg(long)]
        if_exists: bool,
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show first and next offset of each partition, or the first record of a time.
    #[command(after_help = "Examples:\n  \
        fleuve topic offsets greetings\n  \
        fleuve topic offsets greetings --at 2026-11-21T10:00:00Z\n  \
        fleuve topic offsets greetings --at max-timestamp")]
    Offsets {
        /// The name.
        name: String,
        /// Instead, the first record from this time on (2026-11-21T10:00:00Z, @MILLISECONDS), or
        /// max-timestamp for the newest by its time.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Move partitions into another data directory of their brokers.
    #[command(after_help = "Examples:\n  \
        fleuve topic move greetings --to /disk2/fleuve --dry-run\n  \
        fleuve topic move greetings:0,2 --to /disk2/fleuve")]
    Move {
        /// Topics, or partitions of them as TOPIC:0,1.
        #[arg(required = true)]
        names: Vec<String>,
        /// The directory, as `fleuve cluster directories` names it.
        #[arg(long, value_name = "DIRECTORY")]
        to: String,
        /// Only replicas of this broker.
        #[arg(long)]
        broker: Option<i32>,
        /// Only say what would be moved.
        #[arg(long)]
        dry_run: bool,
    },
    /// Give partitions the leader that their list of replicas prefers.
    #[command(after_help = "Examples:\n  \
        fleuve topic elect-leaders greetings\n  \
        fleuve topic elect-leaders --all")]
    ElectLeaders {
        /// Topics, or partitions of them as TOPIC:0,1.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        names: Vec<String>,
        /// Every partition there is.
        #[arg(long)]
        all: bool,
        /// Take a replica that is not in sync, where none is: records may be lost.
        #[arg(long)]
        unclean: bool,
        /// Only say which partitions would be asked for.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete the oldest records of a partition.
    #[command(after_help = "Example:\n  \
        fleuve topic delete-records greetings --partition 0 --before 1000")]
    DeleteRecords {
        /// The name.
        name: String,
        /// The partition; all if not given.
        #[arg(long)]
        partition: Option<i32>,
        /// The first offset to keep; -1 deletes everything.
        #[arg(long, allow_hyphen_values = true)]
        before: i64,
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(command: Topic, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        Topic::Create { names, partitions, replication_factor, config, if_not_exists, dry_run } => {
            let configs = parse_assignments(&config)?;
            let topics: Vec<_> = names
                .into_iter()
                .map(|name| NewTopic {
                    partitions,
                    replication_factor,
                    configs: configs.clone(),
                    ..NewTopic::new(name)
                })
                .collect();
            let results = admin.create_topics(&topics, dry_run).await?;
            let accepted = if_not_exists.then_some(ErrorCode::TopicAlreadyExists);
            let verb = if dry_run { "could create" } else { "created" };
            let mut outcomes = Outcomes::new(common.output, dry_run);
            for (name, result) in results {
                let subject = json!({ "topic": name });
                match result {
                    Ok(_) => outcomes.done("create", subject, format!("{verb} topic {name}"))?,
                    Err(error) if accepted.is_some() && error.code() == accepted => {}
                    Err(error) => outcomes.failed("create", subject, explain(&error)),
                }
            }
            outcomes.end()
        }
        Topic::List { patterns, internal } => {
            list(&admin, &patterns, internal, common.output).await
        }
        Topic::Describe { names, only } => describe(&admin, &names, &only, common.output).await,
        Topic::Alter { name, partitions, config, delete_config, dry_run } => {
            let set = parse_assignments(&config)?;
            let set = set.into_iter().map(|(key, value)| Alteration::Set(key, value));
            let changes = set.chain(delete_config.into_iter().map(Alteration::Delete)).collect();
            alter(&admin, &name, partitions, changes, (common.output, dry_run)).await
        }
        Topic::Delete { names, regex, if_exists, dry_run } => {
            let names = if regex { matching(&admin, &names).await? } else { names };
            delete(&admin, &names, if_exists, (common.output, dry_run)).await
        }
        Topic::Move { names, to, broker, dry_run } => {
            replicas::move_to(&admin, &names, &to, broker, (common.output, dry_run)).await
        }
        Topic::ElectLeaders { names, all, unclean, dry_run } => {
            let partitions = if all { None } else { Some(expand(&admin, &names).await?) };
            replicas::elect(&admin, partitions, unclean, (common.output, dry_run)).await
        }
        Topic::Offsets { name, at: None } => offsets(&admin, &name, common.output).await,
        Topic::Offsets { name, at: Some(at) } => {
            offsets_at(&admin, &name, &at, common.output).await
        }
        Topic::DeleteRecords { name, partition, before, dry_run } => {
            let topic = admin.client().topic(&name, false).await?;
            let all = 0..topic.partitions.len() as i32;
            let partitions: Vec<i32> = partition.map_or_else(|| all.collect(), |one| vec![one]);
            let asked = partitions.iter().map(|index| TopicPartition::new(&*name, *index));
            delete_records(&admin, &asked.collect::<Vec<_>>(), before, (common.output, dry_run))
                .await
        }
    }
}

/// Names a partition to programs.
pub(crate) fn as_json(partition: &TopicPartition) -> Value {
    json!({ "topic": &*partition.topic, "partition": partition.partition })
}

async fn delete_records(
    admin: &Admin,
    partitions: &[TopicPartition],
    before: i64,
    (format, dry_run): (Format, bool),
) -> Result<(), Failure> {
    const ACTION: &str = "delete records";
    let mut outcomes = Outcomes::new(format, dry_run);
    let subject = |partition: &TopicPartition, start: i64| {
        json!({
            "topic": &*partition.topic, "partition": partition.partition, "first_offset": start,
        })
    };
    if dry_run {
        let ends = log_ends(admin, partitions).await?;
        for partition in partitions {
            let (first, next) = ends[partition];
            let start = if before < 0 { next } else { before.clamp(first, next) };
            let count = start - first;
            let sentence = format!("{partition} would begin at offset {start}, {count} further on");
            outcomes.done(ACTION, subject(partition, start), sentence)?;
        }
        return outcomes.end();
    }
    let asked = partitions.iter().map(|partition| (partition.clone(), before)).collect();
    let mut results: Vec<_> = admin.delete_records(&asked).await?.into_iter().collect();
    results.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    for (partition, result) in results {
        match result {
            Ok(start) => {
                let sentence = format!("{partition} begins at offset {start} now");
                outcomes.done(ACTION, subject(&partition, start), sentence)?;
            }
            Err(error) => outcomes.failed(ACTION, as_json(&partition), explain(&error)),
        }
    }
    outcomes.end()
}

/// Reads `KEY=VALUE` texts.
pub(crate) fn parse_assignments(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::new(format!("{text}: expected KEY=VALUE, as retention.ms=86400000"))
            })?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// Asks for both ends of partitions.
pub(crate) async fn log_ends(
    admin: &Admin,
    partitions: &[TopicPartition],
) -> Result<HashMap<TopicPartition, (i64, i64)>, Failure> {
    let mut ends: HashMap<TopicPartition, (i64, i64)> = HashMap::new();
    for timestamp in [EARLIEST, LATEST] {
        let asked = partitions.iter().map(|partition| (partition.clone(), timestamp)).collect();
        for (partition, result) in
            admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await?
        {
            let offset = result?.offset;
            let entry = ends.entry(partition).or_default();
            if timestamp == EARLIEST {
                entry.0 = offset;
            } else {
                entry.1 = offset;
            }
        }
    }
    Ok(ends)
}

async fn delete(
    admin: &Admin,
    names: &[String],
    if_exists: bool,
    (format, dry_run): (Format, bool),
) -> Result<(), Failure> {
    let mut outcomes = Outcomes::new(format, dry_run);
    if dry_run {
        let known = admin.list_topics().await?;
        for name in names {
            match known.iter().find(|topic| *topic.name == **name) {
                Some(topic) => {
                    let count = topic.partitions.len();
                    let subject = json!({ "topic": name, "partitions": count });
                    let sentence = format!("would delete topic {name} ({count} partitions)");
                    outcomes.done("delete", subject, sentence)?;
                }
                None if if_exists => {}
                None => {
                    let error = format!("there is no topic {name}: see `fleuve topic list`");
                    outcomes.failed("delete", json!({ "topic": name }), error);
                }
            }
        }
        return outcomes.end();
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let accepted = if_exists.then_some(ErrorCode::UnknownTopicOrPartition);
    for (name, result) in admin.delete_topics(&names).await? {
        let subject = json!({ "topic": name });
        match result {
            Ok(()) => outcomes.done("delete", subject, format!("deleted topic {name}"))?,
            Err(error) if accepted.is_some() && error.code() == accepted => {}
            Err(error) => outcomes.failed("delete", subject, explain(&error)),
        }
    }
    outcomes.end()
}

/// The names that fit regular expressions; the system's topics have to be named.
async fn matching(admin: &Admin, patterns: &[String]) -> Result<Vec<String>, Failure> {
    let patterns: Vec<_> =
        patterns.iter().map(|text| TopicPattern::new(text)).collect::<Result<_, _>>()?;
    let topics = admin.list_topics().await?;
    let named = |name: &str| patterns.iter().any(|pattern| pattern.text() == name);
    let picked = pick(&topics, &patterns)?;
    let picked = picked.into_iter().filter(|topic| !topic.is_internal || named(&topic.name));
    Ok(picked.map(|topic| topic.name.to_string()).collect())
}

async fn alter(
    admin: &Admin,
    name: &str,
    partitions: Option<i32>,
    alterations: Vec<Alteration>,
    (format, dry_run): (Format, bool),
) -> Result<(), Failure> {
    if partitions.is_none() && alterations.is_empty() {
        return Err(Failure::new(
            "nothing to change: pass --partitions, --config KEY=VALUE or --delete-config KEY",
        ));
    }
    let mut outcomes = Outcomes::new(format, dry_run);
    if !alterations.is_empty() {
        let resource = Resource::Topic(name.to_owned());
        admin.alter_configs(&resource, &alterations, dry_run).await?;
        let verb = if dry_run { "could change" } else { "changed" };
        let count = alterations.len();
        let sentence = format!("{verb} {count} configurations of topic {name}");
        outcomes.done("alter", json!({ "topic": name, "configurations": count }), sentence)?;
    }
    if let Some(count) = partitions {
        for (_, result) in admin.create_partitions(&[(name, count)], dry_run).await? {
            result?;
        }
        let done = if dry_run { "could have" } else { "has" };
        let now = if dry_run { "" } else { " now" };
        let sentence = format!("topic {name} {done} {count} partitions{now}");
        outcomes.done("alter", json!({ "topic": name, "partitions": count }), sentence)?;
    }
    outcomes.end()
}
