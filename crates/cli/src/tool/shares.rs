//! `kafka-share-groups.sh`.
//!
//! Columns and sentences are those of Apache's tool. Departs from it in that a failure is also told
//! by the exit code, and in that all topics of a group may be forgotten at once.

use std::collections::{BTreeSet, HashMap};

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{GroupDescription, GroupListing};

use super::Connect;
use super::choice::Choice;
use super::grid::{Grid, assignment, coordinator, or_dash};
use super::resets::{needs, needs_groups, needs_no_state};
use crate::commands::share::starts;
use crate::failure::{Failure, explain};
use crate::output::{line, note};
use crate::quantities::parse_time;
use crate::reset::{Target, expand, plan};

/// List, describe, delete share groups, or reset and delete their offsets.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete", "reset_offsets", "delete_offsets"]))]
#[command(group = ArgGroup::new("aspect").args(["members", "offsets", "state"]))]
#[command(group = ArgGroup::new("target").args(["to_earliest", "to_latest", "to_datetime"]))]
pub(super) struct Shares {
    #[command(flatten)]
    connect: Connect,
    /// List groups.
    #[arg(long, conflicts_with_all = ["group", "topic", "members", "offsets", "verbose"])]
    list: bool,
    /// Describe groups.
    #[arg(long, conflicts_with = "topic")]
    describe: bool,
    /// Delete groups.
    #[arg(long, conflicts_with_all = ["topic", "members", "offsets", "state", "verbose"])]
    delete: bool,
    /// Reset start offsets.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose"])]
    reset_offsets: bool,
    /// Delete offsets of topics.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose"])]
    delete_offsets: bool,
    /// A group.
    #[arg(long, conflicts_with = "all_groups")]
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
    /// Only show it.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// How long an answer may take, in ms.
    #[arg(long)]
    timeout: Option<u64>,
}

impl Shares {
    /// Refuses actions without what they need, which the parser would not name.
    fn check(&self) -> Result<(), Failure> {
        if self.describe || self.delete {
            needs_groups(&self.group, self.all_groups)?;
        }
        if self.describe {
            needs_no_state(self.state.as_deref())?;
        }
        if self.reset_offsets || self.delete_offsets {
            needs(self.group.len() == 1, "this is done to one group: pass --group NAME once")?;
            needs(
                self.all_topics || !self.topic.is_empty(),
                "no topic: pass --topic NAME or --all-topics",
            )?;
        }
        if self.reset_offsets {
            needs(
                self.to_earliest || self.to_latest || self.to_datetime.is_some(),
                "no target: pass --to-earliest, --to-latest or --to-datetime TIME",
            )?;
            needs(
                self.execute || self.dry_run,
                "really? pass --execute to do it, or --dry-run to see what would be done",
            )?;
        }
        Ok(())
    }
}

pub(super) async fn run(shares: Shares) -> Result<(), Failure> {
    shares.check()?;
    let admin = shares.connect.admin_within(shares.timeout).await?;
    let listed = admin.list_groups().await?.into_iter();
    let listed: Vec<_> = listed.filter(|group| group.kind.eq_ignore_ascii_case("share")).collect();
    if shares.list {
        return list(listed, shares.state.as_deref());
    }
    let names = match shares.all_groups {
        true => listed.iter().map(|group| group.id.clone()).collect(),
        false => shares.group.clone(),
    };
    if shares.delete {
        return delete(&admin, &listed, &names).await;
    }
    for name in &names {
        if shares.describe {
            describe(&shares, &admin, name).await?;
        } else if shares.reset_offsets {
            reset(&shares, &admin, name).await?;
        } else {
            forget(&shares, &admin, name).await?;
        }
    }
    Ok(())
}

fn list(groups: Vec<GroupListing>, states: Option<&str>) -> Result<(), Failure> {
    let Some(states) = states else {
        return groups.into_iter().try_for_each(|group| line(group.id));
    };
    let states = Choice::new("state", Some(states), &["Stable", "Dead", "Empty"])?;
    let width = groups.iter().map(|group| group.id.len()).max().unwrap_or(0).max(15);
    line(format!("{:<width$} STATE", "GROUP"))?;
    let mut shown = groups.into_iter().filter(|group| states.allows(&group.state));
    shown.try_for_each(|group| line(format!("{:<width$} {}", group.id, group.state)))
}

async fn delete(admin: &Admin, listed: &[GroupListing], names: &[String]) -> Result<(), Failure> {
    let (mut deleted, mut refused) = (Vec::new(), Vec::new());
    for name in names {
        let reason = match listed.iter().find(|group| group.id == *name) {
            None => Some(format!("Group '{name}' is not a share group.")),
            Some(group) if group.state != "Empty" => {
                Some(format!("Share group '{name}' is not EMPTY."))
            }
            Some(_) => admin.delete_group(name).await.err().map(|error| explain(&error)),
        };
        match reason {
            None => deleted.push(format!("'{name}'")),
            Some(reason) => refused.push((name, reason)),
        }
    }
    let deleted = deleted.join(", ");
    if refused.is_empty() {
        return line(format!("Deletion of requested share groups ({deleted}) was successful."));
    }
    line("\nError: Deletion of some share groups failed:")?;
    for (name, reason) in refused {
        line(format!("* Group '{name}' could not be deleted due to: {reason}"))?;
    }
    if !deleted.is_empty() {
        line(format!("\nThese share groups were deleted successfully: {deleted}"))?;
    }
    Err(Failure::Said)
}

async fn describe(shares: &Shares, admin: &Admin, name: &str) -> Result<(), Failure> {
    let group = admin.describe_share_group(name).await?;
    if shares.members || shares.state.is_some() {
        if group.state == "Empty" {
            note(format!("\nShare group '{name}' has no active members."));
        }
        return match shares.members {
            true => members(&group, shares.verbose),
            false => state(admin, &group, shares.verbose),
        };
    }
    let offsets = admin.share_group_offsets(name).await?;
    if offsets.is_empty() {
        return line(format!("\nShare group '{name}' has no offset information."));
    }
    let mut columns = vec![("GROUP", 15, true), ("TOPIC", 15, true), ("PARTITION", 10, false)];
    if shares.verbose {
        columns.push(("LEADER-EPOCH", 13, false));
    }
    columns.extend([("START-OFFSET", 13, false), ("LAG", 0, false)]);
    let mut grid = Grid::new(&columns);
    for (partition, offset) in offsets {
        let mut row =
            vec![name.to_owned(), partition.topic.to_string(), partition.partition.to_string()];
        if shares.verbose {
            row.push(or_dash(offset.leader_epoch));
        }
        row.extend([or_dash(offset.start), or_dash(offset.lag)]);
        grid.rows.push(row);
    }
    grid.print()
}

fn members(group: &GroupDescription, verbose: bool) -> Result<(), Failure> {
    if group.members.is_empty() {
        return Ok(());
    }
    let mut columns = vec![
        ("GROUP", 15, true),
        ("CONSUMER-ID", 15, true),
        ("HOST", 15, true),
        ("CLIENT-ID", 15, true),
        ("#PARTITIONS", 12, false),
    ];
    if verbose {
        columns.push(("MEMBER-EPOCH", 13, false));
    }
    columns.push(("ASSIGNMENT", 0, false));
    let mut grid = Grid::new(&columns);
    for member in &group.members {
        let mut row = vec![
            group.id.clone(),
            member.id.clone(),
            member.host.clone(),
            member.client_id.clone(),
            member.assignment.len().to_string(),
        ];
        if verbose {
            row.push(or_dash(member.epoch));
        }
        row.push(assignment(&member.assignment));
        grid.rows.push(row);
    }
    grid.print()
}

fn state(admin: &Admin, group: &GroupDescription, verbose: bool) -> Result<(), Failure> {
    let mut columns =
        vec![("GROUP", 15, true), ("COORDINATOR (ID)", 25, true), ("STATE", 15, false)];
    if verbose {
        columns.extend([("GROUP-EPOCH", 12, false), ("ASSIGNMENT-EPOCH", 17, false)]);
    }
    columns.push(("#MEMBERS", 0, false));
    let mut grid = Grid::new(&columns);
    let mut row =
        vec![group.id.clone(), coordinator(admin, group.coordinator, "  "), group.state.clone()];
    if verbose {
        let (epoch, assigned) = group.epochs.unzip();
        row.extend([or_dash(epoch), or_dash(assigned)]);
    }
    row.push(group.members.len().to_string());
    grid.rows.push(row);
    grid.print()
}

async fn reset(shares: &Shares, admin: &Admin, name: &str) -> Result<(), Failure> {
    let target = match &shares.to_datetime {
        Some(time) => Target::Time(
            parse_time(time)
                .ok_or_else(|| Failure::new(format!("--to-datetime {time} is not a time")))?,
        ),
        None if shares.to_earliest => Target::Beginning,
        None => Target::End,
    };
    let current = match admin.is_share_group(name).await? {
        true if admin.describe_share_group(name).await?.state != "Empty" => {
            return Err(Failure::new(format!("Share group '{name}' is not empty.")));
        }
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
    let columns = [
        ("GROUP", 15, true),
        ("TOPIC", 15, true),
        ("PARTITION", 10, false),
        ("NEW-OFFSET", 0, false),
    ];
    let mut grid = Grid::new(&columns);
    let mut plan: Vec<_> = plan.into_iter().collect();
    plan.sort_unstable();
    grid.rows.extend(plan.into_iter().map(|(partition, offset)| {
        let index = partition.partition.to_string();
        vec![name.to_owned(), partition.topic.to_string(), index, offset.to_string()]
    }));
    grid.print()
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
    let mut grid = Grid::new(&[("TOPIC", 15, true), ("STATUS", 0, false)]);
    let mut failed = false;
    for (topic, result) in admin.delete_share_group_offsets(name, &topics).await? {
        failed |= result.is_err();
        let status = match result {
            Ok(()) => "Successful".to_owned(),
            Err(error) => format!("Error: {}", explain(&error)),
        };
        grid.rows.push(vec![topic, status]);
    }
    grid.print()?;
    if failed { Err(Failure::Said) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(arguments: &str) -> Result<(), String> {
        let arguments = std::iter::once("kafka-share-groups.sh").chain(arguments.split(' '));
        let shares = Shares::try_parse_from(arguments).map_err(|error| error.to_string())?;
        shares.check().map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_an_action_needs_is_taken() {
        for arguments in [
            "--list --state",
            "--list --state stable",
            "--describe --group g --group h --members --verbose",
            "--describe --all-groups --state",
            "--delete --all-groups",
            "--reset-offsets --group g --topic t:0 --to-earliest --dry-run",
            "--reset-offsets --group g --all-topics --to-datetime 2026-11-21T10:00:00.000 --execute",
            "--delete-offsets --group g --topic t",
            "--delete-offsets --group g --all-topics",
        ] {
            assert_eq!(taken(arguments), Ok(()), "{arguments}");
        }
    }

    #[test]
    fn contradictions_and_gaps_are_refused() {
        for arguments in [
            "--list --group g",
            "--describe",
            "--describe --group g --state stable",
            "--describe --group g --members --offsets",
            "--describe --group g --topic t",
            "--delete",
            "--delete --group g --topic t",
            "--delete --group g --all-groups",
            "--delete-offsets --all-groups --topic t",
            "--delete-offsets --group g",
            "--delete-offsets --group g --group h --topic t",
            "--reset-offsets --all-groups --topic t --to-earliest --execute",
            "--reset-offsets --group g --topic t --to-earliest",
            "--reset-offsets --group g --topic t --execute",
            "--reset-offsets --group g --to-earliest --execute",
            "--reset-offsets --group g --topic t --to-earliest --to-latest --execute",
        ] {
            assert!(taken(arguments).is_err(), "{arguments}");
        }
    }
}
