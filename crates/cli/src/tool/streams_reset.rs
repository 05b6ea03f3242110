//! `kafka-streams-application-reset.sh`: lets an application of Kafka Streams, or of ours, begin
//! anew.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::Removal;
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;

use super::Connect;
use crate::commands::topic::log_ends;
use crate::failure::{Failure, explain};
use crate::output::line;
use crate::quantities::{now_ms, parse_duration, parse_time};
use crate::reset::{Plan, Target, expand, from_csv, plan, within};

/// Reset the offsets of an application's input topics and delete its internal topics. Local state
/// stays: delete the application's state directory too.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("target").args(["to_offset", "to_datetime", "by_duration", "to_earliest", "to_latest", "from_file", "shift_by"]))]
pub(super) struct Reset {
    #[command(flatten)]
    connect: Connect,
    /// application.id
    #[arg(long)]
    application_id: String,
    /// Topics that it reads, separated by commas.
    #[arg(long, value_delimiter = ',')]
    input_topics: Vec<String>,
    /// Topics that it reads and writes, separated by commas: skipped to their ends.
    #[arg(long, value_delimiter = ',')]
    intermediate_topics: Vec<String>,
    /// Only these of its internal topics, separated by commas.
    #[arg(long, value_delimiter = ',')]
    internal_topics: Vec<String>,
    /// Input topics to this offset.
    #[arg(long)]
    to_offset: Option<i64>,
    /// Input topics to a time, as 2026-11-21T10:00:00.000.
    #[arg(long)]
    to_datetime: Option<String>,
    /// Input topics to so long ago, as P7D.
    #[arg(long)]
    by_duration: Option<String>,
    /// Input topics to their oldest records, which is the default.
    #[arg(long)]
    to_earliest: bool,
    /// Input topics to their ends.
    #[arg(long)]
    to_latest: bool,
    /// Input topics to what lines TOPIC,PARTITION,OFFSET of a file say.
    #[arg(long)]
    from_file: Option<PathBuf>,
    /// Input topics by so many records.
    #[arg(long, allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Put members out that are still in the group.
    #[arg(long)]
    force: bool,
    /// Only show it.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(options: Reset) -> Result<(), Failure> {
    let admin = options.connect.context()?.admin().await?;
    leave_no_member(&admin, &options.application_id, options.force).await?;
    let topics = admin.list_topics().await?;
    let topics: BTreeSet<String> = topics.iter().map(|topic| topic.name.to_string()).collect();
    if options.dry_run {
        line(
            "----Dry run displays the actions which will be performed when running Streams Reset Tool----",
        )?;
    }
    let missing = reset_offsets(&admin, &options, &topics).await?;
    delete_internal(&admin, &options, &topics).await?;
    match missing {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} topic(s) do not exist and were skipped"))),
    }
}

/// Makes sure that nobody works for the application.
async fn leave_no_member(admin: &Admin, group: &str, force: bool) -> Result<(), Failure> {
    let description = match admin.describe_group(group).await {
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => return Ok(()),
        described => described?,
    };
    if description.members.is_empty() {
        return Ok(());
    }
    let members: Vec<_> = description.members.iter().map(|member| member.id.as_str()).collect();
    if !force {
        return Err(Failure::new(format!(
            "Consumer group '{group}' is still active and has following members: {}. Make sure to \
             stop all running application instances before running the reset tool. You can use \
             option '--force' to remove active members from the group.",
            members.join(", ")
        )));
    }
    line(format!("Force deleting all active members in the group: {group}"))?;
    let removals: Vec<_> = members.iter().map(|id| Removal::Member((*id).to_owned())).collect();
    for (_, removed) in admin.remove_members(group, &removals, "reset of the application").await? {
        match removed {
            // It left by itself in between.
            Err(error) if error.code() == Some(ErrorCode::UnknownMemberId) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Moves what the application has committed, and returns how many topics there are not.
async fn reset_offsets(
    admin: &Admin,
    options: &Reset,
    topics: &BTreeSet<String>,
) -> Result<usize, Failure> {
    let group = &options.application_id;
    if options.input_topics.is_empty() && options.intermediate_topics.is_empty() {
        line("No input or intermediate topics specified. Skipping seek.")?;
        return Ok(0);
    }
    announce("Reset-offsets for input topics", &options.input_topics)?;
    announce("Seek-to-end for intermediate topics", &options.intermediate_topics)?;
    let (inputs, missing_inputs) = found("input", &options.input_topics, topics)?;
    let (between, missing_between) = found("intermediate", &options.intermediate_topics, topics)?;
    let missing = missing_inputs + missing_between;
    if inputs.is_empty() && between.is_empty() {
        return Ok(missing);
    }
    let mut new = Plan::new();
    if !inputs.is_empty() {
        line(format!(
            "Following input topics offsets will be reset to (for consumer group {group})"
        ))?;
        let partitions = expand(admin, &inputs).await?;
        new = input_plan(admin, options, &partitions).await?;
        for (partition, offset) in &new {
            let TopicPartition { topic, partition } = partition;
            line(format!("Topic: {topic} Partition: {partition} Offset: {offset}"))?;
        }
    }
    if !between.is_empty() {
        line(format!(
            "Following intermediate topics offsets will be reset to end (for consumer group {group})"
        ))?;
        for topic in &between {
            line(format!("Topic: {topic}"))?;
        }
        let partitions = expand(admin, &between).await?;
        new.extend(plan(admin, Target::End, &partitions, &HashMap::new()).await?);
    }
    if !options.dry_run {
        admin.alter_group_offsets(group, &new.into_iter().collect()).await?;
    }
    line("Done.")?;
    Ok(missing)
}

fn announce(doing: &str, topics: &[String]) -> Result<(), Failure> {
    if topics.is_empty() { Ok(()) } else { line(format!("{doing} [{}]", topics.join(", "))) }
}

/// The topics that exist, and how many of the names do not.
fn found(
    kind: &str,
    names: &[String],
    topics: &BTreeSet<String>,
) -> Result<(Vec<String>, usize), Failure> {
    let (found, lost): (Vec<_>, Vec<_>) =
        names.iter().cloned().partition(|name| topics.contains(name));
    if !lost.is_empty() {
        line(format!("Following {kind} topics are not found, skipping them"))?;
    }
    for name in &lost {
        line(format!("Topic: {name}"))?;
    }
    Ok((found, lost.len()))
}

/// Where the input topics are to be read from.
async fn input_plan(
    admin: &Admin,
    options: &Reset,
    partitions: &[TopicPartition],
) -> Result<Plan, Failure> {
    let bad = |option: &str, text: &str, form: &str| {
        Failure::new(format!("--{option} {text}: expected a {form}"))
    };
    let target = if let Some(offset) = options.to_offset {
        Target::Offset(offset)
    } else if let Some(text) = &options.to_datetime {
        let time = parse_time(text);
        Target::Time(
            time.ok_or_else(|| bad("to-datetime", text, "time as 2026-11-21T10:00:00.000"))?,
        )
    } else if let Some(text) = &options.by_duration {
        let span = parse_duration(text);
        let span = span.ok_or_else(|| bad("by-duration", text, "duration as P7D"))?;
        Target::Time(now_ms().saturating_sub(span))
    } else if options.to_latest {
        Target::End
    } else if let Some(by) = options.shift_by {
        Target::Shift(by)
    } else if let Some(path) = &options.from_file {
        return plan_of_file(admin, path, &options.application_id, partitions).await;
    } else {
        Target::Beginning
    };
    let committed = match target {
        Target::Shift(_) => admin.group_offsets(&options.application_id).await?,
        _ => HashMap::new(),
    };
    let new = plan(admin, target, partitions, &committed).await?;
    if let Target::Offset(wanted) = target {
        for offset in new.values().filter(|offset| **offset != wanted) {
            let (side, end) =
                if wanted < *offset { ("lower", "earliest") } else { ("higher", "latest") };
            line(format!(
                "New offset ({wanted}) is {side} than {end} offset. Value will be set to {offset}"
            ))?;
        }
    }
    Ok(new)
}

async fn plan_of_file(
    admin: &Admin,
    path: &std::path::Path,
    group: &str,
    partitions: &[TopicPartition],
) -> Result<Plan, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("--from-file {}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let mut plans = from_csv(&text, &[group.to_owned()]).map_err(|error| failed(&error))?;
    let mut named = plans.remove(group).unwrap_or_default();
    let ends = log_ends(admin, partitions).await?;
    let mut new = Plan::new();
    for partition in partitions {
        let offset =
            named.remove(partition).ok_or_else(|| failed(&format!("it lacks {partition}")))?;
        let (first, next) = ends.get(partition).copied().unwrap_or((offset, offset));
        new.insert(partition.clone(), within(offset, first, next));
    }
    match named.keys().next() {
        Some(partition) => Err(failed(&format!("{partition} is of no input topic"))),
        None => Ok(new),
    }
}

/// Deletes what the application made for itself.
async fn delete_internal(
    admin: &Admin,
    options: &Reset,
    topics: &BTreeSet<String>,
) -> Result<(), Failure> {
    let own = |topic: &&String| {
        !options.input_topics.contains(topic)
            && !options.intermediate_topics.contains(topic)
            && is_internal_of(&options.application_id, topic)
    };
    let inferred: Vec<&String> = topics.iter().filter(own).collect();
    let wanted: Vec<&str> = match options.internal_topics.as_slice() {
        [] => inferred.iter().map(|topic| topic.as_str()).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    if let Some(other) = wanted.iter().find(|name| !inferred.iter().any(|topic| topic == *name)) {
        return Err(Failure::new(format!(
            "--internal-topics {other}: it is no internal topic of the application: a dry run \
             without --internal-topics lists them"
        )));
    }
    let kind = if options.internal_topics.is_empty() { "inferred" } else { "specified" };
    line(format!("Deleting {kind} internal topics [{}]", wanted.join(", ")))?;
    if !options.dry_run && !wanted.is_empty() {
        let mut failures = Vec::new();
        for (topic, deleted) in admin.delete_topics(&wanted).await? {
            if let Err(error) = deleted {
                failures.push(format!("{topic}: {}", explain(&error)));
            }
        }
        if !failures.is_empty() {
            return Err(Failure::new(format!("cannot delete {}", failures.join("; "))));
        }
    }
    line("Done.")
}

/// Whether a topic is named like those that an application makes for itself.
pub(super) fn is_internal_of(application: &str, topic: &str) -> bool {
    topic.strip_prefix(application).is_some_and(|rest| rest.starts_with('-')) && is_internal(topic)
}

fn is_internal(topic: &str) -> bool {
    const ENDS: [&str; 4] = [
        "-changelog",
        "-repartition",
        "-subscription-registration-topic",
        "-subscription-response-topic",
    ];
    let of_foreign_join = |kind: &str| {
        let number = topic.strip_suffix("-topic").and_then(|rest| rest.split_once(kind));
        number.is_some_and(|(name, number)| {
            !name.is_empty()
                && !number.is_empty()
                && number.bytes().all(|digit| digit.is_ascii_digit())
        })
    };
    ENDS.iter().any(|end| topic.ends_with(end))
        || of_foreign_join("-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-")
        || of_foreign_join("-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_topics_are_known_by_their_names() {
        for topic in [
            "app-counts-changelog",
            "app-KSTREAM-AGGREGATE-STATE-STORE-0000000003-repartition",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0000000006-topic",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-0000000014-topic",
            "app-join-subscription-response-topic",
        ] {
            assert!(is_internal(topic), "{topic}");
        }
        for topic in
            ["app-counts", "app-changelog-2", "app-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-x-topic"]
        {
            assert!(!is_internal(topic), "{topic}");
        }
        assert!(is_internal_of("app", "app-counts-changelog"));
        assert!(!is_internal_of("app", "apple-x-changelog"));
    }
}
