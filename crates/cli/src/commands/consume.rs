//! `fleuve consume`: prints records.
//!
//! Records go from the fetched bytes to a buffered stdout without being copied in between; memory
//! stays flat however many there are. Without `--follow` it ends at what was the end of the topic
//! when it began.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use fleuve_client::config::{ConsumerConfig, OffsetReset};
use fleuve_client::consumer::{Records, Start};
use fleuve_client::{Admin, Client, Consumer};
use fleuve_types::TopicPartition;
use tokio::signal::unix::{SignalKind, signal};

use super::produce::unescape;
use super::topic::log_ends;
use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::note;
use crate::printing::{About, Parts, Printer, Style};
use crate::quantities::{parse_time, summary};

/// Read records.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    fleuve consume greetings                              everything that is there\n  \
    fleuve consume greetings --follow --from end          what comes from now on\n  \
    fleuve consume events --from 2026-11-21T10:00:00Z --max-messages 10 -o json\n  \
    fleuve consume events --group readers --follow        as a member of a group")]
pub(crate) struct Consume {
    /// The topic.
    pub(crate) topic: String,
    /// Where to begin: beginning, end, an offset, or a time (2026-11-21T10:00:00Z, @MILLISECONDS).
    /// For a group: where to begin when it has committed nothing.
    #[arg(long, default_value = "beginning")]
    pub(crate) from: String,
    /// Stop after so many records.
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) max_messages: Option<u64>,
    /// Read as a member of this group, and commit.
    #[arg(long, short)]
    pub(crate) group: Option<String>,
    /// Wait for more at the end.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this partition; may be repeated.
    #[arg(long, short)]
    pub(crate) partition: Vec<i32>,
    /// Print the key before the value, with this between them (\t for a tab).
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// Give up when nothing came for so long.
    #[arg(long, value_name = "MS")]
    pub(crate) timeout_ms: Option<u64>,
    /// See only records of committed transactions.
    #[arg(long)]
    pub(crate) committed: bool,
    /// Any Kafka consumer property; may be repeated.
    #[arg(long = "property", short = 'X', value_name = "KEY=VALUE")]
    pub(crate) properties: Vec<String>,
    /// Say nothing when done.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Where a group begins if `from` does not say it all, which only the drop-in scripts can ask for.
    #[arg(skip)]
    pub(crate) reset: Option<OffsetReset>,
    /// In place of the topic a regular expression for topics, also for those that are created
    /// later; it takes a group, and only the drop-in scripts can ask for it.
    #[arg(skip)]
    pub(crate) pattern: Option<String>,
}

/// How long one wait for records lasts, before looking whether to stop.
const POLL: Duration = Duration::from_millis(200);

pub(crate) async fn run(consume: Consume, common: &Common) -> Result<(), Failure> {
    let style = match (common.output, consume.key_separator.as_deref()) {
        (Format::Json, _) => Style::Json,
        (Format::Yaml, _) => Style::Yaml,
        (Format::Table, Some(separator)) => {
            Style::Parts(Parts { key: true, separator: unescape(separator), ..Parts::default() })
        }
        (Format::Table, None) => Style::Parts(Parts::default()),
    };
    let quiet = consume.quiet;
    let (records, bytes, took) = run_in(consume, Context::new(common)?, style).await?;
    if !quiet {
        note(summary("consumed", records, bytes, took));
    }
    Ok(())
}

/// Prints records and returns how many, how many bytes, and the time it took.
pub(crate) async fn run_in(
    consume: Consume,
    mut context: Context,
    style: Style,
) -> Result<(u64, u64, Duration), Failure> {
    // Large answers cost fewer rounds; memory stays at a few of them.
    context.set_default("max.partition.fetch.bytes", "4194304")?;
    context.set_default("fetch.max.bytes", "16777216")?;
    if consume.committed {
        context.set("isolation.level", "read_committed")?;
    }
    for (key, value) in super::topic::parse_assignments(&consume.properties)? {
        context.set(&key, &value)?;
    }
    let start = parse_start(&consume.from)?;
    let client = context.client().await?;
    let mut partitions = Vec::new();
    if consume.pattern.is_none() {
        let topic = client.topic(&consume.topic, false).await?;
        partitions = choose_partitions(&consume, &consume.topic, topic.partitions.len())?;
    }
    // Taken before reading: whoever does not follow ends here.
    let mut ends = HashMap::new();
    if !consume.follow {
        for (partition, (_, end)) in log_ends(&Admin::new(client.clone()), &partitions).await? {
            ends.insert(partition, end);
        }
    }
    let mut config = context.consumer_config()?;
    config.allow_auto_create_topics = false;
    let consumer = begin(&consume, client, config, start, &partitions)?;
    let printer = Printer::new(style);
    let began = Instant::now();
    let mut reading = Reading { printer, records: 0, bytes: 0, left_over: None };
    let outcome = reading.read(&consume, &consumer, &ends).await;
    if let Some((partition, offset)) = reading.left_over.take() {
        // What was fetched and not printed must not count as read by the group.
        consumer.seek(&partition, Start::Offset(offset))?;
    }
    let closed = consumer.close().await;
    outcome?;
    closed?;
    Ok((reading.records, reading.bytes, began.elapsed()))
}

struct Reading {
    printer: Printer,
    records: u64,
    bytes: u64,
    /// The first record that was fetched and not printed.
    left_over: Option<(TopicPartition, i64)>,
}

impl Reading {
    async fn read(
        &mut self,
        consume: &Consume,
        consumer: &Consumer,
        ends: &HashMap<TopicPartition, i64>,
    ) -> Result<(), Failure> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let limit = consume.max_messages.unwrap_or(u64::MAX);
        let mut last_record = Instant::now();
        while self.records < limit {
            if !consume.follow && self.is_at_end(consumer, ends) {
                break;
            }
            let polled = tokio::select! {
                polled = consumer.poll(POLL) => polled?,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            };
            match polled {
                Some(records) => {
                    self.print(&records, limit, ends.get(records.partition()).copied())?;
                    last_record = Instant::now();
                }
                None => {
                    self.printer.flush()?;
                    let waited = last_record.elapsed().as_millis() as u64;
                    if consume.timeout_ms.is_some_and(|timeout| waited >= timeout) {
                        break;
                    }
                }
            }
            if consume.follow {
                self.printer.flush()?;
            }
        }
        Ok(self.printer.flush()?)
    }

    fn print(&mut self, records: &Records, limit: u64, end: Option<i64>) -> Result<(), Failure> {
        let partition = records.partition();
        let mut iter = records.iter();
        while let Some(record) = iter.next() {
            if self.records >= limit || end.is_some_and(|end| record.offset.0 >= end) {
                self.left_over = Some((partition.clone(), record.offset.0));
                break;
            }
            let about = About { timestamp_type: iter.timestamp_type(), delivery: None };
            self.printer.print(partition, &record, about)?;
            self.records += 1;
            self.bytes +=
                (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        }
        Ok(())
    }

    /// Reports whether everything that was there at the beginning has been read. Of a group, this
    /// member answers for its own partitions.
    fn is_at_end(&self, consumer: &Consumer, ends: &HashMap<TopicPartition, i64>) -> bool {
        let assigned = consumer.assignment();
        !assigned.is_empty()
            && assigned.iter().all(|partition| {
                let end = ends.get(partition).copied().unwrap_or(0);
                consumer.position(partition).is_some_and(|position| position >= end)
            })
    }
}

fn begin(
    consume: &Consume,
    client: Client,
    mut config: ConsumerConfig,
    start: Start,
    partitions: &[TopicPartition],
) -> Result<Consumer, Failure> {
    let Some(group) = &consume.group else {
        config.group_id = None;
        let consumer = Consumer::new(client, config)?;
        let assignment: Vec<_> = partitions.iter().map(|p| (p.clone(), start)).collect();
        consumer.assign(&assignment)?;
        return Ok(consumer);
    };
    if !consume.partition.is_empty() {
        return Err(Failure::new("--partition and --group exclude each other: a group divides"));
    }
    config.group_id = Some(group.clone());
    config.offset_reset = match (consume.reset, start) {
        (Some(reset), _) => reset,
        (None, Start::Beginning) => OffsetReset::Earliest,
        (None, Start::End) => OffsetReset::Latest,
        _ => {
            return Err(Failure::new(
                "--from OFFSET or TIME with --group: use `fleuve group reset-offsets` first",
            ));
        }
    };
    let consumer = Consumer::new(client, config)?;
    match &consume.pattern {
        Some(pattern) => consumer.subscribe_pattern(pattern)?,
        None => consumer.subscribe(&[&consume.topic])?,
    }
    Ok(consumer)
}

fn choose_partitions(
    consume: &Consume,
    topic: &str,
    count: usize,
) -> Result<Vec<TopicPartition>, Failure> {
    if let Some(missing) =
        consume.partition.iter().find(|&&index| usize::try_from(index).is_ok_and(|i| i >= count))
    {
        return Err(Failure::new(format!(
            "topic {topic} has {count} partitions, there is no partition {missing}"
        )));
    }
    let all = (0..count as i32)
        .filter(|index| consume.partition.is_empty() || consume.partition.contains(index));
    Ok(all.map(|index| TopicPartition::new(topic, index)).collect())
}

/// Reads `--from`.
pub(crate) fn parse_start(text: &str) -> Result<Start, Failure> {
    match text {
        "beginning" | "earliest" => return Ok(Start::Beginning),
        "end" | "latest" => return Ok(Start::End),
        _ => {}
    }
    if let Ok(offset) = text.parse::<u64>() {
        return Ok(Start::Offset(offset.min(i64::MAX as u64) as i64));
    }
    parse_time(text).map(Start::Timestamp).ok_or_else(|| {
        Failure::new(format!(
            "--from {text}: expected beginning, end, an offset such as 42, or a time such as \
             2026-11-21T10:00:00Z or @1795250000000"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_offset_or_a_time() {
        assert_eq!(parse_start("beginning").expect("word"), Start::Beginning);
        assert_eq!(parse_start("42").expect("offset"), Start::Offset(42));
        assert_eq!(parse_start("@42").expect("time"), Start::Timestamp(42));
        assert_eq!(parse_start("1970-01-02").expect("time"), Start::Timestamp(86_400_000));
        assert!(parse_start("soon").expect_err("nonsense").to_string().contains("--from soon"));
    }
}
