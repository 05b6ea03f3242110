//! Where replicas are, and which of them leads: `fleuve cluster directories`, `fleuve topic move` and
//! `fleuve topic elect-leaders`.

use std::collections::BTreeMap;

use fleuve_client::Admin;
use fleuve_client::admin::{ElectionType, LogDir, Resource};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use serde_json::json;

use super::config::check_broker;
use super::topic::as_json;
use crate::args::Format;
use crate::failure::{Failure, explain};
use crate::outcome::Outcomes;
use crate::output::{note, print_table, print_value};
use crate::quantities::bytes;
use crate::reset::expand;

/// Shows the data directories of brokers and what they hold.
pub(crate) async fn show(
    admin: &Admin,
    broker: Option<i32>,
    topics: &[String],
    format: Format,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    for broker in brokers(admin, broker).await? {
        for mut directory in admin.describe_log_dirs(broker, None).await? {
            let wanted = |topic: &str| topics.is_empty() || topics.iter().any(|name| name == topic);
            directory.replicas.retain(|replica| wanted(&replica.partition.topic));
            directory.replicas.sort_by(|a, b| a.partition.cmp(&b.partition));
            found.push((broker, directory));
        }
    }
    if format != Format::Table {
        return print_value(format, &found.iter().map(value).collect());
    }
    let rows = found.iter().map(|(broker, directory)| {
        let moving = directory.replicas.iter().filter(|replica| replica.is_future).count();
        let size: i64 = directory.replicas.iter().map(|replica| replica.size).sum();
        vec![
            broker.to_string(),
            directory.path.clone(),
            (directory.replicas.len() - moving).to_string(),
            bytes(size as f64),
            moving.to_string(),
            directory.error.as_ref().map_or_else(|| "-".to_owned(), explain),
        ]
    });
    print_table(&["broker", "directory", "partitions", "size", "moving in", "error"], rows)
}

fn value((broker, directory): &(i32, LogDir)) -> serde_json::Value {
    let replicas = directory.replicas.iter().map(|replica| {
        json!({
            "topic": *replica.partition.topic, "partition": replica.partition.partition,
            "size_bytes": replica.size, "lag": replica.offset_lag, "moving_in": replica.is_future,
        })
    });
    json!({
        "broker": broker, "directory": directory.path,
        "error": directory.error.as_ref().map(explain), "partitions": replicas.collect::<Vec<_>>(),
    })
}

async fn brokers(admin: &Admin, one: Option<i32>) -> Result<Vec<i32>, Failure> {
    match one {
        Some(id) => {
            check_broker(admin, &Resource::Broker(id.to_string())).await?;
            Ok(vec![id])
        }
        None => Ok(admin.describe_cluster().await?.brokers.iter().map(|b| b.id).collect()),
    }
}

/// Moves partitions into another data directory of the brokers that have them.
pub(crate) async fn move_to(
    admin: &Admin,
    names: &[String],
    target: &str,
    broker: Option<i32>,
    (format, dry_run): (Format, bool),
) -> Result<(), Failure> {
    let partitions = expand(admin, names).await?;
    let mut moves: BTreeMap<i32, Vec<(TopicPartition, String)>> = BTreeMap::new();
    for broker in brokers(admin, broker).await? {
        let directories = admin.describe_log_dirs(broker, None).await?;
        if !directories.iter().any(|directory| directory.path == target) {
            let known: Vec<_> =
                directories.iter().map(|directory| directory.path.as_str()).collect();
            return Err(Failure::new(format!(
                "--to {target}: broker {broker} has the directories {}",
                known.join(", ")
            )));
        }
        for directory in &directories {
            for replica in directory.replicas.iter().filter(|replica| !replica.is_future) {
                if directory.path != target && partitions.contains(&replica.partition) {
                    let wanted = moves.entry(broker).or_default();
                    wanted.push((replica.partition.clone(), directory.path.clone()));
                }
            }
        }
    }
    let mut outcomes = Outcomes::new(format, dry_run);
    if moves.is_empty() {
        note(format!("nothing to move: all of it is in {target}"));
    } else if !dry_run && format == Format::Table {
        note("watch it with `fleuve cluster directories`");
    }
    let subject = |partition: &TopicPartition, broker: i32| {
        json!({
            "topic": &*partition.topic, "partition": partition.partition, "broker": broker,
            "directory": target,
        })
    };
    for (broker, replicas) in moves {
        if dry_run {
            for (partition, from) in &replicas {
                let sentence =
                    format!("{partition} would move from {from} to {target} on broker {broker}");
                outcomes.done("move", subject(partition, broker), sentence)?;
            }
            continue;
        }
        let asked: Vec<_> =
            replicas.iter().map(|(partition, _)| (partition.clone(), target.to_owned())).collect();
        for (partition, outcome) in admin.alter_replica_log_dirs(broker, &asked).await? {
            match outcome {
                Ok(()) => {
                    let sentence = format!("{partition} is moving to {target} on broker {broker}");
                    outcomes.done("move", subject(&partition, broker), sentence)?;
                }
                Err(error) => {
                    outcomes.failed("move", subject(&partition, broker), explain(&error));
                }
            }
        }
    }
    outcomes.end()
}

/// Has leaders elected, of all partitions if none are named.
pub(crate) async fn elect(
    admin: &Admin,
    partitions: Option<Vec<TopicPartition>>,
    unclean: bool,
    (format, dry_run): (Format, bool),
) -> Result<(), Failure> {
    const ACTION: &str = "elect leader";
    let mut outcomes = Outcomes::new(format, dry_run);
    if dry_run {
        match partitions {
            None => {
                let sentence = "a leader would be elected for every partition";
                outcomes.done(ACTION, json!({ "partitions": "all" }), sentence)?;
            }
            Some(partitions) => partitions.iter().try_for_each(|partition| {
                let sentence = format!("a leader would be elected for {partition}");
                outcomes.done(ACTION, as_json(partition), sentence)
            })?,
        }
        return outcomes.end();
    }
    let election = if unclean { ElectionType::Unclean } else { ElectionType::Preferred };
    for (partition, outcome) in admin.elect_leaders(election, partitions.as_deref()).await? {
        let mut subject = as_json(&partition);
        match outcome {
            Ok(()) => {
                subject["elected"] = json!(true);
                outcomes.done(ACTION, subject, format!("{partition} has a new leader"))?;
            }
            Err(error) if error.code() == Some(ErrorCode::ElectionNotNeeded) => {
                subject["elected"] = json!(false);
                let sentence = format!("{partition} has the leader it is to have");
                outcomes.done(ACTION, subject, sentence)?;
            }
            Err(error) => outcomes.failed(ACTION, subject, explain(&error)),
        }
    }
    outcomes.end()
}
