//! `kafka-console-share-consumer.sh` and `kafka-share-consumer-perf-test.sh`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use fleuve_client::ShareConsumer;
use fleuve_client::config::{AcknowledgementMode, ShareConsumerConfig};
use fleuve_client::share::Acknowledge;
use tokio::signal::unix::{SignalKind, signal};

use super::Connect;
use super::console::FormatOptions;
use super::dates::DateFormat;
use super::reporting::Reporting;
use crate::commands::topic::parse_assignments;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{line, note};
use crate::printing::{About, Printer};
use crate::quantities::now_ms;

/// How long one poll waits at most.
const POLL: Duration = Duration::from_millis(100);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Print the records of a topic as a member of a share group.
#[derive(Debug, Parser)]
pub(super) struct ConsoleShareConsumer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The share group; console-share-consumer if none is named here or in the properties.
    #[arg(long)]
    group: Option<String>,
    /// Stop after so many records.
    #[arg(long)]
    max_messages: Option<u64>,
    /// Stop when nothing came for so long.
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// Reject what is printed: nobody gets it again.
    #[arg(long, conflicts_with = "release")]
    reject: bool,
    /// Release what is printed: it is given to somebody again.
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    format: FormatOptions,
    /// Consumer properties.
    #[arg(long = "command-property", visible_alias = "consumer-property")]
    consumer_property: Vec<String>,
    /// Accepted: a record that cannot be shown in a form is shown as it is.
    #[arg(long)]
    reject_message_on_error: bool,
    /// Say when the consumer has ended.
    #[arg(long)]
    enable_systest_events: bool,
}

pub(super) async fn consume(options: ConsoleShareConsumer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    for (key, value) in parse_assignments(&options.consumer_property)? {
        context.set(&key, &value)?;
    }
    match &options.group {
        Some(group) => context.set("group.id", group)?,
        None => context.set_default("group.id", "console-share-consumer")?,
    }
    let mut config = context.share_consumer_config()?;
    config.acknowledgement_mode = AcknowledgementMode::Explicit;
    let verdict = match (options.reject, options.release) {
        (true, _) => Acknowledge::Reject,
        (_, true) => Acknowledge::Release,
        _ => Acknowledge::Accept,
    };
    let limit = options.max_messages.unwrap_or(u64::MAX);
    let mut printer = Printer::new(options.format.style()?);
    let consumer = ShareConsumer::new(context.client().await?, config)?;
    consumer.subscribe(&[&options.topic])?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut count = 0;
    let mut last_record = Instant::now();
    while count < limit {
        let polled = tokio::select! {
            polled = consumer.poll(POLL) => polled?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Some(records) = polled else {
            let waited = last_record.elapsed().as_millis() as u64;
            if options.timeout_ms.is_some_and(|timeout| waited >= timeout) {
                break;
            }
            continue;
        };
        let mut iter = records.iter();
        while let Some(record) = iter.next() {
            // What is not printed is given back at once, for others to have.
            let said = if count < limit { verdict } else { Acknowledge::Release };
            if count < limit {
                let about = About {
                    timestamp_type: iter.timestamp_type(),
                    delivery: Some(record.delivery_count),
                };
                printer.print(records.partition(), &record, about)?;
                count += 1;
            }
            consumer.acknowledge(records.partition(), record.offset.0, said)?;
        }
        printer.flush()?;
        last_record = Instant::now();
    }
    drop(printer);
    consumer.close().await?;
    note(format!("Processed a total of {count} messages"));
    if options.enable_systest_events {
        line("shutdown_complete")?;
    }
    Ok(())
}

/// Read with share consumers and say how fast that went.
#[derive(Debug, Parser)]
pub(super) struct SharePerformance {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How many records.
    #[arg(long, visible_alias = "messages")]
    num_records: u64,
    /// The share group.
    #[arg(long, default_value = "perf-share-consumer")]
    group: String,
    /// How many share consumers divide the work.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Stop when nothing came for so long, in ms.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
    /// Consumer properties.
    #[arg(long = "command-property")]
    consumer_property: Vec<String>,
    /// How many bytes a fetch may return.
    #[arg(long)]
    fetch_size: Option<i32>,
    #[command(flatten)]
    reporting: Reporting,
    /// Say what each consumer did.
    #[arg(long)]
    show_consumer_stats: bool,
    /// Accepted: share consumers here have no metrics to print.
    #[arg(long)]
    print_metrics: bool,
}

/// What was read until a moment (ms since 1970).
#[derive(Clone, Copy)]
struct Tally {
    records: u64,
    bytes: u64,
    ended_at: i64,
}

impl Tally {
    /// The columns of all that was read, with how fast that went since another moment.
    fn columns(&self, since: &Self, dates: &DateFormat) -> String {
        let took = self.ended_at - since.ended_at;
        let seconds = (took as f64 / 1e3).max(1e-3);
        let megabytes = (self.bytes - since.bytes) as f64 / MEBIBYTE;
        let records = (self.records - since.records) as f64;
        format!(
            "{}, {}, {:.4}, {:.4}, {:.4}, {}, {took}",
            dates.format(since.ended_at),
            dates.format(self.ended_at),
            self.bytes as f64 / MEBIBYTE,
            megabytes / seconds,
            records / seconds,
            self.records,
        )
    }
}

pub(super) async fn measure(options: SharePerformance) -> Result<(), Failure> {
    let dates = options.reporting.dates()?;
    let mut context = options.connect.context()?;
    context.set("group.id", &options.group)?;
    if let Some(size) = options.fetch_size {
        context.set("fetch.max.bytes", &size.to_string())?;
    }
    for (key, value) in parse_assignments(&options.consumer_property)? {
        context.set(&key, &value)?;
    }
    if !options.reporting.hide_header {
        line(
            "start.time, end.time, data.consumed.in.MB, MB.sec, nMsg.sec, data.consumed.in.nMsg, \
             fetch.time.ms",
        )?;
    }
    let began = Tally { records: 0, bytes: 0, ended_at: now_ms() };
    let total = Arc::new(AtomicU64::new(0));
    let (context, options) = (Arc::new(context), Arc::new(options));
    let readers: Vec<_> = (1..=options.threads.max(1))
        .map(|number| {
            let reader = Reader { number, began, dates: dates.clone() };
            tokio::spawn(reader.read(context.clone(), options.clone(), total.clone()))
        })
        .collect();
    let mut tallies = Vec::new();
    for reader in readers {
        tallies.push(reader.await.map_err(Failure::new)??);
    }
    if options.show_consumer_stats {
        for (index, tally) in tallies.iter().enumerate() {
            let number = index + 1;
            line(format!(
                "Share consumer {number} having client id {}-{number} consumption metrics- {}",
                options.group,
                tally.columns(&began, &dates)
            ))?;
        }
    }
    let whole = Tally {
        records: tallies.iter().map(|tally| tally.records).sum(),
        bytes: tallies.iter().map(|tally| tally.bytes).sum(),
        ended_at: tallies.iter().map(|tally| tally.ended_at).max().unwrap_or(began.ended_at),
    };
    if whole.records < options.num_records {
        line(format!(
            "WARNING: Exiting before consuming the expected number of records: timeout ({} ms) \
             exceeded. You can use the --timeout option to increase the timeout.",
            options.timeout
        ))?;
    }
    line(whole.columns(&began, &dates))
}

/// One of the share consumers.
struct Reader {
    number: usize,
    began: Tally,
    dates: DateFormat,
}

impl Reader {
    /// Reads until all readers together have read enough, or nothing comes.
    async fn read(
        self,
        context: Arc<Context>,
        options: Arc<SharePerformance>,
        total: Arc<AtomicU64>,
    ) -> Result<Tally, Failure> {
        let config: ShareConsumerConfig = context.share_consumer_config()?;
        let consumer = ShareConsumer::new(context.client().await?, config)?;
        consumer.subscribe(&[&options.topic])?;
        let (mut tally, mut reported) = (self.began, self.began);
        let mut last_record = Instant::now();
        let timeout = Duration::from_millis(options.timeout);
        let interval_ms = options.reporting.interval_ms();
        while total.load(Ordering::Relaxed) < options.num_records
            && last_record.elapsed() <= timeout
        {
            let Some(records) = consumer.poll(POLL).await? else { continue };
            let before = tally.records;
            for record in &records {
                let size = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len) as u64;
                tally.records += 1;
                tally.bytes += size(record.key) + size(record.value);
            }
            total.fetch_add(tally.records - before, Ordering::Relaxed);
            last_record = Instant::now();
            tally.ended_at = now_ms();
            if tally.ended_at - reported.ended_at >= interval_ms {
                if options.reporting.show_detailed_stats {
                    let columns = tally.columns(&reported, &self.dates);
                    line(format!("{columns} for share consumer {}", self.number))?;
                }
                reported = tally;
            }
        }
        consumer.commit().await?;
        consumer.close().await?;
        Ok(tally)
    }
}
