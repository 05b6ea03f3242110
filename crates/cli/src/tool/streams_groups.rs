//! `kafka-streams-groups.sh`.
//!
//! What reaches all kinds of groups alike, offsets and their deletion, is the consumer groups'
//! tool; this adds the topology and the tasks.

use std::collections::BTreeSet;

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{StreamsGroupDescription, StreamsTasks};
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::LATEST;

use super::Connect;
use crate::failure::{Failure, explain};
use crate::output::{line, note};

/// The type of these groups in lists.
const STREAMS: &str = "streams";

/// List, describe and delete streams groups.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete"]))]
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
    /// Delete these internal topics, too.
    #[arg(long, conflicts_with = "delete_all_internal_topics")]
    delete_internal_topic: Vec<String>,
    /// Delete all internal topics of the groups, too.
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
        for group in streams_groups(&admin).await? {
            let is_wanted = wanted.is_empty() || wanted.contains(&group.1.to_lowercase().as_str());
            match &groups.state {
                Some(_) if is_wanted => line(format!("{:<30} {}", group.0, group.1))?,
                Some(_) => {}
                None => line(group.0)?,
            }
        }
        return Ok(());
    }
    let names = if groups.all_groups {
        streams_groups(&admin).await?.into_iter().map(|(id, _)| id).collect()
    } else {
        groups.group.clone()
    };
    if names.is_empty() {
        return Err(Failure::new("no group: pass --group NAME or --all-groups"));
    }
    let mut failed = false;
    for name in &names {
        if groups.describe {
            describe(&groups, &admin, name).await?;
            continue;
        }
        match delete(&groups, &admin, name).await {
            Ok(()) => {
                line(format!("Deletion of requested streams groups ('{name}') was successful."))?
            }
            Err(error) => {
                failed = true;
                note(format!("* Group '{name}' could not be deleted due to: {error}"));
            }
        }
    }
    if failed { Err(Failure::Said) } else { Ok(()) }
}

async fn streams_groups(admin: &Admin) -> Result<Vec<(String, String)>, Failure> {
    let groups = admin.list_groups().await?.into_iter();
    let streams = groups.filter(|group| group.kind.eq_ignore_ascii_case(STREAMS));
    Ok(streams.map(|group| (group.id, group.state)).collect())
}

async fn delete(groups: &StreamsGroups, admin: &Admin, name: &str) -> Result<(), String> {
    let internal = if groups.delete_all_internal_topics {
        let group = admin.describe_streams_group(name).await;
        group.map_err(|error| explain(&error))?.internal_topics()
    } else {
        groups.delete_internal_topic.clone()
    };
    admin.delete_group(name).await.map_err(|error| explain(&error))?;
    let internal: Vec<&str> = internal.iter().map(String::as_str).collect();
    let deleted = admin.delete_topics(&internal).await.map_err(|error| explain(&error))?;
    for (topic, result) in deleted {
        if let Err(error) = result {
            note(format!("Failed to delete internal topic: {topic}: {}", explain(&error)));
        }
    }
    Ok(())
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
        return state(groups, &group);
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

fn state(groups: &StreamsGroups, group: &StreamsGroupDescription) -> Result<(), Failure> {
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
        group.coordinator,
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
        true => format!("{:<15} {:<15} ", "CURRENT-OFFSET", "LOG-END-OFFSET"),
        false => String::new(),
    };
    line(format!("{:<15} {:<40} {:<10} {head}OFFSET-LAG", "GROUP", "TOPIC", "PARTITION"))?;
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for (partition, committed) in &committed {
        let end = ends.get(partition).and_then(|end| end.as_ref().ok()).map(|end| end.offset);
        let row = match groups.verbose {
            true => format!("{:<15} {:<15} ", committed.offset, number(end)),
            false => String::new(),
        };
        let lag = end.map(|end| (end - committed.offset).max(0));
        let (topic, index) = (&partition.topic, partition.partition);
        line(format!("{:<15} {topic:<40} {index:<10} {row}{}", group.id, number(lag)))?;
    }
    Ok(())
}
