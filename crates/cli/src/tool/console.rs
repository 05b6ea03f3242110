//! `kafka-console-producer.sh` and `kafka-console-consumer.sh`.

use std::collections::BTreeMap;

use clap::Parser;

use super::Connect;
use crate::commands::consume::{Consume, Parts, Style, run_in as consume_in};
use crate::commands::produce::{Produce, run_in as produce_in, unescape};
use crate::commands::topic::parse_assignments;
use crate::failure::Failure;
use crate::output::note;

/// Read lines from stdin and send them.
#[derive(Debug, Parser)]
pub(super) struct ConsoleProducer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How lines are read: parse.key, key.separator, null.marker.
    #[arg(long = "reader-property", visible_alias = "property")]
    reader_property: Vec<String>,
    /// Producer properties.
    #[arg(long = "command-property", visible_alias = "producer-property")]
    producer_property: Vec<String>,
    /// none, gzip, snappy, lz4 or zstd; gzip if no value is given.
    #[arg(long, num_args = 0..=1, default_missing_value = "gzip")]
    compression_codec: Option<String>,
    /// How many replicas must have a record.
    #[arg(long)]
    request_required_acks: Option<String>,
    /// How long a batch waits for more, in ms.
    #[arg(long)]
    timeout: Option<u64>,
    /// Accepted: batches are sent as they fill.
    #[arg(long)]
    sync: bool,
    /// The size of batches in bytes.
    #[arg(long)]
    batch_size: Option<usize>,
}

pub(super) async fn produce(options: ConsoleProducer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    for (key, value) in parse_assignments(&options.producer_property)? {
        context.set(&key, &value)?;
    }
    if let Some(linger) = options.timeout {
        context.set("linger.ms", &linger.to_string())?;
    }
    if let Some(size) = options.batch_size {
        context.set("batch.size", &size.to_string())?;
    }
    let reader = parse_assignments(&options.reader_property)?;
    let has_keys = reader.get("parse.key").is_some_and(|value| value == "true");
    let separator = reader.get("key.separator").map_or("\t", String::as_str);
    let produce = Produce {
        topic: options.topic,
        key_separator: has_keys.then(|| separator.to_owned()),
        null_value: reader.get("null.marker").cloned(),
        compression: options.compression_codec,
        acks: options.request_required_acks,
        quiet: true,
        ..Produce::default()
    };
    produce_in(produce, context).await
}

/// Print the records of a topic.
#[derive(Debug, Parser)]
pub(super) struct ConsoleConsumer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// Begin with the oldest record.
    #[arg(long)]
    from_beginning: bool,
    /// The partition.
    #[arg(long)]
    partition: Option<i32>,
    /// An offset, earliest or latest.
    #[arg(long)]
    offset: Option<String>,
    /// The consumer group.
    #[arg(long)]
    group: Option<String>,
    /// Stop after so many records.
    #[arg(long)]
    max_messages: Option<u64>,
    /// Stop when nothing came for so long.
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// read_committed or read_uncommitted.
    #[arg(long)]
    isolation_level: Option<String>,
    /// What is printed: print.key, print.value, print.timestamp, print.partition, print.offset,
    /// print.headers, key.separator.
    #[arg(long = "formatter-property", visible_alias = "property")]
    formatter_property: Vec<String>,
    /// Consumer properties.
    #[arg(long = "command-property", visible_alias = "consumer-property")]
    consumer_property: Vec<String>,
    /// Accepted: unreadable records are reported.
    #[arg(long)]
    skip_message_on_error: bool,
}

pub(super) async fn consume(options: ConsoleConsumer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    for (key, value) in parse_assignments(&options.consumer_property)? {
        context.set(&key, &value)?;
    }
    if let Some(level) = &options.isolation_level {
        context.set("isolation.level", level)?;
    }
    let from = match (&options.offset, options.from_beginning) {
        (Some(offset), _) => offset.clone(),
        (None, true) => "beginning".to_owned(),
        (None, false) => "end".to_owned(),
    };
    let consume = Consume {
        topic: options.topic,
        from,
        max_messages: options.max_messages,
        group: options.group,
        follow: true,
        partition: options.partition.into_iter().collect(),
        timeout_ms: options.timeout_ms,
        ..Consume::default()
    };
    let style = Style::Parts(parts(&parse_assignments(&options.formatter_property)?));
    let (records, _, _) = consume_in(consume, context, style).await?;
    note(format!("Processed a total of {records} messages"));
    Ok(())
}

fn parts(properties: &BTreeMap<String, String>) -> Parts {
    let asked = |name: &str, default| properties.get(name).map_or(default, |value| value == "true");
    Parts {
        timestamp: asked("print.timestamp", false),
        partition: asked("print.partition", false),
        offset: asked("print.offset", false),
        headers: asked("print.headers", false),
        key: asked("print.key", false),
        value: asked("print.value", true),
        separator: unescape(properties.get("key.separator").map_or("\t", String::as_str)),
    }
}
