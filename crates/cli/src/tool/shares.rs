//! `kafka-share-groups.sh`.

use std::collections::{BTreeSet, HashMap};

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;

use super::Connect;
use crate::commands::share::starts;
use crate::failure::Failure;
use crate::output::line;
use crate::quantities::parse_time;
use crate::reset::{Target, expand, plan};

/// List, describe, delete share groups, or reset and delete their offsets.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete", "reset_offsets", "delete_offsets"]))]
pub(super) struct Shares {
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
    /// Reset start offsets.
    #[arg(long)]
    reset_offsets: bool,
    /// Delete offsets of topics.
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
    /// A topic, or partitions of it as TOPIC:0,1.
    #[arg(long)]
    topic: Vec<String>,
    /// All topics of the group.
    #[arg(long)]
    all_topics: bool,
    /// To the oldest records.
    #[arg(long)]
    to_earliest: bool,
    /// To the end.
    #[arg(long)]
    to_latest: bool,
    /// To a time, as 2026-11-21T10:00:00.000.
    #[arg(long)]
    to_datetime: Option<String>,
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

pub(super) async fn run(shares: Shares) -> Result<(), Failure> {
    let admin = shares.connect.context()?.admin().await?;
    let listed = admin.list_groups().await?;
    let mut listed = listed.into_iter().filter(|group| group.kind.eq_ignore_ascii_case("share"));
    if shares.list {
        for group in listed {
            match &shares.state {
                Some(state) if !state.is_empty() && !state.eq_ignore_ascii_case(&group.state) => {}
                Some(_) => line(format!("{:<30} {}", group.id, group.state))?,
                None => line(group.id)?,
            }
        }
        return Ok(());
    }
    let names = match shares.all_groups {
        true => listed.by_ref().map(|group| group.id).collect(),
        false => shares.group.clone(),
    };
    if names.is_empty() {
        return Err(Failure::new("no group: pass --group NAME or --all-groups"));
    }
    for name in &names {
        if shares.describe {
            describe(&shares, &admin, name).await?;
        } else if shares.reset_offsets {
            reset(&shares, &admin, name).await?;
        } else if shares.delete_offsets {
            forget(&shares, &admin, name).await?;
        } else {
            admin.delete_group(name).await?;
            line(format!("Deletion of requested share groups ('{name}') was successful."))?;
        }
    }
    Ok(())
}

async fn describe(shares: &Shares, admin: &Admin, name: &str) -> Result<(), Failure> {
    if shares.members {
        let group = admin.describe_share_group(name).await?;
        line(format!(
            "{:<20} {:<40} {:<16} {:<20} ASSIGNMENT",
            "GROUP", "CONSUMER-ID", "HOST", "CLIENT-ID"
        ))?;
        for member in group.members {
            let assignment: Vec<_> = member.assignment.iter().map(ToString::to_string).collect();
            let assignment = assignment.join(",");
            let (id, host, client) = (member.id, member.host, member.client_id);
            line(format!("{name:<20} {id:<40} {host:<16} {client:<20} {assignment}"))?;
        }
        return Ok(());
    }
    if shares.state.is_some() {
        let group = admin.describe_share_group(name).await?;
        line(format!("{:<20} {:<16} {:<10} #MEMBERS", "GROUP", "COORDINATOR (ID)", "STATE"))?;
        let (coordinator, state) = (group.coordinator, group.state);
        return line(format!("{name:<20} {coordinator:<16} {state:<10} {}", group.members.len()));
    }
    line(format!(
        "{:<20} {:<30} {:<10} {:<12} LAG",
        "GROUP", "TOPIC", "PARTITION", "START-OFFSET"
    ))?;
    for (partition, offset) in admin.share_group_offsets(name).await? {
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let (topic, index) = (&partition.topic, partition.partition);
        let (start, lag) = (number(offset.start), number(offset.lag));
        line(format!("{name:<20} {topic:<30} {index:<10} {start:<12} {lag}"))?;
    }
    Ok(())
}

async fn reset(shares: &Shares, admin: &Admin, name: &str) -> Result<(), Failure> {
    let target = match &shares.to_datetime {
        Some(time) => Target::Time(
            parse_time(time)
                .ok_or_else(|| Failure::new(format!("--to-datetime {time} is not a time")))?,
        ),
        None if shares.to_earliest => Target::Beginning,
        None if shares.to_latest => Target::End,
        None => {
            return Err(Failure::new(
                "no target: pass --to-earliest, --to-latest or --to-datetime TIME",
            ));
        }
    };
    let current = match admin.is_share_group(name).await? {
        true => starts(admin, name).await?,
        false => HashMap::new(),
    };
    let topics = match shares.all_topics {
        true => {
            let topics: BTreeSet<_> =
                current.keys().map(|partition| partition.topic.to_string()).collect();
            topics.into_iter().collect()
        }
        false => shares.topic.clone(),
    };
    let partitions = expand(admin, &topics).await?;
    let plan: HashMap<_, _> =
        plan(admin, target, &partitions, &current).await?.into_iter().collect();
    if shares.execute {
        admin.alter_share_group_offsets(name, &plan).await?;
    }
    line(format!("{:<20} {:<30} {:<10} NEW-OFFSET", "GROUP", "TOPIC", "PARTITION"))?;
    let mut plan: Vec<_> = plan.into_iter().collect();
    plan.sort_unstable();
    for (partition, offset) in plan {
        let (topic, index) = (&partition.topic, partition.partition);
        line(format!("{name:<20} {topic:<30} {index:<10} {offset}"))?;
    }
    Ok(())
}

async fn forget(shares: &Shares, admin: &Admin, name: &str) -> Result<(), Failure> {
    let topics: BTreeSet<String> = match shares.all_topics {
        true => {
            let offsets = admin.share_group_offsets(name).await?;
            offsets.into_keys().map(|partition| partition.topic.to_string()).collect()
        }
        false => shares.topic.iter().cloned().collect(),
    };
    let topics: Vec<String> = topics.into_iter().collect();
    line(format!("{:<30} STATUS", "TOPIC"))?;
    let mut failed = false;
    for (topic, result) in admin.delete_share_group_offsets(name, &topics).await? {
        match result {
            Ok(()) => line(format!("{topic:<30} Successful"))?,
            Err(error) => {
                failed = true;
                line(format!("{topic:<30} Error: {error}"))?;
            }
        }
    }
    if failed { Err(Failure::new("not all offsets were deleted")) } else { Ok(()) }
}
