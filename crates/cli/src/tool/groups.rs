//! `kafka-consumer-groups.sh` and `kafka-groups.sh`.
//!
//! Columns and sentences are those of Apache's tools, because scripts parse them. Departs from them
//! in that a failure is also told by the exit code.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{GroupDescription, GroupListing};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;

use super::Connect;
use crate::commands::group::{Lag, lags};
use crate::failure::{Failure, explain};
use crate::output::{line, note};
use crate::patterns::TopicPattern;
use crate::quantities::{now_ms, parse_duration, parse_time};
use crate::reset::{Plan, Target, expand, from_csv, plan, to_csv, within_logs};

/// List, describe, delete consumer groups, or reset their offsets.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete", "reset_offsets", "delete_offsets", "validate_regex"]))]
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
    /// Delete committed offsets of topics.
    #[arg(long)]
    delete_offsets: bool,
    /// Check a regular expression for subscriptions.
    #[arg(long)]
    validate_regex: Option<String>,
    /// A group.
    #[arg(long)]
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
    /// Back by a duration, as PT1H30M.
    #[arg(long)]
    by_duration: Option<String>,
    /// On by so many records, or back.
    #[arg(long, allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To what a file says that --export has written.
    #[arg(long)]
    from_file: Option<PathBuf>,
    /// Print the plan as lines for --from-file.
    #[arg(long)]
    export: bool,
    /// Do it.
    #[arg(long)]
    execute: bool,
    /// Only show it, which is the default.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// Accepted; the client has its own timeouts.
    #[arg(long)]
    timeout: Option<u64>,
}

pub(super) async fn run(groups: Groups) -> Result<(), Failure> {
    if let Some(regex) = &groups.validate_regex {
        return match TopicPattern::new(regex) {
            Ok(_) => line(format!("The regular expression `{regex}` is valid.")),
            Err(error) => {
                line(format!("The regular expression `{regex}` is invalid: {error}"))?;
                Err(Failure::Said)
            }
        };
    }
    let admin = groups.connect.context()?.admin().await?;
    if groups.list {
        return list(&groups, &admin).await;
    }
    let names = match (groups.all_groups, &groups.from_file) {
        (true, _) => {
            let all = admin.list_groups().await?.into_iter();
            all.filter(is_of_consumers).map(|group| group.id).collect()
        }
        (false, _) => groups.group.clone(),
    };
    if names.is_empty() && groups.from_file.is_none() {
        return Err(Failure::new("no group: pass --group NAME or --all-groups"));
    }
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
        let [name] = names.as_slice() else {
            return Err(Failure::new("--delete-offsets takes one group: pass --group once"));
        };
        delete_offsets(&admin, name, &groups.topic).await
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

async fn list(groups: &Groups, admin: &Admin) -> Result<(), Failure> {
    let allows = |wanted: &Option<String>, value: &str| {
        let wanted = wanted.as_deref().unwrap_or_default();
        wanted.is_empty() || wanted.split(',').any(|one| one.trim().eq_ignore_ascii_case(value))
    };
    let listed: Vec<_> = admin
        .list_groups()
        .await?
        .into_iter()
        .filter(is_of_consumers)
        .filter(|group| allows(&groups.state, &group.state) && allows(&groups.kind, &group.kind))
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

/// Pads cells to the widest of their column, but to no less than 15, as Kafka's tools do.
struct Grid {
    rows: Vec<Vec<String>>,
    /// Least width of each column; the last column is not padded.
    least: Vec<usize>,
    /// Whether a column grows with its cells.
    grows: Vec<bool>,
}

impl Grid {
    fn new(columns: &[(&str, usize, bool)]) -> Self {
        Self {
            rows: vec![columns.iter().map(|(name, ..)| (*name).to_owned()).collect()],
            least: columns.iter().map(|(_, least, _)| *least).collect(),
            grows: columns.iter().map(|(.., grows)| *grows).collect(),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].len());
            let widest = if self.grows[column] { cells.max().unwrap_or(0) } else { 0 };
            widest.max(self.least[column])
        };
        let widths: Vec<_> = (0..self.least.len()).map(width).collect();
        line("")?;
        for row in &self.rows {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            line(cells.join(" "))?;
        }
        Ok(())
    }
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
    let cluster = admin.client().cluster();
    let address = cluster.broker(group.coordinator);
    let coordinator = address.map_or_else(
        || format!("({})", group.coordinator),
        |broker| format!("{}:{}  ({})", broker.host, broker.port, group.coordinator),
    );
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
        coordinator,
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

/// Writes partitions as `topic:0,1;other:2`.
fn assignment(partitions: &[TopicPartition]) -> String {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    if topics.is_empty() {
        return "-".to_owned();
    }
    let texts = topics.into_iter().map(|(topic, mut indexes)| {
        indexes.sort_unstable();
        let indexes: Vec<_> = indexes.iter().map(ToString::to_string).collect();
        format!("{topic}:{}", indexes.join(","))
    });
    texts.collect::<Vec<_>>().join(";")
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
            row.push("-".to_owned());
        }
        row.extend([
            number(lag.committed),
            number(lag.end),
            number(lag.lag()),
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
    if let Some(path) = &groups.from_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}: check --from-file", path.display()))
        })?;
        for (name, plan) in from_csv(&text, names)? {
            plans.insert(name, within_logs(admin, plan).await?);
        }
    } else {
        let target = target(groups)?;
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
        } else if groups.execute {
            let offsets = plan.iter().map(|(partition, offset)| (partition.clone(), *offset));
            admin.alter_group_offsets(name, &offsets.collect()).await?;
        }
    }
    if !groups.execute && !groups.dry_run {
        note("WARN: nothing is changed without --execute; --dry-run says that this is meant.");
    }
    if groups.export {
        line(to_csv(&plans))?;
    } else {
        let columns = [
            ("GROUP", 15, true),
            ("TOPIC", 15, true),
            ("PARTITION", 10, false),
            ("NEW-OFFSET", 0, false),
        ];
        let mut grid = Grid::new(&columns);
        for (name, plan) in &plans {
            grid.rows.extend(plan.iter().map(|(partition, offset)| {
                let index = partition.partition.to_string();
                vec![name.clone(), partition.topic.to_string(), index, offset.to_string()]
            }));
        }
        grid.print()?;
    }
    if failed { Err(Failure::Said) } else { Ok(()) }
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
    if let Some(text) = &groups.by_duration {
        return parse_duration(text).map(|ms| Target::Time(now_ms() - ms)).ok_or_else(|| {
            Failure::new(format!("--by-duration {text}: expected P1DT2H30M, or PT90S"))
        });
    }
    Err(Failure::new(
        "where to? pass --to-earliest, --to-latest, --to-current, --to-offset N, --to-datetime T, \
         --by-duration D, --shift-by N or --from-file FILE",
    ))
}

async fn delete_offsets(admin: &Admin, name: &str, topics: &[String]) -> Result<(), Failure> {
    let partitions = expand(admin, topics).await?;
    let results = match admin.delete_group_offsets(name, &partitions).await {
        Ok(results) => results,
        Err(error) => {
            line(format!("\nError: {}", explain(&error)))?;
            return Err(Failure::Said);
        }
    };
    let failed = results.iter().any(|(_, result)| result.is_err());
    if failed {
        line("\nError: Encountered some partition-level error, see the follow-up details.")?;
    } else {
        line(format!("Request succeeded for deleting offsets from group {name}."))?;
    }
    let columns = [("TOPIC", 15, true), ("PARTITION", 10, false), ("STATUS", 15, false)];
    let mut grid = Grid::new(&columns);
    for (partition, result) in results {
        let status = match result {
            Ok(()) => "Successful".to_owned(),
            Err(error) => format!("Error: {}", explain(&error)),
        };
        grid.rows.push(vec![partition.topic.to_string(), partition.partition.to_string(), status]);
    }
    grid.print()?;
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
    #[arg(long)]
    consumer: bool,
    /// Only share groups.
    #[arg(long)]
    share: bool,
    /// Only streams groups.
    #[arg(long)]
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

    #[test]
    fn assignments_are_written_topic_by_topic() {
        let partitions = [("b", 1), ("a", 2), ("a", 0)];
        let partitions: Vec<_> =
            partitions.iter().map(|(topic, index)| TopicPartition::new(*topic, *index)).collect();
        assert_eq!(assignment(&partitions), "a:0,2;b:1");
        assert_eq!(assignment(&[]), "-");
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
