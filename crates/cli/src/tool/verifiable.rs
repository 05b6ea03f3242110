//! `kafka-verifiable-producer.sh` and `kafka-verifiable-consumer.sh`: what was acknowledged and what
//! was read, one JSON line per event.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use fleuve_client::config::OffsetReset;
use fleuve_client::consumer::RebalanceListener;
use fleuve_client::producer::Delivery;
use fleuve_client::{Consumer, Producer, Record};
use fleuve_types::TopicPartition;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Connect;
use crate::failure::{Failure, explain};
use crate::output::line;
use crate::quantities::now_ms;

/// Send rising numbers and say which were acknowledged.
#[derive(Debug, Parser)]
pub(super) struct VerifiableProducer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How many records; -1 until it is stopped.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    max_messages: i64,
    /// Records a second; -1 for as many as possible.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    throughput: i64,
    /// How many replicas must have a record.
    #[arg(long, default_value = "-1", allow_hyphen_values = true)]
    acks: String,
    /// The time of the first record in ms; the others follow it.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    message_create_time: i64,
    /// A number before every value, with a dot.
    #[arg(long)]
    value_prefix: Option<String>,
    /// Keys from 0 to below this number, again and again.
    #[arg(long)]
    repeating_keys: Option<u64>,
}

/// What is known of a record when its fate is not.
struct Sent {
    key: Option<String>,
    value: String,
    delivery: Delivery,
}

pub(super) async fn produce(options: VerifiableProducer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    context.set("acks", &options.acks)?;
    context.set_default("retries", "0")?;
    let producer = Producer::new(context.client().await?, context.producer_config()?)?;
    event("startup_complete", json!({}))?;
    let (sender, sent) = mpsc::unbounded_channel();
    let topic = options.topic.clone();
    let watching = tokio::spawn(watch(topic, sent));
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let began = Instant::now();
    let limit = u64::try_from(options.max_messages).unwrap_or(u64::MAX);
    let mut count = 0;
    while count < limit {
        if options.throughput > 0 {
            let due = began + Duration::from_secs_f64(count as f64 / options.throughput as f64);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        let value = match &options.value_prefix {
            Some(prefix) => format!("{prefix}.{count}"),
            None => count.to_string(),
        };
        let key = options.repeating_keys.map(|keys| (count % keys.max(1)).to_string());
        let at = options.message_create_time;
        let record = Record {
            key: key.as_deref().map(str::as_bytes),
            timestamp: (at >= 0).then(|| at + began.elapsed().as_millis() as i64),
            ..Record::new(&options.topic).value(&value)
        };
        let sending = tokio::select! {
            sending = producer.send(record) => sending,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        match sending {
            // The receiver ends only after this end is dropped.
            Ok(delivery) => drop(sender.send(Sent { key, value, delivery })),
            Err(error) => failed(&options.topic, key.as_deref(), &value, &error)?,
        }
        count += 1;
    }
    drop(sender);
    let closed = producer.close().await;
    let acked = watching.await.map_err(Failure::new)??;
    closed?;
    event("shutdown_complete", json!({}))?;
    let seconds = began.elapsed().as_secs_f64().max(1e-9);
    event(
        "tool_data",
        json!({
            "sent": count, "acked": acked, "target_throughput": options.throughput,
            "avg_throughput": acked as f64 / seconds,
        }),
    )
}

/// Says what became of each record, and returns how many were acknowledged.
async fn watch(topic: String, mut sent: mpsc::UnboundedReceiver<Sent>) -> Result<u64, Failure> {
    let mut acked = 0;
    while let Some(Sent { key, value, delivery }) = sent.recv().await {
        match delivery.await {
            Ok(metadata) => {
                acked += 1;
                event(
                    "producer_send_success",
                    json!({
                        "key": key, "value": value, "offset": metadata.offset, "topic": topic,
                        "partition": metadata.partition.partition,
                    }),
                )?;
            }
            Err(error) => failed(&topic, key.as_deref(), &value, &error)?,
        }
    }
    Ok(acked)
}

fn failed(
    topic: &str,
    key: Option<&str>,
    value: &str,
    error: &fleuve_client::Error,
) -> Result<(), Failure> {
    let exception = error.code().map_or("", |code| code.name());
    event(
        "producer_send_error",
        json!({
            "topic": topic, "key": key, "value": value, "exception": exception,
            "message": explain(error),
        }),
    )
}

/// Prints an event with its time, in the order of Apache's tool.
pub(super) fn event(name: &str, fields: Value) -> Result<(), Failure> {
    let mut whole = json!({ "timestamp": now_ms(), "name": name });
    if let (Value::Object(whole), Value::Object(fields)) = (&mut whole, fields) {
        whole.extend(fields);
    }
    line(whole.to_string())
}

/// Read as a member of a group and say what was read and committed.
#[derive(Debug, Parser)]
pub(super) struct VerifiableConsumer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The consumer group.
    #[arg(long)]
    group_id: String,
    /// classic or consumer.
    #[arg(long, ignore_case = true)]
    group_protocol: Option<String>,
    /// The broker's assignor that the group asks for.
    #[arg(long)]
    group_remote_assignor: Option<String>,
    /// `group.instance.id` of a static member.
    #[arg(long)]
    group_instance_id: Option<String>,
    /// How many records; -1 until it is stopped.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    max_messages: i64,
    /// The session timeout in ms.
    #[arg(long)]
    session_timeout: Option<u64>,
    /// Say each record.
    #[arg(long)]
    verbose: bool,
    /// Commit from time to time instead of after each batch.
    #[arg(long)]
    enable_autocommit: bool,
    /// earliest, latest or none.
    #[arg(long, default_value = "earliest")]
    reset_policy: String,
    /// How a group of the classic protocol assigns: names or Java's classes, as RoundRobinAssignor.
    #[arg(long)]
    assignment_strategy: Option<String>,
}

struct Announce;

impl RebalanceListener for Announce {
    fn assigned<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        // Whether anybody reads the events changes nothing about the assignment.
        let _ = event("partitions_assigned", json!({ "partitions": listed(partitions) }));
        Box::pin(std::future::ready(()))
    }

    fn revoked<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let _ = event("partitions_revoked", json!({ "partitions": listed(partitions) }));
        Box::pin(std::future::ready(()))
    }
}

fn listed(partitions: &[TopicPartition]) -> Value {
    let show = |it: &TopicPartition| json!({ "topic": *it.topic, "partition": it.partition });
    partitions.iter().map(show).collect()
}

pub(super) async fn consume(options: VerifiableConsumer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    context.set("group.id", &options.group_id)?;
    let keys = [
        ("group.protocol", options.group_protocol.map(|name| name.to_ascii_lowercase())),
        ("group.remote.assignor", options.group_remote_assignor),
        ("group.instance.id", options.group_instance_id),
        ("partition.assignment.strategy", options.assignment_strategy),
        ("session.timeout.ms", options.session_timeout.map(|ms| ms.to_string())),
        ("enable.auto.commit", Some(options.enable_autocommit.to_string())),
    ];
    for (key, value) in keys {
        if let Some(value) = value {
            context.set(key, &value)?;
        }
    }
    let mut config = context.consumer_config()?;
    config.offset_reset = match options.reset_policy.as_str() {
        "earliest" => OffsetReset::Earliest,
        "latest" => OffsetReset::Latest,
        "none" => OffsetReset::None,
        other => {
            return Err(Failure::new(format!(
                "--reset-policy {other}: expected earliest, latest or none"
            )));
        }
    };
    let consumer = Consumer::new(context.client().await?, config)?;
    consumer.set_rebalance_listener(Arc::new(Announce));
    event("startup_complete", json!({}))?;
    consumer.subscribe(&[&options.topic])?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let limit = u64::try_from(options.max_messages).unwrap_or(u64::MAX);
    let mut count = 0;
    while count < limit {
        let polled = tokio::select! {
            polled = consumer.poll(Duration::from_millis(500)) => polled?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Some(records) = polled else { continue };
        let partition = records.partition().clone();
        let mut range: Option<(i64, i64)> = None;
        let mut taken = 0_u64;
        for record in &records {
            if count + taken >= limit {
                break;
            }
            taken += 1;
            let offset = record.offset.0;
            range = Some((range.map_or(offset, |(first, _)| first), offset));
            if options.verbose {
                let text = |bytes: Option<&[u8]>| {
                    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                };
                event(
                    "record_data",
                    json!({
                        "key": text(record.key), "value": text(record.value),
                        "topic": *partition.topic, "partition": partition.partition,
                        "offset": offset,
                    }),
                )?;
            }
        }
        let Some((first, last)) = range else { continue };
        count += taken;
        event(
            "records_consumed",
            json!({ "count": taken, "partitions": [{
                "topic": *partition.topic, "partition": partition.partition, "count": taken,
                "minOffset": first, "maxOffset": last,
            }] }),
        )?;
        if !options.enable_autocommit {
            let committed = BTreeMap::from([(partition.clone(), last + 1)]);
            let result = consumer.commit_offsets(HashMap::from_iter(committed)).await;
            let mut fields = json!({
                "offsets": [{
                    "topic": *partition.topic, "partition": partition.partition, "offset": last + 1,
                }],
                "success": result.is_ok(),
            });
            if let Err(error) = &result {
                fields["error"] = explain(error).into();
            }
            event("offsets_committed", fields)?;
        }
    }
    event("shutdown_requested", json!({}))?;
    consumer.close().await?;
    event("shutdown_complete", json!({}))
}
