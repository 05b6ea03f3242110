//! `kafka-streams-groups.sh`.
//!
//! Columns and sentences are those of Apache's tool. Departs from it in that a failure is also told
//! by the exit code, and in that offsets are shown of groups without members, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{StreamsGroupDescription, StreamsTasks};
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{Committed, LATEST};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;

use super::Connect;
use super::grid::{coordinator, or_dash};
use super::resets::{Reset, forget};
use crate::failure::{Failure, explain};
use crate::output::{line, note};
use crate::reset::{Plan, expand, plan};

/// The type of these groups in lists.
const STREAMS: &str = "streams";

/// List, describe, delete streams groups, or reset and delete their offsets.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete", "reset_offsets", "delete_offsets"]))]
pub(super) struct StreamsGroups {
    #[command(flatten)]
    connect: Connect,
    /// List groups.
    #[arg(long)]
    list: bool,
    /// Describe groups.
    #[arg(long)]
    describe: bool,
    /// Delete groups that have no members.
    #[arg(long)]
    delete: bool,
    /// Reset committed offsets of input topics.
    #[arg(long)]
    reset_offsets: bool,
    /// Delete committed offsets of input topics.
    #[arg(long)]
    delete_offsets: bool,
    /// A group.
    #[arg(long)]
    group: Vec<String>,
    /// All groups.
    #[arg(long)]
    all_groups: bool,
    /// Show the threads with their tasks.
    #[arg(long)]
    members: bool,
    /// Show states.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    state: Option<String>,
    /// Show offsets, which is the default.
    #[arg(long)]
    offsets: bool,
    /// Show more.
    #[arg(long)]
    verbose: bool,
    /// An input topic, or partitions of it as TOPIC:0,1.
    #[arg(long)]
    input_topic: Vec<String>,
    /// All input topics of the group.
    #[arg(long, conflicts_with = "input_topic")]
    all_input_topics: bool,
    #[command(flatten)]
    to: Reset,
    /// Delete these internal topics, too.
    #[arg(long, conflicts_with = "delete_all_internal_topics")]
    delete_internal_topic: Vec<String>,
    /// Delete all internal topics of the groups, too; with --reset-offsets when it is executed.
    #[arg(long)]
    delete_all_internal_topics: bool,
    /// Accepted; the client has its own timeouts.
    #[arg(long)]
    timeout: Option<u64>,
}

pub(super) async fn run(groups: StreamsGroups) -> Result<(), Failure> {
    let admin = groups.connect.context()?.admin().await?;
    if groups.list {
        let wanted = groups.state.as_deref().unwrap_or_default().to_lowercase();
        let wanted: Vec<&str> =
            wanted.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
        let listed = streams_groups(&admin).await?;
        if groups.state.is_none() {
            return listed.into_iter().try_for_each(|(id, _)| line(id));
        }
        let width = listed.iter().map(|(id, _)| id.len()).max().unwrap_or(0).max(15);
        line(format!("{:<width$} STATE", "GROUP"))?;
        let is_wanted =
            |state: &str| wanted.is_empty() || wanted.contains(&state.to_lowercase().as_str());
        let mut shown = listed.into_iter().filter(|(_, state)| is_wanted(state));
        return shown.try_for_each(|(id, state)| line(format!("{id:<width$} {state}")));
    }
    let names = if groups.all_groups {
        streams_groups(&admin).await?.into_iter().map(|(id, _)| id).collect()
    } else {
        groups.group.clone()
    };
    if names.is_empty() && !groups.all_groups && !groups.to.is_from_file() {
        return Err(Failure::new("no group: pass --group NAME or --all-groups"));
    }
    if groups.describe {
        for name in &names {
            describe(&groups, &admin, name).await?;
        }
        return Ok(());
    }
    if groups.reset_offsets {
        reset(&groups, &admin, &names).await
    } else if groups.delete_offsets {
        let [name] = names.as_slice() else {
            return Err(Failure::new("--delete-offsets takes one group: pass --group once"));
        };
        let committed = admin.group_offsets(name).await?;
        let partitions = scope(&groups, &admin, name, &committed).await?;
        if partitions.is_empty() && !groups.all_input_topics {
            return Err(Failure::Said);
        }
        forget(&admin, name, &partitions).await
    } else {
        delete(&groups, &admin, &names).await
    }
}

async fn streams_groups(admin: &Admin) -> Result<Vec<(String, String)>, Failure> {
    let groups = admin.list_groups().await?.into_iter();
    let streams = groups.filter(|group| group.kind.eq_ignore_ascii_case(STREAMS));
    Ok(streams.map(|group| (group.id, group.state)).collect())
}

/// The partitions of input topics that the options mean.
async fn scope(
    groups: &StreamsGroups,
    admin: &Admin,
    name: &str,
    committed: &HashMap<TopicPartition, Committed>,
) -> Result<Vec<TopicPartition>, Failure> {
    if groups.all_input_topics {
        let group = admin.describe_streams_group(name).await?;
        let sources: BTreeSet<&str> = group
            .subtopologies
            .iter()
            .flat_map(|subtopology| subtopology.source_topics.iter().map(String::as_str))
            .collect();
        let known = committed.keys().filter(|partition| sources.contains(&*partition.topic));
        let known: BTreeSet<TopicPartition> = known.cloned().collect();
        return Ok(known.into_iter().collect());
    }
    if groups.input_topic.is_empty() {
        return Err(Failure::new("no topic: pass --input-topic NAME or --all-input-topics"));
    }
    let partitions = expand(admin, &groups.input_topic).await?;
    if !partitions.iter().all(|partition| committed.contains_key(partition)) {
        line(format!("\nError: One or more topics are not part of the group '{name}'."))?;
        return Ok(Vec::new());
    }
    Ok(partitions)
}

async fn reset(groups: &StreamsGroups, admin: &Admin, names: &[String]) -> Result<(), Failure> {
    let deletes = groups.delete_all_internal_topics || !groups.delete_internal_topic.is_empty();
    if deletes && !groups.to.execute {
        return Err(Failure::new("internal topics are only deleted with --execute: pass it, too"));
    }
    let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
    let mut failed = false;
    if let Some(read) = groups.to.read(admin, names).await? {
        plans = read;
    } else {
        let target = groups.to.target()?;
        for name in names {
            let committed = admin.group_offsets(name).await?;
            let partitions = scope(groups, admin, name, &committed).await?;
            plans.insert(name.clone(), plan(admin, target, &partitions, &committed).await?);
        }
    }
    for (name, plan) in &mut plans {
        let state = match admin.describe_streams_group(name).await {
            Ok(group) => group.state,
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => "Dead".to_owned(),
            Err(error) => return Err(error.into()),
        };
        if !matches!(state.as_str(), "Empty" | "Dead") {
            failed = true;
            plan.clear();
            line(format!(
                "\nError: Assignments can only be reset if the group '{name}' is inactive, but the \
                 current state is {state}."
            ))?;
        } else if groups.to.execute {
            let internal = internal_topics(groups, admin, name).await?;
            let offsets = plan.iter().map(|(partition, offset)| (partition.clone(), *offset));
            if !plan.is_empty() {
                admin.alter_group_offsets(name, &offsets.collect()).await?;
            }
            delete_topics(admin, &internal).await?;
        }
    }
    if !groups.to.execute && !groups.to.dry_run {
        note("WARN: nothing is changed without --execute; --dry-run says that this is meant.");
    }
    groups.to.show(&plans)?;
    if failed { Err(Failure::Said) } else { Ok(()) }
}

/// The internal topics of a group that are to go.
async fn internal_topics(
    groups: &StreamsGroups,
    admin: &Admin,
    name: &str,
) -> fleuve_client::Result<Vec<String>> {
    if !groups.delete_all_internal_topics {
        return Ok(groups.delete_internal_topic.clone());
    }
    match admin.describe_streams_group(name).await {
        Ok(group) => Ok(group.internal_topics()),
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn delete_topics(admin: &Admin, topics: &[String]) -> fleuve_client::Result<()> {
    if topics.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for (topic, result) in admin.delete_topics(&names).await? {
        if let Err(error) = result {
            note(format!("Failed to delete internal topic: {topic}: {}", explain(&error)));
        }
    }
    Ok(())
}

async fn delete(groups: &StreamsGroups, admin: &Admin, names: &[String]) -> Result<(), Failure> {
    let listed = streams_groups(admin).await?;
    let (mut deleted, mut refused) = (Vec::new(), Vec::new());
    for name in names {
        let reason = match listed.iter().find(|(id, _)| id == name) {
            None => Some(format!("Group '{name}' does not exist or is not a streams group.")),
            Some((_, state)) if state != "Empty" => {
                Some(format!("Streams group '{name}' is not EMPTY."))
            }
            Some(_) => delete_one(groups, admin, name).await.err().map(|error| explain(&error)),
        };
        match reason {
            None => deleted.push(format!("'{name}'")),
            Some(reason) => refused.push((name, reason)),
        }
    }
    let deleted = deleted.join(", ");
    if refused.is_empty() {
        return line(format!("Deletion of requested streams groups ({deleted}) was successful."));
    }
    line("\nError: Deletion of some streams groups failed:")?;
    for (name, reason) in refused {
        line(format!("* Group '{name}' could not be deleted due to: {reason}"))?;
    }
    if !deleted.is_empty() {
        line(format!("\nThese streams groups were deleted successfully: {deleted}."))?;
    }
    Err(Failure::Said)
}

async fn delete_one(
    groups: &StreamsGroups,
    admin: &Admin,
    name: &str,
) -> fleuve_client::Result<()> {
    // Asked before the group is gone, which knows them.
    let internal = internal_topics(groups, admin, name).await?;
    admin.delete_group(name).await?;
    delete_topics(admin, &internal).await
}

async fn describe(groups: &StreamsGroups, admin: &Admin, name: &str) -> Result<(), Failure> {
    let group = admin.describe_streams_group(name).await?;
    if group.state == "Empty" {
        note(format!("\nStreams group '{name}' has no active members."));
    }
    if groups.members {
        return members(groups, &group);
    }
    if groups.state.is_some() {
        return state(groups, admin, &group);
    }
    offsets(groups, admin, &group).await
}

fn members(groups: &StreamsGroups, group: &StreamsGroupDescription) -> Result<(), Failure> {
    let more = match groups.verbose {
        true => format!("{:<25} {:<15} ", "TARGET-ASSIGNMENT-EPOCH", "TOPOLOGY-EPOCH"),
        false => String::new(),
    };
    let epoch = if groups.verbose { format!("{:<15} ", "MEMBER-EPOCH") } else { String::new() };
    line(format!(
        "{:<15} {more}{:<40} {epoch}{:<40} {:<15} ASSIGNMENTS",
        "GROUP", "MEMBER", "PROCESS", "CLIENT-ID"
    ))?;
    for member in &group.members {
        let (more, epoch) = match groups.verbose {
            true => (
                format!("{:<25} {:<15} ", group.assignment_epoch, group.topology_epoch),
                format!("{:<15} ", member.epoch),
            ),
            false => (String::new(), String::new()),
        };
        let target = if groups.verbose { told("TARGET-", &member.target) } else { String::new() };
        line(
            format!(
                "{:<15} {more}{:<40} {epoch}{:<40} {:<15} {}{target}",
                group.id,
                member.id,
                member.process_id,
                member.client_id,
                told("", &member.assignment),
            )
            .trim_end(),
        )?;
    }
    Ok(())
}

/// Tasks by role, as `ACTIVE: 0:[0,1]; `.
fn told(prefix: &str, tasks: &StreamsTasks) -> String {
    let role = |name: &str, tasks: &[(String, Vec<i32>)]| {
        if tasks.is_empty() {
            return String::new();
        }
        let each = tasks.iter().map(|(subtopology, partitions)| {
            let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            format!("{subtopology}:[{}]; ", numbers.join(","))
        });
        format!("{prefix}{name}: {}", each.collect::<String>())
    };
    let roles = [("ACTIVE", &tasks.active), ("STANDBY", &tasks.standby), ("WARMUP", &tasks.warmup)];
    roles.map(|(name, tasks)| role(name, tasks)).concat()
}

fn state(
    groups: &StreamsGroups,
    admin: &Admin,
    group: &StreamsGroupDescription,
) -> Result<(), Failure> {
    let (head, row) = match groups.verbose {
        true => (
            format!("{:<15} {:<25} ", "GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH"),
            format!("{:<15} {:<25} ", group.epoch, group.assignment_epoch),
        ),
        false => (String::new(), String::new()),
    };
    line(format!("{:<15} {:<25} {:<15} {head}#MEMBERS", "GROUP", "COORDINATOR (ID)", "STATE"))?;
    line(format!(
        "{:<15} {:<25} {:<15} {row}{}",
        group.id,
        coordinator(admin, group.coordinator, " "),
        group.state,
        group.members.len()
    ))
}

async fn offsets(
    groups: &StreamsGroups,
    admin: &Admin,
    group: &StreamsGroupDescription,
) -> Result<(), Failure> {
    let inputs: BTreeSet<String> = group.input_topics().into_iter().collect();
    let mut committed: Vec<_> = admin.group_offsets(&group.id).await?.into_iter().collect();
    committed.retain(|(partition, _)| inputs.contains(&*partition.topic));
    committed.sort_by(|(left, _), (right, _)| left.cmp(right));
    let asked = committed.iter().map(|(partition, _)| (partition.clone(), LATEST)).collect();
    let ends = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await?;
    let head = match groups.verbose {
        true => {
            format!("{:<15} {:<15} {:<15} ", "CURRENT-OFFSET", "LEADER-EPOCH", "LOG-END-OFFSET")
        }
        false => String::new(),
    };
    line(format!("{:<15} {:<40} {:<10} {head}OFFSET-LAG", "GROUP", "TOPIC", "PARTITION"))?;
    for (partition, committed) in &committed {
        let end = ends.get(partition).and_then(|end| end.as_ref().ok()).map(|end| end.offset);
        let row = match groups.verbose {
            true => {
                let epoch = Some(committed.leader_epoch).filter(|epoch| *epoch >= 0);
                let (epoch, end) = (or_dash(epoch), or_dash(end));
                format!("{:<15} {epoch:<15} {end:<15} ", committed.offset)
            }
            false => String::new(),
        };
        let lag = end.map(|end| (end - committed.offset).max(0));
        let (topic, index) = (&partition.topic, partition.partition);
        line(format!("{:<15} {topic:<40} {index:<10} {row}{}", group.id, or_dash(lag)))?;
    }
    Ok(())
}
