//! `kafka-consumer-groups.sh`.

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;

use super::Connect;
use crate::commands::group::{Target, expand, lags, plan};
use crate::failure::{Failure, explain};
use crate::output::{line, note};
use crate::quantities::parse_time;

/// List, describe, delete consumer groups, or reset their offsets.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete", "reset_offsets", "delete_offsets"]))]
pub(super) struct Groups {
    #[command(flatten)]
    connect: Connect,
    /// List groups.
    #[arg(long)]
    list: bool,
    /// Describe groups.
    #[arg(long)]
    describe: bool,
    /// Delete groups.
    #[arg(long)]
    delete: bool,
    /// Reset committed offsets.
    #[arg(long)]
    reset_offsets: bool,
    /// Delete committed offsets of a topic.
    #[arg(long)]
    delete_offsets: bool,
    /// A group.
    #[arg(long)]
    group: Vec<String>,
    /// All groups.
    #[arg(long)]
    all_groups: bool,
    /// Show members.
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
    /// A topic, or partitions of it as TOPIC:0,1.
    #[arg(long)]
    topic: Vec<String>,
    /// All topics the group has committed for.
    #[arg(long)]
    all_topics: bool,
    /// To the oldest records.
    #[arg(long)]
    to_earliest: bool,
    /// To the end.
    #[arg(long)]
    to_latest: bool,
    /// To where it stands.
    #[arg(long)]
    to_current: bool,
    /// To an offset.
    #[arg(long)]
    to_offset: Option<i64>,
    /// To a time, as 2026-11-21T10:00:00.000.
    #[arg(long)]
    to_datetime: Option<String>,
    /// On by so many records, or back.
    #[arg(long, allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Do it.
    #[arg(long)]
    execute: bool,
    /// Only show it, which is the default.
    #[arg(long)]
    dry_run: bool,
    /// Accepted; the client has its own timeouts.
    #[arg(long)]
    timeout: Option<u64>,
}

pub(super) async fn run(groups: Groups) -> Result<(), Failure> {
    let admin = groups.connect.context()?.admin().await?;
    if groups.list {
        for group in admin.list_groups().await? {
            match &groups.state {
                Some(_) => line(format!("{:<30} {}", group.id, group.state))?,
                None => line(group.id)?,
            }
        }
        return Ok(());
    }
    let names = if groups.all_groups {
        admin.list_groups().await?.into_iter().map(|group| group.id).collect()
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
        } else if groups.reset_offsets {
            reset(&groups, &admin, name).await?;
        } else if groups.delete_offsets {
            let partitions = expand(&admin, &groups.topic).await?;
            for (partition, result) in admin.delete_group_offsets(name, &partitions).await? {
                result?;
                line(format!("{:<30} {:<10} Successful", partition.topic, partition.partition))?;
            }
        } else {
            match admin.delete_group(name).await {
                Ok(()) => line(format!(
                    "Deletion of requested consumer groups ('{name}') was successful."
                ))?,
                Err(error) => {
                    failed = true;
                    note(format!("Error: Deletion of group '{name}' failed: {}", explain(&error)));
                }
            }
        }
    }
    if failed { Err(Failure::Said) } else { Ok(()) }
}

async fn describe(groups: &Groups, admin: &Admin, name: &str) -> Result<(), Failure> {
    if groups.members {
        let group = admin.describe_group(name).await?;
        line(format!(
            "\n{:<20} {:<60} {:<15} {:<20} #PARTITIONS{}",
            "GROUP",
            "CONSUMER-ID",
            "HOST",
            "CLIENT-ID",
            if groups.verbose { "     ASSIGNMENT" } else { "" }
        ))?;
        for member in group.members {
            let assignment: Vec<_> = member.assignment.iter().map(ToString::to_string).collect();
            let assignment = if groups.verbose { assignment.join(",") } else { String::new() };
            line(
                format!(
                    "{name:<20} {:<60} {:<15} {:<20} {:<15} {assignment}",
                    member.id,
                    member.host,
                    member.client_id,
                    member.assignment.len()
                )
                .trim_end(),
            )?;
        }
        return Ok(());
    }
    if groups.state.is_some() {
        let group = admin.describe_group(name).await?;
        line(format!(
            "\n{:<20} {:<16} {:<20} {:<15} #MEMBERS",
            "GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE"
        ))?;
        return line(format!(
            "{name:<20} {:<16} {:<20} {:<15} {}",
            group.coordinator,
            group.assignor,
            group.state,
            group.members.len()
        ));
    }
    let (state, lags) = lags(admin, name).await?;
    if state == "Empty" {
        note(format!("\nConsumer group '{name}' has no active members."));
    }
    line(format!(
        "\n{:<20} {:<20} {:<10} {:<15} {:<15} {:<10} {:<60} {:<15} CLIENT-ID",
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST"
    ))?;
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for lag in lags {
        let nobody = || ("-".to_owned(), "-".to_owned(), "-".to_owned());
        let (member, host, client) = lag.reader.clone().unwrap_or_else(nobody);
        line(format!(
            "{name:<20} {:<20} {:<10} {:<15} {:<15} {:<10} {member:<60} {host:<15} {client}",
            lag.partition.topic,
            lag.partition.partition,
            number(lag.committed),
            number(lag.end),
            number(lag.lag()),
        ))?;
    }
    Ok(())
}

async fn reset(groups: &Groups, admin: &Admin, name: &str) -> Result<(), Failure> {
    let target = target(groups)?;
    let committed = admin.group_offsets(name).await?;
    let topics = if groups.all_topics {
        committed.keys().map(|partition| partition.topic.to_string()).collect()
    } else {
        groups.topic.clone()
    };
    if topics.is_empty() {
        return Err(Failure::new("no topic: pass --topic NAME or --all-topics"));
    }
    let partitions = expand(admin, &topics).await?;
    let plan = plan(admin, target, &partitions, &committed).await?;
    if groups.execute {
        admin.alter_group_offsets(name, &plan).await?;
    } else {
        note("WARN: no changes are applied without --execute (dry run)");
    }
    line(format!("\n{:<30} {:<30} {:<10} NEW-OFFSET", "GROUP", "TOPIC", "PARTITION"))?;
    let mut plan: Vec<_> = plan.into_iter().collect();
    plan.sort_unstable();
    for (partition, offset) in plan {
        let (topic, index) = (&partition.topic, partition.partition);
        line(format!("{name:<30} {topic:<30} {index:<10} {offset}"))?;
    }
    Ok(())
}

fn target(groups: &Groups) -> Result<Target, Failure> {
    if groups.to_earliest {
        return Ok(Target::Beginning);
    }
    if groups.to_latest {
        return Ok(Target::End);
    }
    if groups.to_current {
        return Ok(Target::Current);
    }
    if let Some(offset) = groups.to_offset {
        return Ok(Target::Offset(offset));
    }
    if let Some(by) = groups.shift_by {
        return Ok(Target::Shift(by));
    }
    if let Some(text) = &groups.to_datetime {
        return parse_time(text).map(Target::Time).ok_or_else(|| {
            Failure::new(format!("--to-datetime {text}: expected 2026-11-21T10:00:00.000"))
        });
    }
    Err(Failure::new("where to? pass --to-earliest, --to-latest, --to-offset N or --shift-by N"))
}
