//! `fleuve group`: consumer groups and share groups, and their offsets.

use std::collections::{BTreeSet, HashMap};

use clap::{Args, Subcommand};
use fleuve_client::Admin;
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{Committed, LATEST};
use fleuve_types::TopicPartition;
use serde_json::json;

use super::share;
use super::topic::{log_ends, report};
use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{line, note, print, print_table, print_value};
use crate::quantities::parse_time;

/// List, describe, reset and delete consumer and share groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List groups.
    List,
    /// Show a group: committed offsets, lag and who reads what.
    #[command(after_help = "Examples:\n  \
        fleuve group describe readers\n  \
        fleuve group describe readers --members")]
    Describe {
        /// The group.
        name: String,
        /// Show the members instead of the offsets.
        #[arg(long)]
        members: bool,
    },
    /// Move what a group has committed; shows the plan unless --execute is given.
    #[command(after_help = "Examples:\n  \
        fleuve group reset-offsets readers --topic greetings --to beginning\n  \
        fleuve group reset-offsets readers --all-topics --to 2026-11-21T10:00:00Z --execute\n  \
        fleuve group reset-offsets readers --topic greetings:0 --shift-by -10 --execute")]
    ResetOffsets {
        /// The group.
        name: String,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        to: To,
        /// Do it.
        #[arg(long)]
        execute: bool,
        /// Only show the plan, which is the default.
        #[arg(long, conflicts_with = "execute")]
        dry_run: bool,
    },
    /// Delete groups that have no members.
    Delete {
        /// The groups.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Make a group forget what it has committed for a topic.
    DeleteOffsets {
        /// The group.
        name: String,
        /// The topic, or a partition of it as TOPIC:PARTITION.
        #[arg(long)]
        topic: String,
    },
}

/// Which partitions to reset.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Scope {
    /// A topic, or a partition of it as TOPIC:PARTITION; may be repeated.
    #[arg(long)]
    topic: Vec<String>,
    /// All topics the group has committed for.
    #[arg(long)]
    all_topics: bool,
}

/// Where to.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct To {
    /// beginning, end, current, an offset, or a time (2026-11-21T10:00:00Z, @MILLISECONDS).
    #[arg(long)]
    to: Option<String>,
    /// So many records on, or back if negative.
    #[arg(long, allow_hyphen_values = true)]
    shift_by: Option<i64>,
}

/// How the new offset of a partition is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Beginning,
    End,
    Current,
    Offset(i64),
    Time(i64),
    Shift(i64),
}

pub(crate) async fn run(command: Group, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        Group::List => list(&admin, common.output).await,
        Group::Describe { name, members: true } => members(&admin, &name, common.output).await,
        Group::Describe { name, members: false } => match admin.is_share_group(&name).await? {
            true => share::describe(&admin, &name, common.output).await,
            false => describe(&admin, &name, common.output).await,
        },
        Group::ResetOffsets { name, scope, to, execute, dry_run: _ } => {
            let target = parse_target(&to)?;
            let is_share = admin.is_share_group(&name).await?;
            let committed = match is_share {
                true => share::starts(&admin, &name).await?,
                false => admin.group_offsets(&name).await?,
            };
            let partitions = if scope.all_topics {
                committed.keys().map(|partition| partition.topic.to_string()).collect()
            } else {
                scope.topic
            };
            let partitions = expand(&admin, &partitions).await?;
            let plan = plan(&admin, target, &partitions, &committed).await?;
            show_plan(&plan, &committed, common.output)?;
            if execute && is_share {
                admin.alter_share_group_offsets(&name, &plan).await?;
            } else if execute {
                admin.alter_group_offsets(&name, &plan).await?;
            } else if common.output == Format::Table {
                note("nothing was changed: pass --execute to do it");
            }
            Ok(())
        }
        Group::Delete { names } => {
            let mut results = Vec::new();
            for name in names {
                let result = admin.delete_group(&name).await;
                results.push((name, result));
            }
            report(results, "deleted group", None)
        }
        Group::DeleteOffsets { name, topic } if admin.is_share_group(&name).await? => {
            if topic.contains(':') {
                return Err(Failure::new(
                    "a share group forgets whole topics: leave the partition out",
                ));
            }
            let results = admin.delete_share_group_offsets(&name, &[topic]).await?;
            report(results, &format!("group {name} forgot its offsets of"), None)
        }
        Group::DeleteOffsets { name, topic } => {
            let partitions = expand(&admin, &[topic]).await?;
            let results = admin.delete_group_offsets(&name, &partitions).await?;
            let results = results.into_iter().map(|(p, result)| (p.to_string(), result));
            report(results, &format!("group {name} forgot its offset of"), None)
        }
    }
}

async fn list(admin: &Admin, format: Format) -> Result<(), Failure> {
    let groups = admin.list_groups().await?;
    let value = groups
        .iter()
        .map(|group| {
            json!({
                "group": group.id, "state": group.state, "type": group.kind,
                "protocol_type": group.protocol_type,
            })
        })
        .collect();
    let rows = groups.iter().map(|group| {
        vec![group.id.clone(), group.state.clone(), group.kind.clone(), group.protocol_type.clone()]
    });
    print(format, &value, &["group", "state", "type", "protocol"], rows)
}

/// One partition of a group's description.
pub(crate) struct Lag {
    pub(crate) partition: TopicPartition,
    pub(crate) committed: Option<i64>,
    pub(crate) end: Option<i64>,
    /// Member id, host and client id of who reads it.
    pub(crate) reader: Option<(String, String, String)>,
}

impl Lag {
    pub(crate) fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?).max(0))
    }
}

/// Gathers committed offsets, ends and readers of a group.
pub(crate) async fn lags(admin: &Admin, name: &str) -> Result<(String, Vec<Lag>), Failure> {
    let group = admin.describe_group(name).await?;
    let committed = admin.group_offsets(name).await?;
    if group.state == "Dead" && committed.is_empty() {
        return Err(Failure::new(format!("group {name} does not exist: see `fleuve group list`")));
    }
    let mut readers = HashMap::new();
    for member in &group.members {
        for partition in &member.assignment {
            let reader = (member.id.clone(), member.host.clone(), member.client_id.clone());
            readers.insert(partition.clone(), reader);
        }
    }
    let partitions: BTreeSet<TopicPartition> =
        committed.keys().chain(readers.keys()).cloned().collect();
    let asked = partitions.iter().map(|partition| (partition.clone(), LATEST)).collect();
    let mut ends = match admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await {
        Ok(ends) => ends,
        // A topic that was deleted keeps committed offsets for a while.
        Err(error) if error.code().is_some() => HashMap::new(),
        Err(error) => return Err(error.into()),
    };
    let lags = partitions
        .into_iter()
        .map(|partition| Lag {
            committed: committed.get(&partition).map(|committed| committed.offset),
            end: ends.remove(&partition).and_then(Result::ok).map(|end| end.offset),
            reader: readers.remove(&partition),
            partition,
        })
        .collect();
    Ok((group.state, lags))
}

async fn describe(admin: &Admin, name: &str, format: Format) -> Result<(), Failure> {
    let (state, lags) = lags(admin, name).await?;
    if format != Format::Table {
        let partitions: Vec<_> = lags
            .iter()
            .map(|lag| {
                let (member, host, client) = lag.reader.clone().unwrap_or_default();
                json!({
                    "topic": *lag.partition.topic, "partition": lag.partition.partition,
                    "committed_offset": lag.committed, "end_offset": lag.end, "lag": lag.lag(),
                    "member": member, "host": host, "client_id": client,
                })
            })
            .collect();
        let value = json!({ "group": name, "state": state, "partitions": partitions });
        return print_value(format, &value);
    }
    let total: i64 = lags.iter().filter_map(Lag::lag).sum();
    line(format!("{name}  {state}  lag {total}"))?;
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let rows = lags.iter().map(|lag| {
        let (member, host, _) = lag.reader.clone().unwrap_or_default();
        vec![
            lag.partition.topic.to_string(),
            lag.partition.partition.to_string(),
            number(lag.committed),
            number(lag.end),
            number(lag.lag()),
            if member.is_empty() { "-".to_owned() } else { member },
            host,
        ]
    });
    print_table(&["topic", "partition", "committed", "end", "lag", "member", "host"], rows)
}

async fn members(admin: &Admin, name: &str, format: Format) -> Result<(), Failure> {
    let group = match admin.is_share_group(name).await? {
        true => admin.describe_share_group(name).await?,
        false => admin.describe_group(name).await?,
    };
    let value = group
        .members
        .iter()
        .map(|member| {
            let assignment: Vec<_> = member.assignment.iter().map(ToString::to_string).collect();
            json!({
                "member": member.id, "instance_id": member.instance_id, "host": member.host,
                "client_id": member.client_id, "topics": member.topics, "assignment": assignment,
            })
        })
        .collect();
    let rows = group.members.iter().map(|member| {
        let assignment: Vec<_> = member.assignment.iter().map(ToString::to_string).collect();
        vec![
            member.id.clone(),
            member.host.clone(),
            member.client_id.clone(),
            member.assignment.len().to_string(),
            assignment.join(" "),
        ]
    });
    print(format, &value, &["member", "host", "client", "partitions", "assignment"], rows)
}

/// Reads `TOPIC` and `TOPIC:PARTITION` texts.
pub(crate) async fn expand(
    admin: &Admin,
    texts: &[String],
) -> Result<Vec<TopicPartition>, Failure> {
    let mut partitions = BTreeSet::new();
    for text in texts {
        let (topic, indexes) = match text.split_once(':') {
            Some((topic, indexes)) => (topic, Some(indexes)),
            None => (text.as_str(), None),
        };
        let count = admin.client().topic(topic, false).await?.partitions.len() as i32;
        let indexes: Vec<i32> = match indexes {
            None => (0..count).collect(),
            Some(indexes) => indexes
                .split(',')
                .map(|index| index.parse().ok().filter(|index| (0..count).contains(index)))
                .collect::<Option<_>>()
                .ok_or_else(|| {
                    Failure::new(format!("{text}: topic {topic} has partitions 0 to {}", count - 1))
                })?,
        };
        partitions.extend(indexes.into_iter().map(|index| TopicPartition::new(topic, index)));
    }
    Ok(partitions.into_iter().collect())
}

fn parse_target(to: &To) -> Result<Target, Failure> {
    if let Some(shift) = to.shift_by {
        return Ok(Target::Shift(shift));
    }
    let text = to.to.as_deref().unwrap_or_default();
    match text {
        "beginning" | "earliest" => return Ok(Target::Beginning),
        "end" | "latest" => return Ok(Target::End),
        "current" => return Ok(Target::Current),
        _ => {}
    }
    if let Ok(offset) = text.parse::<u32>() {
        return Ok(Target::Offset(i64::from(offset)));
    }
    parse_time(text).map(Target::Time).ok_or_else(|| {
        Failure::new(format!(
            "--to {text}: expected beginning, end, current, an offset such as 42, or a time such \
             as 2026-11-21T10:00:00Z"
        ))
    })
}

/// Finds the new offset of each partition, within what its log holds.
pub(crate) async fn plan(
    admin: &Admin,
    target: Target,
    partitions: &[TopicPartition],
    committed: &HashMap<TopicPartition, Committed>,
) -> Result<HashMap<TopicPartition, i64>, Failure> {
    let ends = log_ends(admin, partitions).await?;
    let mut at_time = HashMap::new();
    if let Target::Time(time) = target {
        let asked = partitions.iter().map(|partition| (partition.clone(), time)).collect();
        at_time = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await?;
    }
    let mut plan = HashMap::new();
    for partition in partitions {
        let (first, next) = ends[partition];
        let current = committed.get(partition).map(|committed| committed.offset);
        let offset = match target {
            Target::Beginning => first,
            Target::End => next,
            Target::Current => current.unwrap_or(next),
            Target::Offset(offset) => offset,
            Target::Shift(by) => current.unwrap_or(next).saturating_add(by),
            Target::Time(_) => match at_time.remove(partition) {
                Some(found) => Some(found?.offset).filter(|&offset| offset >= 0).unwrap_or(next),
                None => next,
            },
        };
        plan.insert(partition.clone(), offset.clamp(first, next));
    }
    Ok(plan)
}

fn show_plan(
    plan: &HashMap<TopicPartition, i64>,
    committed: &HashMap<TopicPartition, Committed>,
    format: Format,
) -> Result<(), Failure> {
    let mut plan: Vec<_> = plan.iter().collect();
    plan.sort_unstable();
    let current = |partition| committed.get(partition).map(|committed| committed.offset);
    let value = plan
        .iter()
        .map(|(partition, offset)| {
            json!({
                "topic": *partition.topic, "partition": partition.partition,
                "committed_offset": current(partition), "new_offset": offset,
            })
        })
        .collect();
    let rows = plan.iter().map(|(partition, offset)| {
        vec![
            partition.topic.to_string(),
            partition.partition.to_string(),
            current(partition).map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            offset.to_string(),
        ]
    });
    print(format, &value, &["topic", "partition", "committed", "new offset"], rows)
}
