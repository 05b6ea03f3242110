//! `kafka-consumer-perf-test.sh`.
//!
//! Departs from Apache's tool in that times are UTC's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use fleuve_client::Consumer;
use fleuve_client::config::OffsetReset;
use fleuve_client::consumer::RebalanceListener;
use fleuve_types::TopicPartition;
use parking_lot::Mutex;

use super::Connect;
use super::perf::print_metrics;
use super::reporting::Reporting;
use crate::commands::topic::parse_assignments;
use crate::failure::Failure;
use crate::output::line;
use crate::quantities::now_ms;

/// Measure a consumer.
#[derive(Debug, Parser)]
pub(super) struct ConsumerPerformance {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long, conflicts_with = "include", required_unless_present = "include")]
    topic: Option<String>,
    /// A regular expression for topics.
    #[arg(long)]
    include: Option<String>,
    /// How many records.
    #[arg(long = "num-records", visible_alias = "messages")]
    num_records: u64,
    /// The consumer group.
    #[arg(long)]
    group: Option<String>,
    /// Give up when nothing came for so long, in ms.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
    /// Consumer properties.
    #[arg(long = "command-property", visible_alias = "consumer-property")]
    consumer_property: Vec<String>,
    /// Begin with what comes, if nothing is committed.
    #[arg(long)]
    from_latest: bool,
    /// How many bytes of a partition a fetch may return.
    #[arg(long)]
    fetch_size: Option<i32>,
    #[command(flatten)]
    reporting: Reporting,
    /// Print the metrics of the consumer at the end.
    #[arg(long)]
    print_metrics: bool,
}

/// How long one poll waits at most.
const POLL: Duration = Duration::from_millis(100);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// How long the consumer was without partitions, because its group was not done.
struct Joining(Mutex<Joined>);

struct Joined {
    partitions: usize,
    without_since: Instant,
    whole: Duration,
    /// Since the last report.
    of_round: Duration,
}

type Done<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl RebalanceListener for Joining {
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> Done<'a> {
        let mut joined = self.0.lock();
        if joined.partitions == 0 {
            let took = joined.without_since.elapsed();
            joined.whole += took;
            joined.of_round += took;
        }
        joined.partitions += partitions.len();
        Box::pin(std::future::ready(()))
    }

    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> Done<'a> {
        let mut joined = self.0.lock();
        joined.partitions = joined.partitions.saturating_sub(partitions.len());
        if joined.partitions == 0 {
            joined.without_since = Instant::now();
        }
        Box::pin(std::future::ready(()))
    }

    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> Done<'a> {
        self.revoked(partitions)
    }
}

/// What was read until a moment (ms since 1970).
#[derive(Clone, Copy)]
struct Read {
    records: u64,
    bytes: u64,
    at_ms: i64,
}

pub(super) async fn consume(options: ConsumerPerformance) -> Result<(), Failure> {
    let dates = options.reporting.dates()?;
    let mut context = options.connect.context()?;
    for (key, value) in parse_assignments(&options.consumer_property)? {
        context.set(&key, &value)?;
    }
    if let Some(size) = options.fetch_size {
        context.set("max.partition.fetch.bytes", &size.to_string())?;
    }
    let mut config = context.consumer_config()?;
    let group = options.group.clone();
    config.group_id =
        Some(group.unwrap_or_else(|| format!("perf-consumer-{}", std::process::id())));
    config.offset_reset =
        if options.from_latest { OffsetReset::Latest } else { OffsetReset::Earliest };
    if !options.reporting.hide_header {
        let first = match options.reporting.show_detailed_stats {
            true => "time, threadId",
            false => "start.time, end.time",
        };
        line(format!(
            "{first}, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, \
             rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
        ))?;
    }
    let consumer = Consumer::new(context.client().await?, config)?;
    let joining = Arc::new(Joining(Mutex::new(Joined {
        partitions: 0,
        without_since: Instant::now(),
        whole: Duration::ZERO,
        of_round: Duration::ZERO,
    })));
    consumer.set_rebalance_listener(joining.clone());
    match (&options.topic, &options.include) {
        (Some(topic), _) => consumer.subscribe(&[topic])?,
        (None, include) => consumer.subscribe_pattern(include.as_deref().unwrap_or_default())?,
    }
    let began = Read { records: 0, bytes: 0, at_ms: now_ms() };
    let mut now = began;
    let mut reported = began;
    let mut last_record = Instant::now();
    let timeout = Duration::from_millis(options.timeout);
    let interval_ms = options.reporting.interval_ms();
    while now.records < options.num_records && last_record.elapsed() <= timeout {
        let polled = consumer.poll(POLL).await?;
        now.at_ms = now_ms();
        let Some(batch) = polled else { continue };
        last_record = Instant::now();
        for record in &batch {
            now.records += 1;
            let size = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len) as u64;
            now.bytes += size(record.key) + size(record.value);
        }
        if now.at_ms - reported.at_ms >= interval_ms {
            let joined = std::mem::take(&mut joining.0.lock().of_round);
            if options.reporting.show_detailed_stats {
                let rates = rates(&reported, &now, joined);
                line(format!("{}, 0, {rates}", dates.format(now.at_ms)))?;
            }
            reported = now;
        }
    }
    if now.records < options.num_records {
        line(format!(
            "WARNING: Exiting before consuming the expected number of records: timeout ({} ms) \
             exceeded. You can use the --timeout option to increase the timeout.",
            options.timeout
        ))?;
    }
    let metrics = consumer.metrics();
    consumer.close().await?;
    now.at_ms = now_ms();
    if !options.reporting.show_detailed_stats {
        let joined = joining.0.lock().whole;
        let rates = rates(&began, &now, joined);
        line(format!("{}, {}, {rates}", dates.format(began.at_ms), dates.format(now.at_ms)))?;
    }
    if options.print_metrics { print_metrics(metrics) } else { Ok(()) }
}

/// The columns of what was read in all, and how fast since a moment.
fn rates(since: &Read, now: &Read, joined: Duration) -> String {
    let took_ms = now.at_ms - since.at_ms;
    let joined_ms = i64::try_from(joined.as_millis()).unwrap_or(i64::MAX);
    let fetching_ms = took_ms.saturating_sub(joined_ms);
    let megabytes = (now.bytes - since.bytes) as f64 / MEBIBYTE;
    let records = (now.records - since.records) as f64;
    let per_second = |amount: f64, ms: i64| if ms <= 0 { 0.0 } else { amount * 1e3 / ms as f64 };
    format!(
        "{:.4}, {:.4}, {}, {:.4}, {joined_ms}, {fetching_ms}, {:.4}, {:.4}",
        now.bytes as f64 / MEBIBYTE,
        per_second(megabytes, took_ms),
        now.records,
        per_second(records, took_ms),
        per_second(megabytes, fetching_ms),
        per_second(records, fetching_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_since_a_moment_and_sums_of_all() {
        let since = Read { records: 10, bytes: 0, at_ms: 1000 };
        let now = Read { records: 110, bytes: 1 << 20, at_ms: 3000 };
        assert_eq!(
            rates(&since, &now, Duration::from_millis(1500)),
            "1.0000, 0.5000, 110, 50.0000, 1500, 500, 2.0000, 200.0000"
        );
        assert!(rates(&now, &now, Duration::ZERO).ends_with("0, 0, 0.0000, 0.0000"));
    }
}
