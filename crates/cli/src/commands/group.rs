//! `fleuve group`: groups of all kinds, and their offsets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleuve_client::consumer::Committed;
use fleuve_client::{Admin, Error};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use serde_json::{Value, json};

use super::any_group::{AnyGroup, show_threads};
use super::share;
use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::{Failure, explain};
use crate::outcome::Outcomes;
use crate::output::{line, note, out, print, print_table, print_value};
use crate::quantities::{format_time, now_ms, parse_duration, parse_time};
use crate::reset::{Plan, Target, ends_of, expand, from_csv, plan, to_csv, within_logs};

/// List, describe, reset and delete groups of consumers, share consumers and streams applications.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List groups.
    #[command(after_help = "Examples:\n  \
        fleuve group list\n  \
        fleuve group list --state stable,empty --type consumer")]
    List {
        /// Only groups in these states, separated by commas.
        #[arg(long, value_delimiter = ',')]
        state: Vec<String>,
        /// Only groups of these types: classic, consumer, share, streams.
        #[arg(long = "type", value_delimiter = ',')]
        kind: Vec<String>,
    },
    /// Show a group: committed offsets, lag and who reads what.
    #[command(after_help = "Examples:\n  \
        fleuve group describe readers\n  \
        fleuve group describe readers --members\n  \
        fleuve group describe readers --state -o json\n  \
        fleuve group describe --all\n  \
        fleuve group describe readers --history")]
    Describe {
        /// The group.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// Every group there is.
        #[arg(long, conflicts_with_all = ["members", "state", "history"])]
        all: bool,
        /// Show the members instead of the offsets.
        #[arg(long, conflicts_with = "state")]
        members: bool,
        /// Show state, assignor, coordinator and epochs instead of the offsets.
        #[arg(long)]
        state: bool,
        /// Show why the group rebalanced, the last times; only Fleuve's brokers know.
        #[arg(long, conflicts_with_all = ["members", "state"])]
        history: bool,
        /// Where the broker's HTTP door is, if not where its configuration says.
        #[arg(long, value_name = "HOST:PORT", requires = "history")]
        http: Option<String>,
    },
    /// Move what a group has committed; shows the plan unless --execute is given.
    #[command(after_help = "Examples:\n  \
        fleuve group reset-offsets readers --topic greetings --to beginning\n  \
        fleuve group reset-offsets readers --all-topics --to 2026-11-21T10:00:00Z --execute\n  \
        fleuve group reset-offsets readers --topic greetings --by-duration 2h --execute\n  \
        fleuve group reset-offsets readers --topic greetings:0 --shift-by -10 --execute\n  \
        fleuve group reset-offsets readers --all-topics --to current --export > offsets.csv\n  \
        fleuve group reset-offsets readers --from-file offsets.csv --execute")]
    ResetOffsets {
        /// The group.
        name: String,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        to: To,
        /// Print the plan as lines for --from-file.
        #[arg(long)]
        export: bool,
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
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a group forget what it has committed for topics.
    DeleteOffsets {
        /// The group.
        name: String,
        /// A topic, or partitions of it as TOPIC:0,1; may be repeated.
        #[arg(long, required = true)]
        topic: Vec<String>,
        /// Only say what would be forgotten.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which partitions to reset.
#[derive(Debug, Args)]
#[group(required = false, multiple = false)]
pub(crate) struct Scope {
    /// A topic, or partitions of it as TOPIC:0,1; may be repeated.
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
    /// To the records of so long ago: 2h, 1d12h, PT90S.
    #[arg(long)]
    by_duration: Option<String>,
    /// To what a file says: lines TOPIC,PARTITION,OFFSET, as --export prints them.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topic", "all_topics"])]
    from_file: Option<PathBuf>,
}

pub(crate) async fn run(command: Group, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        Group::List { state, kind } => list(&admin, &state, &kind, common.output).await,
        Group::Describe { name: None, .. } => describe_all(&admin, common.output).await,
        Group::Describe { name: Some(name), members: true, .. } => {
            members(&admin, &name, common.output).await
        }
        Group::Describe { name: Some(name), state: true, .. } => {
            state(&admin, &name, common.output).await
        }
        Group::Describe { name: Some(name), history: true, http, .. } => {
            history(&admin, &name, http.as_deref(), common.output).await
        }
        Group::Describe { name: Some(name), .. } => {
            describe(&admin, &name).await?.print(common.output)
        }
        Group::ResetOffsets { name, scope, to, export, execute, dry_run: _ } => {
            let is_share = admin.is_share_group(&name).await?;
            let committed = match is_share {
                true => share::starts(&admin, &name).await?,
                false => admin.group_offsets(&name).await?,
            };
            let plan = make_plan(&admin, &name, &scope, &to, &committed).await?;
            if export {
                let plans = BTreeMap::from([(name.clone(), plan.clone())]);
                out(to_csv(&plans, false))?;
            } else {
                show_plan(&plan, &committed, common.output)?;
            }
            let offsets = plan.into_iter().collect();
            if execute && is_share {
                admin.alter_share_group_offsets(&name, &offsets).await?;
            } else if execute {
                admin.alter_group_offsets(&name, &offsets).await?;
            } else if common.output == Format::Table && !export {
                note("nothing was changed: pass --execute to do it");
            }
            Ok(())
        }
        Group::Delete { names, dry_run } => {
            let mut outcomes = Outcomes::new(common.output, dry_run);
            for name in names {
                let (result, verb) = match dry_run {
                    true => (could_delete(&admin, &name).await, "would delete"),
                    false => (admin.delete_group(&name).await, "deleted"),
                };
                let subject = json!({ "group": name });
                match result {
                    Ok(()) => outcomes.done("delete", subject, format!("{verb} group {name}"))?,
                    Err(error) => outcomes.failed("delete", subject, explain(&error)),
                }
            }
            outcomes.end()
        }
        Group::DeleteOffsets { name, topic, dry_run: false }
            if admin.is_share_group(&name).await? =>
        {
            if topic.iter().any(|topic| topic.contains(':')) {
                return Err(Failure::new(
                    "a share group forgets whole topics: leave the partition out",
                ));
            }
            let mut outcomes = Outcomes::new(common.output, false);
            for (topic, result) in admin.delete_share_group_offsets(&name, &topic).await? {
                let subject = json!({ "group": name, "topic": topic });
                match result {
                    Ok(()) => {
                        let sentence = format!("group {name} forgot its offsets of {topic}");
                        outcomes.done(DELETE_OFFSETS, subject, sentence)?;
                    }
                    Err(error) => outcomes.failed(DELETE_OFFSETS, subject, explain(&error)),
                }
            }
            outcomes.end()
        }
        Group::DeleteOffsets { name, topic, dry_run } => {
            let partitions = expand(&admin, &topic).await?;
            let mut outcomes = Outcomes::new(common.output, dry_run);
            let subject = |partition: &TopicPartition| {
                let (topic, partition) = (&*partition.topic, partition.partition);
                json!({ "group": name, "topic": topic, "partition": partition })
            };
            if dry_run {
                let committed = match admin.is_share_group(&name).await? {
                    true => share::starts(&admin, &name).await?,
                    false => admin.group_offsets(&name).await?,
                };
                for partition in partitions.iter().filter(|known| committed.contains_key(known)) {
                    let sentence = format!("group {name} would forget its offset of {partition}");
                    outcomes.done(DELETE_OFFSETS, subject(partition), sentence)?;
                }
                return outcomes.end();
            }
            for (partition, result) in admin.delete_group_offsets(&name, &partitions).await? {
                match result {
                    Ok(()) => {
                        let sentence = format!("group {name} forgot its offset of {partition}");
                        outcomes.done(DELETE_OFFSETS, subject(&partition), sentence)?;
                    }
                    Err(error) => {
                        outcomes.failed(DELETE_OFFSETS, subject(&partition), explain(&error));
                    }
                }
            }
            outcomes.end()
        }
    }
}

/// What programs are told was done.
const DELETE_OFFSETS: &str = "delete offsets";

/// Says what the deletion of a group would meet.
async fn could_delete(admin: &Admin, name: &str) -> fleuve_client::Result<()> {
    let group = AnyGroup::describe(admin, name).await?.into_group();
    let code = match group.state.as_str() {
        "Empty" => return Ok(()),
        "Dead" => ErrorCode::GroupIdNotFound,
        _ => ErrorCode::NonEmptyGroup,
    };
    Err(Error::Broker { subject: format!("group {name}"), code, message: None })
}

async fn make_plan(
    admin: &Admin,
    name: &str,
    scope: &Scope,
    to: &To,
    committed: &HashMap<TopicPartition, Committed>,
) -> Result<Plan, Failure> {
    if let Some(path) = &to.from_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}: check --from-file", path.display()))
        })?;
        let mut plans = from_csv(&text, &[name.to_owned()])?;
        let plan = plans.remove(name).ok_or_else(|| {
            Failure::new(format!("{}: it says nothing of group {name}", path.display()))
        })?;
        return within_logs(admin, plan).await;
    }
    let target = parse_target(to)?;
    let partitions = if scope.all_topics {
        let mut partitions: Vec<_> = committed.keys().cloned().collect();
        partitions.sort_unstable();
        partitions
    } else if scope.topic.is_empty() {
        return Err(Failure::new("which partitions? pass --topic NAME or --all-topics"));
    } else {
        expand(admin, &scope.topic).await?
    };
    plan(admin, target, &partitions, committed).await
}

async fn list(
    admin: &Admin,
    states: &[String],
    kinds: &[String],
    format: Format,
) -> Result<(), Failure> {
    let allows = |wanted: &[String], value: &str| {
        wanted.is_empty() || wanted.iter().any(|one| one.trim().eq_ignore_ascii_case(value))
    };
    let mut groups = admin.list_groups().await?;
    groups.retain(|group| allows(states, &group.state) && allows(kinds, &group.kind));
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

async fn state(admin: &Admin, name: &str, format: Format) -> Result<(), Failure> {
    let group = AnyGroup::describe(admin, name).await?.into_group();
    if group.state == "Dead" {
        return Err(Failure::new(format!("group {name} does not exist: see `fleuve group list`")));
    }
    let (epoch, target_epoch) = group.epochs.unzip();
    let value = json!({
        "group": group.id, "state": group.state, "protocol_type": group.protocol_type,
        "assignor": group.assignor, "coordinator": group.coordinator,
        "members": group.members.len(), "epoch": epoch, "target_epoch": target_epoch,
    });
    let number = |number: Option<i32>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let row = vec![
        group.id,
        group.state,
        if group.assignor.is_empty() { "-".to_owned() } else { group.assignor },
        group.coordinator.to_string(),
        group.members.len().to_string(),
        number(epoch),
        number(target_epoch),
    ];
    let headers = ["group", "state", "assignor", "coordinator", "members", "epoch", "target epoch"];
    print(format, &value, &headers, [row])
}

async fn history(
    admin: &Admin,
    name: &str,
    http: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let rebalances = admin.rebalances(name, http).await.map_err(|error| {
        let text = error.to_string();
        // Where giving the address would help, the client says so.
        match text.ends_with("address") {
            true => Failure::new(format!("{text} with --http HOST:PORT")),
            false => Failure::from(error),
        }
    })?;
    let value = rebalances
        .iter()
        .map(|rebalance| {
            json!({
                "at_ms": rebalance.at_ms, "ended_epoch": rebalance.ended_epoch,
                "cause": rebalance.cause, "member": rebalance.member,
                "client_reason": rebalance.client_reason,
            })
        })
        .collect();
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = rebalances.iter().map(|rebalance| {
        vec![
            format_time(rebalance.at_ms),
            rebalance.ended_epoch.to_string(),
            rebalance.cause.clone(),
            or_dash(&rebalance.member),
            or_dash(&rebalance.client_reason),
        ]
    });
    print(format, &value, &["at", "ended epoch", "cause", "member", "client's reason"], rows)
}

/// One partition of a group's description.
pub(crate) struct Lag {
    pub(crate) partition: TopicPartition,
    pub(crate) committed: Option<i64>,
    /// The leader epoch that was committed beside the offset, if any was.
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) end: Option<i64>,
    /// Member id, host and client id of who reads it.
    pub(crate) reader: Option<(String, String, String)>,
}

impl Lag {
    /// How many records there are still to read.
    pub(crate) fn lag(&self) -> Option<i64> {
        Some(self.ahead()?.max(0))
    }

    /// How far the end is ahead; negative if the log was cut below what was committed.
    pub(crate) fn ahead(&self) -> Option<i64> {
        Some(self.end? - self.committed?)
    }
}

/// Gathers committed offsets, ends and readers of a group.
pub(crate) async fn lags(admin: &Admin, name: &str) -> Result<(String, Vec<Lag>), Failure> {
    let group = AnyGroup::describe(admin, name).await?.into_group();
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
    let ends = ends_of(admin, &partitions).await?;
    let lags = partitions
        .into_iter()
        .map(|partition| Lag {
            committed: committed.get(&partition).map(|committed| committed.offset),
            leader_epoch: committed
                .get(&partition)
                .map(|committed| committed.leader_epoch)
                .filter(|epoch| *epoch >= 0),
            end: ends.get(&partition).copied(),
            reader: readers.remove(&partition),
            partition,
        })
        .collect();
    Ok((group.state, lags))
}

/// Where a group stands, for people and for programs.
pub(crate) struct Described {
    pub(crate) value: Value,
    pub(crate) headline: String,
    pub(crate) headers: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
}

impl Described {
    fn print(self, format: Format) -> Result<(), Failure> {
        if format != Format::Table {
            return print_value(format, &self.value);
        }
        line(self.headline)?;
        print_table(self.headers, self.rows)
    }
}

async fn describe_all(admin: &Admin, format: Format) -> Result<(), Failure> {
    let mut names: Vec<_> = admin.list_groups().await?.into_iter().map(|group| group.id).collect();
    names.sort_unstable();
    let mut values = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let described = describe(admin, name).await?;
        if format != Format::Table {
            values.push(described.value);
            continue;
        }
        if index > 0 {
            line("")?;
        }
        described.print(format)?;
    }
    match format {
        Format::Table => Ok(()),
        format => print_value(format, &Value::Array(values)),
    }
}

async fn describe(admin: &Admin, name: &str) -> Result<Described, Failure> {
    if admin.is_share_group(name).await? {
        return share::describe(admin, name).await;
    }
    let (state, lags) = lags(admin, name).await?;
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
    let total: i64 = lags.iter().filter_map(Lag::lag).sum();
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let rows = lags.iter().map(|lag| {
        let nobody = || ("-".to_owned(), "-".to_owned(), String::new());
        let (member, host, _) = lag.reader.clone().unwrap_or_else(nobody);
        vec![
            lag.partition.topic.to_string(),
            lag.partition.partition.to_string(),
            number(lag.committed),
            number(lag.end),
            number(lag.lag()),
            member,
            host,
        ]
    });
    Ok(Described {
        value: json!({ "group": name, "state": state, "partitions": partitions }),
        headline: format!("{name}  {state}  lag {total}"),
        headers: &["topic", "partition", "committed", "end", "lag", "member", "host"],
        rows: rows.collect(),
    })
}

async fn members(admin: &Admin, name: &str, format: Format) -> Result<(), Failure> {
    let group = match AnyGroup::describe(admin, name).await? {
        AnyGroup::Streams(group) => return show_threads(&group, format),
        group => group.into_group(),
    };
    let value = group
        .members
        .iter()
        .map(|member| {
            let assignment: Vec<_> = member.assignment.iter().map(ToString::to_string).collect();
            json!({
                "member": member.id, "instance_id": member.instance_id, "host": member.host,
                "client_id": member.client_id, "topics": member.topics, "assignment": assignment,
                "epoch": member.target.as_ref().map(|(epoch, _)| epoch),
                "upgraded": member.upgraded,
                "target": member.target.as_ref().map(|(_, target)| {
                    target.iter().map(ToString::to_string).collect::<Vec<_>>()
                }),
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

fn parse_target(to: &To) -> Result<Target, Failure> {
    if let Some(shift) = to.shift_by {
        return Ok(Target::Shift(shift));
    }
    if let Some(text) = &to.by_duration {
        return parse_duration(text)
            .map(|ms| Target::Time(now_ms().saturating_sub(ms)))
            .ok_or_else(|| {
                Failure::new(format!("--by-duration {text}: expected 2h, 1d12h or PT90S"))
            });
    }
    let text = to.to.as_deref().unwrap_or_default();
    match text {
        "beginning" | "earliest" => return Ok(Target::Beginning),
        "end" | "latest" => return Ok(Target::End),
        "current" => return Ok(Target::Current),
        _ => {}
    }
    if text.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(offset) = text.parse::<i64>()
    {
        return Ok(Target::Offset(offset));
    }
    parse_time(text).map(Target::Time).ok_or_else(|| {
        Failure::new(format!(
            "--to {text}: expected beginning, end, current, an offset such as 42, or a time such \
             as 2026-11-21T10:00:00Z"
        ))
    })
}

fn show_plan(
    plan: &Plan,
    committed: &HashMap<TopicPartition, Committed>,
    format: Format,
) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_cut_has_nothing_to_read() {
        let lag = |committed, end| Lag {
            partition: TopicPartition::new("t", 0),
            committed,
            leader_epoch: None,
            end,
            reader: None,
        };
        let told = |committed, end| (lag(committed, end).lag(), lag(committed, end).ahead());
        assert_eq!(told(Some(5), Some(8)), (Some(3), Some(3)));
        assert_eq!(told(Some(8), Some(5)), (Some(0), Some(-3)));
        assert_eq!(told(None, Some(5)), (None, None));
    }

    #[test]
    fn targets_are_words_offsets_of_any_size_and_times() {
        let target = |text: &str| {
            let to = Some(text.to_owned());
            parse_target(&To { to, shift_by: None, by_duration: None, from_file: None })
        };
        assert_eq!(target("end").ok(), Some(Target::End));
        assert_eq!(target("42").ok(), Some(Target::Offset(42)));
        assert_eq!(target("5000000000").ok(), Some(Target::Offset(5_000_000_000)));
        assert_eq!(target("1970-01-01T00:00:01Z").ok(), Some(Target::Time(1000)));
        for text in ["", "-1", "99999999999999999999", "soon"] {
            assert!(target(text).is_err(), "{text}");
        }
    }
}
