//! `kafka-streams-groups.sh`.
//!
//! Columns and sentences are those of Apache's tool. Departs from it in that a failure is also told
//! by the exit code, and in that offsets are shown of groups without members, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{StreamsGroupDescription, StreamsGroupMember, StreamsTasks};
use fleuve_client::consumer::Committed;
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;

use super::Connect;
use super::choice::Choice;
use super::grid::{coordinator, or_dash};
use super::resets::{Reset, forget, needs, needs_groups, needs_no_state};
use super::streams_reset::is_internal_of;
use crate::commands::topic::log_ends;
use crate::failure::{Failure, explain};
use crate::output::{line, note};
use crate::reset::{Plan, expand, plan};

/// The type of these groups in lists.
const STREAMS: &str = "streams";

/// States that these groups have.
const STATES: [&str; 6] = ["Stable", "Dead", "Empty", "Assigning", "Reconciling", "NotReady"];

/// List, describe, delete streams groups, or reset and delete their offsets.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "describe", "delete", "reset_offsets", "delete_offsets"]))]
#[command(group = ArgGroup::new("aspect").args(["members", "offsets", "state"]))]
#[command(group = ArgGroup::new("really").args(["execute", "dry_run"]))]
pub(super) struct StreamsGroups {
    #[command(flatten)]
    connect: Connect,
    /// List groups.
    #[arg(long, conflicts_with_all = ["group", "input_topic", "members", "offsets", "verbose"])]
    #[arg(conflicts_with_all = ["really", "delete_internal_topic", "delete_all_internal_topics"])]
    list: bool,
    /// Describe groups.
    #[arg(long, conflicts_with = "input_topic")]
    #[arg(conflicts_with_all = ["really", "delete_internal_topic", "delete_all_internal_topics"])]
    describe: bool,
    /// Delete groups that have no members.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose"])]
    #[arg(conflicts_with_all = ["really", "delete_internal_topic", "input_topic", "all_input_topics"])]
    delete: bool,
    /// Reset committed offsets of input topics.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose"])]
    reset_offsets: bool,
    /// Delete committed offsets of input topics.
    #[arg(long, conflicts_with_all = ["members", "offsets", "state", "verbose"])]
    #[arg(conflicts_with_all = ["really", "delete_internal_topic", "delete_all_internal_topics"])]
    delete_offsets: bool,
    /// A group.
    #[arg(long, conflicts_with = "all_groups")]
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
    /// With --reset-offsets --execute, delete these internal topics, too.
    #[arg(long, conflicts_with = "delete_all_internal_topics")]
    delete_internal_topic: Vec<String>,
    /// Delete all internal topics of the groups, too; with --reset-offsets when it is executed.
    #[arg(long)]
    delete_all_internal_topics: bool,
    /// How long an answer may take, in ms.
    #[arg(long)]
    timeout: Option<u64>,
}

impl StreamsGroups {
    /// Refuses actions without what they need, which the parser would not name.
    fn check(&self) -> Result<(), Failure> {
        if self.describe || self.delete || self.reset_offsets {
            needs_groups(&self.group, self.all_groups)?;
        }
        if self.describe {
            needs_no_state(self.state.as_deref())?;
        }
        if self.delete_offsets {
            needs(self.group.len() == 1, "--delete-offsets takes one group: pass --group once")?;
        }
        if self.delete_offsets || (self.reset_offsets && !self.to.is_from_file()) {
            needs(
                self.all_input_topics || !self.input_topic.is_empty(),
                "no topic: pass --input-topic NAME or --all-input-topics",
            )?;
        }
        if self.reset_offsets {
            needs(
                self.to.execute || self.to.dry_run,
                "really? pass --execute to do it, or --dry-run to see what would be done",
            )?;
            let deletes = self.delete_all_internal_topics || !self.delete_internal_topic.is_empty();
            needs(
                self.to.execute || !deletes,
                "internal topics are only deleted with --execute: pass it, too",
            )?;
        }
        Ok(())
    }
}

pub(super) async fn run(groups: StreamsGroups) -> Result<(), Failure> {
    groups.check()?;
    let admin = groups.connect.admin_within(groups.timeout).await?;
    if groups.list {
        let states = Choice::new("state", groups.state.as_deref(), &STATES)?;
        let listed = streams_groups(&admin).await?;
        if groups.state.is_none() {
            return listed.into_iter().try_for_each(|(id, _)| line(id));
        }
        let width = listed.iter().map(|(id, _)| id.len()).max().unwrap_or(0).max(15);
        line(format!("{:<width$} STATE", "GROUP"))?;
        let mut shown = listed.into_iter().filter(|(_, state)| states.allows(state));
        return shown.try_for_each(|(id, state)| line(format!("{id:<width$} {state}")));
    }
    let names = if groups.all_groups {
        streams_groups(&admin).await?.into_iter().map(|(id, _)| id).collect()
    } else {
        groups.group.clone()
    };
    if groups.describe {
        for name in &names {
            describe(&groups, &admin, name).await?;
        }
        return Ok(());
    }
    if groups.reset_offsets {
        reset(&groups, &admin, &names).await
    } else if groups.delete_offsets {
        let name = &names[0];
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
    let partitions = expand(admin, &groups.input_topic).await?;
    if !partitions.iter().all(|partition| committed.contains_key(partition)) {
        line(format!("\nError: One or more topics are not part of the group '{name}'."))?;
        return Ok(Vec::new());
    }
    Ok(partitions)
}

async fn reset(groups: &StreamsGroups, admin: &Admin, names: &[String]) -> Result<(), Failure> {
    let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
    let mut failed = false;
    if let Some(read) = groups.to.read(admin, &groups.group, names).await? {
        failed = read.values().any(Plan::is_empty);
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
            Ok(group) => Some(group.state),
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(state) = state.as_ref().filter(|it| !matches!(it.as_str(), "Empty" | "Dead")) {
            failed = true;
            plan.clear();
            line(format!(
                "\nError: Assignments can only be reset if the group '{name}' is inactive, but the \
                 current state is {state}."
            ))?;
        } else if groups.to.execute {
            let internal = match state {
                Some(_) => internal_topics(groups, admin, name).await?,
                // Whose would they be?
                None => Vec::new(),
            };
            let offsets = plan.iter().map(|(partition, offset)| (partition.clone(), *offset));
            if !plan.is_empty() {
                admin.alter_group_offsets(name, &offsets.collect()).await?;
            }
            delete_topics(admin, &internal).await?;
        }
    }
    groups.to.show(&plans, &groups.group)?;
    if failed { Err(Failure::Said) } else { Ok(()) }
}

/// The internal topics of a group that are to go.
async fn internal_topics(
    groups: &StreamsGroups,
    admin: &Admin,
    name: &str,
) -> Result<Vec<String>, Failure> {
    if !groups.delete_all_internal_topics {
        return Ok(groups.delete_internal_topic.clone());
    }
    let topics = admin.describe_streams_group(name).await?.internal_topics();
    // An application may say of any topic that it is its own: what is not named so stays.
    let (internal, others): (Vec<_>, Vec<_>) =
        topics.into_iter().partition(|topic| is_internal_of(name, topic));
    for topic in others {
        line(format!(
            "\nError: The internal topic '{topic}' is not inferred as internal and thus will not be \
             deleted with the group '{name}'."
        ))?;
    }
    Ok(internal)
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
            Some(_) => delete_one(groups, admin, name).await.err().map(|error| error.to_string()),
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

async fn delete_one(groups: &StreamsGroups, admin: &Admin, name: &str) -> Result<(), Failure> {
    // Asked before the group is gone, which knows them.
    let internal = internal_topics(groups, admin, name).await?;
    admin.delete_group(name).await?;
    Ok(delete_topics(admin, &internal).await?)
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
    let width = |of: fn(&StreamsGroupMember) -> usize| {
        group.members.iter().map(of).max().unwrap_or(0).max(LEAST)
    };
    let group_width = group.id.len().max(LEAST);
    let member_width = width(|member| member.id.len());
    let process_width = width(|member| member.process_id.len());
    let client_width = width(|member| member.client_id.len());
    let row = |[id, process, client, tasks]: [&str; 4], more: [&str; 4]| {
        let [target_epoch, topology_epoch, protocol, epoch] = more;
        let name = &group.id;
        let name = if id == MEMBER { "GROUP" } else { name.as_str() };
        // Apache's tool leaves the gap out that stands before the member's id.
        let (before, after) = match groups.verbose {
            true => (
                format!("{target_epoch:<25} {topology_epoch:<15}"),
                format!("{protocol:<15} {epoch:<15} "),
            ),
            false => (String::new(), String::new()),
        };
        line(format!(
            "{name:<group_width$} {before}{id:<member_width$} {after}{process:<process_width$} \
             {client:<client_width$} {tasks}"
        ))
    };
    row(
        [MEMBER, "PROCESS", "CLIENT-ID", "ASSIGNMENTS"],
        ["TARGET-ASSIGNMENT-EPOCH", "TOPOLOGY-EPOCH", "MEMBER-PROTOCOL", "MEMBER-EPOCH"],
    )?;
    group.members.iter().try_for_each(|member| {
        let target = if groups.verbose { told("TARGET-", &member.target) } else { String::new() };
        let tasks = told("", &member.assignment) + &target;
        row(
            [&member.id, &member.process_id, &member.client_id, &tasks],
            [
                &group.assignment_epoch.to_string(),
                &group.topology_epoch.to_string(),
                if member.is_classic { "classic" } else { STREAMS },
                &member.epoch.to_string(),
            ],
        )
    })
}

/// The least width of columns that grow with what is in them.
const LEAST: usize = 15;
/// What stands over the ids of members.
const MEMBER: &str = "MEMBER";

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
    let coordinator = coordinator(admin, group.coordinator, " ");
    let group_width = group.id.len().max(LEAST);
    let coordinator_width = coordinator.len().max(25);
    let row = |[name, coordinator, state]: [&str; 3], [epoch, target]: [&str; 2], count: &str| {
        let epochs = match groups.verbose {
            true => format!("{epoch:<15} {target:<25} "),
            false => String::new(),
        };
        line(format!(
            "{name:<group_width$} {coordinator:<coordinator_width$} {state:<25} {epochs}{count}"
        ))
    };
    row(
        ["GROUP", "COORDINATOR (ID)", "STATE"],
        ["GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH"],
        "#MEMBERS",
    )?;
    row(
        [&group.id, &coordinator, &group.state],
        [&group.epoch.to_string(), &group.assignment_epoch.to_string()],
        &group.members.len().to_string(),
    )
}

async fn offsets(
    groups: &StreamsGroups,
    admin: &Admin,
    group: &StreamsGroupDescription,
) -> Result<(), Failure> {
    let inputs: BTreeSet<String> = group.input_topics().into_iter().collect();
    let mut committed = admin.group_offsets(&group.id).await?;
    committed.retain(|partition, _| inputs.contains(&*partition.topic));
    let mut partitions: BTreeSet<_> = committed.keys().cloned().collect();
    // Members may have tasks that have committed nothing yet.
    partitions.extend(read_by_members(group));
    let asked: Vec<_> = partitions.iter().cloned().collect();
    let ends = log_ends(admin, &asked).await?;
    let group_width = group.id.len().max(LEAST);
    let topic_width = partitions.iter().map(|it| it.topic.len()).max().unwrap_or(0).max(LEAST);
    let row = |[name, topic, index]: [&str; 3], [offset, epoch, end]: [&str; 3], lag: &str| {
        let more = match groups.verbose {
            true => format!("{offset:<15} {epoch:<15} {end:<15} "),
            false => String::new(),
        };
        // With --verbose, Apache's tool pads the last column as well.
        let lag = if groups.verbose { format!("{lag:<15}") } else { lag.to_owned() };
        line(format!("{name:<group_width$} {topic:<topic_width$} {index:<10} {more}{lag}"))
    };
    row(
        ["GROUP", "TOPIC", "PARTITION"],
        ["CURRENT-OFFSET", "LEADER-EPOCH", "LOG-END-OFFSET"],
        "OFFSET-LAG",
    )?;
    for partition in &partitions {
        let committed = committed.get(partition);
        let epoch = committed.map(|it| it.leader_epoch).filter(|epoch| *epoch >= 0);
        let (first, end) = ends.get(partition).copied().unzip();
        let lag = end.zip(committed.map(|it| it.offset).or(first)).map(|(end, from)| end - from);
        row(
            [&group.id, &partition.topic, &partition.partition.to_string()],
            [&or_dash(committed.map(|it| it.offset)), &or_dash(epoch), &or_dash(end)],
            &or_dash(lag),
        )?;
    }
    Ok(())
}

/// The partitions of input topics that members read.
fn read_by_members(group: &StreamsGroupDescription) -> Vec<TopicPartition> {
    let mut partitions = Vec::new();
    for (id, tasks) in group.members.iter().flat_map(|member| &member.assignment.active) {
        for subtopology in group.subtopologies.iter().filter(|known| known.id == *id) {
            let topics = subtopology.source_topics.iter().chain(&subtopology.repartition_topics);
            partitions.extend(topics.flat_map(|topic| {
                tasks.iter().map(|index| TopicPartition::new(topic.as_str(), *index))
            }));
        }
    }
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(arguments: &str) -> Result<(), String> {
        let arguments = std::iter::once("kafka-streams-groups.sh").chain(arguments.split(' '));
        let groups = StreamsGroups::try_parse_from(arguments).map_err(|error| error.to_string())?;
        groups.check().map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_an_action_needs_is_taken() {
        for arguments in [
            "--list --state",
            "--describe --group g --offsets --verbose",
            "--describe --all-groups --state",
            "--delete --group g --group h",
            "--delete --all-groups --delete-all-internal-topics",
            "--delete-offsets --group g --input-topic t:0",
            "--delete-offsets --group g --all-input-topics",
            "--reset-offsets --group g --input-topic t --shift-by -3 --dry-run",
            "--reset-offsets --all-groups --all-input-topics --to-latest --execute",
            "--reset-offsets --group g --from-file plan.csv --execute",
            "--reset-offsets --group g --all-input-topics --to-latest --execute \
             --delete-internal-topic g-a-changelog --delete-internal-topic g-b-changelog",
        ] {
            assert_eq!(taken(arguments), Ok(()), "{arguments}");
        }
    }

    #[test]
    fn contradictions_and_gaps_are_refused() {
        for arguments in [
            "--list --group g",
            "--list --members",
            "--describe",
            "--describe --group g --state stable",
            "--describe --group g --members --state",
            "--describe --group g --delete-all-internal-topics",
            "--delete",
            "--delete --group g --all-groups",
            "--delete --group g --input-topic t",
            "--delete --group g --all-input-topics",
            "--delete --group g --dry-run",
            "--delete --group g --execute",
            "--delete --group g --delete-internal-topic t",
            "--delete-offsets --group g",
            "--delete-offsets --all-groups --input-topic t",
            "--delete-offsets --group g --group h --input-topic t",
            "--delete-offsets --group g --input-topic t --dry-run",
            "--delete-offsets --group g --input-topic t --delete-internal-topic u",
            "--reset-offsets --group g --all-input-topics --to-latest",
            "--reset-offsets --group g --to-latest --dry-run",
            "--reset-offsets --all-input-topics --to-latest --dry-run",
            "--reset-offsets --group g --all-input-topics --to-latest --to-offset 5 --dry-run",
            "--reset-offsets --group g --all-input-topics --to-latest --dry-run \
             --delete-all-internal-topics",
        ] {
            assert!(taken(arguments).is_err(), "{arguments}");
        }
    }
}
