//! `kafka-verifiable-share-consumer.sh`: what was read and what became of it, one JSON line per
//! event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use fleuve_client::ShareConsumer;
use fleuve_client::admin::{Alteration, Resource};
use fleuve_types::TopicPartition;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Connect;
use super::verifiable::event;
use crate::failure::{Failure, explain};
use crate::output::note;

/// How long one poll waits at most.
const POLL: Duration = Duration::from_millis(500);

/// Read as a member of a share group and say what was read and acknowledged.
#[derive(Debug, Parser)]
pub(super) struct VerifiableShareConsumer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The share group.
    #[arg(long)]
    group_id: String,
    /// How many records; -1 until it is stopped.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    max_messages: i64,
    /// Say each record.
    #[arg(long)]
    verbose: bool,
    /// auto with the next poll, sync or async at once.
    #[arg(long, default_value = "auto", value_parser = ["auto", "sync", "async"])]
    acknowledgement_mode: String,
    /// Where the group begins, earliest or latest; else as the group is set.
    #[arg(long, value_parser = ["earliest", "latest"])]
    offset_reset_strategy: Option<String>,
}

pub(super) async fn consume(options: VerifiableShareConsumer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    context.set("group.id", &options.group_id)?;
    let consumer = ShareConsumer::new(context.client().await?, context.share_consumer_config()?)?;
    event("startup_complete", json!({}))?;
    if let Some(strategy) = &options.offset_reset_strategy {
        let group = Resource::Group(options.group_id.clone());
        let set = Alteration::Set("share.auto.offset.reset".to_owned(), strategy.clone());
        context.admin().await?.alter_configs(&group, &[set], false).await?;
        event("offset_reset_strategy_set", json!({ "offsetResetStrategy": strategy }))?;
    }
    let acknowledged = Arc::new(AtomicU64::new(0));
    let counter = acknowledged.clone();
    consumer.set_acknowledgement_callback(Arc::new(move |partition, runs, result| {
        let count = tell(partition, runs, result.as_ref().err());
        if result.is_ok() {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }));
    consumer.subscribe(&[&options.topic])?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let limit = u64::try_from(options.max_messages).unwrap_or(u64::MAX);
    while acknowledged.load(Ordering::Relaxed) < limit {
        let polled = tokio::select! {
            polled = consumer.poll(POLL) => polled?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Some(records) = polled else { continue };
        let partition = records.partition();
        let mut offsets = Vec::new();
        for record in &records {
            offsets.push(record.offset.0);
            if options.verbose {
                let text = |bytes: Option<&[u8]>| {
                    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                };
                event(
                    "record_data",
                    json!({
                        "key": text(record.key), "value": text(record.value),
                        "topic": *partition.topic, "partition": partition.partition,
                        "offset": record.offset.0,
                    }),
                )?;
            }
        }
        let count = offsets.len();
        event(
            "records_consumed",
            json!({ "count": count, "partitions": [{
                "topic": *partition.topic, "partition": partition.partition, "count": count,
                "offsets": offsets,
            }] }),
        )?;
        match options.acknowledgement_mode.as_str() {
            "sync" => {
                for (partition, result) in consumer.commit().await? {
                    if let Err(error) = result {
                        note(format!("cannot acknowledge {partition}: {}", explain(&error)));
                    }
                }
            }
            // What became of it is told by the callback.
            "async" => consumer.commit_async(drop)?,
            _ => {}
        }
    }
    consumer.close().await?;
    event("shutdown_complete", json!({}))
}

/// Says what became of acknowledgements, and returns of how many records.
fn tell(
    partition: &TopicPartition,
    runs: &[(i64, i64)],
    error: Option<&fleuve_client::Error>,
) -> u64 {
    let offsets: Vec<i64> = runs.iter().flat_map(|&(first, last)| first..=last).collect();
    let count = offsets.len();
    let mut fields = json!({
        "count": count,
        "partitions": [{
            "topic": *partition.topic, "partition": partition.partition, "count": count,
            "offsets": offsets,
        }],
        "success": error.is_none(),
    });
    if let Some(error) = error {
        fields["error"] = explain(error).into();
    }
    // Whether anybody reads the events changes nothing about the acknowledgements.
    let _ = event("offsets_acknowledged", fields);
    count as u64
}
