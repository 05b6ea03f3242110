//! `kafka-consumer-groups.sh` and `kafka-groups.sh`.
//!
//! Columns and sentences are those of Apache's tools, because scripts parse them. Departs from them
//! in that a failure is also told by the exit code.

use std::collections::BTreeMap;

use clap::{ArgGroup, Parser};
use fleuve_broker::check_pattern;
use fleuve_client::Admin;
use fleuve_client::admin::{GroupDescription, GroupListing};
use fleuve_protocol::ErrorCode;

use super::Connect;
use super::choice::Choice;
use super::grid::{Grid, assignment, coordinator};
use super::resets::{Reset, forget, needs, needs_groups, needs_no_state};
use crate::commands::group::{Lag, lags};
use crate::failure::{Failure, explain};
use crate::output::{line, note};
use crate::reset::{Plan, expand, plan};

/// List, describe, delete consumer groups, or reset their offsets.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete", "reset_offsets", "delete_offsets", "validate_regex"]))]
#[command(group = ArgGroup::new("aspect").args(["members", "offsets", "state"]))]
pub(super) struct Groups {
    #[command(flatten)]
    connect: Connect,
    /// List groups.
    #[arg(long, conflicts_with_all = ["group", "topic", "members", "offsets", "verbose"])]
    list: bool,
    /// Describe groups.
    #[arg(long, conflicts_with_all = ["topic", "kind"])]
    describe: bool,
    /// Delete groups.
    #[arg(long, conflicts_with_all = ["topic", "members", "offsets", "state", "verbose", "kind"])]
    delete: bool,
    /// Reset committed offsets.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose", "kind"])]
    reset_offsets: bool,
    /// Delete committed offsets of topics.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose", "kind"])]
    delete_offsets: bool,
    /// Check a regular expression for subscriptions.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose", "kind"])]
    validate_regex: Option<String>,
    /// A group.
    #[arg(long, conflicts_with = "all_groups")]
    group: Vec<String>,
    /// All groups.
    #[arg(long)]
    all_groups: bool,
    /// Show members.
    #[arg(long)]
    members: bool,
    /// Show states; with --list, only groups in these.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    state: Option<String>,
    /// With --list, show types; only groups of these.
    #[arg(long = "type", num_args = 0..=1, default_missing_value = "")]
    kind: Option<String>,
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
    #[command(flatten)]
    to: Reset,
    /// How long an answer may take, in ms.
    #[arg(long)]
    timeout: Option<u64>,
}

impl Groups {
    /// Refuses actions without what they need, which the parser would not name.
    fn check(&self) -> Result<(), Failure> {
        if self.describe || self.delete || self.reset_offsets {
            needs_groups(&self.group, self.all_groups)?;
        }
        if self.describe {
            needs_no_state(self.state.as_deref())?;
        }
        // Apache's tool deletes all the same.
        needs(
            self.reset_offsets || !self.to.dry_run,
            "only --reset-offsets can be tried with --dry-run; nothing was done",
        )?;
        if self.delete_offsets {
            needs(
                self.group.len() == 1 && !self.topic.is_empty(),
                "--delete-offsets takes one group and its topics: pass --group NAME --topic NAME",
            )?;
        }
        Ok(())
    }
}

pub(super) async fn run(groups: Groups) -> Result<(), Failure> {
    groups.check()?;
    if let Some(regex) = &groups.validate_regex {
        return match check_pattern(regex) {
            Ok(()) => line(format!("The regular expression `{regex}` is valid.")),
            Err(reason) => {
                line(format!("The regular expression `{regex}` is invalid: {reason}."))?;
                Err(Failure::Said)
            }
        };
    }
    let admin = groups.connect.admin_within(groups.timeout).await?;
    if groups.list {
        return list(&groups, &admin).await;
    }
    let names = if groups.all_groups {
        let all = admin.list_groups().await?.into_iter();
        all.filter(is_of_consumers).map(|group| group.id).collect()
    } else {
        groups.group.clone()
    };
    if groups.describe {
        let mut failed = false;
        for name in &names {
            failed |= !describe(&groups, &admin, name).await?;
        }
        return if failed { Err(Failure::Said) } else { Ok(()) };
    }
    if groups.reset_offsets {
        reset(&groups, &admin, &names).await
    } else if groups.delete_offsets {
        forget(&admin, &names[0], &expand(&admin, &groups.topic).await?).await
    } else {
        delete(&admin, &names).await
    }
}

/// Groups that Kafka counts among consumer groups: of both protocols, and those of offsets alone.
fn is_of_consumers(group: &GroupListing) -> bool {
    let kind = group.kind.to_ascii_lowercase();
    kind == "consumer"
        || ((kind == "classic" || kind.is_empty())
            && matches!(group.protocol_type.as_str(), "" | "consumer"))
}

/// States that groups of consumers have.
const STATES: [&str; 7] = [
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
    "Dead",
    "Empty",
    "Assigning",
    "Reconciling",
];

async fn list(groups: &Groups, admin: &Admin) -> Result<(), Failure> {
    let states = Choice::new("state", groups.state.as_deref(), &STATES)?;
    let kinds = Choice::new("types", groups.kind.as_deref(), &["Classic", "Consumer"])?;
    let listed: Vec<_> = admin
        .list_groups()
        .await?
        .into_iter()
        .filter(is_of_consumers)
        .filter(|group| states.allows(&group.state) && kinds.allows(&group.kind))
        .collect();
    if groups.state.is_none() && groups.kind.is_none() {
        return listed.into_iter().try_for_each(|group| line(group.id));
    }
    let width = listed.iter().map(|group| group.id.len()).max().unwrap_or(0).max(15) + 10;
    let row = |id: &str, kind: &str, state: &str| {
        let mut text = format!("{id:<width$}");
        if groups.kind.is_some() {
            text.push_str(&format!(" {kind:<20}"));
        }
        if groups.state.is_some() {
            text.push_str(&format!(" {state:<20}"));
        }
        line(text)
    };
    row("GROUP", "TYPE", "STATE")?;
    listed.iter().try_for_each(|group| row(&group.id, &capitalised(&group.kind), &group.state))
}

/// Kafka's admin client writes types with a capital, brokers without.
fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

/// Describes a group and reports whether it exists.
async fn describe(groups: &Groups, admin: &Admin, name: &str) -> Result<bool, Failure> {
    let group = admin.describe_group(name).await?;
    if group.state == "Dead" {
        line(format!("\nError: Consumer group '{name}' does not exist."))?;
        return Ok(false);
    }
    if groups.state.is_some() {
        describe_state(admin, &group, groups.verbose)?;
        return Ok(true);
    }
    match group.state.as_str() {
        "Empty" => note(format!("\nConsumer group '{name}' has no active members.")),
        "Stable" => {}
        _ => note(format!("\nWarning: Consumer group '{name}' is rebalancing.")),
    }
    if groups.members {
        describe_members(&group, groups.verbose)?;
    } else {
        let (_, lags) = lags(admin, name).await?;
        describe_offsets(name, &lags, groups.verbose)?;
    }
    Ok(true)
}

fn describe_state(admin: &Admin, group: &GroupDescription, verbose: bool) -> Result<(), Failure> {
    let mut columns = vec![
        ("GROUP", 15, true),
        ("COORDINATOR (ID)", 25, true),
        ("ASSIGNMENT-STRATEGY", 20, false),
        ("STATE", 20, false),
    ];
    if verbose {
        columns.extend([("GROUP-EPOCH", 15, false), ("TARGET-ASSIGNMENT-EPOCH", 25, false)]);
    }
    columns.push(("#MEMBERS", 0, false));
    let mut grid = Grid::new(&columns);
    let mut row = vec![
        group.id.clone(),
        coordinator(admin, group.coordinator, "  "),
        if group.assignor.is_empty() { "-".to_owned() } else { group.assignor.clone() },
        group.state.clone(),
    ];
    if verbose {
        let epoch = |epoch: Option<i32>| epoch.map_or("-".to_owned(), |epoch| epoch.to_string());
        row.push(epoch(group.epochs.map(|epochs| epochs.0)));
        row.push(epoch(group.epochs.map(|epochs| epochs.1)));
    }
    row.push(group.members.len().to_string());
    grid.rows.push(row);
    grid.print()
}

fn describe_members(group: &GroupDescription, verbose: bool) -> Result<(), Failure> {
    let with_instances = group.members.iter().any(|member| member.instance_id.is_some());
    let mut columns = vec![("GROUP", 15, true), ("CONSUMER-ID", 15, true)];
    if with_instances {
        columns.push(("GROUP-INSTANCE-ID", 17, true));
    }
    columns.extend([("HOST", 15, true), ("CLIENT-ID", 15, true), ("#PARTITIONS", 15, false)]);
    if verbose {
        columns.extend([
            ("CURRENT-EPOCH", 15, false),
            ("CURRENT-ASSIGNMENT", 20, true),
            ("TARGET-EPOCH", 15, false),
            ("TARGET-ASSIGNMENT", 20, true),
        ]);
    }
    // Only a group that is between two protocols has members of both.
    let is_mixed = [false, true]
        .iter()
        .all(|upgraded| group.members.iter().any(|member| member.upgraded == Some(*upgraded)));
    if verbose && is_mixed {
        columns.push(("UPGRADED", 0, true));
    }
    let mut grid = Grid::new(&columns);
    for member in &group.members {
        let mut row = vec![group.id.clone(), member.id.clone()];
        if with_instances {
            row.push(member.instance_id.clone().unwrap_or_default());
        }
        row.extend([
            member.host.clone(),
            member.client_id.clone(),
            member.assignment.len().to_string(),
        ]);
        if verbose {
            let epoch = member.target.as_ref().map(|(epoch, _)| epoch.to_string());
            let target_epoch = group.epochs.map(|epochs| epochs.1.to_string());
            let target = member.target.as_ref().map(|(_, target)| assignment(target));
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            row.extend([
                or_none(epoch),
                assignment(&member.assignment),
                or_none(target_epoch),
                or_none(target),
            ]);
            if is_mixed {
                row.push(or_none(member.upgraded.map(|upgraded| upgraded.to_string())));
            }
        }
        grid.rows.push(row);
    }
    grid.print()
}

fn describe_offsets(name: &str, lags: &[Lag], verbose: bool) -> Result<(), Failure> {
    if lags.is_empty() {
        return Ok(());
    }
    let mut columns = vec![("GROUP", 15, true), ("TOPIC", 15, true), ("PARTITION", 10, false)];
    if verbose {
        columns.push(("LEADER-EPOCH", 15, false));
    }
    columns.extend([
        ("CURRENT-OFFSET", 15, false),
        ("LOG-END-OFFSET", 15, false),
        ("LAG", 15, false),
        ("CONSUMER-ID", 15, true),
        ("HOST", 15, true),
        ("CLIENT-ID", 0, false),
    ]);
    let mut grid = Grid::new(&columns);
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for lag in lags {
        let nobody = || ("-".to_owned(), "-".to_owned(), "-".to_owned());
        let (member, host, client) = lag.reader.clone().unwrap_or_else(nobody);
        let mut row = vec![
            name.to_owned(),
            lag.partition.topic.to_string(),
            lag.partition.partition.to_string(),
        ];
        if verbose {
            row.push(number(lag.leader_epoch.map(i64::from)));
        }
        row.extend([
            number(lag.committed),
            number(lag.end),
            number(lag.ahead()),
            member,
            host,
            client,
        ]);
        grid.rows.push(row);
    }
    grid.print()
}

async fn reset(groups: &Groups, admin: &Admin, names: &[String]) -> Result<(), Failure> {
    let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
    let mut failed = false;
    if let Some(read) = groups.to.read(admin, &groups.group, names).await? {
        failed = read.values().any(Plan::is_empty);
        plans = read;
    } else {
        let target = groups.to.target()?;
        if groups.topic.is_empty() && !groups.all_topics {
            return Err(Failure::new("no topic: pass --topic NAME or --all-topics"));
        }
        for name in names {
            let committed = admin.group_offsets(name).await?;
            let partitions = if groups.all_topics {
                let mut partitions: Vec<_> = committed.keys().cloned().collect();
                partitions.sort_unstable();
                partitions
            } else {
                expand(admin, &groups.topic).await?
            };
            plans.insert(name.clone(), plan(admin, target, &partitions, &committed).await?);
        }
    }
    for (name, plan) in &mut plans {
        let state = admin.describe_group(name).await?.state;
        if !matches!(state.as_str(), "Empty" | "Dead") {
            failed = true;
            plan.clear();
            line(format!(
                "\nError: Assignments can only be reset if the group '{name}' is inactive, but the \
                 current state is {state}."
            ))?;
        } else if groups.to.execute && !plan.is_empty() {
            let offsets = plan.iter().map(|(partition, offset)| (partition.clone(), *offset));
            admin.alter_group_offsets(name, &offsets.collect()).await?;
        }
    }
    if !groups.to.execute && !groups.to.dry_run {
        note("WARN: nothing is changed without --execute; --dry-run says that this is meant.");
    }
    groups.to.show(&plans, &groups.group)?;
    if failed { Err(Failure::Said) } else { Ok(()) }
}

async fn delete(admin: &Admin, names: &[String]) -> Result<(), Failure> {
    let (mut deleted, mut refused) = (Vec::new(), Vec::new());
    for name in names {
        match admin.delete_group(name).await {
            Ok(()) => deleted.push(format!("'{name}'")),
            Err(error) => refused.push((name, error)),
        }
    }
    if refused.is_empty() {
        return line(format!(
            "Deletion of requested consumer groups ({}) was successful.",
            deleted.join(", ")
        ));
    }
    line("\nError: Deletion of some consumer groups failed:")?;
    for (name, error) in refused {
        let reason = match error.code() {
            Some(ErrorCode::NonEmptyGroup) => "The group is not empty.".to_owned(),
            Some(ErrorCode::GroupIdNotFound) => "The group id does not exist.".to_owned(),
            _ => explain(&error),
        };
        line(format!("* Group '{name}' could not be deleted due to: {reason}"))?;
    }
    if !deleted.is_empty() {
        line(format!("\nThese consumer groups were deleted successfully: {}", deleted.join(", ")))?;
    }
    Err(Failure::Said)
}

/// List groups of all kinds.
#[derive(Debug, Parser)]
pub(super) struct AllGroups {
    #[command(flatten)]
    connect: Connect,
    /// List groups.
    #[arg(long, required = true)]
    list: bool,
    /// Only groups of consumers: of both protocols, and those that only hold offsets.
    #[arg(long, conflicts_with_all = ["share", "streams", "group_type", "protocol"])]
    consumer: bool,
    /// Only share groups.
    #[arg(long, conflicts_with_all = ["streams", "group_type", "protocol"])]
    share: bool,
    /// Only streams groups.
    #[arg(long, conflicts_with_all = ["group_type", "protocol"])]
    streams: bool,
    /// Only groups of this type: classic, consumer, share or streams.
    #[arg(long)]
    group_type: Option<String>,
    /// Only groups with this protocol type.
    #[arg(long)]
    protocol: Option<String>,
}

pub(super) async fn list_all(options: AllGroups) -> Result<(), Failure> {
    let kind = match &options.group_type {
        Some(kind) => {
            let known = ["classic", "consumer", "share", "streams"];
            if !known.contains(&kind.to_ascii_lowercase().as_str()) {
                return Err(Failure::new(format!(
                    "--group-type {kind}: expected classic, consumer, share or streams"
                )));
            }
            Some(kind.clone())
        }
        None if options.share => Some("share".to_owned()),
        None if options.streams => Some("streams".to_owned()),
        None => None,
    };
    let groups = options.connect.context()?.admin().await?.list_groups().await?;
    let is_shown = |group: &&GroupListing| {
        kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(&group.kind))
            && options.protocol.as_ref().is_none_or(|protocol| *protocol == group.protocol_type)
            && (!options.consumer || is_of_consumers(group))
    };
    let groups: Vec<_> = groups.iter().filter(is_shown).collect();
    let width = groups.iter().map(|group| group.id.len()).max().unwrap_or(0).max(20);
    line(format!("{:<width$} {:<20} {:<20}", "GROUP", "TYPE", "PROTOCOL"))?;
    groups.into_iter().try_for_each(|group| {
        let kind = capitalised(&group.kind);
        line(format!("{:<width$} {kind:<20} {:<20}", group.id, group.protocol_type))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(arguments: &str) -> Result<(), String> {
        let arguments = std::iter::once("kafka-consumer-groups.sh").chain(arguments.split(' '));
        let groups = Groups::try_parse_from(arguments).map_err(|error| error.to_string())?;
        groups.check().map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_an_action_needs_is_taken() {
        for arguments in [
            "--list",
            "--list --state --type",
            "--list --state stable,empty --type consumer",
            "--describe --group g",
            "--describe --all-groups --offsets --verbose",
            "--describe --group g --state --verbose",
            "--describe --state --group g",
            "--delete --group g --group h",
            "--delete --all-groups",
            "--reset-offsets --group g --topic t:0 --topic u --to-earliest",
            "--reset-offsets --all-groups --all-topics --shift-by -1 --execute",
            "--reset-offsets --group g --from-file plan.csv --dry-run",
            "--delete-offsets --group g --topic t --topic u",
            "--validate-regex a.*",
        ] {
            assert_eq!(taken(arguments), Ok(()), "{arguments}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for arguments in [
            "--delete --group g --topic t",
            "--delete --group g --all-groups",
            "--delete --group g --members",
            "--delete --group g --dry-run",
            "--delete-offsets --group g --topic t --dry-run",
            "--delete --all-groups --describe",
            "--describe --group g --topic t",
            "--describe --group g --members --offsets",
            "--describe --group g --members --state",
            "--describe --group g --state stable",
            "--describe --group g --type",
            "--list --group g",
            "--list --topic t",
            "--list --members",
            "--list --verbose",
            "--reset-offsets --group g --all-groups --all-topics --to-earliest",
            "--reset-offsets --group g --all-topics --to-earliest --to-offset 500",
            "--delete-offsets --group g --all-groups --topic t",
        ] {
            assert!(taken(arguments).is_err(), "{arguments}");
        }
        let mixed = "kafka-groups.sh --list --consumer --share".split(' ');
        assert!(AllGroups::try_parse_from(mixed).is_err());
        let by_type = "kafka-groups.sh --list --streams --group-type share".split(' ');
        assert!(AllGroups::try_parse_from(by_type).is_err());
        let both = "kafka-groups.sh --list --group-type classic --protocol connect".split(' ');
        assert!(AllGroups::try_parse_from(both).is_ok());
    }

    #[test]
    fn actions_without_what_they_need_are_refused() {
        for arguments in ["--describe", "--delete", "--reset-offsets --from-file plan.csv"] {
            let wrong = taken(arguments).expect_err(arguments);
            assert_eq!(wrong, "no group: pass --group NAME or --all-groups");
        }
        for arguments in [
            "--delete-offsets --group g",
            "--delete-offsets --topic t",
            "--delete-offsets --all-groups --topic t",
            "--delete-offsets --group g --group h --topic t",
        ] {
            let wrong = taken(arguments).expect_err(arguments);
            assert!(wrong.starts_with("--delete-offsets takes one group"), "{wrong}");
        }
    }

    #[test]
    fn groups_of_other_protocol_types_are_no_consumers() {
        let group = |kind: &str, protocol_type: &str| GroupListing {
            id: "g".to_owned(),
            protocol_type: protocol_type.to_owned(),
            state: "Stable".to_owned(),
            kind: kind.to_owned(),
        };
        assert!(is_of_consumers(&group("consumer", "consumer")));
        assert!(is_of_consumers(&group("classic", "")));
        assert!(!is_of_consumers(&group("classic", "connect")));
        assert!(!is_of_consumers(&group("share", "share")));
        assert_eq!(capitalised("classic"), "Classic");
    }
}
